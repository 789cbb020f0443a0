-module(state).

%% @doc How fast is the shared state, from Python and from Erlang?

-export([about/0, rows/2, settings/1]).

-define(MANY, 64).

-spec about() -> string().
about() -> "how fast is the shared state, from Python and from Erlang".

-spec settings(atom()) -> [{atom(), term()}].
settings(_Mode) ->
    [{preload, <<"import erlang\n"
                 "def incr(n):\n"
                 "    for i in range(n): erlang.state_incr('bench')\n"
                 "def put(n):\n"
                 "    for i in range(n): erlang.state_set('bench_key', i)\n"
                 "def get(n):\n"
                 "    for i in range(n): erlang.state_get('bench_key')\n">>}].

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, _Options) ->
    ok = py:state_store(<<"bench_key">>, 1),
    Thread = bench:thread(),
    [#{name => "state_incr in one Python loop", run => fun(N) -> loop(incr, N) end, slice => 100, floor => Thread},
     #{name => "state_set in one Python loop", run => fun(N) -> loop(put, N) end, slice => 100, floor => Thread},
     #{name => "state_get in one Python loop", run => fun(N) -> loop(get, N) end, slice => 100, floor => Thread},
     maps:merge(bench:callers(?MANY, fun(N) -> loop(incr, N) end),
                #{name => "state_incr, 64 processes",
                  floor => {"hand-offs, 64 processes", maps:get(run, bench:callers(?MANY, fun floors:thread/1))}}),
     #{name => "py:state_incr", run => fun(N) -> bench:repeat(fun() -> py:state_incr(<<"bench">>) end, N) end,
       floor => bench:message()},
     #{name => "py:state_fetch", run => fun(N) -> bench:repeat(fun() -> py:state_fetch(<<"bench_key">>) end, N) end,
       floor => bench:message()}].

loop(Function, N) ->
    {ok, none} = py:call('__main__', Function, [N], #{}, infinity),
    ok.
