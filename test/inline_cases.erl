-module(inline_cases).

%% @doc What inline_SUITE runs: calls on their caller's scheduler, when they take the normal way, and that they
%% are calls like any other in all else.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-define(INLINE, #{inline => true}).

%% Runs a case in the VM in which it is called, in a process of its own.
run(Case, Config) ->
    Result = try ?MODULE:Case(Config)
             after
                 _ = logger:remove_handler(py_modes)
             end,
    [] = py_modes:messages(),
    Result.

%% ------------------------------------------------------------------------------------------
%% Which way
%% ------------------------------------------------------------------------------------------

%% Whether this Python has safe calls on a scheduler.
is_possible() ->
    {ok, [Major, Minor, Micro]} = py:eval(<<"list(__import__('sys').version_info[:3])">>),
    Version = {Major, Minor, Micro},
    Version >= {3, 12, 0} andalso not (Version >= {3, 14, 0} andalso Version < {3, 14, 2}).

has_gil() ->
    {ok, Enabled} = py:eval(<<"getattr(__import__('sys'), '_is_gil_enabled', lambda: True)()">>),
    Enabled.

%% How many calls of the contexts ran inline.
inlined() ->
    lists:sum([maps:get(inlined, py_context:info(py:context(N))) || N <- lists:seq(1, py_context_router:num_contexts())]).

%% The result, and whether it ran inline. An idle context may still be about to fall asleep, so up to
%% three attempts.
inline(M, F, A) ->
    inline(M, F, A, #{}, #{}).

inline(M, F, A, Kwargs, Options) ->
    tried(fun() -> py:call(M, F, A, Kwargs, maps:merge(?INLINE, Options)) end).

tried(Call) ->
    Before = inlined(),
    Result = Call(),
    {Result, inlined() > Before}.

%% It runs inline once nobody is busy any more.
comes_inline(Call) ->
    comes_inline(Call, is_possible()).

comes_inline(Call, IsPossible) ->
    case IsPossible of
        true -> py_modes:wait_until(fun() -> element(2, tried(Call)) end);
        false -> ?assertMatch({_, false}, tried(Call))
    end.

runs_inline(_) ->
    Call = fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, ?INLINE) end,
    comes_inline(Call),
    ?assertEqual({{ok, 4.0}, false}, tried(fun() -> py:call(math, sqrt, [16]) end)),
    ?assertEqual({{ok, 4.0}, false}, tried(fun() -> py:call(math, sqrt, [16], #{}, #{inline => false}) end)).

%% A function of the caller's namespace, which is made by the first call.
python_function(_) ->
    ok = py:exec(<<"seen = []\n"
                   "def twice(x, *, by=2):\n"
                   "    seen.append(x)\n"
                   "    return x * by\n">>),
    comes_inline(fun() -> {ok, 42} = py:call('__main__', twice, [21], #{}, ?INLINE) end),
    comes_inline(fun() -> {ok, 63} = py:call('__main__', twice, [21], #{by => 3}, ?INLINE) end),
    {ok, Seen} = py:eval(<<"len(seen)">>),
    _ = [{ok, 2} = py:call('__main__', twice, [1], #{}, ?INLINE) || _ <- lists:seq(1, 1000)],
    ?assertEqual({ok, Seen + 1000}, py:eval(<<"len(seen)">>)),
    ?assertEqual({error, {'AttributeError', "'__main__' has no attribute 'twice'"}},
                 hd(py_modes:at_once([fun() -> py:call('__main__', twice, [1], #{}, ?INLINE) end]))).

values_and_errors(_) ->
    ok = py:exec(<<"def same(x): return x\n"
                   "def fails(): raise KeyError('k')\n"
                   "class Thing: pass\n">>),
    Terms = [1, 1 bsl 200, -1.5, <<"ä"/utf8>>, {a, [b, #{<<"c">> => {bytes, <<255>>}}]}, binary:copy(<<"x">>, 1000000),
             lists:seq(1, 1000), maps:from_list([{N, N} || N <- lists:seq(1, 200)]), self(), make_ref()],
    [begin
         Normal = py:call('__main__', same, [Term]),
         comes_inline(fun() -> Normal = py:call('__main__', same, [Term], #{}, ?INLINE) end)
     end || Term <- Terms],
    comes_inline(fun() -> {error, {'KeyError', "'k'"}} = py:call('__main__', fails, [], #{}, ?INLINE) end),
    comes_inline(fun() ->
                     {error, {'KeyError', _, [_ | _]}} =
                         py:call('__main__', fails, [], #{}, #{inline => true, traceback => true})
                 end),
    comes_inline(fun() -> {error, {badarg, [1], _}} = py:call('__main__', same, [<<1:3>>], #{}, ?INLINE) end),
    comes_inline(fun() ->
                     {ok, Handle} = py:call('__main__', 'Thing', [], #{}, ?INLINE),
                     true = py:is_ref(Handle)
                 end),
    {ok, Handle} = py:call('__main__', 'Thing', [], #{}, ?INLINE),
    ?assertMatch({ok, _}, py:call('__main__', same, [Handle], #{}, ?INLINE)).

%% Other names and methods are found as ever; they are not run on a scheduler.
only_atoms(_) ->
    comes_inline(fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, ?INLINE) end),
    ?assertEqual({{ok, 4.0}, false}, inline(<<"math">>, sqrt, [16])),
    ?assertEqual({{ok, 4.0}, false}, inline(math, <<"sqrt">>, [16])),
    {ok, Handle} = py:call(io, 'BytesIO', [], #{}, #{return => handle}),
    ?assertEqual({{ok, <<>>}, false}, inline(Handle, getvalue, [])).

not_for_code(_) ->
    ?assertEqual({{ok, 2}, false}, tried(fun() -> py:eval(<<"1 + 1">>, #{}, ?INLINE) end)),
    ?assertEqual({ok, false}, tried(fun() -> py:exec(<<"x = 1">>, ?INLINE) end)),
    ?assertEqual({{ok, 4.0}, false},
                 tried(fun() -> py:await(py:spawn_call(math, sqrt, [16], #{}, ?INLINE)) end)).

in_context(_) ->
    Ctx = py:context(2),
    ok = py:exec(Ctx, <<"here = 'second'\ndef f(): return here">>),
    comes_inline(fun() -> {ok, <<"second">>} = py:call(Ctx, '__main__', f, [], ?INLINE) end),
    comes_inline(fun() -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16], ?INLINE) end).

pool_and_bound(_) ->
    ok = py_context_router:bind_context(py:context(2)),
    comes_inline(fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, ?INLINE) end),
    ok = py_context_router:unbind_context().

%% A module that is not there yet is imported by the context's own thread.
no_import(_) ->
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"import sys; sys.modules.pop('colorsys', None)">>),
    Call = fun() -> {ok, {_, _, 1.0}} = py:call(Ctx, colorsys, rgb_to_hsv, [1.0, 1.0, 1.0], ?INLINE) end,
    ?assertMatch({_, false}, tried(Call)),
    comes_inline(Call).

%% Nobody waits for it on a scheduler: neither for the seat nor for a GIL that somebody else has.
busy_context(Config) ->
    Self = self(),
    [First, Second] = [py:context(N) || N <- [1, 2]],
    comes_inline(fun() -> {ok, 4.0} = py:call(Second, math, sqrt, [16], ?INLINE) end),
    Pid = spawn_link(fun() ->
                         ok = py:exec(First, <<"import time\nt = time.monotonic()\n"
                                               "while time.monotonic() < t + 0.5: pass\n">>),
                         Self ! done
                     end),
    ok = py_modes:wait_until(fun() -> maps:get(running, py_context:info(First)) =/= undefined end),
    ?assertMatch({{ok, 4.0}, false}, tried(fun() -> py:call(First, math, sqrt, [16], ?INLINE) end)),
    case is_process_alive(Pid) andalso py_modes:is_parallel(py_modes:mode(Config)) of
        true -> comes_inline(fun() -> {ok, 4.0} = py:call(Second, math, sqrt, [16], ?INLINE) end);
        false -> ok
    end,
    receive done -> ok end.

%% A parked request may hold a lock of Python's.
parked_context(_) ->
    Self = self(),
    Ctx = py:context(1),
    ok = py:register_function(park, fun([]) -> Self ! {parked, self()}, receive go -> ok end end),
    Pid = spawn_link(fun() -> {ok, _} = py:call(Ctx, erlang, call, [<<"park">>]), Self ! done end),
    Parked = receive {parked, P} -> P end,
    ?assertMatch({{ok, 4.0}, false}, tried(fun() -> py:call(Ctx, math, sqrt, [16], ?INLINE) end)),
    true = is_process_alive(Pid),
    Parked ! go,
    receive done -> ok end,
    comes_inline(fun() -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16], ?INLINE) end).

%% A thread of Python's may take its GIL at any time. When the last is gone, calls run inline again.
python_threads(_) ->
    Ctx = py:context(1),
    Call = fun() -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16], ?INLINE) end,
    comes_inline(Call),
    ok = py:exec(Ctx, <<"import threading\n"
                        "end = threading.Event()\n"
                        "thread = threading.Thread(target=end.wait)\n"
                        "thread.start()\n">>),
    Seen = [element(2, tried(Call)) || _ <- lists:seq(1, 20)],
    ?assertEqual([not has_gil()], lists:usort(Seen)), % without one there is nothing to wait for
    ok = py:exec(Ctx, <<"end.set(); thread.join()">>),
    comes_inline(Call),
    %% One that threading knows nothing of.
    ok = py:exec(Ctx, <<"import _thread\nlock = _thread.allocate_lock()\nlock.acquire()\n"
                        "_thread.start_new_thread(lock.acquire, ())\n">>),
    Raw = [element(2, tried(Call)) || _ <- lists:seq(1, 20)],
    ?assertEqual([not has_gil()], lists:usort(Raw)),
    ok = py:exec(Ctx, <<"lock.release()">>),
    comes_inline(Call).

%% A nested call may want what its outer one holds.
under_a_callback(_) ->
    ok = py:register_function(nested, fun([]) ->
                                          {Result, IsInline} = inline(math, sqrt, [16]),
                                          {ok, 4.0} = Result,
                                          IsInline
                                      end),
    ?assertEqual({ok, false}, py:call(erlang, call, [<<"nested">>])).

%% ------------------------------------------------------------------------------------------
%% What may not be done
%% ------------------------------------------------------------------------------------------

%% What it runs is refused, and goes the normal way.
refused(Source) ->
    ok = py:register_function(echo, fun(Args) -> Args end),
    ok = py:exec([<<"import erlang\ndef f(): return ">>, Source]),
    ?assertMatch({ok, _}, py:call('__main__', f, [])),
    case is_possible() of
        true ->
            py_modes:wait_until(fun() ->
                case py:call('__main__', f, [], #{}, ?INLINE) of
                    {ok, _} -> false; % it was not idle yet
                    {error, {'Error', Text}} -> is_list(string:find(Text, "option inline"))
                end
            end);
        false ->
            ?assertMatch({ok, _}, py:call('__main__', f, [], #{}, ?INLINE))
    end.

no_callback(_) ->
    refused(<<"erlang.call('echo', 1)">>).

no_shared_state(_) ->
    refused(<<"erlang.state_set('inline', 1)">>).

%% Its task would wait for Erlang; what a call gives is not run here anyway.
no_coroutine(_) ->
    ok = py:exec(<<"async def c(): return 1\ndef f(): return c()">>),
    _ = inline('__main__', f, []),
    ?assertEqual({ok, 1}, py:async_await(py:async_call('__main__', f, []))).

%% Messages do not wait.
sends(_) ->
    Self = self(),
    ok = py:exec(<<"import erlang\ndef f(to, n): erlang.send(to, n); return erlang.whereis('py_engine') is not None">>),
    comes_inline(fun() ->
                     Ref = make_ref(),
                     {ok, true} = py:call('__main__', f, [Self, Ref], #{}, ?INLINE),
                     receive Ref -> ok end
                 end).

logs(_) ->
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging\ndef f(n): logging.warning('number %d', n)">>),
    ok = py_modes:hear_log(self()),
    comes_inline(fun() ->
                     {ok, none} = py:call('__main__', f, [7], #{}, ?INLINE),
                     receive {log, warning, <<"number 7">>} -> ok end
                 end).

%% ------------------------------------------------------------------------------------------
%% Time
%% ------------------------------------------------------------------------------------------

%% What takes too long is reported once and takes the normal way from then on; the others go on.
overrun(Config) ->
    Name = list_to_atom("slow_" ++ atom_to_list(py_modes:mode(Config))),
    ok = py:exec(["import time\ndef ", atom_to_list(Name), "(): time.sleep(0.003)"]),
    ok = py_modes:hear_log(self()),
    case is_possible() of
        true ->
            ok = py_modes:wait_until(fun() ->
                     {{ok, none}, IsInline} = inline('__main__', Name, []),
                     not IsInline andalso is_reported(Name)
                 end),
            [?assertEqual({{ok, none}, false}, inline('__main__', Name, [])) || _ <- lists:seq(1, 20)],
            ?assertNot(is_reported(Name)),
            comes_inline(fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, ?INLINE) end);
        false ->
            [?assertEqual({{ok, none}, false}, inline('__main__', Name, [])) || _ <- lists:seq(1, 20)],
            ?assertNot(is_reported(Name))
    end.

is_reported(Name) ->
    receive
        {log, warning, Text} -> is_tuple(binary:match(Text, atom_to_binary(Name))) orelse error({logged, Text})
    after 0 -> false
    end.

%% The deadline is kept all the same. No other function has this name in any mode.
endless(Config, Name) ->
    Function = list_to_atom(Name ++ "_" ++ atom_to_list(py_modes:mode(Config))),
    ok = py:exec(["running = [0]\ndef ", atom_to_list(Function), "():\n"
                  "    running[0] += 1\n"
                  "    while True: pass\n"]),
    Function.

deadline(Config) ->
    Function = endless(Config, "endless"),
    [begin
         {Ms, Result} = py_modes:elapsed(fun() ->
                            py:call('__main__', Function, [], #{}, #{inline => true, timeout => 100})
                        end),
         ?assertEqual({error, timeout}, Result),
         ?assert(Ms >= 99 andalso Ms < 1000, Ms),
         ?assertEqual({ok, 2}, py:eval(<<"1 + 1">>))
     end || _ <- lists:seq(1, 5)],
    ?assertEqual({ok, 5}, py:eval(<<"running[0]">>)),
    comes_inline(fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, ?INLINE) end).

no_time(_) ->
    ?assertMatch({{error, timeout}, false}, inline(math, sqrt, [16], #{}, #{timeout => 0})).

interrupted(Config) ->
    Ctx = py:context(1),
    ?assertEqual({error, interrupted},
                 besides(fun() -> interrupt_again(Ctx) end, fun() -> run_endless(Ctx, Config, "interrupted") end)),
    ?assertEqual({ok, 2}, py:eval(Ctx, <<"1 + 1">>)).

run_endless(Ctx, Config, Name) ->
    Function = list_to_atom(Name ++ "_" ++ atom_to_list(py_modes:mode(Config))),
    ok = py:exec(Ctx, ["def ", atom_to_list(Function), "():\n  while True: pass\n"]),
    py:call(Ctx, '__main__', Function, [], #{inline => true, timeout => 20000}).

%% The result of Call, on one scheduler, while Other runs on another one: what stands behind an endless
%% call stands still, its timers too.
besides(Other, Call) ->
    Self = self(),
    {_, Monitor} = spawn_opt(fun() -> Self ! {result, Call()} end, [monitor, {scheduler, 1}]),
    Pid = spawn_opt(Other, [{scheduler, 2}]),
    Result = receive
                 {result, R} -> R;
                 {'DOWN', Monitor, process, _, Reason} -> error(Reason)
             end,
    demonitor(Monitor, [flush]),
    exit(Pid, kill),
    Result.

interrupt_again(Ctx) ->
    timer:sleep(50),
    _ = py_context:interrupt(Ctx),
    interrupt_again(Ctx).

%% Interrupts come at any moment of a call, also before it has begun; none hits the next.
interrupted_often(_) ->
    Ctx = py:context(1),
    End = erlang:monotonic_time(millisecond) + 1000,
    Repeat = fun Repeat(Fun) -> Fun(), erlang:monotonic_time(millisecond) >= End orelse Repeat(Fun) end,
    Call = fun() ->
               case py:call(Ctx, math, fabs, [-4], ?INLINE) of
                   {ok, 4.0} -> ok;
                   {error, interrupted} -> ok
               end
           end,
    Interrupt = fun() -> _ = py_context:interrupt(Ctx), timer:sleep(1) end,
    py_modes:at_once([fun() -> Repeat(Interrupt) end | [fun() -> Repeat(Call) end || _ <- lists:seq(1, 3)]]),
    [?assertEqual({ok, 4.0}, py:call(Ctx, math, fabs, [-4], #{inline => N rem 2 =:= 0})) || N <- lists:seq(1, 100)],
    ?assertEqual(0, py_semaphore:current()).

%% Its context is closed meanwhile: the caller hears of it, and nothing hangs. Closed as its process would,
%% which may stand behind the call.
context_stopped(Config) ->
    {ok, Ctx} = py_context:start_link(1001, py_modes:mode(Config)),
    Ref = py_context:get_nif_ref(Ctx),
    ?assertMatch({error, {context_down, _}},
                 besides(fun() -> timer:sleep(100), ok = py_nif:context_close(Ref, closed), timer:sleep(infinity) end,
                         fun() -> run_endless(Ctx, Config, "stopped") end)),
    ?assertMatch({error, {context_down, _}}, py:call(Ctx, math, sqrt, [16], ?INLINE)),
    ok = py_context:stop(Ctx).

%% ------------------------------------------------------------------------------------------
%% Counted like others
%% ------------------------------------------------------------------------------------------

%% Without a free slot it stands in line like any call.
limit(_) ->
    Max = py_semaphore:max_concurrent(),
    ok = py_semaphore:set_max_concurrent(1),
    ok = py_semaphore:acquire(1000),
    ?assertMatch({{error, {overloaded, 1, 1}}, false}, inline(math, sqrt, [16], #{}, #{overload => fail})),
    ?assertMatch({{error, {overloaded, 1, 1}}, false}, inline(math, sqrt, [16], #{}, #{timeout => 50})),
    ok = py_semaphore:release(),
    comes_inline(fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, ?INLINE) end),
    ok = py_semaphore:set_max_concurrent(Max),
    ?assertEqual(0, py_semaphore:current()).

counters(_) ->
    Ctx = py:context(1),
    comes_inline(fun() -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16], ?INLINE) end),
    #{calls := Calls, errors := Errors, inlined := Inlined} = py_context:info(Ctx),
    _ = [{ok, 4.0} = py:call(Ctx, math, sqrt, [16], ?INLINE) || _ <- lists:seq(1, 100)],
    _ = [{error, _} = py:call(Ctx, math, sqrt, [-1], ?INLINE) || _ <- lists:seq(1, 100)],
    #{calls := Calls1, errors := Errors1, inlined := Inlined1} = py_context:info(Ctx),
    ?assertEqual({Calls + 200, Errors + 100}, {Calls1, Errors1}),
    ?assert(not is_possible() orelse Inlined1 > Inlined).

%% ------------------------------------------------------------------------------------------
%% Many
%% ------------------------------------------------------------------------------------------

%% Inline and not, of many processes, by turns in the same contexts: each call once, each answer its own.
many(_) ->
    ok = py:exec(<<"pass">>),
    Work = fun(Id) ->
               ok = py:exec(<<"count = 0\ndef add(n):\n  global count\n  count += 1\n  return n + 1\n">>),
               [{ok, M} = py:call('__main__', add, [N], #{}, #{inline => N rem 3 > 0})
                || N <- lists:seq(Id, Id + 499), M <- [N + 1]],
               {ok, Count} = py:eval(<<"count">>),
               Count
           end,
    Counts = py_modes:at_once([fun() -> Work(1000 * Id) end || Id <- lists:seq(1, 50)]),
    ?assertEqual([500], lists:usort(Counts)),
    ?assertEqual(0, py_semaphore:current()).

%% Callers are killed wherever they are.
with_kills(_) ->
    ok = py:exec(<<"pass">>),
    Namespaces = fun() -> maps:get(namespaces, py_context:info(py:context(1))) +
                              maps:get(namespaces, py_context:info(py:context(2))) end,
    Before = Namespaces(),
    Loop = fun Loop() ->
               {ok, _} = py:call('__main__', work, [], #{}, ?INLINE),
               {ok, 4.0} = py:call(math, sqrt, [16], #{}, ?INLINE),
               Loop()
           end,
    [begin
         Pids = [spawn(fun() -> ok = py:exec(<<"def work(): return [n for n in range(50)]">>), Loop() end)
                 || _ <- lists:seq(1, 20)],
         timer:sleep(30),
         [exit(Pid, kill) || Pid <- Pids]
     end || _ <- lists:seq(1, 10)],
    ok = py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end),
    ok = py_modes:wait_until(fun() -> Namespaces() =< Before end),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16], #{}, ?INLINE)).

%% Contexts end and begin while others call them inline.
stopped_and_started(Config) ->
    Mode = py_modes:mode(Config),
    Caller = fun Caller(Ctx) ->
                 case py:call(Ctx, math, sqrt, [16], ?INLINE) of
                     {ok, 4.0} -> Caller(Ctx);
                     {error, {context_down, _}} -> ok
                 end
             end,
    [begin
         {ok, Ctx} = py_context:start_link(1000 + N, Mode),
         Callers = [spawn_monitor(fun() -> Caller(Ctx) end) || _ <- lists:seq(1, 4)],
         timer:sleep(20),
         ok = py_context:stop(Ctx),
         [receive {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(normal, Reason) end
          || {_, Monitor} <- Callers]
     end || N <- lists:seq(1, 20)],
    ?assertEqual(0, py_semaphore:current()).

%% What it knew of an interpreter that was replaced is not used in the next. Only an own GIL can be
%% replaced: held by C code.
replaced(Config) ->
    case py_modes:mode(Config) =:= owngil andalso has_gil() of
        true ->
            ok = py_modes:start(owngil, [{interrupt_grace, 200}]),
            Ctx = py:context(1),
            comes_inline(fun() -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16], ?INLINE) end),
            ?assertEqual({error, timeout},
                         py:eval(Ctx, <<"9 ** 9 ** 8 % 7">>, #{}, 100)),
            ok = py_modes:wait_until(fun() ->
                                         {ok, 4.0} =:= py:call(Ctx, math, sqrt, [16], ?INLINE)
                                     end),
            comes_inline(fun() -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16], ?INLINE) end, true),
            ok = py_modes:start(owngil);
        false ->
            ok
    end.
