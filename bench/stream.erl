-module(stream).

%% @doc How many items a second does a stream move? "py:call for each item" is one call for each, "one list" the same items
%% as the result of a single call. The floor is an Erlang process that sends as many messages, at most a thousand of
%% them unread.

-export([about/0, rows/2, settings/1]).

-spec about() -> string().
about() -> "how many items a second does a stream move".

-spec settings(atom()) -> [{atom(), term()}].
settings(_Mode) ->
    [{preload, <<"def count(n):\n"
                 "    for i in range(n): yield i\n"
                 "def pairs(n):\n"
                 "    for i in range(n): yield (i, 'item')\n"
                 "async def count_async(n):\n"
                 "    for i in range(n): yield i\n">>}].

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, _Options) ->
    [#{name => Name, run => Run, slice => 1000, floor => {"messages", fun floors:messages/1}}
     || {Name, Run} <-
            [{"py:call for each item", fun bench:calls/1},
             {"one list", fun(N) -> {ok, _} = py:call(builtins, list, [element(2, range(N))]) end},
             {"stream_start, range", fun(N) -> eat(py:stream_start(builtins, range, [N])) end},
             {"stream_start, generator", fun(N) -> eat(py:stream_start('__main__', count, [N])) end},
             {"stream_start, generator of pairs", fun(N) -> eat(py:stream_start('__main__', pairs, [N])) end},
             {"stream_start, generator, batch => 64",
              fun(N) -> eat(py:stream_start('__main__', count, [N], #{batch => 64})) end},
             {"stream_start, async generator", fun(N) -> eat(py:stream_start('__main__', count_async, [N])) end},
             {"stream, generator", fun(N) -> {ok, _} = py:stream('__main__', count, [N]) end}]].

range(N) ->
    py:call(builtins, range, [N], #{}, #{return => handle}).

eat({ok, Ref}) ->
    eat_all(Ref).

eat_all(Ref) ->
    receive
        {py_stream, Ref, {data, _}} -> eat_all(Ref);
        {py_stream, Ref, {batch, _}} -> eat_all(Ref);
        {py_stream, Ref, done} -> ok;
        {py_stream, Ref, {error, Reason}} -> error(Reason)
    end.
