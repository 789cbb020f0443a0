-module(py_config).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("The application's settings: checked at start, then read from a persistent term.").

%% API
-export([load/0, get/1, flags/0, format_error/1]).

-export_type([key/0]).

-type key() :: atom().

-define(TERM, {?MODULE, settings}).
-define(FLAGS, 'py_config:flags'). % an atom is found twice as fast as a tuple
-define(MODES, [auto, free_threaded, owngil, subinterp, multi_executor, worker]).
-define(MAX, 16#7FFFFFFF). % what the library stores in an int

?DOC("Reads and checks all settings. `{error, Sentence}` names the key, the value and what is allowed.").
-spec load() -> ok | {error, {bad_setting, key(), term(), io_lib:chars()}}.
load() ->
    try settings() of
        Settings ->
            warn_unknown(Settings),
            persistent_term:put(?TERM, Settings),
            persistent_term:put(?FLAGS, base_flags(Settings)),
            ok
    catch
        throw:{bad_setting, _, _, _} = Bad -> {error, Bad}
    end.

?DOC("A setting's value.").
-spec get(key()) -> term().
get(Key) ->
    maps:get(Key, persistent_term:get(?TERM)).

?DOC("The options every request starts from (`traceback` and `binary`).").
-spec flags() -> non_neg_integer().
flags() ->
    persistent_term:get(?FLAGS, 0).

?DOC("The sentence for a wrong setting.").
-spec format_error({bad_setting, key(), term(), io_lib:chars()}) -> string().
format_error({bad_setting, Key, Value, Allowed}) ->
    lists:flatten(io_lib:format("erlang_python: the setting ~p is ~tp; allowed is ~ts",
                                [Key, Value, Allowed])).

settings() ->
    Settings = maps:from_list([{Key, setting(Key, Default, Check)} || {Key, Default, Check} <- table()]),
    check_mode(maps:get(context_mode, Settings)),
    check_contexts(Settings),
    Settings.

%% A mode that this Python has.
check_mode(Mode) ->
    case py_context:mode(Mode) of
        {ok, _} ->
            ok;
        {error, {unsupported_mode, _, Why}} ->
            Here = [atom_to_list(M) || M <- ?MODES, element(1, py_context:mode(M)) =:= ok],
            throw({bad_setting, context_mode, Mode,
                   [lists:join(", ", Here), " with this Python; ", atom_to_list(Mode), ": ", Why]})
    end.

check_contexts(#{max_contexts := Max} = Settings) ->
    lists:foreach(
        fun(Key) ->
            case Settings of
                #{Key := N} when is_integer(N), N > Max ->
                    throw({bad_setting, Key, N,
                           io_lib:format("an integer from 1 to ~b (max_contexts)", [Max])});
                #{} ->
                    ok
            end
        end, [num_contexts, num_workers, num_subinterp_workers]).

warn_unknown(Settings) ->
    Unknown = [Key || {Key, _} <- application:get_all_env(erlang_python),
                      not is_map_key(Key, Settings), Key =/= included_applications],
    Unknown =:= [] orelse
        logger:warning("erlang_python: these settings do not exist: ~p", [Unknown]).

base_flags(#{traceback := Traceback, binary := Binary}) ->
    case Traceback of true -> ?FLAG_TRACEBACK; false -> 0 end
        bor case Binary of
                bytes -> ?FLAG_BINARY_BYTES;
                str -> ?FLAG_BINARY_STR;
                auto -> 0
            end.

setting(Key, Default, {Allowed, Check}) ->
    case application:get_env(erlang_python, Key) of
        undefined when is_function(Default) -> Default();
        undefined -> Default;
        {ok, Value} ->
            try Check(Value) of
                true -> Value;
                false -> throw({bad_setting, Key, Value, Allowed})
            catch
                error:_ -> throw({bad_setting, Key, Value, Allowed})
            end
    end.

table() ->
    IsPositive = fun(V) -> is_integer(V) andalso V > 0 andalso V =< ?MAX end,
    Positive = {"an integer from 1 to 2147483647", IsPositive},
    Maybe = {"an integer from 1 to 2147483647", fun(V) -> V =:= undefined orelse IsPositive(V) end},
    Boolean = {"true or false", fun is_boolean/1},
    Strings = {"a list of strings, binaries or atoms", fun(V) -> lists:all(fun is_name/1, V) end},
    Limit = {"a positive integer or infinity",
             fun(V) -> V =:= infinity orelse (is_integer(V) andalso V > 0) end},
    Schedulers = fun() -> erlang:system_info(schedulers) end,
    [{num_contexts, undefined, Maybe},
     {context_mode, auto,
      {"auto, free_threaded, owngil, subinterp, multi_executor or worker",
       fun(V) -> lists:member(V, ?MODES) end}},
     {max_concurrent, fun() -> Schedulers() * 2 + 1 end, Positive},
     {num_executors, 4, {"an integer from 1 to 256",
                         fun(V) -> is_integer(V) andalso V >= 1 andalso V =< 256 end}},
     {num_workers, undefined, Maybe},
     {num_subinterp_workers, undefined, Maybe},
     {num_async_workers, 2, Positive},
     {max_async_tasks, 100000, Positive},
     {event_loop, auto, {"auto, asyncio or uvloop", fun(V) -> lists:member(V, [auto, asyncio, uvloop]) end}},
     {max_threads, 4096, Positive},
     {thread_stack, 16, {"an integer from 1 to 1024 (MB)",
                         fun(V) -> is_integer(V) andalso V >= 1 andalso V =< 1024 end}},
     {max_contexts, 64, Positive},
     {imports, [], Strings},
     {paths, [], Strings},
     {preload, undefined, {"Python source as iodata",
                           fun(V) -> V =:= undefined orelse iolist_size(V) >= 0 end}},
     {venv, undefined, {"the directory of a virtual environment (with pyvenv.cfg or bin/python in it)",
                        fun(V) -> V =:= undefined orelse (is_name(V) andalso is_venv(V)) end}},
     {traceback, false, Boolean},
     {binary, auto, {"auto, bytes or str", fun(V) -> lists:member(V, [auto, bytes, str]) end}},
     {max_callback_depth, 1000, Positive},
     {interrupt_grace, 1000, Positive},
     {switch_interval, undefined, {"an integer from 10 to 10000000 (microseconds)",
                                   fun(V) -> is_integer(V) andalso V >= 10 andalso V =< 10000000 end}},
     {guard, true, Boolean},
     {max_state_entries, infinity, Limit},
     {max_traces, 10000, Positive},
     {max_log_queue, 10000, {"an integer from 1 to 1000000 (about a KiB each)",
                             fun(V) -> is_integer(V) andalso V >= 1 andalso V =< 1000000 end}},
     {overload_wait, 0, {"a time in milliseconds up to 2147483647, 0 for as long as the deadline allows",
                         fun(V) -> V =:= 0 orelse IsPositive(V) end}}].

is_venv(Dir) ->
    filelib:is_regular(filename:join(Dir, "pyvenv.cfg"))
        orelse filelib:is_file(filename:join([Dir, "bin", "python"])).

is_name(Name) ->
    is_atom(Name) orelse is_binary(Name) orelse (is_list(Name) andalso io_lib:printable_unicode_list(Name)).
