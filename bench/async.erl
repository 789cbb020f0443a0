%% How long do ten thousand coroutines that sleep 0.1 s take?
%%
%%     rebar3 compile && escript bench/async.erl [Mode]
%%
%% Each row: median and minimum of five rounds, in which the rows take turns, in milliseconds. "asyncio alone" is
%% the floor: the same sleeps gathered by asyncio itself, within one py:call. "plain calls" and "coroutines that do
%% not wait" show what the way there and back costs: the last column is microseconds for each of the ten thousand.
-module(async).
-mode(compile).
-export([main/1]).

-define(ROUNDS, 5).
-define(N, 10000).

main(Arguments) ->
    Root = filename:dirname(filename:dirname(filename:absname(escript:script_name()))),
    true = code:add_patha(filename:join(Root, "_build/default/lib/erlang_python/ebin")),
    ok = application:load(erlang_python),
    [ok = application:set_env(erlang_python, context_mode, list_to_atom(Mode)) || Mode <- Arguments],
    {ok, _} = application:ensure_all_started(erlang_python),
    {ok, Version} = py:version(),
    io:format("OTP ~s, CPython ~s, ~p, ~b schedulers~n~n",
              [erlang:system_info(otp_release), Version, py:execution_mode(),
               erlang:system_info(schedulers_online)]),
    Rows = rows(prepare()),
    _ = [Run() || {_, Run} <- Rows], % warm
    Samples = [[sample(Run) || {_, Run} <- Rows] || _ <- lists:seq(1, ?ROUNDS)],
    io:format("~-44s ~10s ~10s ~10s~n", ["", "median ms", "min ms", "us each"]),
    [row(Name, lists:sort([lists:nth(I, Round) || Round <- Samples]))
     || {I, {Name, _}} <- lists:enumerate(Rows)],
    halt().

rows(Alone) ->
    [{"asyncio alone, sleep(0.1)", Alone},
     {"async_gather, sleep(0.1)", fun() -> gather({asyncio, sleep, [0.1]}) end},
     {"async_call and async_await, sleep(0.1)", fun() -> call_and_await() end},
     {"async_gather, sleep(0)", fun() -> gather({asyncio, sleep, [0]}) end},
     {"async_gather, math.sqrt", fun() -> gather({math, sqrt, [16]}) end},
     {"parallel, math.sqrt", fun() -> {ok, _} = py:parallel(calls({math, sqrt, [16]})) end},
     {"py:call, math.sqrt, one after the other",
      fun() -> [{ok, 4.0} = py:call(math, sqrt, [16]) || _ <- lists:seq(1, ?N)] end}].

%% In a context of its own, so that the other rows' process has no namespace and spreads its coroutines.
prepare() ->
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"import asyncio\n"
                        "async def alone(n):\n"
                        "    await asyncio.gather(*[asyncio.sleep(0.1) for _ in range(n)])\n"
                        "def run(n): asyncio.run(alone(n))\n">>),
    fun() -> {ok, none} = py:call(Ctx, '__main__', run, [?N]) end.

calls(Call) ->
    lists:duplicate(?N, Call).

gather(Call) ->
    {ok, _} = py:async_gather(calls(Call)).

call_and_await() ->
    Refs = [py:async_call(asyncio, sleep, [0.1]) || _ <- lists:seq(1, ?N)],
    [{ok, none} = py:async_await(Ref) || Ref <- Refs].

sample(Run) ->
    {Microseconds, _} = timer:tc(Run),
    Microseconds / 1000.

row(Name, Sorted) ->
    Median = lists:nth(length(Sorted) div 2 + 1, Sorted),
    io:format("~-44s ~10.1f ~10.1f ~10.2f~n", [Name, Median, hd(Sorted), Median * 1000 / ?N]).
