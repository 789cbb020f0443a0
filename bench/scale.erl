-module(scale).

%% @doc Does the cost of one stay the same when there are many? Curves over the number of callers that wait, of messages
%% in the caller's mailbox, of contexts, of namespaces, and over the depth of nested callbacks.

-export([about/0, rows/2, settings/1]).

%% Over contexts, namespaces and levels there is a knee; README.md says why.
-define(LIMIT, 2).
-define(KNEE, 3).
-define(KNEE_OF_CONTEXTS, 4).
-define(CALLERS, 64).

-spec about() -> string().
about() -> "does the cost of one stay the same when there are many".

-spec settings(atom()) -> [{atom(), term()}].
settings(_Mode) ->
    [{max_callback_depth, 2000},
     {preload, <<"import erlang\n"
                 "def deeper(n): return 0 if n == 0 else erlang.call('deeper', n - 1)\n">>}].

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, Options) ->
    ok = py:register_function(deeper, fun([N]) -> {ok, 0} = py:call('__main__', deeper, [N]), 0 end),
    Most = case Options of #{short := true} -> 10000; _ -> 100000 end,
    Contexts = case Options of #{short := true} -> [1, 4, 16]; _ -> [1, 4, 16, 64] end,
    Flat = [waiting(N) || N <- bench:powers(1, Most)]
        ++ [mailbox(N) || N <- [0 | bench:powers(10, Most)]],
    Bent = [nested(N) || N <- bench:powers(1, Most div 100)]
        ++ [namespaces(N) || N <- bench:powers(1, Most)],
    [Row#{limit => ?LIMIT} || Row <- Flat] ++ [Row#{limit => ?KNEE} || Row <- Bent]
        ++ [(contexts(N))#{limit => ?KNEE_OF_CONTEXTS} || N <- Contexts].

%% ------------------------------------------------------------------------------------------
%% Callers that wait in line
%% ------------------------------------------------------------------------------------------

%% The time from the moment when they may start; the same number of processes that answer a message is the floor.
%% Few are let through several times, so that as many are timed as with many.
waiting(Count) ->
    Times = max(1, 1000 div Count),
    #{name => "call, callers that wait", axis => "waiting callers", x => Count, times => 1, rounds => 5,
      run => fun(1) -> mean(Times, Count, fun() -> in_line(Count) end) end,
      floor => {"processes that answer", fun(1) -> mean(Times, Count, fun() -> answer(Count) end) end}}.

mean(Times, Count, Fun) ->
    {each, lists:sum([Fun() || _ <- lists:seq(1, Times)]) / (Times * Count)}.

in_line(Count) ->
    Max = py_semaphore:max_concurrent(),
    ok = py_semaphore:set_max_concurrent(1),
    ok = py_semaphore:acquire(infinity),
    Self = self(),
    [spawn_link(fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, infinity), Self ! done end)
     || _ <- lists:seq(1, Count)],
    wait_for_line(Count),
    bench:timed(fun() ->
        ok = py_semaphore:set_max_concurrent(Max),
        ok = py_semaphore:release(),
        [receive done -> ok end || _ <- lists:seq(1, Count)]
    end).

wait_for_line(Count) ->
    case py_nif:slots() of
        {_, _, Count} -> ok;
        _ -> erlang:yield(), wait_for_line(Count)
    end.

answer(Count) ->
    Self = self(),
    Pids = [spawn_link(fun() -> receive go -> Self ! done end end) || _ <- lists:seq(1, Count)],
    bench:timed(fun() ->
        [Pid ! go || Pid <- Pids],
        [receive done -> ok end || _ <- Pids]
    end).

%% ------------------------------------------------------------------------------------------
%% The mailbox, callbacks
%% ------------------------------------------------------------------------------------------

%% The first to receive has the VM move the messages into the process: that is not the call's.
mailbox(Count) ->
    #{name => "call, a full mailbox", axis => "messages in the caller's mailbox", x => Count,
      prepare => fun() -> [self() ! {noise, I} || I <- lists:seq(1, Count)], floors:thread(1), garbage_collect() end,
      run => fun call/1, floor => {"hand-off, the same mailbox", fun floors:thread/1}}.

call(0) -> ok;
call(N) -> {ok, 4.0} = py:call(math, sqrt, [16]), call(N - 1).

nested(Depth) ->
    #{name => "nested callback", axis => "levels of callbacks", x => Depth, floor => bench:thread(),
      slice => Depth, run => fun(N) -> levels(Depth, max(1, N div Depth)) end}.

levels(Depth, Times) ->
    Time = bench:timed(fun() ->
        bench:repeat(fun() -> {ok, 0} = py:call('__main__', deeper, [Depth], #{}, infinity) end, Times)
    end),
    {each, Time / (Depth * Times)}.

%% ------------------------------------------------------------------------------------------
%% Contexts, namespaces
%% ------------------------------------------------------------------------------------------

%% What `setup' makes is linked to the process that lives as long as the question; those who run find it in a persistent
%% term.
contexts(Count) ->
    #{name => "call, 64 callers over contexts", axis => "contexts", x => Count,
      setup => fun() -> grow(contexts, Count, fun context/0) end,
      run => fun(N) -> over_contexts(Count, N) end,
      floor => {"hand-offs", maps:get(run, bench:callers(?CALLERS, fun floors:thread/1))}}.

context() ->
    {ok, Ctx} = py_context:start_link(1, py:execution_mode()),
    Ctx.

over_contexts(Count, N) ->
    Contexts = element(2, persistent_term:get({?MODULE, contexts})),
    Next = counters:new(1, []),
    #{run := Run} = bench:callers(?CALLERS, fun(Times) ->
        ok = counters:add(Next, 1, 1),
        Ctx = element(1 + counters:get(Next, 1) rem Count, Contexts),
        bench:repeat(fun() -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16]) end, Times)
    end),
    Run(N).

%% An eval by one of so many processes that have a namespace in the same context, each in its turn. The floor asks it
%% for nothing.
namespaces(Count) ->
    #{name => "eval, one of many namespaces", axis => "namespaces", x => Count,
      setup => fun() -> Ctx = py:context(1), grow(namespaces, Count, fun() -> holder(Ctx) end) end,
      run => fun(N) -> ask(eval, Count, N) end,
      floor => {"message to one of the processes", fun(N) -> ask(nothing, Count, N) end}}.

holder(Ctx) ->
    Self = self(),
    Pid = spawn_link(fun() -> ok = py:exec(Ctx, <<"x = 1">>), Self ! ready, hold(Ctx) end),
    receive ready -> Pid end.

hold(Ctx) ->
    receive
        {eval, From} -> {ok, 1} = py:eval(Ctx, <<"x">>), From ! done;
        {nothing, From} -> From ! done
    end,
    hold(Ctx).

ask(What, Count, N) ->
    {_, Pids} = persistent_term:get({?MODULE, namespaces}),
    ask(What, Pids, Count, N).

ask(_What, _Pids, _Count, 0) -> ok;
ask(What, Pids, Count, N) ->
    element(1 + N rem Count, Pids) ! {What, self()},
    receive done -> ask(What, Pids, Count, N - 1) end.

%% So many are there after this.
grow(What, Count, Make) ->
    {Has, Made} = persistent_term:get({?MODULE, What}, {0, {}}),
    More = [Make() || _ <- lists:seq(Has + 1, Count)],
    persistent_term:put({?MODULE, What}, {max(Has, Count), list_to_tuple(tuple_to_list(Made) ++ More)}).
