#!/usr/bin/env escript
%% -*- erlang -*-
%%! +sbwt medium
%% How fast is py:call, for one caller and for many?
%%
%%   rebar3 compile && escript bench/calls.erl [Mode]
%%
%% Floors of the same run: an empty NIF, a message to a process and back, and the bare hand-off: a
%% request that has expired when the executor's thread takes it, so it is answered without Python.
%% Median and minimum of seven repetitions.

-mode(compile).

-define(TIMES, 30000).
-define(CALLS, 300000).

main(Arguments) ->
    Root = filename:dirname(filename:dirname(filename:absname(escript:script_name()))),
    true = code:add_patha(filename:join(Root, "_build/default/lib/erlang_python/ebin")),
    logger:set_primary_config(level, warning),
    ok = application:load(erlang_python),
    [application:set_env(erlang_python, context_mode, list_to_atom(Mode)) || Mode <- Arguments],
    {ok, _} = application:ensure_all_started(erlang_python),
    {ok, Version} = py:version(),
    io:format("CPython ~s, OTP ~s, ~p, ~p schedulers~n~n",
              [Version, erlang:system_info(otp_release), py:execution_mode(),
               erlang:system_info(schedulers)]),
    latency(),
    throughput().

latency() ->
    Echo = spawn_link(fun echo/0),
    Ctx = py:context(1),
    Place = py_context:get_nif_ref(Ctx),
    Owner = py_request:owner(),
    io:format("one caller, microseconds      median    least  x hand-off~n"),
    Floor = row("bare hand-off", fun() -> hand_off(Place, Owner) end, undefined),
    [row(Name, Fun, Floor)
     || {Name, Fun} <- [{"empty NIF", fun() -> py_nif:is_handle(none) end},
                        {"message and back", fun() -> Echo ! {self(), x}, receive x -> ok end end},
                        {"py:call(math, sqrt, [16])", fun() -> {ok, 4.0} = py:call(math, sqrt, [16]) end},
                        {"  of an explicit context", fun() -> py:call(Ctx, math, sqrt, [16]) end},
                        {"py:eval(<<\"1+1\">>)", fun() -> {ok, 2} = py:eval(<<"1+1">>) end}]].

hand_off(Place, Owner) ->
    Ref = make_ref(),
    _ = py_nif:submit(Place, Owner, none, self(), Ref, 0, math, sqrt, [16], [], 0, 0, 0),
    receive {Ref, _} -> ok end.

echo() ->
    receive {From, What} -> From ! What end,
    echo().

row(Name, Fun, Floor) ->
    times(Fun, ?TIMES),
    Times = lists:sort([element(1, timer:tc(fun() -> times(Fun, ?TIMES) end)) / ?TIMES
                        || _ <- lists:seq(1, 7)]),
    Median = lists:nth(4, Times),
    Ratio = case Floor of undefined -> 1.0; _ -> Median / Floor end,
    io:format("~-28s ~8.2f ~8.2f ~11.2f~n", [Name, Median, hd(Times), Ratio]),
    Median.

times(_Fun, 0) -> ok;
times(Fun, N) -> Fun(), times(Fun, N - 1).

throughput() ->
    io:format("~ncallers      thousand calls/s  median     best~n"),
    [begin
         Rates = lists:sort([rate(N) || _ <- lists:seq(1, 5)]),
         io:format("~7w ~32.1f ~8.1f~n", [N, lists:nth(3, Rates), lists:last(Rates)])
     end || N <- [1, 8, 64, 1000, 5000]].

rate(Callers) ->
    Each = max(1, ?CALLS div Callers),
    Start = erlang:monotonic_time(microsecond),
    Pids = [spawn_monitor(fun() ->
                times(fun() -> {ok, 4.0} = py:call(math, sqrt, [16]) end, Each)
            end) || _ <- lists:seq(1, Callers)],
    [receive {'DOWN', Monitor, process, _, normal} -> ok end || {_, Monitor} <- Pids],
    Callers * Each * 1000 / (erlang:monotonic_time(microsecond) - Start).
