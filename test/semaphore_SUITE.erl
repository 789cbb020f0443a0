-module(semaphore_SUITE).

%% @doc The rate limit: fair, never leaks, covers every entry point.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

%% How late an answer may be, in ms, on a machine that others use too.
-define(LATE, 500).

suite() ->
    [{timetrap, {seconds, 120}}].

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        defaults, max_concurrent_setting, misuse, acquire_and_release, acquire_several,
        acquire_in_time, acquire_in_order, killed_holders, killed_while_waiting,
        calls_wait, expired_in_line, dead_leave_the_line, overload_fail, overload_wait, every_entry_point,
        upwards_starts_waiters, downwards,
        killed_caller_of_running_code, timed_out_caller_of_running_code, cancelled_in_the_queue,
        parked_gives_its_slot_back, nested_goes_first, threads_go_first, chain_through_a_process,
        five_thousand_in_order, five_thousand_over_all_contexts, random_deaths
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

init_per_testcase(_Case, Config) ->
    [{max, py_semaphore:max_concurrent()} | Config].

%% Whatever a case did: no message is left, no slot is taken, nobody stands in line.
end_per_testcase(_Case, Config) ->
    Max = proplists:get_value(max, Config),
    ok = py_semaphore:set_max_concurrent(Max),
    case proplists:get_value(tc_status, Config) of
        ok -> nothing_left(Max);
        _ -> ok
    end.

%% Those that gave up do not stay until a slot is free.
dead_leave_the_line(_) ->
    ok = py_semaphore:set_max_concurrent(1),
    ok = py_semaphore:acquire(infinity),
    Refs = [py:spawn_call(math, sqrt, [16]) || _ <- lists:seq(1, 1000)],
    Standing = py:spawn_call(math, sqrt, [25], [], 30000),
    [{error, timeout} = py:await(Ref, 0) || Ref <- Refs],
    {_, _, Cancelled} = py_nif:slots(),
    ?assert(Cancelled < 200, Cancelled),
    [py:spawn_call(math, sqrt, [16], [], 50) || _ <- lists:seq(1, 1000)],
    [receive {py_response, _, Result} -> ?assertMatch({error, {overloaded, _, _}}, Result) end
     || _ <- lists:seq(1, 1000)],
    {_, _, Expired} = py_nif:slots(),
    ?assert(Expired < 200, Expired),
    {Pid, Monitor} = spawn_monitor(fun() -> [py:spawn_call(math, sqrt, [16]) || _ <- lists:seq(1, 1000)] end),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    py_modes:wait_until(fun() -> {_, _, OfTheDead} = py_nif:slots(), OfTheDead < 200 end),
    ok = py_semaphore:release(),
    ?assertEqual({ok, 5.0}, py:await(Standing)).

nothing_left(Max) ->
    try
        [] = py_modes:messages(),
        py_modes:wait_until(fun() -> py_nif:slots() =:= {0, Max, 0} end),
        ok
    catch
        Class:Reason -> {fail, {left_behind, Class, Reason, py_nif:slots()}}
    end.

waiting() ->
    {_, _, Waiting} = py_nif:slots(),
    Waiting.

%% A process that holds N slots until it is told `release' or killed.
holder(N) ->
    Self = self(),
    Pid = spawn(fun() ->
        [ok = py_semaphore:acquire(5000) || _ <- lists:seq(1, N)],
        Self ! {self(), holds},
        receive release -> [ok = py_semaphore:release() || _ <- lists:seq(1, N)] end,
        Self ! {self(), released}
    end),
    receive {Pid, holds} -> Pid after 10000 -> error(no_slot) end.

release(Pid) ->
    Pid ! release,
    receive {Pid, released} -> ok after 10000 -> error(not_released) end.

%% Fun runs while all of Max slots are held by somebody.
when_full(Max, Fun) ->
    ok = py_semaphore:set_max_concurrent(Max),
    Holder = holder(Max),
    try Fun()
    after release(Holder)
    end.

%% A process that sends {Pid, Result of Fun}.
answering(Fun) ->
    Self = self(),
    spawn(fun() -> Self ! {self(), Fun()} end).

answer(Pid) ->
    receive {Pid, Result} -> Result after 30000 -> error(no_answer) end.

%% ------------------------------------------------------------------------------------------
%% The interface
%% ------------------------------------------------------------------------------------------

defaults(_) ->
    ?assertEqual(erlang:system_info(schedulers) * 2 + 1, py_semaphore:max_concurrent()),
    ?assertEqual(0, py_semaphore:current()),
    ok = py_semaphore:set_max_concurrent(7),
    ?assertEqual(7, py_semaphore:max_concurrent()),
    {ok, _} = py:call(math, sqrt, [16]),
    ?assertEqual(0, py_semaphore:current()).

max_concurrent_setting(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{max_concurrent, 3}]),
    ?assertEqual(3, py_semaphore:max_concurrent()),
    ok = py_modes:start(Mode),
    ?assertEqual(proplists:get_value(max, Config), py_semaphore:max_concurrent()).

misuse(_) ->
    [py_modes:misuse(fun() -> py_semaphore:set_max_concurrent(Wrong) end)
     || Wrong <- [0, -1, 1.5, infinity, many]],
    [py_modes:misuse(fun() -> py_semaphore:acquire(Wrong) end) || Wrong <- [-1, soon, 1.5, 1 bsl 40]],
    ?assertError(badarg, py_semaphore:release()),
    ok = py_semaphore:acquire(0),
    ok = py_semaphore:release(),
    ?assertError(badarg, py_semaphore:release()),
    ?assertEqual(0, py_semaphore:current()).

acquire_and_release(_) ->
    ok = py_semaphore:set_max_concurrent(2),
    ?assertEqual(ok, py_semaphore:acquire(infinity)),
    ?assertEqual(1, py_semaphore:current()),
    %% It belongs to the process: another has none.
    [?assertEqual(badarg, R) || R <- py_modes:at_once([fun() ->
        try py_semaphore:release() catch error:Reason -> Reason end
    end])],
    Holder = holder(1),
    ?assertEqual(2, py_semaphore:current()),
    ?assertEqual({error, max_concurrent}, py_semaphore:acquire(0)),
    ok = release(Holder),
    ?assertEqual(1, py_semaphore:current()),
    %% A slot of one's own does not pay for a call.
    {ok, _} = py:call(math, sqrt, [16]),
    ?assertEqual(ok, py_semaphore:release()).

acquire_several(_) ->
    ok = py_semaphore:set_max_concurrent(3),
    [ok = py_semaphore:acquire(1000) || _ <- [1, 2, 3]],
    ?assertEqual({error, max_concurrent}, py_semaphore:acquire(20)),
    ?assertEqual(3, py_semaphore:current()),
    [ok = py_semaphore:release() || _ <- [1, 2, 3]],
    ?assertEqual(0, py_semaphore:current()),
    Holder = holder(3),
    exit(Holder, kill),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end).

acquire_in_time(_) ->
    when_full(1, fun() ->
        [begin
             {Ms, Result} = py_modes:elapsed(fun() -> py_semaphore:acquire(T) end),
             ?assertEqual({error, max_concurrent}, Result),
             ?assert(Ms >= T andalso Ms < T + ?LATE, {T, Ms})
         end || T <- [0, 1, 50]]
    end),
    Holder = holder(1),
    Waiter = answering(fun() -> R = py_semaphore:acquire(5000), py_semaphore:release(), R end),
    py_modes:wait_until(fun() -> waiting() =:= 1 end),
    ok = release(Holder),
    ?assertEqual(ok, answer(Waiter)).

acquire_in_order(_) ->
    ok = py_semaphore:set_max_concurrent(1),
    Holder = holder(1),
    Self = self(),
    Waiters = [begin
                   Pid = spawn(fun() ->
                       ok = py_semaphore:acquire(infinity),
                       Self ! {served, N},
                       ok = py_semaphore:release()
                   end),
                   py_modes:wait_until(fun() -> waiting() =:= N end),
                   Pid
               end || N <- lists:seq(1, 50)],
    ok = release(Holder),
    ?assertEqual(lists:seq(1, 50), [receive {served, N} -> N after 5000 -> none end || _ <- Waiters]).

%% Trap 102.
killed_holders(_) ->
    ok = py_semaphore:set_max_concurrent(5),
    Holders = [holder(1) || _ <- lists:seq(1, 5)],
    ?assertEqual({error, {overloaded, 5, 5}}, py:call(math, sqrt, [16], #{}, #{overload => fail})),
    Waiters = [answering(fun() -> py:call(math, sqrt, [16]) end) || _ <- lists:seq(1, 20)],
    py_modes:wait_until(fun() -> waiting() =:= 20 end),
    [exit(Holder, kill) || Holder <- Holders],
    ?assertEqual([{ok, 4.0}], lists:usort([answer(Waiter) || Waiter <- Waiters])).

killed_while_waiting(_) ->
    when_full(2, fun() ->
        Waiters = [spawn(fun() -> py:call(math, sqrt, [16]) end) || _ <- lists:seq(1, 50)]
            ++ [spawn(fun() -> py_semaphore:acquire(infinity) end) || _ <- lists:seq(1, 50)],
        py_modes:wait_until(fun() -> waiting() =:= 100 end),
        Last = answering(fun() -> py:call(math, sqrt, [16]) end),
        py_modes:wait_until(fun() -> waiting() =:= 101 end),
        [exit(Waiter, kill) || Waiter <- Waiters],
        ok = py_semaphore:set_max_concurrent(3),
        ?assertEqual({ok, 4.0}, answer(Last))
    end).

%% ------------------------------------------------------------------------------------------
%% Calls
%% ------------------------------------------------------------------------------------------

calls_wait(_) ->
    Callers = when_full(1, fun() ->
        Pids = [answering(fun() -> py:call(math, sqrt, [16]) end) || _ <- lists:seq(1, 30)],
        py_modes:wait_until(fun() -> waiting() =:= 30 end),
        ?assertEqual(1, py_semaphore:current()),
        Pids
    end),
    ?assertEqual([{ok, 4.0}], lists:usort([answer(Pid) || Pid <- Callers])).

%% In line: overloaded. Admitted, but not run yet: timeout.
expired_in_line(_) ->
    when_full(1, fun() ->
        [begin
             {Ms, Result} = py_modes:elapsed(fun() -> py:call(math, sqrt, [16], #{}, T) end),
             ?assertEqual({error, {overloaded, 1, 1}}, Result),
             ?assert(Ms >= T andalso Ms < T + ?LATE, {T, Ms})
         end || T <- [0, 20, 100]]
    end),
    ok = py_semaphore:set_max_concurrent(10),
    Ctx = py:context(1),
    Busy = py:spawn_call(Ctx, time, sleep, [0.2]),
    ?assertEqual({error, timeout}, py:eval(Ctx, <<"1">>, #{}, 20)),
    ?assertEqual({ok, none}, py:await(Busy)).

overload_fail(_) ->
    Fail = #{overload => fail, timeout => 5000},
    when_full(2, fun() ->
        {Ms, Result} = py_modes:elapsed(fun() -> py:call(math, sqrt, [16], #{}, Fail) end),
        ?assertEqual({error, {overloaded, 2, 2}}, Result),
        ?assert(Ms < ?LATE, Ms),
        ?assertEqual(0, waiting())
    end),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16], #{}, Fail)),
    %% It does not pass by those who wait.
    Waiter = when_full(1, fun() ->
        Pid = answering(fun() -> py:call(math, sqrt, [16]) end),
        py_modes:wait_until(fun() -> waiting() =:= 1 end),
        ?assertEqual({error, {overloaded, 1, 1}}, py:call(math, sqrt, [16], #{}, Fail)),
        Pid
    end),
    ?assertEqual({ok, 4.0}, answer(Waiter)).

%% The setting bounds how long a call stands in line, not how long it runs.
overload_wait(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{overload_wait, 100}]),
    when_full(1, fun() ->
        [begin
             {Ms, Result} = py_modes:elapsed(Fun),
             ?assertEqual({error, {overloaded, 1, 1}}, Result),
             ?assert(Ms >= Wait andalso Ms < Wait + ?LATE, {Wait, Ms})
         end || {Wait, Fun} <- [{100, fun() -> py:call(math, sqrt, [16]) end},
                                {100, fun() -> py:eval(py:context(1), <<"1">>) end},
                                {100, fun() -> py:call(math, sqrt, [16], #{}, infinity) end},
                                {30, fun() -> py:call(math, sqrt, [16], #{}, 30) end},
                                {100, fun() -> py:await(py:spawn_call(math, sqrt, [16])) end},
                                {100, fun() -> py:async_await(py:async_call(math, sqrt, [16])) end},
                                {100, fun() -> {ok, [R]} = py:parallel([{math, sqrt, [16]}]), R end},
                                {100, fun() ->
                                     {error, {gather_failed, [{1, R}]}} = py:async_gather([{math, sqrt, [16]}]),
                                     {error, R}
                                 end},
                                {100, fun() -> py:stream(builtins, range, [3]) end}]],
        {ok, Stream} = py:stream_start(builtins, range, [3], #{timeout => 2000}),
        receive {py_stream, Stream, Last} -> ?assertEqual({error, {overloaded, 1, 1}}, Last)
        after 1000 -> error(no_answer)
        end,
        %% A slot taken by hand has a time-out of its own.
        ?assertMatch({Ms, {error, max_concurrent}} when Ms >= 200,
                     py_modes:elapsed(fun() -> py_semaphore:acquire(200) end))
    end),
    ?assertEqual({ok, none}, py:call(time, sleep, [0.3])),
    ?assertEqual({error, timeout}, py:call(time, sleep, [5], #{}, 200)),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end),
    ok = py_modes:start(Mode).

%% Trap 94: none goes by the limit.
every_entry_point(Config) ->
    Ctx = py:context(1),
    {ok, Env} = py_context:create_local_env(Ctx),
    {ok, Handle} = py:call(Ctx, builtins, list, [[1]], #{return => handle}),
    {ok, _} = py_context_router:start_pool(limited, 1, py_modes:mode(Config)),
    T = #{timeout => 30},
    Overloaded = {error, {overloaded, 1, 1}},
    when_full(1, fun() ->
        [?assertEqual({Name, Overloaded}, {Name, Fun()}) || {Name, Fun} <- [
            {call, fun() -> py:call(math, sqrt, [16], #{}, T) end},
            {call_main, fun() -> py:call('__main__', f, [16], #{}, T) end},
            {call_context, fun() -> py:call(Ctx, math, sqrt, [16], T) end},
            {call_pool, fun() -> py:call(limited, math, sqrt, [16], #{}, T) end},
            {call_handle, fun() -> py:call(Handle, append, [16], #{}, T) end},
            {eval, fun() -> py:eval(<<"1">>, #{}, T) end},
            {eval_context, fun() -> py:eval(Ctx, <<"1">>, #{}, T) end},
            {exec, fun() -> py:exec(<<"1">>, T) end},
            {exec_context, fun() -> py:exec(Ctx, <<"1">>, T) end},
            {eval_env, fun() -> py_context:eval(Ctx, <<"1">>, #{}, 30, Env) end},
            {call_env, fun() -> py_context:call(Ctx, math, sqrt, [16], #{}, 30, Env) end},
            {async_call, fun() -> py:async_await(py:async_call(math, sqrt, [16], #{}, 30)) end}
        ]],
        ?assertEqual(Overloaded, py:await(py:spawn_call(math, sqrt, [16], #{}, 30))),
        ?assertMatch({error, _}, py:await(py:spawn_call(math, sqrt, [16]), 30)),
        {ok, [Parallel]} = py:parallel([{math, sqrt, [16]}], #{timeout => 30}),
        ?assertEqual(Overloaded, Parallel),
        ?assertMatch({error, _}, py:call(math, sqrt, [16], #{}, #{overload => fail})),
        InLine = waiting(),
        ok = py:cast(Ctx, builtins, exec, [<<"import __main__\n__main__.cast = True">>, #{}]),
        ?assertEqual(InLine + 1, waiting())
    end),
    py_modes:wait_until(fun() ->
        py:eval(Ctx, <<"getattr(__import__('__main__'), 'cast', None)">>) =:= {ok, true}
    end),
    ok = py:exec(Ctx, <<"import __main__\ndel __main__.cast">>),
    ok = py_context_router:stop_pool(limited).

%% ------------------------------------------------------------------------------------------
%% Another limit
%% ------------------------------------------------------------------------------------------

upwards_starts_waiters(_) ->
    when_full(1, fun() ->
        Waiters = [answering(fun() -> py:call(math, sqrt, [16]) end) || _ <- lists:seq(1, 20)],
        py_modes:wait_until(fun() -> waiting() =:= 20 end),
        ok = py_semaphore:set_max_concurrent(3),
        ?assertEqual([{ok, 4.0}], lists:usort([answer(Waiter) || Waiter <- Waiters])),
        Self = self(),
        ok = py_semaphore:set_max_concurrent(1),
        Holders = [spawn(fun() ->
                       ok = py_semaphore:acquire(infinity),
                       Self ! {holds, self()},
                       receive release -> py_semaphore:release() end
                   end) || _ <- lists:seq(1, 5)],
        py_modes:wait_until(fun() -> waiting() =:= 5 end),
        ok = py_semaphore:set_max_concurrent(4),
        [receive {holds, _} -> ok after 1000 -> error(not_started) end || _ <- [1, 2, 3]],
        ?assertEqual({4, 4, 2}, py_nif:slots()),
        [Pid ! release || Pid <- Holders],
        [receive {holds, _} -> ok after 1000 -> error(not_started) end || _ <- [1, 2]]
    end).

downwards(_) ->
    ok = py_semaphore:set_max_concurrent(4),
    [A, B, C] = [holder(1) || _ <- [1, 2, 3]],
    ok = py_semaphore:set_max_concurrent(1),
    ?assertEqual(3, py_semaphore:current()),
    Waiter = answering(fun() -> py:call(math, sqrt, [16]) end),
    py_modes:wait_until(fun() -> waiting() =:= 1 end),
    ok = release(A),
    ok = release(B),
    ?assertEqual({1, 1, 1}, py_nif:slots()),
    ok = release(C),
    ?assertEqual({ok, 4.0}, answer(Waiter)).

%% ------------------------------------------------------------------------------------------
%% A slot belongs to the request
%% ------------------------------------------------------------------------------------------

%% It is freed when the Python code has ended, not before.
killed_caller_of_running_code(_) ->
    Ctx = py:context(1),
    Caller = spawn(fun() -> py:call(Ctx, time, sleep, [0.4]) end),
    running(Ctx),
    exit(Caller, kill),
    ?assertEqual(1, py_semaphore:current()),
    {Ms, ok} = py_modes:elapsed(fun() ->
        py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end)
    end),
    ?assert(Ms > 100, Ms).

timed_out_caller_of_running_code(_) ->
    Ctx = py:context(1),
    ?assertEqual({error, timeout}, py:call(Ctx, time, sleep, [0.5], 100)),
    ?assertEqual(1, py_semaphore:current()),
    ?assertEqual({error, timeout}, py:eval(Ctx, <<"1">>, #{}, 50)),
    {Ms, ok} = py_modes:elapsed(fun() ->
        py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end)
    end),
    ?assert(Ms > 100, Ms).

running(Ctx) ->
    py_modes:wait_until(fun() -> maps:get(running_ms, py_context:info(Ctx)) =/= undefined end).

%% One that was admitted and will never run holds none: it must not keep others out until its turn.
cancelled_in_the_queue(_) ->
    [Ctx, Other | _] = py_context_router:contexts(),
    ok = py_semaphore:set_max_concurrent(4),
    Busy = py:spawn_call(Ctx, time, sleep, [0.5]),
    running(Ctx),
    ?assertEqual([{error, timeout}, {error, timeout}],
                 py_modes:at_once([fun() -> py:eval(Ctx, <<"1">>, #{}, 50) end || _ <- [1, 2]])),
    ?assertEqual({error, timeout}, py:await(py:spawn_call(Ctx, math, sqrt, [16], 50))),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 1 end, 100),
    Killed = spawn(fun() -> py:eval(Ctx, <<"1">>) end),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 2 end),
    exit(Killed, kill),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 1 end, 200),
    ?assertEqual(lists:duplicate(3, {ok, 4.0}),
                 py_modes:at_once([fun() -> py:call(Other, math, sqrt, [16], 5000) end || _ <- [1, 2, 3]])),
    ?assertEqual({ok, none}, py:await(Busy)).

%% ------------------------------------------------------------------------------------------
%% Callbacks
%% ------------------------------------------------------------------------------------------

parked_gives_its_slot_back(_) ->
    ok = py_semaphore:set_max_concurrent(1),
    %% The callback may be there before its request has given the slot back.
    Free = fun() -> py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end), free end,
    ok = py:register_function(look, fun([]) -> Free() end),
    ?assertEqual({ok, <<"free">>}, py:call(erlang, call, [<<"look">>])),
    ok = py:register_function(deeper, fun([0]) -> Free();
                                         ([N]) -> element(2, py:call(erlang, call, [<<"deeper">>, N - 1]))
                                      end),
    ?assertEqual({ok, <<"free">>}, py:call(erlang, call, [<<"deeper">>, 20])),
    %% Others run meanwhile.
    Self = self(),
    ok = py:register_function(wait_here, fun([]) -> Self ! {waits, self()}, receive go -> went end end),
    Waits = answering(fun() -> py:call(erlang, call, [<<"wait_here">>]) end),
    Callback = receive {waits, Pid} -> Pid after 5000 -> error(no_callback) end,
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])),
    %% It goes on though the limit is reached.
    Holder = holder(1),
    Callback ! go,
    ?assertEqual({ok, <<"went">>}, answer(Waits)),
    ok = release(Holder),
    [ok = py:unregister_function(Name) || Name <- [look, deeper, wait_here]].

%% A chain does not wait behind requests that have not started.
nested_goes_first(_) ->
    ok = py_semaphore:set_max_concurrent(1),
    Ctx = py:context(1),
    ok = py:register_function(nested, fun([0]) -> 0;
                                         ([N]) -> {ok, V} = py:call(Ctx, erlang, call, [<<"nested">>, N - 1]),
                                                  V + 1
                                      end),
    Holder = holder(1),
    Chain = answering(fun() -> py_modes:elapsed(fun() -> py:call(Ctx, erlang, call, [<<"nested">>, 10]) end) end),
    py_modes:wait_until(fun() -> waiting() =:= 1 end),
    Others = [answering(fun() -> py:call(Ctx, time, sleep, [0.03]) end) || _ <- lists:seq(1, 40)],
    py_modes:wait_until(fun() -> waiting() =:= 41 end),
    ok = release(Holder),
    {ok, 10} = element(2, answer(Chain)),
    ?assert(waiting() > 20, waiting()), % most of the others were still in line
    [?assertEqual({ok, none}, answer(Other)) || Other <- Others],
    ok = py:unregister_function(nested).

%% A thread's nested request does not wait for a slot that its own request holds.
threads_go_first(_) ->
    ok = py_semaphore:set_max_concurrent(1),
    ok = py:register_function(plain_call, fun([]) -> py:call(math, sqrt, [16]) end),
    ok = py:exec(<<"import erlang, threading\n"
                   "def with_threads():\n"
                   "  seen = []\n"
                   "  threads = [threading.Thread(target=lambda: seen.append(erlang.call('plain_call')))\n"
                   "             for _ in range(4)]\n"
                   "  [t.start() for t in threads]\n"
                   "  [t.join() for t in threads]\n"
                   "  return len(seen)\n">>),
    ?assertEqual({ok, 4}, py:call('__main__', with_threads, [], #{}, 10000)),
    ok = py:unregister_function(plain_call).

%% Whatever gen_servers it passes through: no chain blocks on slots.
chain_through_a_process(_) ->
    ok = py_semaphore:set_max_concurrent(2),
    Server = spawn_link(fun() -> serve() end),
    ok = py:register_function(ask, fun([N]) ->
        Ref = make_ref(),
        Server ! {ask, self(), Ref, N},
        receive {Ref, Answer} -> Answer end
    end),
    ?assertEqual([{ok, N + 4.0} || N <- lists:seq(1, 30)],
                 py_modes:at_once([fun() -> py:call(erlang, call, [<<"ask">>, N], #{}, 20000) end
                                   || N <- lists:seq(1, 30)])),
    unlink(Server),
    exit(Server, kill),
    ok = py:unregister_function(ask).

serve() ->
    receive
        {ask, From, Ref, N} ->
            {ok, Root} = py:call(math, sqrt, [16]),
            From ! {Ref, N + Root},
            serve()
    end.

%% ------------------------------------------------------------------------------------------
%% Many
%% ------------------------------------------------------------------------------------------

%% Trap 114: all are served, in order of arrival.
five_thousand_in_order(_) ->
    Count = 5000,
    ok = py_semaphore:set_max_concurrent(10),
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"import __main__\n__main__.served = []">>),
    {ok, Env} = py_context:create_local_env(Ctx),
    ok = py_context:exec(Ctx, <<"from __main__ import served\ndef serve(n): served.append(n)">>, Env),
    Arrivals = atomics:new(1, []),
    Self = self(),
    Holder = holder(10),
    Pids = [spawn(fun() ->
                Position = atomics:add_get(Arrivals, 1, 1),
                Self ! {self(), py_context:call(Ctx, '__main__', serve, [Position], #{}, 60000, Env)}
            end) || _ <- lists:seq(1, Count)],
    py_modes:wait_until(fun() -> waiting() =:= Count end),
    ok = release(Holder),
    ?assertEqual([{ok, none}], lists:usort([answer(Pid) || Pid <- Pids])),
    {ok, Served} = py:eval(Ctx, <<"__main__.served">>),
    ?assertEqual(lists:seq(1, Count), lists:sort(Served)),
    %% Between taking its number and its call a process may lose its scheduler for a while.
    Late = [abs(Position - Turn) || {Turn, Position} <- lists:zip(lists:seq(1, Count), Served)],
    ?assert(lists:sum(Late) / Count < 10, lists:sum(Late) / Count),
    ?assert(length([1 || L <- Late, L > 200]) < Count div 100, lists:max(Late)),
    ok = py:exec(Ctx, <<"import __main__\ndel __main__.served">>).

five_thousand_over_all_contexts(_) ->
    ok = py_semaphore:set_max_concurrent(10),
    Highest = atomics:new(1, []),
    Watcher = spawn_link(fun() -> watch(Highest) end),
    Calls = [case N rem 3 of
                 0 -> fun() -> py:call(math, sqrt, [N * N], #{}, 60000) end;
                 1 -> fun() -> py:eval(<<"float(n)">>, #{n => N}, 60000) end;
                 2 -> fun() -> py:call(time, sleep, [0.0002], #{}, 60000) end
             end || N <- lists:seq(1, 5000)],
    Results = py_modes:at_once(Calls),
    ?assertEqual([case N rem 3 of 2 -> {ok, none}; _ -> {ok, float(N)} end || N <- lists:seq(1, 5000)],
                 Results),
    unlink(Watcher),
    exit(Watcher, kill),
    ?assert(atomics:get(Highest, 1) =< 10, atomics:get(Highest, 1)).

watch(Highest) ->
    atomics:put(Highest, 1, max(atomics:get(Highest, 1), py_semaphore:current())),
    receive after 1 -> watch(Highest) end.

%% Callers that die and calls that expire at any moment leave no slot behind.
random_deaths(_) ->
    ok = py_semaphore:set_max_concurrent(5),
    [begin
         Pids = [spawn(fun() -> some_call(rand:uniform(8)) end) || _ <- lists:seq(1, 200)],
         [begin
              rand:uniform(4) =:= 1 andalso receive after 1 -> ok end,
              exit(Pid, kill)
          end || Pid <- Pids, rand:uniform(2) =:= 1],
         ok = py_semaphore:set_max_concurrent(rand:uniform(8))
     end || _ <- lists:seq(1, 10)],
    py_modes:wait_until(fun() ->
        {Taken, _, Waiting} = py_nif:slots(),
        Taken =:= 0 andalso Waiting =:= 0
    end, 20000).

some_call(1) -> py:call(time, sleep, [0.002], #{}, 1);
some_call(2) -> py:call(time, sleep, [0.002]);
some_call(3) -> py:eval(<<"1">>, #{}, 2);
some_call(4) -> py:call(math, sqrt, [16], #{}, #{overload => fail});
some_call(5) -> py_semaphore:acquire(3), py:call(math, sqrt, [16]);
some_call(6) -> py:await(py:spawn_call(time, sleep, [0.001]), 1);
some_call(7) -> py:exec(<<"for i in range(10000): pass">>, 2);
some_call(8) -> py:parallel([{math, sqrt, [16]}, {time, sleep, [0.001]}], #{timeout => 3}).
