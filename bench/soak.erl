#!/usr/bin/env escript
%% -*- erlang -*-
%%! +sbwt none
%% Does anything grow, hang or get lost under a mixed load with kills and time-outs?
%%
%%   bin/soak MINUTES [Mode]
%%
%% 200 processes at a time make a few requests each and end; one is killed every few milliseconds; another takes
%% its place. At the end of each period (a minute; a sixth of shorter runs) they stop, and what is left is measured at rest:
%% resident memory, threads, file descriptors, Python objects behind handles, namespaces, slots, atoms. Each
%% value is checked; an error that the request cannot have is a failure, and so is what has grown between the warm-up (a
%% third of the run) and the end. Where contexts share the main interpreter they are killed too; elsewhere CPython
%% itself keeps some memory of each interpreter that ends.
-module(soak).
-mode(compile).
-export([main/1]).

-define(WORKERS, 200).
-define(KILL_EVERY, 5).        % ms
-define(CONTEXT_EVERY, 3000).  % ms
-define(LONG, 30000).
-define(SETTLE, 30000).
-define(MB, 1048576).

main([Minutes | Mode]) ->
    Root = filename:dirname(filename:dirname(filename:absname(escript:script_name()))),
    true = code:add_patha(filename:join(Root, "_build/default/lib/erlang_python/ebin")),
    logger:set_primary_config(level, error),
    ok = application:load(erlang_python),
    Settings = [{preload, preload()} | [{context_mode, list_to_atom(M)} || M <- Mode]],
    [ok = application:set_env(erlang_python, Key, Value) || {Key, Value} <- Settings],
    {ok, _} = application:ensure_all_started(erlang_python),
    ets:new(?MODULE, [named_table, public, {write_concurrency, true}]),
    ok = py:register_function(echo, fun([X]) -> X end),
    ok = py:register_function(slowly, fun([Ms]) -> timer:sleep(Ms), Ms end),
    ok = py:register_function(deeper, fun([N]) -> {ok, D} = py:call('__main__', deeper, [N]), D end),
    Seconds = 60 * list_to_integer(Minutes),
    Period = min(60, Seconds div 6),
    {ok, Version} = py:version(),
    io:format("CPython ~s, OTP ~s, ~p, ~p schedulers, ~p periods of ~p s~n~n",
              [Version, erlang:system_info(otp_release), py:execution_mode(), erlang:system_info(schedulers),
               Seconds div Period, Period]),
    io:format("    s   req/s  procs  killed   p50 ms   p99 ms  RSS MB threads  fds objects  names  slots  atoms  errors~n"),
    Rows = [period(N, Period) || N <- lists:seq(1, Seconds div Period)],
    verdict(Rows).

%% ------------------------------------------------------------------------------------------
%% A period
%% ------------------------------------------------------------------------------------------

period(N, Seconds) ->
    true = ets:delete_all_objects(?MODULE),
    End = erlang:monotonic_time(millisecond) + 1000 * Seconds,
    load(End, new_workers(#{}), 0),
    Row = at_rest(),
    print(N * Seconds, Seconds, Row),
    Row.

new_workers(Workers) when map_size(Workers) < ?WORKERS ->
    {Pid, Monitor} = spawn_monitor(fun worker/0),
    count(processes),
    new_workers(Workers#{Pid => Monitor});
new_workers(Workers) ->
    Workers.

load(End, Workers, Round) ->
    receive
        {'DOWN', _, process, Pid, Reason} ->
            Reason =:= normal orelse Reason =:= killed orelse count({wrong, Reason}),
            load(End, new_workers(maps:remove(Pid, Workers)), Round)
    after ?KILL_EVERY ->
        case erlang:monotonic_time(millisecond) < End of
            true ->
                exit(lists:nth(rand:uniform(?WORKERS), maps:keys(Workers)), kill),
                count(killed),
                Round rem (?CONTEXT_EVERY div ?KILL_EVERY) =:= 0 andalso kill_context(),
                load(End, Workers, Round + 1);
            false ->
                [exit(Pid, kill) || Pid <- maps:keys(Workers)],
                [receive {'DOWN', Monitor, process, _, _} -> ok end || Monitor <- maps:values(Workers)]
        end
    end.

kill_context() ->
    case lists:member(py:execution_mode(), [worker, multi_executor, free_threaded]) of
        true ->
            Contexts = py_context_router:contexts(),
            exit(lists:nth(rand:uniform(length(Contexts)), Contexts), kill),
            count(contexts);
        false ->
            ok
    end.

worker() ->
    [one(rand:uniform(100)) || _ <- lists:seq(1, rand:uniform(20))].

one(N) when N =< 35 ->
    {Us, Result} = timer:tc(fun() -> py:call(math, sqrt, [N * N]) end),
    latency(Us),
    seen(Result, {ok, float(N)}, []);
one(N) when N =< 45 -> seen(py:eval(<<"n * 2">>, #{n => N}), {ok, 2 * N}, []);
one(N) when N =< 50 -> seen(py:exec(<<"x = [0] * 1000">>), ok, []);
one(N) when N =< 60 -> seen(py:call('__main__', ask, [N]), {ok, N}, []);
one(N) when N =< 62 -> seen(py:call('__main__', deeper, [3]), {ok, 3}, []);
one(N) when N =< 70 -> seen(py:await(py:async_call('__main__', task, [N])), {ok, N}, []);
one(N) when N =< 72 -> seen(py:await(py:async_call('__main__', asking_task, [5])), {ok, 5}, []);
one(N) when N =< 76 -> seen(py:stream('__main__', items, [100]), {ok, lists:seq(0, 99)}, []);
one(N) when N =< 79 -> seen(py:parallel([{math, sqrt, [16]}, {math, sqrt, [25]}]), {ok, [{ok, 4.0}, {ok, 5.0}]}, []);
one(N) when N =< 83 -> held();
%% On a busy machine the answer may be there before the caller looks at the clock.
one(N) when N =< 86 -> seen(py:call('__main__', spin, [50], #{}, 10), {ok, none}, [timeout, overloaded]);
one(N) when N =< 88 -> seen(py:call('__main__', nap, [20], #{}, 10), {ok, none}, [timeout, overloaded]);
one(N) when N =< 90 -> seen(py:call('__main__', ask_slowly, [1000], #{}, 20), none, [timeout, overloaded]);
one(N) when N =< 92 -> seen(py:await(py:async_call('__main__', asking_task, [1000], #{}, 20)), none, [timeout, overloaded]);
one(N) when N =< 95 -> seen(py:call('__main__', boom, []), none, ['ValueError']);
one(N) when N =< 97 -> seen(py:await(py:spawn_call(math, sqrt, [16]), rand:uniform(3) - 1), {ok, 4.0}, [timeout]);
one(N) when N =< 98 -> seen(py:cast(math, sqrt, [16]), ok, []);
one(_) -> unread_stream().

held() ->
    case py:call('__main__', 'Held', [], #{}, #{return => handle}) of
        {ok, Handle} -> seen(py:call(Handle, value, []), {ok, 7}, []);
        Error -> seen(Error, none, [])
    end.

%% Its owner ends before it does.
unread_stream() ->
    case py:stream_start('__main__', items, [1000000]) of
        {ok, Ref} -> receive {py_stream, Ref, First} -> seen(First, {data, 0}, []) after ?LONG -> count({wrong, stream}) end;
        Error -> seen(Error, none, [])
    end.

seen(Value, Value, _) -> count(ok);
seen({ok, Results}, _, Allowed) when is_list(Results), is_tuple(hd(Results)) ->
    [seen(Result, Result, Allowed) || {ok, _} = Result <- Results],
    [seen(Error, none, Allowed) || {error, _} = Error <- Results];
seen({error, Reason}, _, Allowed) ->
    Kind = kind(Reason),
    case lists:member(Kind, Allowed) orelse is_of_killed_context(Kind) of
        true -> count({error, Kind});
        false -> count({wrong, Reason})
    end;
seen(Value, _, _) ->
    count({wrong, Value}).

kind(Reason) when is_tuple(Reason) -> element(1, Reason);
kind(Reason) -> Reason.

%% A killed context is the error of what ran there; Python code sees its callbacks fail a moment before.
is_of_killed_context(Kind) ->
    lists:member(Kind, [context_down, 'CallbackError', 'Error', 'CancelledError']) andalso
        ets:member(?MODULE, contexts).

count(What) ->
    ets:update_counter(?MODULE, What, 1, {What, 0}).

%% Eight buckets for each doubling.
latency(Us) ->
    count({latency, round(8 * math:log2(max(1, Us)))}).

percentile(P) ->
    Buckets = lists:sort([{B, N} || [B, N] <- ets:match(?MODULE, {{latency, '$1'}, '$2'})]),
    Rank = P * lists:sum([N || {_, N} <- Buckets]) / 100,
    bucket(Buckets, Rank).

bucket([{B, _}], _) -> math:pow(2, B / 8) / 1000;
bucket([{B, N} | _], Rank) when N >= Rank -> math:pow(2, B / 8) / 1000;
bucket([{_, N} | Rest], Rank) -> bucket(Rest, Rank - N);
bucket([], _) -> 0.0.

preload() ->
    <<"import asyncio, erlang, time, weakref\n"
      "_held = weakref.WeakSet()\n"
      "class Held:\n"
      "    def __init__(self): _held.add(self); self.data = bytearray(10000)\n"
      "    def value(self): return 7\n"
      "def held(): return len(_held)\n"
      "def ask(x): return erlang.call('echo', x)\n"
      "def ask_slowly(ms): return erlang.call('slowly', ms)\n"
      "def deeper(n): return 0 if n == 0 else 1 + erlang.call('deeper', n - 1)\n"
      "async def task(x): await asyncio.sleep(0.001); return x\n"
      "async def asking_task(ms): return await erlang.async_call('slowly', ms)\n"
      "def items(n):\n"
      "    for i in range(n): yield i\n"
      "def nap(ms): time.sleep(ms / 1000)\n"
      "def spin(ms):\n"
      "    end = time.monotonic() + ms / 1000\n"
      "    while time.monotonic() < end: pass\n"
      "def boom(): raise ValueError('boom')\n">>.

%% ------------------------------------------------------------------------------------------
%% At rest
%% ------------------------------------------------------------------------------------------

%% When nothing more goes away.
at_rest() ->
    wait(fun() -> element(1, py_nif:slots()) =:= 0 andalso element(3, py_nif:slots()) =:= 0 end),
    wait(fun() ->
        collect(),
        element(1, py_nif:counters()) =:= 0 andalso objects() =:= 0
    end),
    Objects = objects(),
    wait(fun() -> element(1, py_nif:counters()) =:= 0 end),
    Threads = fewest(files("/proc/self/task"), erlang:monotonic_time(millisecond) + 4000),
    {ok, Statm} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:split(Statm, " ", all),
    #{rss => binary_to_integer(Pages) * 4096, threads => Threads, fds => files("/proc/self/fd"),
      objects => Objects, namespaces => element(1, py_nif:counters()), slots => element(1, py_nif:slots()),
      atoms => erlang:system_info(atom_count),
      wrong => [{What, N} || [What, N] <- ets:match(?MODULE, {{wrong, '$1'}, '$2'})]}.

%% Spare threads end after two seconds without work.
fewest(Threads, End) ->
    timer:sleep(200),
    case erlang:monotonic_time(millisecond) < End of
        true -> fewest(min(Threads, files("/proc/self/task")), End);
        false -> Threads
    end.

files(Folder) ->
    {ok, Files} = file:list_dir(Folder),
    length(Files).

collect() ->
    [garbage_collect(Pid) || Pid <- processes()],
    alone(fun() -> [py:gc(Ctx) || {Ctx, _} <- py_context:all()] end).

objects() ->
    alone(fun() ->
        lists:sum([N || {Ctx, _} <- py_context:all(), {ok, N} <- [py:call(Ctx, '__main__', held, [])]])
    end).

%% In a process that has a namespace, and that is gone afterwards.
alone(Fun) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({alone, Fun()}) end),
    receive {'DOWN', Monitor, process, Pid, {alone, Result}} -> Result end.

wait(Fun) ->
    wait(Fun, erlang:monotonic_time(millisecond) + ?SETTLE).

wait(Fun, End) ->
    Fun() orelse erlang:monotonic_time(millisecond) > End orelse begin timer:sleep(50), wait(Fun, End) end.

print(At, Seconds, #{rss := Rss, threads := Threads, fds := Fds, objects := Objects, namespaces := Namespaces,
                     slots := Slots, atoms := Atoms, wrong := Wrong}) ->
    Errors = lists:sort([{Kind, N} || [Kind, N] <- ets:match(?MODULE, {{error, '$1'}, '$2'})]),
    All = counted(ok) + lists:sum([N || {_, N} <- Errors]),
    io:format("~5b ~7b ~6b ~7b ~8.2f ~8.2f ~7b ~7b ~4b ~7b ~6b ~6b ~6b  ~s~n",
              [At, All div Seconds, counted(processes), counted(killed), percentile(50), percentile(99), Rss div ?MB,
               Threads, Fds, Objects, Namespaces, Slots, Atoms,
               lists:join(" ", [io_lib:format("~p:~b", [Kind, N]) || {Kind, N} <- Errors])]),
    [io:format("      WRONG ~b times: ~P~n", [N, What, 20]) || {What, N} <- Wrong].

counted(What) ->
    case ets:lookup(?MODULE, What) of [{_, N}] -> N; [] -> 0 end.

%% ------------------------------------------------------------------------------------------
%% The verdict
%% ------------------------------------------------------------------------------------------

verdict(Rows) ->
    Third = length(Rows) div 3,
    Warm = lists:sublist(Rows, Third, Third),
    Last = lists:nthtail(length(Rows) - Third, Rows),
    Most = fun(Key, Some) -> lists:max([maps:get(Key, Row) || Row <- Some]) end,
    Least = fun(Key, Some) -> lists:min([maps:get(Key, Row) || Row <- Some]) end,
    Grown = [{Key, Most(Key, Warm), Least(Key, Last)}
             || {Key, Slack} <- [{rss, 16 * ?MB + Most(rss, Warm) div 20}, {threads, 2}, {fds, 2}, {atoms, 50},
                                 {objects, 0}, {namespaces, 0}, {slots, 0}],
                Least(Key, Last) > Most(Key, Warm) + Slack],
    Left = [{Key, Most(Key, Rows)} || Key <- [objects, namespaces, slots], Most(Key, Rows) > 0],
    Wrong = lists:append([W || #{wrong := W} <- Rows]),
    case {Grown, Left, Wrong} of
        {[], [], []} ->
            io:format("~nnothing grew, nothing was left, nothing went wrong~n"),
            halt(0);
        _ ->
            io:format("~ngrown ~p~nleft ~p~nwrong: ~p kinds~n", [Grown, Left, length(Wrong)]),
            halt(1)
    end.
