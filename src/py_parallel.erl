-module(py_parallel).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("Several calls at once, spread over the contexts: each with its own result, all with one deadline.").

-export([run/3, gather/3, gathered/1]).

-type started() :: {pos_integer(), py_request:request(), {ok, py_request:place()} | {error, term()}}.

?DOC("Results in the order of the calls; what is not done at the deadline is `{error, timeout}`.").
-spec run([tuple()], map(), timeout()) -> [py:result()].
run(Calls, Options, Default) ->
    {Timeout, Max} = options(Options, Default),
    Deadline = deadline(Timeout),
    {Mine, Spread} = lists:partition(fun({_, #request{target = T}}) -> py_request:is_main(T) end,
                                     requests(Calls, Timeout, Timeout)),
    Contexts = py_context_router:num_contexts(),
    Items = [{I, py_request:implicitly(Request), place(I, Contexts)} || {I, Request} <- Spread],
    Own = fun() ->
              [{I, py_request:implicit(py_request:with_timeout(Request, left(Deadline)))}
               || {I, Request} <- Mine]
          end,
    in_order(collect(Items, Max, Deadline, Own)).

?DOC("The results of coroutines and functions, on the event loops, in order.").
-spec gather([tuple()], py:timeout_or_options(), timeout()) -> [py:result()].
gather(Calls, T, Default) ->
    Timeout = py_options:timeout(T, Default),
    Items = [{I, py_request:with_flags(py_request:implicitly(Request), ?FLAG_ASYNC),
              py_async:async_destination(Request)} || {I, Request} <- requests(Calls, T, Default)],
    in_order(collect(Items, infinity, deadline(Timeout), fun() -> [] end)).

?DOC("All values, or what failed with its index.").
-spec gathered([py:result()]) ->
    {ok, [term()]} | {error, {gather_failed, [{pos_integer(), term()}]}}.
gathered(Results) ->
    case [{I, Reason} || {I, {error, Reason}} <- lists:zip(lists:seq(1, length(Results)), Results)] of
        [] -> {ok, [Value || {ok, Value} <- Results]};
        Failed -> {error, {gather_failed, Failed}}
    end.

%% ------------------------------------------------------------------------------------------
%% What is to be done
%% ------------------------------------------------------------------------------------------

options(Options, Default) ->
    map_size(maps:without([timeout, max], Options)) =:= 0 orelse
        py_options:misuse("the options of parallel are timeout and max"),
    Max = maps:get(max, Options, infinity),
    Max =:= infinity orelse (is_integer(Max) andalso Max > 0) orelse
        py_options:misuse("max must be a positive integer or infinity"),
    {py_request:remaining(py_options:timeout(maps:get(timeout, Options, default), Default)), Max}.

requests(Calls, T, Default) ->
    lists:zip(lists:seq(1, length(Calls)), [request(Call, T, Default) || Call <- Calls]).

request({Module, Function, Args}, T, Default) ->
    request({Module, Function, Args, []}, T, Default);
request({Module, Function, Args, Kwargs}, T, Default) ->
    py_options:call(Module, Function, Args, Kwargs, T, Default);
request(_Call, _T, _Default) ->
    py_options:misuse("a call is {Module, Function, Args} or {Module, Function, Args, Kwargs}").

%% Round-robin over the contexts, whatever scheduler the caller is on.
place(_Index, 0) -> {error, {context_down, not_started}};
place(Index, Contexts) -> py_context_router:place((Index - 1) rem Contexts + 1).

%% ------------------------------------------------------------------------------------------
%% Collecting
%% ------------------------------------------------------------------------------------------

%% Starts at most Max at a time and does Meanwhile, which gives results too. The Ref is in every
%% reply, so that a full mailbox is not searched.
-spec collect([started()], pos_integer() | infinity, infinity | integer(),
              fun(() -> [{pos_integer(), py:result()}])) -> [{pos_integer(), py:result()}].
collect(Items, Max, Deadline, Meanwhile) ->
    Ref = make_ref(),
    {First, Later} = split(Max, Items),
    {Running, Done} = lists:foldl(fun(Item, Acc) -> start(Item, Ref, Acc) end, {#{}, []}, First),
    wait(Ref, Running, Later, Meanwhile() ++ Done, Deadline).

split(Max, Items) when is_integer(Max), Max < length(Items) -> lists:split(Max, Items);
split(_Max, Items) -> {Items, []}.

start({Index, _Request, {error, _} = Error}, _Ref, {Running, Done}) ->
    {Running, [{Index, Error} | Done]};
start({Index, Request, {ok, Place}}, Ref, {Running, Done}) ->
    case py_request:start_as(Place, [Ref | Index], Request) of
        Token when is_integer(Token) -> {Running#{Index => {Token, Request}}, Done};
        Error -> {Running, [{Index, Error} | Done]}
    end.

wait(_Ref, Running, [], Done, _Deadline) when map_size(Running) =:= 0 ->
    Done;
wait(Ref, Running, [{Index, Request, Place} | Later], Done, Deadline) when map_size(Running) =:= 0 ->
    %% What was started failed at once.
    {Running1, Done1} = start(at(Index, Request, Place, Deadline), Ref, {Running, Done}),
    wait(Ref, Running1, Later, Done1, Deadline);
wait(Ref, Running, Later, Done, Deadline) ->
    receive
        {[Ref | Index], Result} ->
            {{_, Request}, Rest} = maps:take(Index, Running),
            Settled = py_request:settled(py_request:with_timeout(Request, left(Deadline)), Result),
            {Running1, Later1, Done1} = next(Later, Ref, Rest, [{Index, Settled} | Done], Deadline),
            wait(Ref, Running1, Later1, Done1, Deadline)
    after left(Deadline) ->
        Late = [{Index, late(Ref, Index, Token)} || {Index, {Token, _}} <- maps:to_list(Running)],
        Late ++ [{Index, {error, timeout}} || {Index, _, _} <- Later] ++ Done
    end.

next([], _Ref, Running, Done, _Deadline) ->
    {Running, [], Done};
next([{Index, Request, Place} | Later], Ref, Running, Done, Deadline) ->
    {Running1, Done1} = start(at(Index, Request, Place, Deadline), Ref, {Running, Done}),
    {Running1, Later, Done1}.

at(Index, Request, Place, Deadline) ->
    {Index, py_request:with_timeout(Request, left(Deadline)), Place}.

late(Ref, Index, Token) ->
    case py_nif:cancel(Token) of
        Sent when Sent =:= replied; Sent =:= ended -> receive {[Ref | Index], Result} -> Result end;
        waiting -> {error, py_request:overloaded()};
        _ -> {error, timeout}
    end.

in_order(Results) ->
    [Result || {_, Result} <- lists:keysort(1, Results)].

deadline(infinity) -> infinity;
deadline(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

left(infinity) -> infinity;
left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).
