-module(cpu).

%% @doc Do two CPU-bound tasks use two cores? The floor is the same two tasks one after the other: half of its time is
%% perfect, all of it is no parallelism. The Erlang row says what the machine gives two processes.

-export([about/0, rows/2, settings/1]).

-define(MS, 100).

-spec about() -> string().
about() -> "do two CPU-bound tasks use two cores".

-spec settings(atom()) -> [{atom(), term()}].
settings(_Mode) ->
    [{num_contexts, 4}, {preload, <<"def burn(n):\n"
                                    "    x = 0\n"
                                    "    for i in range(n): x = (x + i * i) % 1000003\n"
                                    "    return x\n">>}].

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, _Options) ->
    [Ctx1, Ctx2] = [py:context(I) || I <- [1, 2]],
    Turns = turns(fun(N) -> python(Ctx1, N) end),
    ErlangTurns = turns(fun erlang/1),
    [row("two Erlang processes", fun(_) -> erlang(ErlangTurns) end, fun(_) -> erlang(ErlangTurns) end),
     (row("two Python tasks, two contexts", fun(1) -> python(Ctx1, Turns); (2) -> python(Ctx2, Turns) end,
          fun(_) -> python(Ctx1, Turns) end))#{tolerance => 1.5}].

%% Both at once, or one after the other; what one of the two takes.
row(Name, Task, TaskAlone) ->
    #{name => Name, times => 2, rounds => 5, run => fun(2) -> both(Task) end,
      floor => {"one after the other", fun(2) -> TaskAlone(1), TaskAlone(2), ok end}}.

both(Task) ->
    Monitors = [element(2, spawn_monitor(fun() -> Task(I) end)) || I <- [1, 2]],
    [receive {'DOWN', Monitor, process, _, normal} -> ok end || Monitor <- Monitors],
    ok.

%% So many turns take about so long.
turns(Task) ->
    Turns = 100000,
    _ = Task(Turns),
    max(1, round(Turns * ?MS * 1000000 / bench:timed(fun() -> Task(Turns) end))).

python(Ctx, N) ->
    {ok, _} = py:call(Ctx, '__main__', burn, [N]).

erlang(N) -> erlang(N, 0).

erlang(0, X) -> X;
erlang(N, X) -> erlang(N - 1, (X + N * N) rem 1000003).
