-module(engine_statem_SUITE).

%% @doc Random programs against the engine (prop_engine), in a VM of their own for each mode.
%%
%% PROP_RUNS is the number of programs (200), PROP_SIZE their length at most (20).

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([programs]).

suite() ->
    [{timetrap, {hours, 10}}].

init_per_group(Mode, Config) ->
    [{mode, Mode} | Config].

end_per_group(_Mode, _Config) ->
    ok.

programs(Config) ->
    Mode = py_modes:mode(Config),
    Peer = py_peer:start(Mode, prop_engine:settings()),
    try
        Arguments = [Mode, number("PROP_RUNS", 200), number("PROP_SIZE", 20)],
        {Ms, Result} = py_modes:elapsed(fun() ->
            py_peer:call(Peer, prop_engine, check, Arguments, infinity)
        end),
        ct:pal("~p: ~p in ~p ms", [Mode, Result, Ms]),
        ?assertMatch({ok, _}, Result)
    after
        py_peer:stop(Peer)
    end.

number(Variable, Default) ->
    case os:getenv(Variable) of
        false -> Default;
        Text -> list_to_integer(Text)
    end.
