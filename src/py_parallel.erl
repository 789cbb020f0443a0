-module(py_parallel).

-include("py_doc.hrl").
?MODULEDOC("Several calls at once, spread over the contexts.").

-export([run/3]).

?DOC("Results in the order of the calls; what is not done at the deadline is `{error, timeout}`.").
-spec run([tuple()], map(), timeout()) -> [py:result()].
run(Calls, Options, Default) ->
    map_size(maps:without([timeout, max], Options)) =:= 0 orelse
        py_options:misuse("the options of parallel are timeout and max"),
    Timeout = py_request:remaining(py_options:timeout(maps:get(timeout, Options, default), Default)),
    Deadline = deadline(Timeout),
    Items = lists:zip(lists:seq(1, length(Calls)), [request(Call, Timeout) || Call <- Calls]),
    {Mine, Spread} = lists:partition(fun({_, {IsMain, _}}) -> IsMain end, Items),
    {First, Later} = split(maps:get(max, Options, infinity), Spread),
    Started = [start(Item) || Item <- First],
    Own = [{I, py_request:implicit(py_request:with_timeout(Request, left(Deadline)))}
           || {I, {_, Request}} <- Mine],
    [Result || {_, Result} <- lists:keysort(1, Own ++ collect(Started, Later, Deadline))].

split(Max, Items) when is_integer(Max), Max > 0, Max < length(Items) -> lists:split(Max, Items);
split(Max, Items) when Max =:= infinity; is_integer(Max), Max > 0 -> {Items, []};
split(_Max, _Items) -> py_options:misuse("max must be a positive integer or infinity").

request({Module, Function, Args}, Timeout) ->
    request({Module, Function, Args, []}, Timeout);
request({Module, Function, Args, Kwargs}, Timeout) ->
    {py:to_binary(Module) =:= <<"__main__">>,
     py_options:call(Module, Function, Args, Kwargs, Timeout, Timeout)};
request(_Call, _Timeout) ->
    py_options:misuse("a call is {Module, Function, Args} or {Module, Function, Args, Kwargs}").

%% Round-robin over the contexts, whatever scheduler the caller is on.
start({Index, {_, Request}}) ->
    Started = case py_context_router:num_contexts() of
                  0 -> {error, {context_down, not_started}};
                  N ->
                      case py_context_router:place((Index - 1) rem N + 1) of
                          {ok, Place} -> py_request:start(Place, py_request:implicitly(Request));
                          Error -> Error
                      end
              end,
    {Index, Request, Started}.

collect([], _Later, _Deadline) ->
    [];
collect([{Index, Request, Started} | Rest], Later, Deadline) ->
    Result = result(Request, Started, Deadline),
    case Later of
        [] ->
            [{Index, Result} | collect(Rest, [], Deadline)];
        [{I, {IsMain, Next}} | Last] ->
            Item = {I, {IsMain, py_request:with_timeout(Next, left(Deadline))}},
            [{Index, Result} | collect(Rest ++ [start(Item)], Last, Deadline)]
    end.

result(_Request, {error, _} = Error, _Deadline) ->
    Error;
result(Request, {Ref, Token}, Deadline) ->
    Result = py_request:await(Token, Ref, left(Deadline)),
    py_request:settled(py_request:with_timeout(Request, left(Deadline)), Result).

deadline(infinity) -> infinity;
deadline(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

left(infinity) -> infinity;
left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).
