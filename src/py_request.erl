-module(py_request).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("How a request gets to Python and its reply back, without a process in between.\n\n"
           "What a process needs for that is kept in its dictionary under `'$py'`: its owner\n"
           "resource (made at its first call, watches it), where its calls go, its namespaces,\n"
           "and, in a process that runs a callback, the chain it belongs to.").

%% Not for speed: a NIF that was tail-called in between costs the receive its marker in the mailbox (seen on
%% OTP 25: with 100 000 messages in it 450 µs a call instead of 9).
-compile({inline, [send/9]}).

%% API
-export([implicit/1, in_context/2, at_home/2, in_env/4, start/2, start_as/3, start_response/2, cast/2]).
-export([destination/1, implicitly/1, settled/2, with_flags/2, with_timeout/2]).
-export([adopt/2, bequest/2, inherit/2, go_first/0, bind/1, unbind/0, binding/0, owner/0, where/0]).
-export([default_timeout/1, remaining/1, overloaded/0, is_main/1]).

-export_type([place/0, request/0, bequest/0]).

-type place() :: {pid(), py_nif:context()}.
-type request() :: #request{}.
-type binding() :: {index, pos_integer()} | {context, place()}.

-record(py, {
    owner :: undefined | py_nif:owner(), % undefined: not needed yet
    pid :: undefined | pid(), % whose owner that is: dictionaries get copied, by the shell for one
    bound :: undefined | binding(),
    sticky :: undefined | place(),
    namespaces = #{} :: #{py_nif:context() => py_nif:namespace()},
    depth = 0 :: non_neg_integer(),
    errand = 0 :: non_neg_integer(), % ?FLAG_ERRAND in a chain of a thread that serves no request
    deadline = none :: none | infinity | integer() % the chain's; none: it belongs to none
}).

-opaque bequest() :: #py{}.

-define(KEY, '$py').
-define(INNER_DELAY, 50). % ms

%% ------------------------------------------------------------------------------------------
%% Running a request
%% ------------------------------------------------------------------------------------------

?DOC("Runs a request without explicit context: routed, placed where its imports or handles live.").
-spec implicit(request()) -> ok | {ok, term()} | {error, term()}.
implicit(Request) ->
    implicit(Request, state()).

implicit(Request, #py{bound = undefined, sticky = undefined} = State) ->
    case py_context_router:pick(Request) of
        {ok, Place} -> anywhere(Request, Place, State);
        Error -> Error
    end;
implicit(Request, #py{bound = undefined, sticky = Place} = State) ->
    case routed(Request, Place, State) of
        {context_down, Reason} -> implicit(Request, forget(Place, Reason, State));
        Result -> Result
    end;
implicit(Request, #py{bound = {index, Index}} = State) ->
    case py_context_router:place(Index) of
        {ok, Place} -> plain(routed(Request, Place, State));
        Error -> Error
    end;
implicit(Request, #py{bound = {context, Place}} = State) ->
    plain(routed(Request, Place, State)).

%% Any context of the pool will do, so one that has just died is no reason to fail.
anywhere(Request, Place, State) ->
    case first(Request, Place, State) of
        {context_down, _} -> plain(first(Request, py_context_router:living(Place), State));
        Result -> Result
    end.

%% The context of the process's namespace is gone: it starts anew elsewhere.
forget({Pid, Ctx}, Reason, State) ->
    logger:warning("Python context ~p is gone (~p): the namespace of ~p there is lost",
                   [Pid, Reason, self()]),
    State1 = State#py{sticky = undefined, namespaces = maps:remove(Ctx, State#py.namespaces)},
    store(State1),
    State1.

%% A request that was not accepted because its context is gone.
plain({context_down, _} = Reason) -> {error, Reason};
plain(Result) -> Result.

%% A process without a namespace: code may be placed, a call of a module needs no namespace.
first(#request{op = ?OP_CALL, target = Target} = Request, Place, State) ->
    Flags = Request#request.flags bor any_executor(Target) bor ?FLAG_IMPLICIT,
    settle(Request, submit(Place, namespace_if_any(Place, State), Request, Flags, State), State);
first(Request, Place, State) ->
    Flags = Request#request.flags bor ?FLAG_IMPLICIT bor ?FLAG_PLACING,
    {Namespace, State1} = namespace(Place, State),
    case submit(Place, Namespace, Request, Flags, State1) of
        {py_elsewhere, _} ->
            case py_context_router:main_place() of
                {ok, Main} -> stick(Request, Main, State);
                Error -> Error
            end;
        {context_down, _} = Down ->
            Down;
        Result ->
            store(State1#py{sticky = Place}),
            Result
    end.

stick(Request, Place, State) ->
    {Namespace, State1} = namespace(Place, State),
    store(State1#py{sticky = Place}),
    submit(Place, Namespace, Request, Request#request.flags, State1).

routed(#request{op = ?OP_CALL} = Request, Place, State) ->
    Flags = Request#request.flags bor ?FLAG_IMPLICIT,
    settle(Request, submit(Place, namespace_if_any(Place, State), Request, Flags, State), State);
routed(Request, Place, State) ->
    {Namespace, State1} = namespace(Place, State),
    store(State1),
    submit(Place, Namespace, Request, Request#request.flags, State1).

any_executor(Target) ->
    case is_main(Target) of
        true -> 0;
        false -> ?FLAG_ANY_EXECUTOR
    end.

?DOC("Whether a module's name is that of the caller's namespace.").
-spec is_main(term()) -> boolean().
is_main('__main__') -> true;
is_main(<<"__main__">>) -> true;
is_main("__main__") -> true;
is_main(_) -> false.

%% Passes an unrun request on to where what it names lives.
settle(_Request, {py_elsewhere, main}, _State) ->
    {error, {context_down, not_started}}; % the library found no way to main itself
settle(Request, {error, {badarg, Path, other_interpreter}} = Error, State) ->
    case handle_place(Path, Request) of
        {ok, Place} ->
            submit(Place, namespace_if_any(Place, State), Request, Request#request.flags, State);
        error ->
            Error
    end;
settle(_Request, Result, _State) ->
    Result.

%% The context of the handle that Path leads to.
handle_place([], #request{target = Handle}) ->
    py_context:handle_place(Handle);
handle_place([Position | Path], #request{args = Args}) when is_integer(Position) ->
    handle_place_in(Path, lists:nth(Position, Args));
handle_place([Key | Path], #request{kwargs = Kwargs}) when is_map(Kwargs) ->
    handle_place_in(Path, maps:get(Key, Kwargs, undefined));
handle_place([Key | Path], #request{kwargs = Kwargs}) ->
    handle_place_in(Path, proplists:get_value(Key, Kwargs)).

handle_place_in([], Handle) when is_reference(Handle) -> py_context:handle_place(Handle);
handle_place_in([N | Path], List) when is_list(List) -> handle_place_in(Path, lists:nth(N, List));
handle_place_in([N | Path], Tuple) when is_tuple(Tuple) -> handle_place_in(Path, element(N, Tuple));
handle_place_in([Key | Path], #{} = Map) -> handle_place_in(Path, maps:get(Key, Map, undefined));
handle_place_in(_, _) -> error.

?DOC("Runs a request in an explicit context, in the caller's namespace there.").
-spec in_context(place(), request()) -> ok | {ok, term()} | {error, term()}.
in_context(Place, #request{op = ?OP_CALL, target = Target} = Request) ->
    State = state(),
    case any_executor(Target) of
        0 -> in_namespace(Place, Request, State);
        _ -> plain(submit(Place, namespace_if_any(Place, State), Request, Request#request.flags,
                          State))
    end;
in_context(Place, Request) ->
    in_namespace(Place, Request, state()).

in_namespace(Place, Request, State) ->
    {Namespace, State1} = namespace(Place, State),
    store(State1),
    plain(submit(Place, Namespace, Request, Request#request.flags, State1)).

?DOC("Runs a method of a handle's object where that lives. `{context_down, Reason}`: it was not accepted.").
-spec at_home(place(), request()) -> {ok, term()} | {error, term()} | {context_down, term()}.
at_home(Place, Request) ->
    State = state(),
    submit(Place, namespace_if_any(Place, State), Request, Request#request.flags, State).

?DOC("Runs a request in an explicit environment; what is neither is a misuse of the function `Caller`.").
-spec in_env(py_nif:context(), request(), py_nif:namespace(), mfa()) ->
    ok | {ok, term()} | {error, term()}.
in_env(Ref, Request, Env, Caller) ->
    try submit({undefined, Ref}, Env, Request, Request#request.flags, state()) of
        Result -> plain(Result)
    catch
        error:badarg ->
            py_options:misuse(Caller,
                              "an environment comes from py_context:create_local_env/1, the reference of "
                              "a context from py_context:get_nif_ref/1")
    end.

%% The Ref is made in the function that receives: the VM then skips the mailbox up to it. The reply is
%% certain, the library keeps the deadline: a time-out of `receive` costs more than all the rest of it.
submit({_, Ctx}, Namespace, #request{op = ?OP_CALL} = Request, Flags, #py{depth = 0, errand = 0} = State)
  when Flags band ?FLAG_MAY_INLINE =/= 0 ->
    #request{target = Target, function = Function, args = Args, kwargs = Kwargs, timeout = Timeout} = Request,
    case py_nif:call_inline(Ctx, State#py.owner, Namespace, Target, Function, Args, Kwargs, Timeout, Flags) of
        normal ->
            submit_and_wait(Ctx, Namespace, Request, Flags, State);
        {error, {context_down, replaced}} = Replaced ->
            forget_namespace(Ctx),
            Replaced;
        Result ->
            Result
    end;
submit({_, Ctx}, Namespace, Request, Flags, State) ->
    submit_and_wait(Ctx, Namespace, Request, Flags, State).

submit_and_wait(Ctx, Namespace, Request, Flags, State) ->
    Timeout = cut(Request#request.timeout, State#py.deadline),
    Ref = make_ref(),
    case send(Ctx, State#py.owner, Namespace, self(), Ref, Request, Timeout,
              Flags bor State#py.errand, State#py.depth) of
        Token when is_integer(Token) ->
            receive
                {Ref, {error, {context_down, replaced}} = Replaced} ->
                    forget_namespace(Ctx),
                    Replaced;
                {Ref, Result} ->
                    Result
            end;
        Refused ->
            Refused
    end.

%% The interpreter it lived in is gone; the next call starts a new one.
forget_namespace(Ctx) ->
    State = state(),
    store(State#py{namespaces = maps:remove(Ctx, State#py.namespaces)}).

?HIDDEN.
-spec overloaded() -> {overloaded, integer(), pos_integer()}.
overloaded() ->
    {Current, Max, _} = py_nif:slots(),
    {overloaded, Current, Max}.

?DOC("Submits without waiting; `{Ref, Result}` comes to the caller.").
-spec start(place(), request()) -> {reference(), py_nif:token()} | {error, term()}.
start(Place, Request) ->
    Ref = make_ref(),
    case start_as(Place, Ref, Request) of
        Token when is_integer(Token) -> {Ref, Token};
        Refused -> Refused
    end.

?DOC("The same with a given reference, which may be any term.").
-spec start_as(place(), term(), request()) -> py_nif:token() | {error, term()}.
start_as({_, Ctx} = Place, Reference, #request{timeout = Timeout} = Request) ->
    {Namespace, State} = namespace_for(Request, Place, state()),
    plain(send(Ctx, State#py.owner, Namespace, self(), Reference, Request,
               cut(Timeout, State#py.deadline), Request#request.flags bor State#py.errand,
               State#py.depth)).

%% Code, and functions of '__main__', need a namespace; the others have it if there is one.
namespace_for(Request, Place, State) ->
    case is_code_or_main(Request) of
        true ->
            {Namespace, State1} = namespace(Place, State),
            store(State1),
            {Namespace, State1};
        false ->
            {namespace_if_any(Place, State), State}
    end.

?DOC("Submits without waiting; `{py_response, Ref, Result}` comes to the caller.").
-spec start_response(place(), request()) -> reference().
start_response({_, Ctx} = Place, #request{timeout = Timeout} = Request) ->
    {Namespace, State} = namespace_for(Request, Place, state()),
    Ref = py_nif:ticket(),
    Token = send(Ctx, State#py.owner, Namespace, self(), Ref, Request, cut(Timeout, State#py.deadline),
                 Request#request.flags bor ?FLAG_RESPONSE bor State#py.errand, State#py.depth),
    _ = is_integer(Token) orelse (self() ! {py_response, Ref, plain(Token)}),
    Ref.

is_code_or_main(#request{op = ?OP_CALL, target = Target}) -> any_executor(Target) =:= 0;
is_code_or_main(_) -> true.

?DOC("Submits for nobody: it outlives the caller, a failure goes to py_engine.").
-spec cast(place(), request()) -> ok.
cast({_, Ctx} = Place, #request{timeout = Timeout, flags = Flags} = Request) ->
    Token = send(Ctx, none, namespace_if_any(Place, state()), whereis(py_engine), make_ref(), Request,
                 Timeout, Flags bor ?FLAG_ERRORS_ONLY, 0),
    _ = is_integer(Token) orelse (py_engine ! {make_ref(), plain(Token)}),
    ok.

send(Ctx, Owner, Namespace, ReplyTo, Ref, Request, Timeout, Flags, Depth) ->
    #request{op = Op, target = Target, function = Function, args = Args, kwargs = Kwargs} = Request,
    py_nif:submit(Ctx, Owner, Namespace, ReplyTo, Ref, Op, Target, Function, Args, Kwargs, Timeout,
                  Flags, Depth).

?DOC("Where the calling process's next implicit request goes.").
-spec destination(request()) -> {ok, place()} | {error, term()}.
destination(Request) ->
    case where() of
        undefined -> living(py_context_router:pick(Request));
        {index, Index} -> py_context_router:place(Index);
        {context, Place} -> {ok, Place}
    end.

living({ok, Place}) -> {ok, py_context_router:living(Place)};
living(Error) -> Error.

?DOC("The result of a request that was started with `start/2`, passed on if it belongs elsewhere.").
-spec settled(request(), term()) -> py:result().
settled(Request, Result) ->
    settle(Request, Result, state()).

?DOC("Marks a request as having no explicit context.").
-spec implicitly(request()) -> request().
implicitly(#request{flags = Flags} = Request) ->
    Request#request{flags = Flags bor ?FLAG_IMPLICIT}.

?DOC("Adds options; see py_request.hrl.").
-spec with_flags(request(), non_neg_integer()) -> request().
with_flags(#request{flags = Flags} = Request, More) ->
    Request#request{flags = Flags bor More}.

-spec with_timeout(request(), timeout()) -> request().
with_timeout(Request, Timeout) ->
    Request#request{timeout = Timeout}.

%% ------------------------------------------------------------------------------------------
%% The chain
%% ------------------------------------------------------------------------------------------

?DOC("Makes the calling process part of a chain: it runs a callback of a request in a context.").
-spec adopt(pid(), {pid() | undefined, py_nif:context(), py_nif:namespace() | undefined,
                    non_neg_integer(), timeout(), boolean()}) -> ok.
adopt(Pid, {_Owner, Ctx, Namespace, Depth, Left, IsErrand}) ->
    %% A little late: the chain's time ends from the outermost request inwards, not with an inner
    %% time-out that the code around it takes for an answer.
    Deadline = case Left of
                   infinity -> infinity;
                   _ -> erlang:monotonic_time(millisecond) + Left + ?INNER_DELAY
               end,
    State = #py{depth = Depth, deadline = Deadline,
                errand = case IsErrand of true -> ?FLAG_ERRAND; false -> 0 end},
    case Namespace of
        undefined -> store(State);
        _ -> store(State#py{sticky = {Pid, Ctx}, namespaces = #{Ctx => Namespace}})
    end.

?DOC("What a process that works for the calling one needs, to make this request at that place.").
-spec bequest(place(), request()) -> bequest().
bequest(Place, Request) ->
    {_, State} = namespace_for(Request, Place, state()),
    State.

?DOC("Makes the calling process work for another one: its namespaces and chain are those of the\n"
     "bequest, and to Python it is `Pid` (if that is local).").
-spec inherit(bequest(), pid()) -> ok.
inherit(State, Pid) when node(Pid) =:= node() ->
    store(State#py{owner = py_nif:owner_for(Pid), pid = self()});
inherit(State, _Pid) ->
    store(State#py{owner = py_nif:owner(), pid = self()}).

?DOC("The calling process's requests go to the head of the line, as a callback's do.").
-spec go_first() -> ok.
go_first() ->
    store((state())#py{depth = 1}).

?DOC("What is left of a time-out in milliseconds under the chain's deadline.").
-spec remaining(timeout()) -> timeout().
remaining(Timeout) ->
    case get(?KEY) of
        #py{deadline = Deadline} -> cut(Timeout, Deadline);
        undefined -> Timeout
    end.

?DOC("The time-out of a call that names none: what is left of the chain's deadline, which `cut/2` finds\n"
     "out; outside of a chain that of its kind.").
-spec default_timeout(timeout()) -> timeout().
default_timeout(Timeout) ->
    case get(?KEY) of
        #py{deadline = Deadline} when Deadline =/= none -> infinity;
        _ -> Timeout
    end.

cut(Timeout, none) -> Timeout;
cut(Timeout, infinity) -> Timeout;
cut(Timeout, Deadline) -> min(Timeout, max(0, Deadline - erlang:monotonic_time(millisecond))).

%% ------------------------------------------------------------------------------------------
%% What the process keeps
%% ------------------------------------------------------------------------------------------

state() ->
    case get(?KEY) of
        #py{pid = Pid} = State when Pid =:= self() -> State;
        #py{} = State -> with_owner(State);
        undefined -> with_owner(#py{})
    end.

with_owner(State) ->
    State1 = State#py{owner = py_nif:owner(), pid = self()},
    put(?KEY, State1),
    State1.

store(State) ->
    put(?KEY, State),
    ok.

?HIDDEN.
-spec owner() -> py_nif:owner().
owner() ->
    (state())#py.owner.

?DOC("Binds the calling process's implicit calls to a context or to a place of the router.").
-spec bind(binding()) -> ok.
bind(Binding) ->
    store((state())#py{bound = Binding}).

-spec unbind() -> ok.
unbind() ->
    store((state())#py{bound = undefined}).

?DOC("The binding of the calling process, if it has one.").
-spec binding() -> undefined | binding().
binding() ->
    (state())#py.bound.

?DOC("Where the calling process's next implicit call goes, unless by scheduler.").
-spec where() -> undefined | {index, pos_integer()} | {context, place()}.
where() ->
    case state() of
        #py{bound = undefined, sticky = undefined} -> undefined;
        #py{bound = undefined, sticky = {Pid, _} = Place} = State ->
            case is_process_alive(Pid) of
                true -> {context, Place};
                false -> _ = forget(Place, noproc, State), undefined
            end;
        #py{bound = Binding} -> Binding
    end.

namespace_if_any({_, Ctx}, #py{namespaces = Namespaces}) ->
    case Namespaces of
        #{Ctx := Namespace} -> Namespace;
        #{} -> none
    end.

namespace({_, Ctx}, #py{namespaces = Namespaces} = State) ->
    case Namespaces of
        #{Ctx := Namespace} ->
            {Namespace, State};
        #{} ->
            Namespace = py_nif:namespace(Ctx),
            {Namespace, State#py{namespaces = Namespaces#{Ctx => Namespace}}}
    end.
