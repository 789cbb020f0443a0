-module(calls).

%% @doc How fast is a call, for one caller and for many? "Answered unrun" is a request whose deadline has passed: the way
%% of a call without Python.

-export([about/0, rows/2]).

-spec about() -> string().
about() -> "how fast is a call, for one caller and for many".

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, _Options) ->
    Ctx = py:context(1),
    Place = py_context:get_nif_ref(Ctx),
    Thread = bench:thread(),
    [#{name => "empty NIF", run => fun floors:empty_nif/1},
     #{name => "empty dirty NIF", run => fun floors:dirty_hop/1},
     #{name => "message and back", run => fun floors:message/1},
     #{name => "hand-off to a thread and back", run => fun floors:thread/1},
     #{name => "math.sqrt in a plain Python loop", run => fun python/1, prepare => fun prepare/0, slice => 1000},
     #{name => "answered unrun", run => fun(N) -> unrun(Place, py_request:owner(), N) end, floor => Thread},
     #{name => "py:call(math, sqrt, [16])", run => fun bench:calls/1, floor => Thread},
     #{name => "the same in an explicit context", run => fun(N) -> call(Ctx, N) end, floor => Thread},
     #{name => "the same with the option inline", run => fun inline/1, floor => Thread},
     #{name => "py:eval(<<\"1+1\">>)", run => fun eval/1, floor => Thread},
     #{name => "py:exec(<<\"x = 1\">>)", run => fun exec/1, floor => Thread}]
    ++ [maps:merge(bench:callers(Callers, fun bench:calls/1),
                   #{name => "calls by many", axis => "callers", x => Callers,
                     floor => {"hand-offs", maps:get(run, bench:callers(Callers, fun floors:thread/1))}})
        || Callers <- [1, 8, 64, 1000, 5000]].

prepare() ->
    ok = py:exec(<<"import math\n"
                   "def loop(n):\n"
                   "    sqrt = math.sqrt\n"
                   "    for i in range(n): sqrt(16)\n">>).

python(N) ->
    {ok, none} = py:call('__main__', loop, [N], #{}, infinity).

call(_Ctx, 0) -> ok;
call(Ctx, N) -> {ok, 4.0} = py:call(Ctx, math, sqrt, [16]), call(Ctx, N - 1).

inline(0) -> ok;
inline(N) -> {ok, 4.0} = py:call(math, sqrt, [16], #{}, #{inline => true}), inline(N - 1).

eval(0) -> ok;
eval(N) -> {ok, 2} = py:eval(<<"1+1">>), eval(N - 1).

exec(0) -> ok;
exec(N) -> ok = py:exec(<<"x = 1">>), exec(N - 1).

unrun(_Place, _Owner, 0) ->
    ok;
unrun(Place, Owner, N) ->
    Ref = make_ref(),
    _ = py_nif:submit(Place, Owner, none, self(), Ref, 0, math, sqrt, [16], [], -1000, 0, 0),
    receive {Ref, {error, timeout}} -> unrun(Place, Owner, N - 1) end.
