-module(py_error).

-include("py_doc.hrl").
?MODULEDOC("Error reasons as text. Pure.").

-export([format/1]).

?DOC("What Python would print for an exception; a sentence for the library's own reasons.").
-spec format(term()) -> unicode:chardata().
format({error, Reason}) ->
    format(Reason);
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
format({badarg, Path, Why}) ->
    io_lib:format("the argument at ~tp has no Python image: ~tp", [Path, Why]);
format({unconvertible, Path, Type}) ->
    io_lib:format("the result at ~tp, of type ~ts, has no Erlang image", [Path, Type]);
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
