-module(config_SUITE).

%% @doc Settings that are wrong: the application does not start and says why in a sentence.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [wrong_values, modes_this_python_lacks, too_many_contexts, virtual_environment].

end_per_testcase(_Case, _Config) ->
    py_modes:stop().

%% The sentence that the start of the application ends in; it is logged too.
refused(Settings) ->
    ok = py_modes:stop(),
    _ = logger:remove_handler(py_modes),
    ok = py_modes:hear_log(self()),
    [ok = application:set_env(erlang_python, Key, Value) || {Key, Value} <- Settings],
    {error, {erlang_python, {Sentence, {erlang_python_app, start, _}}}} =
        application:ensure_all_started(erlang_python),
    Logged = receive {log, error, Text} -> Text after 1000 -> ct:fail(not_logged) end,
    ok = py_modes:unhear_log(),
    flush(),
    ok = py_modes:stop(),
    ?assertEqual(unicode:characters_to_binary(Sentence), Logged),
    Sentence.

flush() ->
    receive _ -> flush() after 0 -> ok end.

names(Sentence, Parts) ->
    [?assertNotEqual(nomatch, string:find(Sentence, Part), {Sentence, Part}) || Part <- Parts].

wrong_values(_) ->
    [names(refused([{Key, Value}]), [atom_to_list(Key), Allowed, io_lib:format("~tp", [Value])])
     || {Key, Value, Allowed} <- [{num_contexts, 0, "an integer from 1"}, {num_contexts, many, "an integer"},
                                  {max_concurrent, 1 bsl 80, "an integer from 1"},
                                  {max_threads, 1 bsl 40, "an integer from 1"},
                                  {overload_wait, 1 bsl 40, "milliseconds"}, {context_mode, fast, "owngil"},
                                  {switch_interval, 0, "microseconds"}, {switch_interval, 0.005, "microseconds"},
                                  {traceback, yes, "true or false"}, {imports, json, "a list"}]].

modes_this_python_lacks(_) ->
    Missing = [free_threaded, owngil, subinterp, multi_executor, worker] -- py_modes:modes(),
    [begin
         Sentence = refused([{context_mode, Mode}]),
         names(Sentence, ["context_mode", atom_to_list(Mode), "it needs", "worker"]),
         %% What this Python lacks is not allowed.
         [_, Allowed] = string:split(Sentence, "allowed is "),
         [List | _] = string:split(Allowed, " with this Python"),
         ?assertEqual(nomatch, string:find(List, atom_to_list(Mode)))
     end || Mode <- Missing],
    names(refused([{context_mode, isolated}]), ["context_mode", "isolated", "worker"]).

too_many_contexts(_) ->
    [names(refused(Settings), Parts)
     || {Settings, Parts} <- [{[{num_contexts, 100}], ["num_contexts", "100", "from 1 to 64", "max_contexts"]},
                              {[{num_contexts, 5}, {max_contexts, 4}], ["num_contexts", "5", "from 1 to 4"]},
                              {[{num_workers, 100}], ["num_workers", "100", "64"]},
                              {[{num_subinterp_workers, 100}], ["num_subinterp_workers", "100", "64"]}]].

%% parallel_SUITE starts with one that is there.
virtual_environment(Config) ->
    names(refused([{venv, "/nonexistent"}]), ["venv", "/nonexistent", "directory"]),
    names(refused([{venv, <<"/nonexistent">>}]), ["venv", "/nonexistent", "directory"]),
    Empty = filename:join(proplists:get_value(priv_dir, Config), "no_environment"),
    ok = filelib:ensure_dir(filename:join(Empty, "x")),
    names(refused([{venv, Empty}]), ["venv", Empty, "pyvenv.cfg"]),
    names(refused([{venv, 17}]), ["venv", "17", "directory"]).
