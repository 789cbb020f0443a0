-module(py_async).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("Calls whose caller does not wait: casts, and calls that are awaited later.").

-export([cast/1, cast/2, cast_pool/2, start/1, start/2, start_pool/2, start_async/1, await/2]).
-export([destination/1, async_destination/1]).

-define(TURN, '$py_turn'). % in the process dictionary: how many calls were spread so far
-define(RUN, 64).

-spec cast(py_request:request()) -> ok.
cast(Request) ->
    cast_to(destination(Request), py_request:implicitly(Request)).

-spec cast(pid(), py_request:request()) -> ok.
cast(Ctx, Request) ->
    cast_to(py_context:place(Ctx), Request).

-spec cast_pool(atom(), py_request:request()) -> ok.
cast_pool(Pool, Request) ->
    cast_to(py_context_router:pool_place(Pool), Request).

cast_to({ok, Place}, Request) ->
    py_request:cast(Place, Request);
cast_to({error, Reason}, #request{target = Target, function = Function}) ->
    logger:warning("A Python cast of ~tp:~tp failed: ~tp", [Target, Function, Reason]).

?DOC("Starts a request where the caller's next call would go.").
-spec start(py_request:request()) -> reference().
start(Request) ->
    start_at(destination(Request), py_request:implicitly(Request)).

?DOC("Starts a request in an explicit context.").
-spec start(pid(), py_request:request()) -> reference().
start(Ctx, Request) ->
    start_at(py_context:place(Ctx), Request).

?DOC("Starts a request in a pool.").
-spec start_pool(atom(), py_request:request()) -> reference().
start_pool(Pool, Request) ->
    start_at(py_context_router:pool_place(Pool), Request).

?DOC("Starts a request whose result, if it is a coroutine, is awaited by an event loop.").
-spec start_async(py_request:request()) -> reference().
start_async(Request) ->
    start_at(async_destination(Request),
             py_request:with_flags(py_request:implicitly(Request), ?FLAG_ASYNC)).

start_at({ok, Place}, Request) ->
    py_request:start_response(Place, Request);
start_at({error, _} = Error, _Request) ->
    Ref = py_nif:ticket(),
    self() ! {py_response, Ref, Error},
    Ref.

?DOC("Where a call goes that nobody waits for: a method where its object lives, a function where a handle\n"
     "among its arguments does.").
-spec destination(py_request:request()) -> {ok, py_request:place()} | {error, term()}.
destination(#request{target = Handle}) when is_reference(Handle) ->
    py_nif:is_handle(Handle) orelse py_options:misuse("this reference is no handle of this library"),
    case py_context:handle_place(Handle) of
        {ok, Place} -> {ok, Place};
        error -> {error, {context_down, gone}}
    end;
destination(#request{op = ?OP_CALL, args = Args, kwargs = Kwargs} = Request) ->
    case handle_in([Args, Kwargs]) of
        {ok, Handle} ->
            case py_context:handle_place(Handle) of
                {ok, Place} -> {ok, Place};
                error -> py_request:destination(Request)
            end;
        none ->
            py_request:destination(Request)
    end;
destination(Request) ->
    py_request:destination(Request).

%% The first handle in a term.
handle_in([Head | Tail]) ->
    case handle_in(Head) of
        none -> handle_in(Tail);
        Found -> Found
    end;
handle_in(Tuple) when is_tuple(Tuple) -> handle_in(tuple_to_list(Tuple));
handle_in(Map) when is_map(Map) -> handle_in(maps:values(Map));
handle_in(Reference) when is_reference(Reference) ->
    case py_nif:is_handle(Reference) of
        true -> {ok, Reference};
        false -> none
    end;
handle_in(_) -> none.

?DOC("Where a coroutine goes: what needs neither namespace nor context is spread over some contexts,\n"
     "so that their loops share the work.").
-spec async_destination(py_request:request()) -> {ok, py_request:place()} | {error, term()}.
async_destination(#request{target = Target, function = Function, args = Args, kwargs = Kwargs} = Request) ->
    Needs = is_reference(Target) orelse py_request:is_main(Target) orelse
        py_request:where() =/= undefined orelse handle_in([Args, Kwargs]) =/= none,
    case not Needs andalso py_context_router:lookup_pool(Target, Function) of
        false -> destination(Request);
        default -> spread(py_context_router:num_contexts());
        Pool -> py_context_router:pool_place(Pool)
    end.

spread(0) ->
    {error, {context_down, not_started}};
spread(Contexts) ->
    Workers = min(Contexts, py_config:get(num_async_workers)),
    py_context_router:place((erlang:phash2(self(), Workers) + turn()) rem Workers + 1).

%% A process's calls take turns in runs that grow: a loop that gets many at once wakes up once for them.
turn() ->
    N = case get(?TURN) of undefined -> 0; Last -> Last + 1 end,
    put(?TURN, N),
    run(N).

run(N) when N >= ?RUN -> ?RUN + N div ?RUN;
run(0) -> 0;
run(N) -> 1 + run(N bsr 1).

?DOC("Waits for `{py_response, Ref, Result}`. At the time-out the call is cancelled; nothing is left in\n"
     "the mailbox.").
-spec await(reference(), timeout()) -> py:result().
await(Ref, Timeout) ->
    receive
        {py_response, Ref, Result} -> Result
    after py_request:remaining(Timeout) ->
        case cancel(Ref) of
            replied -> receive {py_response, Ref, Result} -> Result end;
            ended -> receive {py_response, Ref, Result} -> Result after 0 -> {error, timeout} end;
            _ -> {error, timeout}
        end
    end.

cancel(Ref) ->
    try py_nif:ticket_token(Ref) of
        foreign -> py_options:misuse("the reply of this call goes to another process");
        0 -> ended; % it was not even started
        Token -> py_nif:cancel(Token)
    catch
        error:badarg -> py_options:misuse("this reference was not returned by this library")
    end.
