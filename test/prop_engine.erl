-module(prop_engine).

%% @doc A state machine of everything that can happen to a request: random programs of requests (calls, code,
%% callbacks, coroutines, streams, slots; with little time or much) by a few processes, while contexts start,
%% stop, die and are interrupted, the processes themselves are killed, the limit changes, and the application
%% is restarted.
%%
%% A request runs beside the program. The model knows what may become of it: its value, and an error for each
%% thing that happened between its start and the moment it was waited for. At the end of every program all
%% requests have exactly one outcome, no message is left over, and slots, namespaces and threads are back.

-compile([export_all, nowarn_export_all]).
-include("prop.hrl").

-define(ACTORS, 4).
-define(CONTEXTS, 2). % explicit ones, and as many of the router
-define(LONG, 20000). % never reached: who is answered `timeout' then was forgotten
-define(LATE, 1500).  % what a busy machine may add to a short time-out
-define(THREADS, 80). % how many more than at rest there may be at once

-record(model, {
    next = 1,
    contexts = #{}, % number => up
    pending = [],
    holds = false % C code that keeps the GIL was run: an own GIL's interpreter may be replaced
}).

%% What was asked for, and what happened since: down, interrupt.
-record(request, {id, actor, target, op, timeout, faults = []}).

%% ------------------------------------------------------------------------------------------
%% For the suite: runs in a VM of its own
%% ------------------------------------------------------------------------------------------

settings() ->
    [{num_contexts, ?CONTEXTS}, {interrupt_grace, 100}, {preload, preload()}, {max_concurrent, 3}].

%% {ok, Outcomes}, or what was wrong and the program that led to it.
check(Mode, Runs, Size) ->
    put(mode, Mode),
    open_world(),
    ok = logger:add_primary_filter(?MODULE, {fun silence/2, []}),
    case proper:quickcheck(property(Mode), [{numtests, Runs}, {max_size, Size}, noshrink, quiet]) of
        true -> {threads_at_rest(), counted()};
        Other -> {Other, get(wrong)}
    end.

property(Mode) ->
    ?FORALL(Program, proper_statem:commands(?MODULE), run(Mode, Program)).

run(Mode, Program) ->
    note(Program),
    begin_run(),
    {History, Model, Result} = proper_statem:run_commands(?MODULE, Program),
    Wrong = case Result of
                ok -> finish(Model);
                _ -> [{Result, get(wrong), lists:last([none | History])}]
            end,
    count(programs, 1),
    count(commands, length(Program)),
    Wrong =:= [] orelse put(wrong, {Mode, Wrong, Program}),
    Wrong =:= [].

%% If the VM ends, this is the program that ended it.
note(Program) ->
    case os:getenv("PROP_ENGINE_LOG") of
        false -> ok;
        File -> ok = file:write_file(File, io_lib:format("~p.~n", [Program]))
    end.

%% ------------------------------------------------------------------------------------------
%% The model
%% ------------------------------------------------------------------------------------------

initial_state() ->
    #model{}.

command(#model{next = Id, contexts = Contexts}) ->
    Up = maps:keys(Contexts),
    Down = lists:seq(1, ?CONTEXTS) -- Up,
    proper_types:frequency(
        [{60, {call, ?MODULE, request, [Id, actor(), target(), op(), timeout()]}},
         {8, {call, ?MODULE, settle, [actor()]}},
         {6, {call, ?MODULE, kill_actor, [actor()]}},
         {6, {call, ?MODULE, interrupt, [explicit_target()]}},
         {4, {call, ?MODULE, pause, [proper_types:integer(1, 30)]}},
         {3, {call, ?MODULE, limit, [proper_types:integer(1, 6)]}},
         {1, {call, ?MODULE, kill_place, [context()]}}] ++
        [{1, {call, ?MODULE, restart, []}} || rand:uniform(3) =:= 1] ++
        [{6, {call, ?MODULE, start_context, [proper_types:elements(Down)]}} || Down =/= []] ++
        [{2, {call, ?MODULE, F, [proper_types:elements(Up)]}}
         || Up =/= [], F <- [stop_context, kill_context]]).

actor() -> proper_types:integer(1, ?ACTORS).
context() -> proper_types:integer(1, ?CONTEXTS).
explicit_target() -> proper_types:oneof([{context, context()}, {place, context()}]).
target() -> proper_types:frequency([{2, implicit}, {3, explicit_target()}]).
timeout() -> proper_types:frequency([{3, ?LONG}, {2, proper_types:integer(0, 60)}]).

op() ->
    Short = proper_types:integer(0, 15),
    proper_types:frequency(
        [{10, {add, proper_types:integer()}}, {6, {add_inline, proper_types:integer()}}, {2, {spin_inline, Short}},
         {6, {nap, Short}}, {6, {spin, Short}}, {4, remember}, {3, boom},
         {6, {ask, Short}}, {3, {deeper, proper_types:integer(0, 4)}}, {2, ask_in_thread}, {2, {nap, 200}},
         {2, {spin, 200}}, {1, {stubborn, 250}}, {1, {hold, 150}}, {4, {spawned, proper_types:integer(1, 4)}},
         {2, {abandoned, Short}}, {3, {task, Short}}, {3, {asking_task, Short}}, {2, {items, Short}}, {2, handle},
         {2, cast}, {2, {slot, Short}}, {2, parallel}, {2, fail_when_full}, {1, exit_of_callback}, {1, bind}]).

precondition(#model{contexts = Contexts}, {call, _, start_context, [N]}) -> not is_map_key(N, Contexts);
precondition(#model{contexts = Contexts}, {call, _, F, [N]}) when F =:= stop_context; F =:= kill_context ->
    is_map_key(N, Contexts);
precondition(#model{contexts = Contexts}, {call, _, interrupt, [{context, N}]}) -> is_map_key(N, Contexts);
precondition(_, _) -> true.

next_state(#model{pending = Pending, contexts = Contexts} = Model, _Result, {call, _, Name, Args}) ->
    case {Name, Args} of
        {request, [Id, Actor, Target, Op, Timeout]} ->
            IsGone = case Target of {context, N} -> not is_map_key(N, Contexts); _ -> false end,
            Request = #request{id = Id, actor = Actor, target = real_target(Target, Op), op = Op,
                               timeout = Timeout, faults = [down || IsGone]},
            Model#model{next = Id + 1, pending = [Request | Pending],
                        holds = Model#model.holds orelse (is_tuple(Op) andalso element(1, Op) =:= hold)};
        {F, [Actor]} when F =:= settle; F =:= kill_actor ->
            Model#model{pending = [R || R <- Pending, R#request.actor =/= Actor]};
        {start_context, [N]} -> Model#model{contexts = Contexts#{N => up}};
        {F, [N]} when F =:= stop_context; F =:= kill_context ->
            fault(down, {context, N}, Model#model{contexts = maps:remove(N, Contexts)});
        {kill_place, [N]} -> fault(down, {place, N}, Model);
        {interrupt, [Target]} -> fault(interrupt, Target, Model);
        {restart, []} -> fault(down, all, Model#model{contexts = #{}});
        _ -> Model
    end.

%% These have no form with a context.
real_target(_, parallel) -> implicit;
real_target(_, bind) -> implicit;
real_target(_, {Op, _}) when Op =:= task; Op =:= asking_task; Op =:= items -> implicit;
real_target(Target, _) -> Target.

%% What has no context of its own may be in any of the router's.
fault(Fault, Where, #model{pending = Pending} = Model) ->
    %% A handle's methods run in any context of the router where all of them share an interpreter.
    IsHit = fun(#request{target = implicit}) -> Where =:= all orelse element(1, Where) =:= place;
               (#request{target = Where1}) when Where1 =:= Where -> true;
               (#request{op = handle}) -> Where =:= all orelse element(1, Where) =:= place;
               (_) -> Where =:= all
            end,
    Model#model{pending = [case IsHit(R) of
                               true -> R#request{faults = [Fault | R#request.faults]};
                               false -> R
                           end || R <- Pending]}.

postcondition(Model, {call, _, settle, [Actor]}, Result) ->
    note_wrong(unexpected(Actor, Model, Result));
postcondition(_, {call, _, interrupt, _}, Result) -> Result =:= ok orelse Result =:= not_running;
postcondition(_, _, Result) -> Result =:= ok.

note_wrong([]) -> true;
note_wrong(Wrong) -> put(wrong, Wrong), false.

%% What is wrong with the outcomes of an actor's requests.
unexpected(Actor, #model{pending = Pending, holds = Holds}, {settled, Outcomes, Stray}) ->
    [count(kind(Outcome), 1) || {_, {Outcome, _}} <- Outcomes],
    [{stray, Stray} || Stray =/= []] ++
    [{Request, Outcome}
     || #request{actor = A, id = Id} = Request <- Pending, A =:= Actor,
        Outcome <- [proplists:get_value(Id, Outcomes, none)],
        not is_possible(Request, Outcome, Holds)];
unexpected(_, _, Other) ->
    [Other].

is_possible(Request, {Outcome, Ms}, Holds) ->
    is_punctual(Request, Ms) andalso is_allowed(Outcome, Request, Holds);
is_possible(_, none, _) ->
    false.

is_punctual(#request{timeout = ?LONG}, _) -> true;
is_punctual(#request{op = {items, _}}, _) -> true; % has its own time-out for each item
is_punctual(#request{timeout = Timeout, op = Op}, Ms) -> Ms =< steps(Op) * Timeout + ?LATE.

steps({spawned, _}) -> 1;
steps(_) -> 6.

is_allowed({error, Reason}, Request, Holds) -> is_reason(Reason, Request, Holds);
is_allowed({all, Results}, Request, Holds) ->
    lists:all(fun(Result) -> is_allowed(Result, Request, Holds) end, Results);
is_allowed(Value, #request{op = Op}, _) -> Value =:= value(Op).

is_reason(timeout, #request{timeout = Timeout, op = Op}, _) -> Timeout < ?LONG orelse Op =:= abandoned;
is_reason({overloaded, _, _}, #request{timeout = Timeout, op = Op}, _) ->
    Timeout < ?LONG orelse Op =:= fail_when_full;
is_reason(max_concurrent, #request{timeout = Timeout, op = {slot, _}}, _) -> Timeout < ?LONG;
is_reason(interrupted, #request{faults = Faults}, _) -> lists:member(interrupt, Faults);
%% What a coroutine that was cancelled, an interrupted one, makes of it.
is_reason({'CancelledError', _}, #request{faults = Faults}, _) -> Faults =/= [];
is_reason({context_down, Why}, #request{faults = Faults}, Holds) ->
    lists:member(down, Faults) orelse (Why =:= replaced andalso Holds andalso get(mode) =:= owngil);
%% A handle of the interpreter that was replaced while the request waited: it is of no other that lives.
is_reason({badarg, _, other_interpreter}, #request{op = Op}, Holds) ->
    Holds andalso get(mode) =:= owngil andalso (Op =:= handle orelse element(1, Op) =:= items);
is_reason({'ValueError', "boom"}, #request{op = boom}, _) -> true;
is_reason({'CallbackError', _}, #request{op = exit_of_callback}, _) -> true;
%% The request above goes on for a moment when the one below was hit.
is_reason({'CallbackError', _}, #request{op = Op, faults = Faults, timeout = Timeout}, Holds) ->
    asks(Op) andalso (Faults =/= [] orelse Timeout < ?LONG orelse Holds);
is_reason({'Error', _}, #request{op = Op, faults = Faults}, _) ->
    (asks(Op) orelse is_task(Op)) andalso lists:member(down, Faults);
%% The namespace went with its context.
is_reason({'NameError', _}, #request{op = remember, faults = Faults}, Holds) ->
    lists:member(down, Faults) orelse (Holds andalso get(mode) =:= owngil);
is_reason({no_context, _}, #request{faults = Faults}, _) -> lists:member(down, Faults);
is_reason(_, _, _) -> false.

asks({Name, _}) -> lists:member(Name, [ask, deeper, asking_task]);
asks(Op) -> Op =:= ask_in_thread.

is_task({Name, _}) -> lists:member(Name, [task, asking_task]);
is_task(_) -> false.

value({Add, X}) when Add =:= add; Add =:= add_inline -> {ok, X + 1};
value({nap, _}) -> {ok, <<"napped">>};
value({Spin, _}) when Spin =:= spin; Spin =:= spin_inline -> {ok, <<"spun">>};
value({stubborn, _}) -> {ok, <<"stubborn">>};
value({hold, _}) -> {ok, <<"held">>};
value(remember) -> remembered;
value({ask, Ms}) -> {ok, Ms};
value({deeper, N}) -> {ok, N};
value(ask_in_thread) -> {ok, 1};
value({task, Ms}) -> {ok, Ms};
value({asking_task, Ms}) -> {ok, Ms};
value({items, N}) -> {ok, lists:seq(0, N - 1)};
value(handle) -> {ok, 2};
value(cast) -> ok;
value({slot, _}) -> released;
value(fail_when_full) -> {ok, 3};
value({spawned, _}) -> {ok, 3};
value({abandoned, _}) -> {ok, <<"napped">>};
value(parallel) -> {ok, 4.0};
value(bind) -> {ok, 3};
value(_) -> none.

%% ------------------------------------------------------------------------------------------
%% The world
%% ------------------------------------------------------------------------------------------

%% Processes that requests and contexts belong to; named in a table.
open_world() ->
    ?MODULE = ets:new(?MODULE, [named_table, public]),
    register_functions(),
    %% What is made once for a VM is there before anything is counted.
    [{ok, 3} = at(Place, fun(Ctx) -> py:call(Ctx, '__main__', add, [2]) end) || Place <- lists:seq(1, ?CONTEXTS)],
    py_modes:wait_until(fun() -> namespaces() =:= 0 end),
    ets:insert(?MODULE, [{threads, py_modes:threads()}, {own_threads, py_modes:own_threads()}]).

at(Place, Fun) ->
    alone(fun() -> Fun(py:context(Place)) end).

%% In a process of its own, and that is gone afterwards.
alone(Fun) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({alone, Fun()}) end),
    receive
        {'DOWN', Monitor, process, Pid, {alone, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> {error, Reason}
    end.

register_functions() ->
    ok = py:register_function(slowly, fun([Ms]) -> timer:sleep(Ms), Ms end),
    ok = py:register_function(one, fun([]) -> 1 end),
    ok = py:register_function(leave, fun([]) -> exit(left) end),
    ok = py:register_function(deeper, fun([N]) ->
        {ok, Depth} = py:call('__main__', deeper, [N]),
        Depth
    end).

preload() ->
    <<"import asyncio, erlang, itertools, threading, time\n"
      "def add(x): return x + 1\n"
      "def boom(): raise ValueError('boom')\n"
      "def nap(ms): time.sleep(ms / 1000); return 'napped'\n"
      "def spin(ms):\n"
      "    end = time.monotonic() + ms / 1000\n"
      "    while time.monotonic() < end: pass\n"
      "    return 'spun'\n"
      "def stubborn(ms):\n"
      "    end = time.monotonic() + ms / 1000\n"
      "    while time.monotonic() < end:\n"
      "        try:\n"
      "            while time.monotonic() < end: pass\n"
      "        except BaseException: pass\n"
      "    return 'stubborn'\n"
      "def hold(ms):\n" % C code that keeps the GIL for about that long
      "    start = time.perf_counter()\n"
      "    sum(range(10 ** 5))\n"
      "    sum(range(int(10 ** 5 * ms / 1000 / (time.perf_counter() - start))))\n"
      "    return 'held'\n"
      "def ask(ms): return erlang.call('slowly', ms)\n"
      "def leave(): return erlang.call('leave')\n"
      "def deeper(n): return 0 if n == 0 else 1 + erlang.call('deeper', n - 1)\n"
      "def ask_in_thread():\n"
      "    found = []\n"
      "    thread = threading.Thread(target=lambda: found.append(erlang.call('one')))\n"
      "    thread.start()\n"
      "    thread.join()\n"
      "    if not found: raise erlang.Error('the thread was not answered')\n"
      "    return found[0]\n"
      "async def task(ms):\n"
      "    await asyncio.sleep(ms / 1000)\n"
      "    return ms\n"
      "async def asking_task(ms): return await erlang.async_call('slowly', ms)\n"
      "def items(n):\n"
      "    for i in range(n): yield i\n">>.

begin_run() ->
    [true = ets:match_delete(?MODULE, {{Kind, '_'}, '_'}) || Kind <- [actor, context]],
    erase(wrong),
    _ = py_semaphore:set_max_concurrent(3),
    [start_actor(N) || N <- lists:seq(1, ?ACTORS)],
    ok.

namespaces() ->
    element(1, py_nif:counters()).

named(Name) ->
    case ets:lookup(?MODULE, Name) of
        [{_, Pid}] -> Pid;
        [] -> spawn(fun() -> ok end) % no context, and never was
    end.

start_actor(N) ->
    true = ets:insert(?MODULE, {{actor, N}, spawn(fun() -> actor_loop([]) end)}),
    ok.

%% The programs of a file that note/1 wrote, or that a failure named, once more.
replay(Mode, Program) ->
    put(mode, Mode),
    open_world(),
    ok = logger:add_primary_filter(?MODULE, {fun silence/2, []}),
    run(Mode, Program) orelse get(wrong).

%% Does one thing after the other; what is not from the program is a stray message.
actor_loop(Outcomes) ->
    receive
        {do, Id, Fun} ->
            {Ms, Outcome} = py_modes:elapsed(fun() -> outcome(Fun) end),
            actor_loop([{Id, {Outcome, Ms}} | Outcomes]);
        {settle, From, Ref} ->
            From ! {Ref, {settled, Outcomes, strays()}},
            actor_loop([])
    end.

outcome(Fun) ->
    try Fun()
    catch Class:Reason:Stack -> {crashed, Class, Reason, Stack}
    end.

strays() ->
    [M || M <- py_modes:messages(), not (is_tuple(M) andalso lists:member(element(1, M), [do, settle]))].

kill(Pid) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% ------------------------------------------------------------------------------------------
%% The commands
%% ------------------------------------------------------------------------------------------

request(Id, Actor, Target, Op, Timeout) ->
    Ctx = case Target of
              implicit -> implicit;
              {place, N} -> py:context(N);
              {context, _} -> named(Target)
          end,
    named({actor, Actor}) ! {do, Id, fun() -> do(Op, Ctx, Timeout) end},
    ok.

settle(Actor) ->
    Pid = named({actor, Actor}),
    Ref = monitor(process, Pid),
    Pid ! {settle, self(), Ref},
    receive
        {Ref, Settled} -> demonitor(Ref, [flush]), Settled;
        {'DOWN', Ref, process, Pid, Reason} -> {died, Actor, Reason}
    after 2 * ?LONG ->
        {hangs, Actor, process_info(Pid, current_stacktrace)}
    end.

kill_actor(Actor) ->
    ok = kill(named({actor, Actor})),
    start_actor(Actor).

pause(Ms) ->
    timer:sleep(Ms).

limit(N) ->
    py_semaphore:set_max_concurrent(N).

start_context(N) ->
    Self = self(),
    {Holder, Monitor} =
        spawn_monitor(fun() ->
            process_flag(trap_exit, true),
            {ok, Ctx} = py_context:new(#{mode => get_mode()}),
            Self ! {self(), Ctx},
            receive {'EXIT', Ctx, _} -> ok end
        end),
    receive
        {Holder, Ctx} ->
            demonitor(Monitor, [flush]),
            true = ets:insert(?MODULE, {{context, N}, Ctx}),
            ok;
        {'DOWN', Monitor, process, Holder, Reason} ->
            Reason
    end.

get_mode() ->
    {ok, Mode} = application:get_env(erlang_python, context_mode),
    Mode.

stop_context(N) ->
    py_context:stop(named({context, N})).

kill_context(N) ->
    kill(named({context, N})).

%% Until the router has another one in its place.
kill_place(N) ->
    Ctx = py:context(N),
    ok = kill(Ctx),
    py_modes:wait_until(fun() -> py:context(N) =/= Ctx end).

interrupt({place, N}) -> py:interrupt(py:context(N));
interrupt({context, _} = Name) -> py_context:interrupt(named(Name)).

restart() ->
    ok = application:stop(erlang_python),
    {ok, _} = application:ensure_all_started(erlang_python),
    register_functions(),
    [py_context:stop(named({context, N})) || N <- lists:seq(1, ?CONTEXTS)],
    ok.

%% ------------------------------------------------------------------------------------------
%% What an actor does
%% ------------------------------------------------------------------------------------------

do(remember, Ctx, T) ->
    N = erlang:unique_integer(),
    case exec(Ctx, <<"n = ", (integer_to_binary(N))/binary>>, T) of
        ok ->
            case eval(Ctx, <<"n">>, T) of
                {ok, N} -> remembered;
                Other -> Other
            end;
        Error ->
            Error
    end;
do({add_inline, X}, Ctx, T) -> call(Ctx, '__main__', add, [X], #{timeout => T, inline => true});
do({spin_inline, Ms}, Ctx, T) -> call(Ctx, '__main__', spin, [Ms], #{timeout => T, inline => true});
do(handle, Ctx, T) ->
    case call(Ctx, builtins, list, [[1, 1]], #{timeout => T, return => handle}) of
        {ok, Handle} -> py:call(Handle, count, [1], #{}, T);
        Error -> Error
    end;
do(cast, implicit, _T) -> py:cast(math, sqrt, [4]);
do(cast, Ctx, _T) -> py:cast(Ctx, math, sqrt, [4]);
do({slot, Ms}, _Ctx, T) ->
    case py_semaphore:acquire(T) of
        ok -> timer:sleep(Ms), ok = py_semaphore:release(), released;
        Error -> Error
    end;
do(fail_when_full, Ctx, T) -> call(Ctx, '__main__', add, [2], #{timeout => T, overload => fail});
do(exit_of_callback, Ctx, T) -> call(Ctx, '__main__', leave, [], T);
do(parallel, _Ctx, T) ->
    {ok, Results} = py:parallel([{math, sqrt, [16]} || _ <- lists:seq(1, 4)], #{timeout => T}),
    {all, Results};
do({spawned, N}, Ctx, T) ->
    Refs = [spawn_call(Ctx, '__main__', add, [2], T) || _ <- lists:seq(1, N)],
    {all, [py:await(Ref, T) || Ref <- Refs]};
do({abandoned, Ms}, Ctx, T) ->
    Ref = spawn_call(Ctx, '__main__', nap, [Ms], T),
    case py:await(Ref, Ms div 2) of
        {error, timeout} -> {ok, <<"napped">>};
        Other -> Other
    end;
do({task, Ms}, _Ctx, T) -> py:await(py:async_call('__main__', task, [Ms], #{}, T), ?LONG);
do({asking_task, Ms}, _Ctx, T) -> py:await(py:async_call('__main__', asking_task, [Ms], #{}, T), ?LONG);
do({items, N}, _Ctx, _T) -> py:stream('__main__', items, [N]);
do(bind, _Ctx, T) ->
    case py_context_router:bind_context(1) of
        ok ->
            Result = py:call('__main__', add, [2], #{}, T),
            ok = py_context_router:unbind_context(),
            Result;
        NotStarted ->
            NotStarted
    end;
do(ask_in_thread, Ctx, T) -> call(Ctx, '__main__', ask_in_thread, [], T);
do(boom, Ctx, T) -> call(Ctx, '__main__', boom, [], T);
do({Name, Arg}, Ctx, T) -> call(Ctx, '__main__', Name, [Arg], T).

call(implicit, M, F, A, T) -> py:call(M, F, A, #{}, T);
call(Ctx, M, F, A, T) -> py:call(Ctx, M, F, A, T).

spawn_call(implicit, M, F, A, T) -> py:spawn_call(M, F, A, #{}, T);
spawn_call(Ctx, M, F, A, T) -> py:spawn_call(Ctx, M, F, A, T).

exec(implicit, Code, T) -> py:exec(Code, T);
exec(Ctx, Code, T) -> py:exec(Ctx, Code, T).

eval(implicit, Code, T) -> py:eval(Code, #{}, T);
eval(Ctx, Code, T) -> py:eval(Ctx, Code, #{}, T).

%% ------------------------------------------------------------------------------------------
%% The end of a program
%% ------------------------------------------------------------------------------------------

finish(#model{contexts = Contexts} = Model) ->
    Wrong = lists:append([unexpected(N, Model, settle(N)) || N <- lists:seq(1, ?ACTORS)]),
    [ok = kill(named({actor, N})) || N <- lists:seq(1, ?ACTORS)],
    Threads = py_modes:threads(),
    [{threads, Threads} || Threads > ets:lookup_element(?MODULE, threads, 2) + ?THREADS] ++
    Wrong ++ lists:append([at_rest(py:context(N)) || N <- lists:seq(1, ?CONTEXTS)]
                          ++ [at_rest(named({context, N})) || N <- maps:keys(Contexts)]) ++
    [{message, Message} || Message <- py_modes:messages()] ++
    [Bad || [ok = stop_context(N) || N <- maps:keys(Contexts)] =/= none, Bad <- nothing_left()].

at_rest(Ctx) ->
    case alone(fun() -> py:eval(Ctx, <<"1 + 1">>, #{}, ?LONG) end) of
        {ok, 2} ->
            soon({not_at_rest, Ctx}, fun() ->
                maps:with([parked, queued, running], py_context:info(Ctx))
            end, #{parked => 0, queued => 0, running => undefined});
        Other ->
            [{does_not_serve, Ctx, Other}]
    end.

nothing_left() ->
    {_, Max, _} = py_nif:slots(),
    soon(slots, fun py_nif:slots/0, {0, Max, 0}) ++
    soon(namespaces, fun namespaces_in_use/0, 0).

%% Those that only garbage holds, here or there, are not in use.
namespaces_in_use() ->
    Found = namespaces(),
    Found =:= 0 orelse
        [garbage_collect(Ctx) andalso alone(fun() -> py:gc(Ctx) end) || {Ctx, _} <- py_context:all()],
    Found.

soon(What, Fun, Value) ->
    try py_modes:wait_until(fun() -> Fun() =:= Value end) of
        ok -> []
    catch
        error:{waited_in_vain, _} -> [{What, Fun(), expected, Value}]
    end.

%% How often what happened.
count(What, N) ->
    ets:update_counter(?MODULE, {count, What}, N, {{count, What}, 0}).

counted() ->
    lists:sort([{What, N} || [What, N] <- ets:match(?MODULE, {{count, '$1'}, '$2'})]).

kind({error, {Reason, replaced}}) -> {Reason, replaced};
kind({error, Reason}) when is_tuple(Reason) -> element(1, Reason);
kind({error, Reason}) -> Reason;
kind({all, Results}) -> case [R || R = {error, _} <- Results] of [] -> ok; [Error | _] -> kind(Error) end;
kind(_) -> ok.

%% Nothing is printed; interpreters that were left behind are counted.
silence(#{msg := {_, [_, "its interpreter was left behind" ++ _]}}, _) -> count(left_behind, 1), stop;
silence(_, _) -> stop.

%% Of all runs: the threads of the VM when nothing is left to be served. Each context may have a loop, and so
%% may each interpreter that was left behind.
threads_at_rest() ->
    Loops = ?CONTEXTS + proplists:get_value(left_behind, counted(), 0),
    Limit = ets:lookup_element(?MODULE, threads, 2) + Loops,
    try py_modes:wait_until(fun() -> py_modes:threads() =< Limit end, 20000)
    catch error:{waited_in_vain, _} ->
        {py_modes:threads(), Limit, py_modes:own_threads(), since, ets:lookup_element(?MODULE, own_threads, 2)}
    end.
