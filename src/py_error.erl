-module(py_error).

-include("py_doc.hrl").
?MODULEDOC("Error reasons as text. Pure.").

-export([format/1]).

?DOC("What Python would print for an exception; a sentence for the library's own reasons.").
-spec format(term()) -> unicode:chardata().
format({error, Reason}) ->
    format(Reason);
format({gather_failed, Failed}) when length(Failed) > 0 ->
    ["of the calls gathered failed ",
     lists:join("; ", [io_lib:format("~p: ~ts", [I, format(Why)]) || {I, Why} <- Failed])];
format({Class, Message, []}) when is_list(Message) ->
    last_line(Class, Message);
format({_Class, _Message, [#{text := Text} | _]}) when is_binary(Text), Text =/= <<>> ->
    unicode:characters_to_list(string:trim(Text, trailing, "\n"));
format({Class, Message, Traceback}) when is_list(Message), is_list(Traceback) ->
    ["Traceback (most recent call last):\n", [frame(Frame) || Frame <- Traceback],
     last_line(Class, Message)];
format({Class, Message}) when (is_atom(Class) orelse is_binary(Class)), is_list(Message) ->
    last_line(Class, Message);
format({stop_iteration, Value}) ->
    io_lib:format("StopIteration: ~tp", [Value]);
format(timeout) ->
    "the deadline passed before Python was done";
format(interrupted) ->
    "the call was interrupted";
format(cancelled) ->
    "the stream was cancelled";
format({overloaded, Current, Max}) ->
    io_lib:format("the limit of concurrent calls is reached (~p of ~p)", [Current, Max]);
format({context_down, Reason}) ->
    io_lib:format("the Python context is gone: ~tp", [Reason]);
format({badarg, [Index], {no_context, Max}}) ->
    io_lib:format("there is no context ~p, the indexes go from 1 to ~p", [Index, Max]);
format({badarg, Path, Why}) ->
    io_lib:format("the argument at ~tp has no Python image: ~tp", [Path, Why]);
format({unconvertible, Path, Type}) ->
    io_lib:format("the result at ~tp, of type ~ts, has no Erlang image", [Path, Type]);
format({no_pool, Pool}) ->
    io_lib:format("there is no pool of contexts named ~tp", [Pool]);
format({unsupported_mode, Mode, Why}) when is_binary(Why) ->
    io_lib:format("there is no mode ~tp here: ~ts", [Mode, Why]);
format({too_many_contexts, Wanted, Max}) ->
    io_lib:format("~p contexts are more than the setting max_contexts allows (~p)", [Wanted, Max]);
format(system_limit) ->
    "memory or threads ran out";
format(Reason) ->
    io_lib:format("~tp", [Reason]).

last_line(Class, "") ->
    io_lib:format("~ts", [Class]);
last_line(Class, Message) ->
    io_lib:format("~ts: ~ts", [Class, Message]).

frame(#{file := File, line := Line, function := Function} = Frame) ->
    [io_lib:format("  File \"~ts\", line ~p, in ~ts\n", [File, Line, Function]),
     case Frame of
         #{source := Source} when Source =/= <<>> -> ["    ", Source, "\n"];
         #{} -> []
     end].
