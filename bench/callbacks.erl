-module(callbacks).

%% @doc How many callbacks can Python make in a second? A callback is two hand-offs and an Erlang process of its own.

-export([about/0, rows/2, settings/1]).

-define(MANY, 64).

-spec about() -> string().
about() -> "how many callbacks can Python make in a second".

-spec settings(atom()) -> [{atom(), term()}].
settings(_Mode) ->
    [{preload, <<"import erlang\n"
                 "def same(n):\n"
                 "    for i in range(n): erlang.call('same', i)\n"
                 "def nested(n):\n"
                 "    for i in range(n): erlang.call('nested')\n">>}].

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, _Options) ->
    ok = py:register_function(same, fun([X]) -> X end),
    ok = py:register_function(nested, fun([]) -> {ok, 4.0} = py:call(math, sqrt, [16]), ok end),
    Floor = {"hand-offs, 64 processes", maps:get(run, bench:callers(?MANY, fun floors:thread/1))},
    [#{name => "py:call(math, sqrt, [16])", run => fun bench:calls/1, floor => bench:thread()},
     #{name => "callbacks in one Python loop", run => fun(N) -> loop(same, N) end, slice => 100,
       floor => bench:thread()},
     #{name => "callbacks that call Python back", run => fun(N) -> loop(nested, N) end, slice => 100,
       floor => bench:thread()}]
    ++ [maps:merge(bench:callers(?MANY, Run), #{name => Name ++ ", 64 processes", floor => Floor})
        || {Name, Run} <- [{"py:call", fun bench:calls/1}, {"callbacks", fun(N) -> loop(same, N) end}]].

loop(Function, N) ->
    {ok, none} = py:call('__main__', Function, [N], #{}, infinity),
    ok.
