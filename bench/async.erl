-module(async).

%% @doc How long do ten thousand coroutines take? "asyncio alone" gathers the same sleeps within one call of Python. Calls
%% and coroutines that do not wait show what the way there and back costs. All times are for one of them.

-export([about/0, rows/2, settings/1]).

-spec about() -> string().
about() -> "how long do ten thousand coroutines take".

-spec settings(atom()) -> [{atom(), term()}].
settings(_Mode) ->
    [{preload, <<"import asyncio\n"
                 "async def gathered(n):\n"
                 "    await asyncio.gather(*[asyncio.sleep(0.1) for _ in range(n)])\n"
                 "def alone(n): asyncio.run(gathered(n))\n">>}].

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, Options) ->
    Ctx = py:context(1),
    Alone = {"asyncio alone", fun(N) -> {ok, none} = py:call(Ctx, '__main__', alone, [N]) end},
    [#{name => "async_gather, sleep(0.1)", run => fun(N) -> gather({asyncio, sleep, [0.1]}, N) end,
       floor => Alone, times => 10000, rounds => rounds(Options)},
     #{name => "async_call and async_await, sleep(0.1)", run => fun call_and_await/1,
       floor => Alone, times => 10000, rounds => rounds(Options)},
     #{name => "async_gather, sleep(0)", run => fun(N) -> gather({asyncio, sleep, [0]}, N) end,
       floor => bench:thread(), times => 10000, rounds => rounds(Options)},
     #{name => "async_gather, math.sqrt", run => fun(N) -> gather({math, sqrt, [16]}, N) end,
       floor => bench:thread(), times => 10000, rounds => rounds(Options)},
     #{name => "py:call(math, sqrt, [16])", run => fun bench:calls/1, floor => bench:thread()},
     #{name => "parallel, math.sqrt",
       run => fun(N) -> {ok, _} = py:parallel(lists:duplicate(N, {math, sqrt, [16]})) end,
       floor => bench:thread(), times => 10000, rounds => rounds(Options)}].

rounds(#{short := true}) -> 3;
rounds(#{short := false}) -> 5.

gather(Call, N) ->
    {ok, _} = py:async_gather(lists:duplicate(N, Call)).

call_and_await(N) ->
    Refs = [py:async_call(asyncio, sleep, [0.1]) || _ <- lists:seq(1, N)],
    [{ok, none} = py:async_await(Ref) || Ref <- Refs].
