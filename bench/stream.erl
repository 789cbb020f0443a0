%% How many items a second does a stream move?
%%
%%     rebar3 compile && escript bench/stream.erl [Mode]
%%
%% Each row: median and minimum of five rounds, in which the rows take turns, in microseconds for each item, and the
%% rate that the median makes. "py:call" is one call for each item; "one list" the same items as the
%% result of a single call; "messages" an Erlang process that sends as many to another: the floor of what
%% arrives one by one.
-module(stream).
-mode(compile).
-export([main/1]).

-define(ROUNDS, 5).
-define(N, 200000).

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
    ok = py:exec(<<"def count(n):\n"
                   "    for i in range(n): yield i\n"
                   "def pairs(n):\n"
                   "    for i in range(n): yield (i, 'item')\n"
                   "async def count_async(n):\n"
                   "    for i in range(n): yield i\n">>),
    _ = [Run(N div 10) || {_, N, Run} <- rows()], % warm
    Samples = [[sample(Row) || Row <- rows()] || _ <- lists:seq(1, ?ROUNDS)],
    io:format("~-44s ~10s ~10s ~12s~n", ["", "median us", "min us", "per second"]),
    [row(Name, lists:sort([lists:nth(I, Round) || Round <- Samples]))
     || {I, {Name, _, _}} <- lists:enumerate(rows())],
    halt().

rows() ->
    [{"messages between two processes", ?N, fun messages/1},
     {"py:call for each item", 20000, fun calls/1},
     {"one list", ?N, fun(N) -> {ok, _} = py:call(builtins, list, [element(2, range(N))]) end},
     {"stream_start, range", ?N, fun(N) -> eat(py:stream_start(builtins, range, [N])) end},
     {"stream_start, generator", ?N, fun(N) -> eat(py:stream_start('__main__', count, [N])) end},
     {"stream_start, generator of pairs", ?N, fun(N) -> eat(py:stream_start('__main__', pairs, [N])) end},
     {"stream_start, generator, batch => 64", ?N,
      fun(N) -> eat(py:stream_start('__main__', count, [N], #{batch => 64})) end},
     {"stream_start, async generator", ?N,
      fun(N) -> eat(py:stream_start('__main__', count_async, [N])) end},
     {"stream, generator", ?N, fun(N) -> {ok, _} = py:stream('__main__', count, [N]) end}].

range(N) ->
    py:call(builtins, range, [N], #{}, #{return => handle}).

eat({ok, Ref}) ->
    eat_all(Ref).

eat_all(Ref) ->
    receive
        {py_stream, Ref, {data, _}} -> eat_all(Ref);
        {py_stream, Ref, {batch, _}} -> eat_all(Ref);
        {py_stream, Ref, done} -> ok
    end.

calls(N) ->
    [{ok, 4.0} = py:call(math, sqrt, [16]) || _ <- lists:seq(1, N)].

%% At most a thousand unread, as with a stream.
messages(N) ->
    Self = self(),
    Ref = make_ref(),
    Pid = spawn_link(fun() -> send(Self, Ref, N) end),
    receive_all(Pid, Ref, N).

send(_To, _Ref, 0) -> ok;
send(To, Ref, N) ->
    To ! {py_stream, Ref, {data, N}},
    case N rem 500 of
        0 -> receive more -> send(To, Ref, N - 1) end;
        _ -> send(To, Ref, N - 1)
    end.

receive_all(_Pid, _Ref, 0) -> ok;
receive_all(Pid, Ref, N) ->
    receive {py_stream, Ref, {data, N}} -> ok end,
    case N rem 500 of
        0 -> Pid ! more;
        _ -> ok
    end,
    receive_all(Pid, Ref, N - 1).

sample({_, N, Run}) ->
    {Microseconds, _} = timer:tc(fun() -> Run(N) end),
    Microseconds / N.

row(Name, Sorted) ->
    Median = lists:nth(length(Sorted) div 2 + 1, Sorted),
    io:format("~-44s ~10.3f ~10.3f ~12b~n", [Name, Median, hd(Sorted), round(1000000 / Median)]).
