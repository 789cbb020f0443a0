-module(start).

%% @doc What does the application's start cost? Two contexts, in a fresh VM each time. The floor is the same Python as a
%% program that does nothing.

-export([about/0, rows/2, settings/1]).

-spec about() -> string().
about() -> "what does the application's start cost".

-spec settings(atom()) -> not_started.
settings(_Mode) -> not_started.

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(Mode, Options) ->
    Rounds = case Options of #{short := true} -> 3; _ -> 5 end,
    [#{name => "application start, two contexts", times => 1, rounds => Rounds,
       run => fun(1) -> {each, element(1, in_peer(Mode))} end,
       floor => {"python -I -c pass", fun(1) -> "" = os:cmd(python() ++ " -I -c pass"), ok end}},
     #{name => "memory added by start", times => 1, rounds => Rounds, unit => memory,
       run => fun(1) -> {each, element(2, in_peer(Mode))} end,
       floor => {"a Python program", fun(1) -> {each, program()} end}}].

%% Resident memory of a Python that does nothing.
program() ->
    4096 * list_to_integer(string:trim(
        os:cmd(python() ++ " -I -c \"print(open('/proc/self/statm').read().split()[1])\""))).

%% bin/bench sets it.
python() ->
    os:getenv("BENCH_PYTHON", "python3").

in_peer(Mode) ->
    bench:in_peer(fun() ->
        ok = application:load(erlang_python),
        [ok = application:set_env(erlang_python, Key, Value)
         || {Key, Value} <- [{context_mode, Mode}, {num_contexts, 2}, {num_executors, 2}]],
        Before = bench:rss(),
        Time = bench:timed(fun() -> {ok, _} = application:ensure_all_started(erlang_python) end),
        {Time, bench:rss() - Before}
    end).
