-module(async_SUITE).

%% @doc Coroutines on the contexts' event loops: results, cancellation, limits, who they work for.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-define(LATE, 1500). % ms that a busy machine may take for what is done at once

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    py_modes:all() ++ [{group, Mode} || Mode <- [settings, speed]].

groups() ->
    py_modes:groups([
        forms, plain_functions, names_and_handles, exec_defined, message, at_the_same_time, options,
        exceptions, tracebacks, exception_groups, system_exit, cancels_itself, lost_awaitable,
        await_timeout, deadline_cancels, deadline_told_again, coroutine_that_never_lets_go,
        killed_owner_cancels, exactly_one_reply, context_stopped, context_killed,
        gather_order, gather_failures, gather_deadline, gather_misuse, gather_full_mailbox,
        needs_no_slot, seat_is_free, interrupt_spares_tasks,
        context_variables, works_for_its_caller, calls_erlang, cancelled_callback, callback_of_a_killed_context,
        nested_call, threads_of_a_task,
        background_task, subprocess, sleeps, run, run_interrupted, run_calls_erlang,
        spread_over_workers, loops_end_with_the_application
    ]) ++ [{settings, [], [limit_of_tasks, one_worker, kind_of_loop, not_started]},
           {speed, [], [ten_thousand_sleeps]}].

init_per_group(Group, Config) when Group =:= settings; Group =:= speed ->
    Config;
init_per_group(Mode, Config) ->
    ok = py_modes:start(Mode, [{paths, [modules(Config)]}]),
    [{mode, Mode} | Config].

end_per_group(_Group, _Config) ->
    py_modes:stop().

init_per_testcase(_Case, Config) ->
    Config.

end_per_testcase(_Case, Config) ->
    case {proplists:get_value(tc_status, Config), py_modes:messages()} of
        {ok, []} -> ok;
        {ok, Messages} -> {fail, {left_behind, Messages}};
        _ -> ok
    end.

%% A folder with a module that every context can import.
modules(Config) ->
    Folder = proplists:get_value(priv_dir, Config),
    ok = file:write_file(filename:join(Folder, "async_example.py"),
                         "import asyncio, threading\n"
                         "async def loop():\n"
                         "    await asyncio.sleep(0)\n"
                         "    return (id(asyncio.get_running_loop()), threading.current_thread().name)\n"
                         "async def stuck():\n"
                         "    await asyncio.get_running_loop().create_future()\n"),
    Folder.

define(Lines) ->
    ok = py:exec(iolist_to_binary(["import asyncio, erlang\n" | [[Line, $\n] || Line <- Lines]])).

result(Function, Args) ->
    py:async_await(py:async_call('__main__', Function, Args)).

%% ------------------------------------------------------------------------------------------
%% Forms and results
%% ------------------------------------------------------------------------------------------

forms(_) ->
    ?assertEqual({ok, 7}, py:async_await(py:async_call(asyncio, sleep, [0.001, 7]))),
    ?assertEqual({ok, 7}, py:async_await(py:async_call(asyncio, sleep, [0.001], #{result => 7}))),
    ?assertEqual({ok, 7}, py:async_await(py:async_call(asyncio, sleep, [0.001], [{result, 7}], 5000))),
    ?assertEqual({ok, 7}, py:async_await(py:async_call(<<"asyncio">>, "sleep", [0, 7], [], infinity))),
    ?assertEqual({ok, 7}, py:async_await(py:async_call(asyncio, sleep, [0, 7], [], #{timeout => 5000}),
                                         5000)),
    ?assertEqual({ok, 7}, py:await(py:async_call(asyncio, sleep, [0, 7]))),
    ?assertMatch({error, {'ModuleNotFoundError', _}}, py:async_await(py:async_call(nowhere, f, []))),
    ?assertMatch({error, {'AttributeError', _}}, py:async_await(py:async_call(asyncio, nothing, []))),
    ?assertMatch({error, {'TypeError', _}}, py:async_await(py:async_call(asyncio, sleep, []))),
    ?assertMatch({error, {badarg, [1], bitstring}},
                 py:async_await(py:async_call(asyncio, sleep, [<<1:1>>]))).

plain_functions(_) ->
    ?assertEqual({ok, 4.0}, py:async_await(py:async_call(math, sqrt, [16]))),
    ?assertMatch({error, {'ValueError', _}}, py:async_await(py:async_call(math, sqrt, [-1]))).

names_and_handles(_) ->
    define(["class A:",
            "  async def double(self, x):",
            "    await asyncio.sleep(0)",
            "    return 2 * x",
            "  def __await__(self):",
            "    yield from asyncio.sleep(0).__await__()",
            "    return 'awaited'"]),
    {ok, A} = py:call('__main__', 'A', []),
    ?assertEqual({ok, 6}, py:async_await(py:async_call(A, double, [3]))),
    ?assertEqual({ok, 6}, result('A.double', [A, 3])),
    %% A handle deep in the arguments is found like one among them.
    [?assertEqual({ok, 1}, py:async_await(py:async_call(builtins, len, [[A]]))) || _ <- lists:seq(1, 6)],
    ?assertEqual({ok, <<"awaited">>}, result('A', [])).

exec_defined(_) ->
    define(["async def add(a, b=1):",
            "  await asyncio.sleep(0.001)",
            "  return a + b"]),
    ?assertEqual({ok, 3}, result(add, [1, 2])),
    ?assertEqual({ok, 2}, result(add, [1])),
    ?assertEqual({ok, 5}, py:async_await(py:async_call('__main__', add, [1], #{b => 4}))),
    %% Another process does not see it.
    [Other] = py_modes:at_once([fun() -> result(add, [1]) end]),
    ?assertMatch({error, {'AttributeError', _}}, Other).

message(_) ->
    Ref = py:async_call(asyncio, sleep, [0, <<"x">>]),
    receive {py_response, Ref, Result} -> ?assertEqual({ok, <<"x">>}, Result)
    after 5000 -> ct:fail(no_message)
    end.

at_the_same_time(_) ->
    {Ms, Results} = py_modes:elapsed(fun() ->
        Refs = [py:async_call(asyncio, sleep, [0.3, I]) || I <- lists:seq(1, 200)],
        [py:async_await(Ref) || Ref <- Refs]
    end),
    ?assertEqual([{ok, I} || I <- lists:seq(1, 200)], Results),
    ?assert(Ms < 300 + ?LATE, Ms).

options(_) ->
    define(["async def give(x):",
            "  await asyncio.sleep(0)",
            "  return x",
            "async def thing(): return object()"]),
    Give = fun(Args, Options) -> py:async_await(py:async_call('__main__', give, Args, [], Options)) end,
    {ok, Handle} = Give([[1, 2]], #{return => handle}),
    ?assert(py:is_ref(Handle)),
    ?assertEqual({ok, [1, 2]}, py:to_term(Handle)),
    Thing = fun(Options) -> py:async_await(py:async_call('__main__', thing, [], [], Options)) end,
    ?assertMatch({ok, <<"<object object", _/binary>>}, Thing(#{on_unknown => repr})),
    ?assertMatch({error, {unconvertible, [], <<"object">>}}, Thing(#{on_unknown => error})).

%% ------------------------------------------------------------------------------------------
%% Exceptions
%% ------------------------------------------------------------------------------------------

exceptions(_) ->
    define(["async def divide(x):",
            "  await asyncio.sleep(0)",
            "  return 1 / x",
            "async def at_once(x): return 1 / x",
            "async def stop():",
            "  raise StopIteration(3)"]),
    ?assertEqual({error, {'ZeroDivisionError', "division by zero"}}, result(divide, [0])),
    ?assertEqual({error, {'ZeroDivisionError', "division by zero"}}, result(at_once, [0])),
    ?assertMatch({error, {'RuntimeError', _}}, result(stop, [])),
    ?assertEqual({ok, 0.5}, result(divide, [2])).

%% The frames are the user's alone.
tracebacks(_) ->
    define(["async def inner(): raise KeyError('k')",
            "async def outer():",
            "  await asyncio.sleep(0)",
            "  await inner()"]),
    Ref = py:async_call('__main__', outer, [], [], #{traceback => true}),
    {error, {'KeyError', "'k'", Frames}} = py:async_await(Ref),
    ?assertMatch([#{function := <<"outer">>}, #{function := <<"inner">>}], Frames).

exception_groups(_) ->
    case py:eval(<<"__import__('sys').version_info >= (3, 11)">>) of
        {ok, true} ->
            define(["async def one(x): raise ValueError(x)",
                    "async def group():",
                    "  async with asyncio.TaskGroup() as g:",
                    "    g.create_task(one(1))",
                    "    g.create_task(one(2))"]),
            Ref = py:async_call('__main__', group, [], [], #{traceback => true}),
            {error, {'ExceptionGroup', Message, Frames}} = py:async_await(Ref),
            ?assertMatch("unhandled errors in a TaskGroup (2 sub-exceptions)" ++ _, Message),
            ?assertMatch(#{function := <<"group">>}, hd(Frames));
        _ ->
            {comment, "Python 3.11 has them"}
    end.

system_exit(_) ->
    define(["async def leave(): raise SystemExit(3)",
            "async def other(): return 'there'"]),
    ?assertEqual({error, {'SystemExit', "3"}}, result(leave, [])),
    ?assertEqual({ok, <<"there">>}, result(other, [])).

cancels_itself(_) ->
    define(["async def quit():",
            "  asyncio.current_task().cancel()",
            "  await asyncio.sleep(1)"]),
    ?assertEqual({error, {'CancelledError', ""}}, result(quit, [])).

%% What cannot be awaited on this loop is an error, not a silence.
lost_awaitable(_) ->
    define(["class Wrong:",
            "  def __await__(self): return iter([1, 2])"]),
    ?assertMatch({error, {'RuntimeError', _}}, result('Wrong', [])).

%% ------------------------------------------------------------------------------------------
%% Cancellation
%% ------------------------------------------------------------------------------------------

%% It tells us by messages: when its deadline has passed it cannot wait for Erlang any more.
define_slow() ->
    define(["async def slow(pid, key):",
            "  erlang.send(pid, (key, 'started'))",
            "  try:",
            "    await asyncio.sleep(60)",
            "  finally:",
            "    erlang.send(pid, (key, 'cancelled'))"]).

await_told(Key, Value) ->
    receive {Key, Value} -> ok after 10000 -> ct:fail({not_told, Key, Value}) end.

await_timeout(_) ->
    define_slow(),
    Ref = py:async_call('__main__', slow, [self(), <<"a">>]),
    await_told(<<"a">>, <<"started">>),
    ?assertEqual({error, timeout}, py:async_await(Ref, 10)),
    await_told(<<"a">>, <<"cancelled">>),
    ?assertEqual([], py_modes:messages()).

deadline_cancels(_) ->
    define_slow(),
    {Ms, Result} = py_modes:elapsed(fun() ->
        py:async_await(py:async_call('__main__', slow, [self(), <<"b">>], [], 100))
    end),
    ?assertEqual({error, timeout}, Result),
    ?assert(Ms >= 99 andalso Ms < 100 + ?LATE, Ms),
    await_told(<<"b">>, <<"started">>),
    await_told(<<"b">>, <<"cancelled">>).

deadline_told_again(_) ->
    define(["async def deaf(pid):",
            "  for i in range(3):",
            "    try:",
            "      await asyncio.sleep(60)",
            "    except asyncio.CancelledError:",
            "      erlang.send(pid, ('deaf', i))",
            "  return 1"]),
    ?assertEqual({error, timeout}, py:async_await(py:async_call('__main__', deaf, [self()], [], 20))),
    [await_told(<<"deaf">>, I) || I <- [0, 1, 2]].

%% It cannot be cancelled, for that it would have to let the loop run: it is interrupted.
coroutine_that_never_lets_go(_) ->
    define(["async def hog(await_first):",
            "  if await_first: await asyncio.sleep(0)",
            "  while True: pass",
            "async def fine(): return 1"]),
    [begin
         ?assertEqual({error, timeout}, py:async_await(py:async_call('__main__', hog, [First], [], 20))),
         ?assertEqual({ok, 1}, result(fine, []))
     end || First <- [true, false]].

killed_owner_cancels(_) ->
    Self = self(),
    Pid = spawn(fun() ->
        define_slow(),
        [py:async_call('__main__', slow, [Self, {c, I}]) || I <- lists:seq(1, 30)],
        Self ! started,
        receive never -> ok end
    end),
    receive started -> ok end,
    [await_told({<<"c">>, I}, <<"started">>) || I <- lists:seq(1, 30)],
    exit(Pid, kill),
    [await_told({<<"c">>, I}, <<"cancelled">>) || I <- lists:seq(1, 30)].

%% Ends and deadlines at the same time: each call has one answer.
exactly_one_reply(_) ->
    Refs = [py:async_call(asyncio, sleep, [0.02, I], [], 20 + I rem 3 - 1) || I <- lists:seq(1, 500)],
    [receive
         {py_response, Ref, {ok, I}} -> ok;
         {py_response, Ref, {error, timeout}} -> ok;
         {py_response, Ref, {error, {overloaded, _, _}}} -> ok % it stood in line for all its time: the loop was being made
     after 5000 -> ct:fail({no_reply, I, py_modes:messages()})
     end || {I, Ref} <- lists:zip(lists:seq(1, 500), Refs)],
    timer:sleep(50),
    ?assertEqual([], py_modes:messages()).

context_stopped(Config) ->
    {ok, Ctx} = py_context:start_link(77, py_modes:mode(Config)),
    ok = py_context_router:bind_context(Ctx),
    define_slow(),
    Refs = [py:async_call('__main__', slow, [self(), {d, I}]) || I <- lists:seq(1, 10)],
    [await_told({<<"d">>, I}, <<"started">>) || I <- lists:seq(1, 10)],
    ok = py_context:stop(Ctx),
    [?assertEqual({error, {context_down, normal}}, py:async_await(Ref, 5000)) || Ref <- Refs],
    [await_told({<<"d">>, I}, <<"cancelled">>) || I <- lists:seq(1, 10)],
    ok = py_context_router:unbind_context().

context_killed(Config) ->
    process_flag(trap_exit, true),
    {ok, Ctx} = py_context:start_link(78, py_modes:mode(Config)),
    ok = py_context_router:bind_context(Ctx),
    define_slow(),
    Ref = py:async_call(asyncio, sleep, [60]),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)),
    exit(Ctx, kill),
    receive {'EXIT', Ctx, killed} -> ok end,
    ?assertMatch({error, {context_down, _}}, py:async_await(Ref, 5000)),
    ok = py_context_router:unbind_context().

%% ------------------------------------------------------------------------------------------
%% gather
%% ------------------------------------------------------------------------------------------

gather_order(_) ->
    define(["async def late(x, s=0):",
            "  await asyncio.sleep(s)",
            "  return x"]),
    ?assertEqual({ok, []}, py:async_gather([])),
    ?assertEqual({ok, [1, 2, 3, 4.0, <<"five">>]},
                 py:async_gather([{'__main__', late, [1, 0.05]}, {asyncio, sleep, [0.01, 2]},
                                  {'__main__', late, [3], #{s => 0.02}}, {math, sqrt, [16]},
                                  {'__main__', late, [five]}])).

gather_failures(_) ->
    ?assertEqual({error, {gather_failed, [{2, {'ValueError', "chr() arg not in range(0x110000)"}},
                                          {4, {'TypeError', "must be real number, not str"}}]}},
                 py:async_gather([{asyncio, sleep, [0.01]}, {builtins, chr, [-1]},
                                  {asyncio, sleep, [0]}, {math, sqrt, [x]}])).

gather_deadline(_) ->
    {Ms, Result} = py_modes:elapsed(fun() ->
        py:async_gather([{asyncio, sleep, [0.01]}, {asyncio, sleep, [60]}, {asyncio, sleep, [60]}], 200)
    end),
    ?assertEqual({error, {gather_failed, [{2, timeout}, {3, timeout}]}}, Result),
    ?assert(Ms < 200 + ?LATE, Ms),
    ?assertEqual([], py_modes:messages()).

gather_misuse(_) ->
    ?assertError(badarg, py:async_gather([math])),
    ?assertError(badarg, py:async_gather([{math, sqrt}])),
    ?assertError(badarg, py:async_gather([{math, sqrt, 4}])),
    ?assertError(_, py:async_gather(nothing)).

gather_full_mailbox(_) ->
    [self() ! {noise, I} || I <- lists:seq(1, 100000)],
    {Ms, {ok, _}} = py_modes:elapsed(fun() ->
        py:async_gather([{math, sqrt, [4]} || _ <- lists:seq(1, 500)])
    end),
    [receive {noise, I} -> ok end || I <- lists:seq(1, 100000)],
    ?assert(Ms < ?LATE, Ms).

%% ------------------------------------------------------------------------------------------
%% What a coroutine does not hold
%% ------------------------------------------------------------------------------------------

needs_no_slot(_) ->
    Max = py_semaphore:max_concurrent(),
    ok = py_semaphore:set_max_concurrent(1),
    Refs = [py:async_call(asyncio, sleep, [0.3]) || _ <- lists:seq(1, 100)],
    {Ms, {ok, 2.0}} = py_modes:elapsed(fun() -> py:call(math, sqrt, [4]) end),
    [?assertEqual({ok, none}, py:async_await(Ref)) || Ref <- Refs],
    ok = py_semaphore:set_max_concurrent(Max),
    ?assert(Ms < 250, Ms),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end).

seat_is_free(_) ->
    define(["async def wait(): await asyncio.sleep(0.5)"]),
    Ref = py:async_call('__main__', wait, []),
    {Ms, _} = py_modes:elapsed(fun() -> [{ok, 1} = py:eval(<<"1">>) || _ <- lists:seq(1, 20)] end),
    ?assert(Ms < 400, Ms),
    ?assertEqual({ok, none}, py:async_await(Ref)).

%% py:interrupt is for what runs, not for what waits.
interrupt_spares_tasks(_) ->
    Ctx = py:context(1),
    ok = py_context_router:bind_context(1),
    Ref = py:async_call(asyncio, sleep, [0.3, 1]),
    timer:sleep(50),
    ?assertEqual(not_running, py:interrupt(Ctx)),
    ?assertEqual({ok, 1}, py:async_await(Ref)),
    ok = py_context_router:unbind_context().

%% ------------------------------------------------------------------------------------------
%% On whose behalf
%% ------------------------------------------------------------------------------------------

context_variables(_) ->
    define(["from contextvars import ContextVar",
            "v = ContextVar('v', default='none')",
            "async def use(x):",
            "  before = v.get()",
            "  v.set(x)",
            "  await asyncio.sleep(0.01)",
            "  async def child(): return v.get()",
            "  return (before, v.get(), await asyncio.ensure_future(child()))"]),
    ?assertEqual({ok, [{<<"none">>, I, I} || I <- lists:seq(1, 20)]},
                 py:async_gather([{'__main__', use, [I]} || I <- lists:seq(1, 20)])).

works_for_its_caller(_) ->
    define(["async def who():",
            "  first = erlang.self()",
            "  await asyncio.sleep(0.001)",
            "  async def child(): return erlang.self()",
            "  return (first, erlang.self(), await asyncio.ensure_future(child()))",
            "async def tell(x): erlang.send(erlang.self(), x)"]),
    Self = self(),
    ?assertEqual({ok, {Self, Self, Self}}, result(who, [])),
    {ok, none} = result(tell, [<<"hello">>]),
    receive <<"hello">> -> ok after 5000 -> ct:fail(nothing) end,
    %% Two at once on one loop do not mix.
    Others = py_modes:at_once([fun() ->
        define(["async def who():",
                "  await asyncio.sleep(0.05)",
                "  return erlang.self()"]),
        {self(), result(who, [])}
    end || _ <- lists:seq(1, 8)]),
    [?assertEqual({ok, Pid}, Who) || {Pid, Who} <- Others].

calls_erlang(_) ->
    ok = py:register_function(async_suite_double, fun([X]) -> timer:sleep(50), 2 * X end),
    define(["async def many(n):",
            "  calls = [erlang.async_call('async_suite_double', i) for i in range(n)]",
            "  return await asyncio.gather(*calls)",
            "async def blocking(x): return erlang.call('async_suite_double', x)",
            "async def failing():",
            "  try:",
            "    await erlang.async_call('async_suite_nothing')",
            "  except erlang.CallbackError as error:",
            "    return error.error_class"]),
    {Ms, Result} = py_modes:elapsed(fun() -> result(many, [20]) end),
    ?assertEqual({ok, [2 * I || I <- lists:seq(0, 19)]}, Result),
    ?assert(Ms < 50 + ?LATE, Ms),
    ?assertEqual({ok, 42}, result(blocking, [21])),
    ?assertEqual({ok, <<"error">>}, result(failing, [])),
    ok = py:unregister_function(async_suite_double).

%% A callback that a coroutine makes finds what its caller defined, sync or async.
%% Whose task is cancelled, or runs out of time, that process is killed.
cancelled_callback(_) ->
    Self = self(),
    ok = py:register_function(stay, fun([]) -> Self ! {stays, self()}, timer:sleep(infinity) end),
    ok = py:exec(<<"import asyncio, erlang\n"
                   "async def ask(): return await erlang.async_call('stay')\n"
                   "async def ask_for(s):\n"
                   "    try: await asyncio.wait_for(ask(), s)\n"
                   "    except asyncio.TimeoutError: return 'gave up'\n"
                   "async def drop():\n"
                   "    asking = ask()\n"
                   "    asking.send(None)\n"
                   "    await asyncio.sleep(0.2)\n"
                   "    asking.close()\n"
                   "    return 'dropped'\n">>),
    [begin
         Ref = py:async_call('__main__', Function, Args, #{}, T),
         Pid = receive {stays, P} -> P after 5000 -> error(not_called) end,
         Monitor = monitor(process, Pid),
         ?assertEqual(Result, py:await(Ref)),
         receive {'DOWN', Monitor, process, Pid, Reason} -> ?assert(lists:member(Reason, [killed, noproc]))
         after 5000 -> error(goes_on)
         end
     end || {Function, Args, T, Result} <- [{ask, [], 100, {error, timeout}},
                                            {ask_for, [0.1], 10000, {ok, <<"gave up">>}},
                                            {drop, [], 10000, {ok, <<"dropped">>}}]].

%% Those who wait for a callback of a context that was killed hear of it, in a loop of their own too.
callback_of_a_killed_context(Config) ->
    case py_modes:is_main(py_modes:mode(Config)) of
        true -> callback_of_a_killed_context_();
        false -> ok % the thread is left behind with its interpreter
    end.

callback_of_a_killed_context_() ->
    Self = self(),
    ok = py:register_function(stay, fun([]) -> Self ! stays, timer:sleep(infinity) end),
    {ok, Ctx} = py_context:new(#{mode => py:execution_mode()}),
    unlink(Ctx),
    ok = py:exec(Ctx, <<"import asyncio, builtins, erlang, threading\n"
                        "async def ask():\n"
                        "    try: await erlang.async_call('stay')\n"
                        "    except BaseException as error: builtins.outcome = type(error).__name__\n"
                        "threading.Thread(target=lambda: asyncio.run(ask())).start()">>),
    receive stays -> ok after 5000 -> error(not_called) end,
    exit(Ctx, kill),
    Outcome = <<"getattr(__import__('builtins'), 'outcome', None)">>,
    py_modes:wait_until(fun() -> py:eval(Outcome) =/= {ok, none} end),
    ?assertEqual({ok, <<"Interrupt">>}, py:eval(Outcome)),
    ok = py:exec(<<"import builtins\ndel builtins.outcome">>).

nested_call(_) ->
    ok = py:register_function(async_suite_nested, fun([X]) ->
        {ok, A} = py:call('__main__', plus_one, [X]),
        {ok, B} = py:async_await(py:async_call('__main__', plus_two, [A])),
        B
    end),
    define(["def plus_one(x): return x + 1",
            "async def plus_two(x):",
            "  await asyncio.sleep(0)",
            "  return x + 2",
            "async def outer(x): return await erlang.async_call('async_suite_nested', x)"]),
    ?assertEqual({ok, 13}, result(outer, [10])),
    ok = py:unregister_function(async_suite_nested).

threads_of_a_task(_) ->
    define(["async def in_thread():",
            "  loop = asyncio.get_running_loop()",
            "  return await loop.run_in_executor(None, erlang.self)"]),
    ?assertEqual({ok, self()}, result(in_thread, [])).

%% What a coroutine started goes on when it has ended.
background_task(_) ->
    define(["async def later():",
            "  await asyncio.sleep(0.05)",
            "  erlang.send(erlang.self(), 'later')",
            "async def start():",
            "  global kept",
            "  kept = asyncio.ensure_future(later())",
            "  return 'started'"]),
    ?assertEqual({ok, <<"started">>}, result(start, [])),
    receive <<"later">> -> ok after 5000 -> ct:fail(nothing) end.

subprocess(Config) ->
    case py_modes:mode(Config) of
        owngil ->
            {comment, "its threads of asyncio may not fork"};
        _ ->
            define(["async def echo():",
                    "  p = await asyncio.create_subprocess_exec('echo', 'hello',",
                    "        stdout=asyncio.subprocess.PIPE)",
                    "  out, _ = await p.communicate()",
                    "  return (out.strip(), p.returncode)"]),
            ?assertEqual({ok, {<<"hello">>, 0}}, result(echo, []))
    end.

%% ------------------------------------------------------------------------------------------
%% erlang.sleep, erlang.run
%% ------------------------------------------------------------------------------------------

sleeps(_) ->
    define(["async def nap(): await erlang.sleep(0.05)"]),
    {Ms, {ok, none}} = py_modes:elapsed(fun() -> result(nap, []) end),
    ?assert(Ms >= 49, Ms).

run(_) ->
    define(["async def main(x):",
            "  await asyncio.sleep(0.01)",
            "  return x + 1",
            "def start(x): return erlang.run(main(x))",
            "async def inside():",
            "  coroutine = main(1)",
            "  try:",
            "    return erlang.run(coroutine)",
            "  finally:",
            "    coroutine.close()"]),
    ?assertEqual({ok, 2}, py:call('__main__', start, [1])),
    ?assertMatch({error, {'RuntimeError', _}}, result(inside, [])).

%% The deadline reaches a coroutine that waits, so no thread is lost.
run_interrupted(_) ->
    ok = py_context_router:bind_context(1),
    define_slow(),
    define(["def start(pid): return erlang.run(slow(pid, 'run'))"]),
    ?assertEqual({error, timeout}, py:call('__main__', start, [self()], [], 200)),
    await_told(<<"run">>, <<"started">>),
    await_told(<<"run">>, <<"cancelled">>),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)),
    ?assertMatch(#{lost_threads := 0}, py_context:info(py:context(1))),
    ok = py_context_router:unbind_context().

run_calls_erlang(_) ->
    ok = py:register_function(async_suite_run, fun([X]) -> X + 1 end),
    define(["async def main(): return [await erlang.async_call('async_suite_run', i) for i in range(5)]"]),
    ?assertEqual({ok, [1, 2, 3, 4, 5]}, py:eval(<<"erlang.run(main())">>)),
    ok = py:unregister_function(async_suite_run).

%% ------------------------------------------------------------------------------------------
%% Loops
%% ------------------------------------------------------------------------------------------

loops(Calls) ->
    {ok, Loops} = py:async_gather([{async_example, loop, []} || _ <- lists:seq(1, Calls)]),
    lists:usort(Loops).

spread_over_workers(_) ->
    ?assertEqual(2, length(loops(50))),
    %% In the caller's context there is one.
    ok = py_context_router:bind_context(1),
    ?assertMatch([_], loops(20)),
    ok = py_context_router:unbind_context().

loops_end_with_the_application(Config) ->
    ok = py_modes:hear_log(self()),
    _ = [py:async_call(async_example, stuck, []) || _ <- lists:seq(1, 20)],
    _ = loops(20),
    ok = application:stop(erlang_python),
    [receive {py_response, _, Result} -> ?assertMatch({error, {context_down, _}}, Result) after 5000 -> ct:fail(mute) end
     || _ <- lists:seq(1, 20)],
    {ok, _} = application:ensure_all_started(erlang_python),
    case py_modes:is_main(py_modes:mode(Config)) of
        true ->
            py_modes:wait_until(fun() ->
                {ok, Names} = py:eval(<<"[t.name for t in __import__('threading').enumerate()]">>),
                [] =:= [Name || <<"py:loop", _/binary>> = Name <- Names]
            end);
        false ->
            ok
    end,
    ok = py_modes:unhear_log(),
    ?assertEqual([], [Text || Text <- logged(), binary:match(Text, <<"left behind">>) =/= nomatch]).

logged() ->
    receive {log, _, Text} -> [Text | logged()] after 0 -> [] end.

%% ------------------------------------------------------------------------------------------
%% Settings
%% ------------------------------------------------------------------------------------------

limit_of_tasks(Config) ->
    ok = py_modes:start(auto, [{max_async_tasks, 5}, {num_async_workers, 1}, {paths, [modules(Config)]}]),
    Stuck = [py:async_call(async_example, stuck, []) || _ <- lists:seq(1, 5)],
    {error, {'Error', Sentence}} = py:async_await(py:async_call(async_example, stuck, [])),
    ?assertMatch({match, _}, re:run(Sentence, "max_async_tasks")),
    [?assertEqual({error, timeout}, py:async_await(Ref, 10)) || Ref <- Stuck],
    py_modes:wait_until(fun() -> py:async_await(py:async_call(asyncio, sleep, [0, 1])) =:= {ok, 1} end).

one_worker(Config) ->
    ok = py_modes:start(auto, [{num_async_workers, 1}, {paths, [modules(Config)]}]),
    ?assertMatch([_], loops(50)).

kind_of_loop(Config) ->
    Folder = modules(Config),
    Uvloop = filename:join([Folder, "fake", "uvloop.py"]),
    ok = filelib:ensure_dir(Uvloop),
    ok = file:write_file(Uvloop, "import asyncio\n"
                                 "class Loop(asyncio.SelectorEventLoop): pass\n"
                                 "new_event_loop = Loop\n"),
    ok = file:write_file(filename:join(filename:dirname(Uvloop), "which.py"),
                         "import asyncio\n"
                         "async def kind(): return type(asyncio.get_running_loop()).__module__\n"),
    Kind = fun(EventLoop) ->
        ok = py_modes:start(auto, [{event_loop, EventLoop}, {paths, [filename:dirname(Uvloop)]}]),
        {ok, Module} = py:async_await(py:async_call(which, kind, [])),
        Module
    end,
    ?assertEqual(<<"uvloop">>, Kind(auto)),
    ?assertEqual(<<"uvloop">>, Kind(uvloop)),
    ?assertMatch(<<"asyncio", _/binary>>, Kind(asyncio)).

not_started(_) ->
    ok = py_modes:start(auto),
    ok = py:stop_contexts(),
    Down = {error, {context_down, not_started}},
    ?assertEqual(Down, py:async_await(py:async_call(asyncio, sleep, [0]))),
    ?assertEqual({error, {gather_failed, [{1, {context_down, not_started}}]}},
                 py:async_gather([{asyncio, sleep, [0]}])).

%% Beside what asyncio alone takes for the same in the same run; bin/bench async measures it well.
ten_thousand_sleeps(_) ->
    ok = py_modes:start(auto),
    ok = py:exec(<<"
import asyncio, time
async def alone(n):
    start = time.perf_counter()
    await asyncio.gather(*[asyncio.sleep(0.1) for _ in range(n)])
    return 1000 * (time.perf_counter() - start)
">>),
    Calls = [{asyncio, sleep, [0.1]} || _ <- lists:seq(1, 10000)],
    Times = [begin
                 {Ms, {ok, _}} = py_modes:elapsed(fun() -> py:async_gather(Calls) end),
                 {ok, Alone} = py:eval(<<"asyncio.run(alone(10000))">>),
                 {Ms, Alone}
             end || _ <- lists:seq(1, 5)],
    {Best, Floor} = {lists:min([Ms || {Ms, _} <- Times]), lists:min([Ms || {_, Ms} <- Times])},
    Text = lists:flatten(io_lib:format("~.1f ms, asyncio alone ~.1f ms", [Best, Floor])),
    py_modes:fast_enough(Best =< 1.3 * Floor, Text).
