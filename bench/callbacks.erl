%% How many callbacks can Python make in a second, and what is the rest of the way?
%%
%%     rebar3 compile && escript bench/callbacks.erl [Mode]
%%
%% Each row, per operation: median and minimum of five rounds, in which the rows take turns, and the
%% rate that the median makes. "bare hand-off" is a request that is answered unrun, because its deadline
%% passed a second ago: queue, thread, GIL and reply, and nothing else. "state_incr" is the way to Erlang and back
%% without the process that a callback runs in.
-module(callbacks).
-mode(compile).
-export([main/1]).

-define(ROUNDS, 5).
-define(MANY, 64).

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
    ok = py:register_function(same, fun([X]) -> X end),
    ok = prepare(),
    Rows = rows(),
    _ = [Run(Times div 10) || {_, Times, Run} <- Rows], % warm
    Samples = [[sample(Row) || Row <- Rows] || _ <- lists:seq(1, ?ROUNDS)],
    Floor = median([hd(Round) || Round <- Samples]),
    io:format("~-34s ~10s ~10s ~12s ~10s~n", ["", "median", "min", "per second", "hand-offs"]),
    [row(Name, [lists:nth(I, Round) || Round <- Samples], Floor)
     || {I, {Name, _, _}} <- lists:enumerate(Rows)],
    halt().

rows() ->
    [{"bare hand-off", 20000, fun hand_offs/1},
     {"py:call, one process", 20000, fun calls/1},
     {"py:call, 64 processes", 128000, fun(N) -> at_once(fun calls/1, N) end},
     {"callbacks in one Python loop", 20000, fun(N) -> loop(loop_same, N) end},
     {"callbacks, 64 processes", 64000, fun(N) -> at_once(fun(M) -> loop(loop_same, M) end, N) end},
     {"callbacks that call Python back", 5000, fun(N) -> loop(loop_nested, N) end},
     {"state_incr in one Python loop", 20000, fun(N) -> loop(loop_state, N) end},
     {"state_incr, 64 processes", 64000, fun(N) -> at_once(fun(M) -> loop(loop_state, M) end, N) end}].

prepare() ->
    ok = py:register_function(nested, fun([]) -> {ok, 4.0} = py:call(math, sqrt, [16]), ok end),
    py:exec(<<"import erlang\n"
              "def loop_same(n):\n"
              "    for i in range(n): erlang.call('same', i)\n"
              "def loop_nested(n):\n"
              "    for i in range(n): erlang.call('nested')\n"
              "def loop_state(n):\n"
              "    for i in range(n): erlang.state_incr('bench')\n">>).

loop(Function, N) ->
    {ok, none} = py:call('__main__', Function, [N], #{}, infinity),
    ok.

calls(0) -> ok;
calls(N) -> {ok, 4.0} = py:call(math, sqrt, [16]), calls(N - 1).

hand_offs(N) ->
    Ctx = py_context:get_nif_ref(py:context()),
    hand_offs(N, Ctx, py_nif:owner()).

hand_offs(0, _Ctx, _Owner) ->
    ok;
hand_offs(N, Ctx, Owner) ->
    Ref = make_ref(),
    Token = py_nif:submit(Ctx, Owner, none, self(), Ref, 0, math, sqrt, [], [], -1000, 0, 0),
    true = is_integer(Token),
    receive {Ref, {error, timeout}} -> hand_offs(N - 1, Ctx, Owner) end.

%% Runs Fun(N div 64) in so many processes at once; what they need is made before the clock starts.
at_once(Fun, N) ->
    Self = self(),
    Pids = [spawn_link(fun() ->
                ok = prepare(),
                Self ! {self(), ready},
                receive go -> ok end,
                ok = Fun(N div ?MANY),
                Self ! {self(), done}
            end) || _ <- lists:seq(1, ?MANY)],
    [receive {Pid, ready} -> ok end || Pid <- Pids],
    {Time, _} = timer:tc(fun() ->
        [Pid ! go || Pid <- Pids],
        [receive {Pid, done} -> ok end || Pid <- Pids]
    end),
    {took, Time}.

%% Nanoseconds for one.
sample({_, Times, Run}) ->
    case timer:tc(fun() -> Run(Times) end) of
        {_, {took, Time}} -> Time * 1000 / Times;
        {Time, ok} -> Time * 1000 / Times
    end.

median(Samples) ->
    lists:nth((length(Samples) + 1) div 2, lists:sort(Samples)).

row(Name, Samples, Floor) ->
    Median = median(Samples),
    io:format("~-34s ~7.2f us ~7.2f us ~12b ~10.2f~n",
              [Name, Median / 1000, lists:min(Samples) / 1000, round(1.0e9 / Median), Median / Floor]).
