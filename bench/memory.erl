-module(memory).

%% @doc What does one more of each cost in resident memory? Each in a fresh VM. The floor is an Erlang process that waits,
%% which a namespace, a queued request and a parked thread include.

-export([about/0, rows/2, settings/1]).
%% In that VM.
-export([grown/3]).

-define(PROCESSES, 10000).
-define(DEPTH, 400).

-spec about() -> string().
about() -> "what does one more of each cost in resident memory".

-spec settings(atom()) -> not_started.
settings(_Mode) -> not_started.

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(Mode, Options) ->
    Rounds = case Options of #{short := true} -> 1; _ -> 3 end,
    Floor = {"an Erlang process", fun(1) -> {each, in_peer(Mode, fun processes/1, ?PROCESSES)} end},
    [#{name => Name, unit => memory, times => 1, rounds => Rounds, floor => Floor,
       run => fun(1) -> {each, in_peer(Mode, What, Count)} end}
     || {Name, What, Count} <- [{"context", fun contexts/1, 16},
                                {"process with a namespace", fun namespaces/1, ?PROCESSES},
                                {"queued request and its caller", fun requests/1, ?PROCESSES},
                                {"level of nested callbacks, its thread parked", fun levels/1, ?DEPTH}]].

in_peer(Mode, What, Count) ->
    bench:in_peer(fun() -> ?MODULE:grown(Mode, What, Count) end).

%% Bytes that each of so many adds. One of them is made before, so that what is made once does not count.
-spec grown(atom(), fun((pos_integer()) -> pos_integer()), pos_integer()) -> number().
grown(Mode, What, Count) ->
    ok = application:load(erlang_python),
    [ok = application:set_env(erlang_python, Key, Value)
     || {Key, Value} <- [{context_mode, Mode}, {num_contexts, 2}, {max_callback_depth, 2 * ?DEPTH},
                         {preload, <<"import erlang\n"
                                     "def deeper(n): return erlang.call('deeper', n)\n">>}]],
    {ok, _} = application:ensure_all_started(erlang_python),
    _ = What(1),
    Before = bench:rss(),
    max(1, What(Count) - Before) / Count.

processes(Count) ->
    held(Count, fun() -> ok end).

namespaces(Count) ->
    held(Count, fun() -> ok = py:exec(<<"x = 1">>) end).

%% The memory when so many processes did that and wait.
held(Count, Fun) ->
    Self = self(),
    [spawn_link(fun() -> Fun(), Self ! ready, receive stop -> ok end end) || _ <- lists:seq(1, Count)],
    [receive ready -> ok end || _ <- lists:seq(1, Count)],
    bench:rss().

contexts(Count) ->
    [{ok, _} = py_context:start_link(I, py:execution_mode()) || I <- lists:seq(1, Count)],
    bench:rss().

%% All but one slot are taken away, and that one is held.
requests(Count) ->
    Max = py_semaphore:max_concurrent(),
    ok = py_semaphore:set_max_concurrent(1),
    ok = py_semaphore:acquire(infinity),
    Pids = [spawn_monitor(fun() -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, infinity) end)
            || _ <- lists:seq(1, Count)],
    wait_for_line(Count),
    Rss = bench:rss(),
    ok = py_semaphore:set_max_concurrent(Max),
    ok = py_semaphore:release(),
    [receive {'DOWN', Monitor, process, _, normal} -> ok end || {_, Monitor} <- Pids],
    Rss.

wait_for_line(Count) ->
    case py_nif:slots() of
        {_, _, Count} -> ok;
        _ -> timer:sleep(1), wait_for_line(Count)
    end.

%% The memory at the bottom.
levels(Count) ->
    ok = py:register_function(deeper, fun([0]) -> bench:rss();
                                         ([N]) -> {ok, Rss} = py:call('__main__', deeper, [N - 1]), Rss end),
    {ok, Rss} = py:call('__main__', deeper, [Count - 1], #{}, infinity),
    Rss.
