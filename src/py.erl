-module(py).

-include("py_doc.hrl").
-include("py_misuse.hrl").
-include("py_request.hrl").
?MODULEDOC("Call, evaluate and execute Python.\n\n"
           "Every function takes names as atoms, binaries or strings, and as its last argument a time-out in\n"
           "milliseconds, `infinity`, or a map of options: `timeout`, `kwargs`, `traceback`, `return`\n"
           "(`value | handle`), `on_unknown` (`handle | repr | error`), `binary` (`auto | bytes | str`),\n"
           "`arrays` (`list | ndarray`), `overload` (`wait | fail`), `inline` (whether a call known to be\n"
           "short may run on the caller's scheduler). Without it calls have 30 seconds, calls of an explicit\n"
           "context all the time they need.").

%% Calls
-export([call/3, call/4, call/5, call/6, eval/1, eval/2, eval/3, eval/4, exec/1, exec/2, exec/3]).
-export([cast/3, cast/4, cast/5, spawn_call/3, spawn_call/4, spawn_call/5, spawn_call/6, await/1, await/2]).
-export([parallel/1, parallel/2]).
-export([async_call/3, async_call/4, async_call/5, async_await/1, async_await/2, async_gather/1,
         async_gather/2]).
-export([stream/3, stream/4, stream_eval/1, stream_eval/2, stream_start/3, stream_start/4, stream_ack/2,
         stream_cancel/1]).
%% Objects
-export([getattr/2, call_method/3, to_term/1, is_ref/1, repr/1]).
%% Contexts
-export([context/0, context/1, start_contexts/0, start_contexts/1, stop_contexts/0,
         contexts_started/0, interrupt/1, register_pool/2, unregister_pool/1]).
%% What this Python is
-export([execution_mode/0, num_executors/0, subinterp_supported/0, owngil_supported/0,
         free_threaded/0, version/0]).
%% Callbacks and state
-export([register_function/2, register_function/3, unregister_function/1]).
-export([state_store/2, state_fetch/1, state_remove/1, state_keys/0, state_clear/0, state_incr/1,
         state_incr/2, state_decr/1, state_decr/2]).
%% Logging and tracing
-export([configure_logging/0, configure_logging/1, enable_tracing/0, disable_tracing/0, get_traces/0,
         clear_traces/0]).
%% Memory, modules, errors
-export([memory_stats/0, memory_stats/1, gc/0, gc/1, reload/1, format_error/1]).
-export([to_binary/1]).

-export_type([name/0, kwargs/0, result/0, handle/0, options/0, timeout_or_options/0]).

-type name() :: atom() | binary() | string().
-type kwargs() :: #{name() => term()} | [{name(), term()}].
-type result() :: {ok, term()} | {error, term()}.
-opaque handle() :: reference().
-type options() :: #{timeout => timeout(), kwargs => kwargs(), traceback => boolean(),
                     return => value | handle, on_unknown => handle | repr | error,
                     binary => auto | bytes | str, arrays => list | ndarray, overload => wait | fail,
                     inline => boolean()}.
-type timeout_or_options() :: timeout() | options().

-define(TIMEOUT, 30000).
-define(IS_POOL(Pool, Function),
        (is_atom(Pool) andalso (is_atom(Function) orelse is_binary(Function)))).

%% ------------------------------------------------------------------------------------------
%% call
%% ------------------------------------------------------------------------------------------

?DOC("Calls a function of a module, or a method of a handle: `call(Module, Function, Args)`,\n"
     "`call(Handle, Method, Args)`. The function may be a dotted path. `'__main__'` is what the\n"
     "calling process defined with `exec`.").
-spec call(name() | handle(), name(), [term()]) -> result().
call(Handle, Method, Args) when is_reference(Handle) ->
    at_home(handle(Handle), py_options:call(Handle, Method, Args, #{}, default, ?TIMEOUT));
call(Module, Function, Args) ->
    py_request:implicit(py_options:call(Module, Function, Args, [], default, ?TIMEOUT)).

?DOC("`call(Context, Module, Function, Args)`, `call(Pool, Module, Function, Args)`,\n"
     "`call(Module, Function, Args, Kwargs)` or `call(Handle, Method, Args, Kwargs)`: a pid first is a\n"
     "context; an atom first and an atom or binary third is a pool.").
-spec call(pid() | name() | handle(), name(), name() | [term()], [term()] | kwargs()) -> result().
call(Ctx, Module, Function, Args) when is_pid(Ctx) ->
    py_context:run(Ctx, py_options:call(Module, Function, Args, [], default, infinity));
call(Handle, Method, Args, Kwargs) when is_reference(Handle) ->
    at_home(handle(Handle), py_options:call(Handle, Method, Args, Kwargs, default, ?TIMEOUT));
call(Pool, Module, Function, Args) when ?IS_POOL(Pool, Function) ->
    on_pool(Pool, py_options:call(Module, Function, Args, [], default, ?TIMEOUT));
call(Module, Function, Args, Kwargs) ->
    py_request:implicit(py_options:call(Module, Function, Args, Kwargs, default, ?TIMEOUT)).

-spec call(pid() | name() | handle(), name(), name() | [term()], [term()] | kwargs(),
           kwargs() | timeout_or_options()) -> result().
call(Ctx, Module, Function, Args, T) when is_pid(Ctx) ->
    py_context:run(Ctx, py_options:call(Module, Function, Args, [], T, infinity));
call(Handle, Method, Args, Kwargs, T) when is_reference(Handle) ->
    at_home(handle(Handle), py_options:call(Handle, Method, Args, Kwargs, T, ?TIMEOUT));
call(Pool, Module, Function, Args, Kwargs) when ?IS_POOL(Pool, Function) ->
    on_pool(Pool, py_options:call(Module, Function, Args, Kwargs, default, ?TIMEOUT));
call(Module, Function, Args, Kwargs, T) ->
    py_request:implicit(py_options:call(Module, Function, Args, Kwargs, T, ?TIMEOUT)).

-spec call(atom(), name(), name(), [term()], kwargs(), timeout_or_options()) -> result().
call(Pool, Module, Function, Args, Kwargs, T) when ?IS_POOL(Pool, Function) ->
    on_pool(Pool, py_options:call(Module, Function, Args, Kwargs, T, ?TIMEOUT));
call(_Pool, _Module, _Function, _Args, _Kwargs, _T) ->
    ?MISUSE("with six arguments the first is a pool (an atom), the third a function (an atom or a binary)").

on_pool(Pool, Request) ->
    case py_context_router:pool_place(Pool) of
        {ok, Place} -> py_request:in_context(Place, Request);
        Error -> Error
    end.

%% In an argument, as py_options:call/6 is: so the function that was called is on the stack of a misuse.
handle(Term) ->
    is_ref(Term) orelse py_options:misuse(no_handle(Term)),
    Term.

no_handle(Term) when is_reference(Term) -> "this reference is no handle of this library";
no_handle(Term) -> io_lib:format("~tP is no handle of a Python object", [Term, 20]).

at_home(Handle, Request) ->
    case py_context:handle_place(Handle) of
        {ok, Place} ->
            case py_request:at_home(Place, Request) of
                {context_down, _} -> at_another_home(Handle, Request);
                Result -> Result
            end;
        error ->
            {error, {context_down, gone}}
    end.

%% Its context has just died; in the main interpreter another one will do.
at_another_home(Handle, Request) ->
    case py_context:handle_place(Handle) of
        {ok, Place} -> py_request:in_context(Place, Request);
        error -> {error, {context_down, gone}}
    end.

%% ------------------------------------------------------------------------------------------
%% eval, exec
%% ------------------------------------------------------------------------------------------

?DOC("Evaluates an expression in the calling process's namespace.").
-spec eval(iodata()) -> result().
eval(Code) ->
    py_request:implicit(py_options:eval(Code, #{}, default, ?TIMEOUT)).

?DOC("`eval(Code, Locals)` or `eval(Context, Code)`.").
-spec eval(iodata() | pid(), map() | iodata()) -> result().
eval(Ctx, Code) when is_pid(Ctx) ->
    py_context:run(Ctx, py_options:eval(Code, #{}, default, infinity));
eval(Code, Locals) ->
    py_request:implicit(py_options:eval(Code, Locals, default, ?TIMEOUT)).

?DOC("`eval(Code, Locals, T)` or `eval(Context, Code, Locals)`.").
-spec eval(iodata() | pid(), map() | iodata(), timeout_or_options() | map()) -> result().
eval(Ctx, Code, Locals) when is_pid(Ctx) ->
    py_context:run(Ctx, py_options:eval(Code, Locals, default, infinity));
eval(Code, Locals, T) ->
    py_request:implicit(py_options:eval(Code, Locals, T, ?TIMEOUT)).

-spec eval(pid(), iodata(), map(), timeout_or_options()) -> result().
eval(Ctx, Code, Locals, T) when is_pid(Ctx) ->
    py_context:run(Ctx, py_options:eval(Code, Locals, T, infinity));
eval(_Ctx, _Code, _Locals, _T) ->
    ?MISUSE("with four arguments the first is a context (a pid)").

?DOC("Executes statements; what they define stays in the calling process's namespace.").
-spec exec(iodata()) -> ok | {error, term()}.
exec(Code) ->
    py_request:implicit(py_options:exec(Code, default, ?TIMEOUT)).

?DOC("`exec(Code, T)` or `exec(Context, Code)`.").
-spec exec(iodata() | pid(), timeout_or_options() | iodata()) -> ok | {error, term()}.
exec(Ctx, Code) when is_pid(Ctx) ->
    py_context:run(Ctx, py_options:exec(Code, default, infinity));
exec(Code, T) ->
    py_request:implicit(py_options:exec(Code, T, ?TIMEOUT)).

-spec exec(pid(), iodata(), timeout_or_options()) -> ok | {error, term()}.
exec(Ctx, Code, T) when is_pid(Ctx) ->
    py_context:run(Ctx, py_options:exec(Code, T, infinity));
exec(_Ctx, _Code, _T) ->
    ?MISUSE("with three arguments the first is a context (a pid)").

%% ------------------------------------------------------------------------------------------
%% Several calls
%% ------------------------------------------------------------------------------------------

?DOC("Runs calls in parallel over the contexts; results in order.").
-spec parallel([{name(), name(), [term()]} | {name(), name(), [term()], kwargs()}]) ->
    {ok, [result()]}.
parallel(Calls) ->
    parallel(Calls, #{}).

?DOC("With one deadline for all (`timeout`, 30 s) and at most `max` at a time. Items whose module is\n"
     "`'__main__'` run in the calling process's context, one after another.").
-spec parallel([tuple()], #{timeout => timeout(), max => pos_integer()}) -> {ok, [result()]}.
parallel(Calls, Options) when length(Calls) >= 0, is_map(Options) ->
    {ok, py_parallel:run(Calls, Options, ?TIMEOUT)};
parallel(_Calls, _Options) ->
    ?MISUSE("py:parallel/2 takes a list of calls and a map of options").

?DOC("Calls and forgets; a failure is logged. The call outlives the caller.").
-spec cast(name(), name(), [term()]) -> ok.
cast(Module, Function, Args) ->
    py_async:cast(request(Module, Function, Args, [], ?TIMEOUT)).

-spec cast(pid() | name(), name(), name() | [term()], [term()] | kwargs()) -> ok.
cast(Ctx, Module, Function, Args) when is_pid(Ctx) ->
    py_async:cast(Ctx, py_options:call(Module, Function, Args, [], infinity, infinity));
cast(Pool, Module, Function, Args) when ?IS_POOL(Pool, Function) ->
    py_async:cast_pool(Pool, py_options:call(Module, Function, Args, [], ?TIMEOUT, ?TIMEOUT));
cast(Module, Function, Args, Kwargs) ->
    py_async:cast(request(Module, Function, Args, Kwargs, ?TIMEOUT)).

-spec cast(atom(), name(), name(), [term()], kwargs()) -> ok.
cast(Pool, Module, Function, Args, Kwargs) when ?IS_POOL(Pool, Function) ->
    py_async:cast_pool(Pool, py_options:call(Module, Function, Args, Kwargs, ?TIMEOUT, ?TIMEOUT));
cast(_Pool, _Module, _Function, _Args, _Kwargs) ->
    ?MISUSE("with five arguments the first is a pool (an atom), the third a function (an atom or a binary)").

%% Of a function, or of a method of a handle.
request(Target, Function, Args, Kwargs, T) ->
    _ = is_reference(Target) andalso handle(Target),
    py_options:call(Target, Function, Args, Kwargs, T, ?TIMEOUT).

?DOC("Calls without waiting; the caller gets `{py_response, Ref, Result}`, or awaits the Ref.").
-spec spawn_call(name() | handle(), name(), [term()]) -> reference().
spawn_call(Module, Function, Args) ->
    spawn_call(Module, Function, Args, []).

-spec spawn_call(pid() | name() | handle(), name(), name() | [term()], [term()] | kwargs()) ->
    reference().
spawn_call(Ctx, Module, Function, Args) when is_pid(Ctx) ->
    py_async:start(Ctx, py_options:call(Module, Function, Args, [], default, infinity));
spawn_call(Pool, Module, Function, Args) when ?IS_POOL(Pool, Function) ->
    spawn_call(Pool, Module, Function, Args, []);
spawn_call(Module, Function, Args, Kwargs) ->
    py_async:start(request(Module, Function, Args, Kwargs, default)).

-spec spawn_call(pid() | name() | handle(), name(), name() | [term()], [term()] | kwargs(),
                 kwargs() | timeout_or_options()) -> reference().
spawn_call(Ctx, Module, Function, Args, T) when is_pid(Ctx) ->
    py_async:start(Ctx, py_options:call(Module, Function, Args, [], T, infinity));
spawn_call(Pool, Module, Function, Args, Kwargs) when ?IS_POOL(Pool, Function) ->
    py_async:start_pool(Pool, py_options:call(Module, Function, Args, Kwargs, default, ?TIMEOUT));
spawn_call(Module, Function, Args, Kwargs, T) ->
    py_async:start(request(Module, Function, Args, Kwargs, T)).

-spec spawn_call(atom(), name(), name(), [term()], kwargs(), timeout_or_options()) -> reference().
spawn_call(Pool, Module, Function, Args, Kwargs, T) when ?IS_POOL(Pool, Function) ->
    py_async:start_pool(Pool, py_options:call(Module, Function, Args, Kwargs, T, ?TIMEOUT));
spawn_call(_Pool, _Module, _Function, _Args, _Kwargs, _T) ->
    ?MISUSE("with six arguments the first is a pool (an atom), the third a function (an atom or a binary)").

-spec await(reference()) -> result().
await(Ref) ->
    await(Ref, py_request:default_timeout(?TIMEOUT)).

?DOC("The result of a Ref this module returned. A time-out cancels the call and leaves no message behind.").
-spec await(reference(), timeout_or_options()) -> result().
await(Ref, T) ->
    py_async:await(ticket(Ref), py_options:timeout(T, ?TIMEOUT)).

ticket(Ref) ->
    try py_nif:ticket_token(Ref) of
        _ -> Ref
    catch
        error:badarg -> py_options:misuse("what is awaited is a reference that this library returned")
    end.

%% ------------------------------------------------------------------------------------------
%% Coroutines
%% ------------------------------------------------------------------------------------------

?DOC("Starts a coroutine function on an event loop of the context that `call` would take; calls that need\n"
     "no context are spread over `num_async_workers` of them. A plain function is called. The caller gets\n"
     "`{py_response, Ref, Result}`, or awaits the Ref.").
-spec async_call(name() | handle(), name(), [term()]) -> reference().
async_call(Module, Function, Args) ->
    async_call(Module, Function, Args, []).

-spec async_call(name() | handle(), name(), [term()], kwargs()) -> reference().
async_call(Module, Function, Args, Kwargs) ->
    py_async:start_async(request(Module, Function, Args, Kwargs, default)).

-spec async_call(name() | handle(), name(), [term()], kwargs(), timeout_or_options()) -> reference().
async_call(Module, Function, Args, Kwargs, T) ->
    py_async:start_async(request(Module, Function, Args, Kwargs, T)).

?DOC("`await/1`.").
-spec async_await(reference()) -> result().
async_await(Ref) ->
    await(Ref).

-spec async_await(reference(), timeout_or_options()) -> result().
async_await(Ref, T) ->
    await(Ref, T).

?DOC("Runs coroutine functions at once: all values in order, or which calls failed and why.").
-spec async_gather([tuple()]) -> {ok, [term()]} | {error, {gather_failed, [{pos_integer(), term()}]}}.
async_gather(Calls) ->
    async_gather(Calls, py_request:default_timeout(?TIMEOUT)).

-spec async_gather([tuple()], timeout_or_options()) ->
    {ok, [term()]} | {error, {gather_failed, [{pos_integer(), term()}]}}.
async_gather(Calls, T) when length(Calls) >= 0 ->
    py_parallel:gathered(py_parallel:gather(Calls, T, ?TIMEOUT));
async_gather(_Calls, _T) ->
    ?MISUSE("what is gathered is a list of calls").

%% ------------------------------------------------------------------------------------------
%% Streams
%% ------------------------------------------------------------------------------------------

?DOC("All items of the generator or iterator that the call gives; 30 seconds for each.").
-spec stream(name() | handle(), name(), [term()]) -> {ok, [term()]} | {error, term()}.
stream(Module, Function, Args) ->
    stream(Module, Function, Args, []).

-spec stream(name() | handle(), name(), [term()], kwargs()) -> {ok, [term()]} | {error, term()}.
stream(Module, Function, Args, Kwargs) ->
    py_stream:collect(request(Module, Function, Args, Kwargs, default)).

?DOC("All items of what an expression gives, such as a generator expression.").
-spec stream_eval(iodata()) -> {ok, [term()]} | {error, term()}.
stream_eval(Code) ->
    stream_eval(Code, #{}).

-spec stream_eval(iodata(), map()) -> {ok, [term()]} | {error, term()}.
stream_eval(Code, Locals) ->
    py_stream:collect(py_options:eval(Code, Locals, default, ?TIMEOUT)).

?DOC("Items as messages: `{py_stream, Ref, {data, Item}}`, at last `{py_stream, Ref, done}` or\n"
     "`{py_stream, Ref, {error, Reason}}`.").
-spec stream_start(name() | handle(), name(), [term()]) -> {ok, reference()} | {error, term()}.
stream_start(Module, Function, Args) ->
    stream_start(Module, Function, Args, #{}).

?DOC("Options: `owner` (the caller), `batch` (so many items in one message `{batch, Items}`), `credit` (`auto`:\n"
     "as long as the owner reads; or so many items until `stream_ack/2`), `timeout` for each item\n"
     "(`infinity`), and `kwargs`, `traceback`, `on_unknown`, `binary`, `arrays` and `return` (`handle`: every item\n"
     "as a handle) of `call`.").
-spec stream_start(name() | handle(), name(), [term()], py_stream:options()) ->
    {ok, reference()} | {error, term()}.
stream_start(Module, Function, Args, Options) when is_map(Options) ->
    {Own, Rest} = py_stream:options(Options),
    py_stream:start(request(Module, Function, Args, [], Rest), Own);
stream_start(_Module, _Function, _Args, _Options) ->
    ?MISUSE("the options of a stream are a map").

?DOC("The stream may send so many more items.").
-spec stream_ack(reference(), non_neg_integer()) -> ok.
stream_ack(Ref, N) when is_reference(Ref), is_integer(N), N >= 0 ->
    py_stream:ack(Ref, N);
stream_ack(_Ref, _N) ->
    ?MISUSE("py:stream_ack/2 takes a stream's reference and a number of items").

?DOC("Ends a stream: the generator is closed, then comes `{py_stream, Ref, {error, cancelled}}`.").
-spec stream_cancel(reference()) -> ok.
stream_cancel(Ref) when is_reference(Ref) ->
    py_stream:cancel(Ref);
stream_cancel(_Ref) ->
    ?MISUSE("a stream is named by the reference that py:stream_start returned").

%% ------------------------------------------------------------------------------------------
%% Objects
%% ------------------------------------------------------------------------------------------

?DOC("An attribute of a handle's object.").
-spec getattr(handle(), name()) -> result().
getattr(Handle, Name) ->
    of_handle(handle(Handle), <<"getattr">>, [Handle, py_options:name(Name, "the attribute")]).

-spec call_method(handle(), name(), [term()]) -> result().
call_method(Handle, Method, Args) ->
    call(Handle, Method, Args).

?DOC("The object behind a handle as a term; the handle itself when it has no Erlang image.").
-spec to_term(handle()) -> result().
to_term(Handle) ->
    at_home(handle(Handle), py_options:call(<<"erlang._setup">>, <<"same">>, [Handle], [], default, ?TIMEOUT)).

?DOC("Whether a term is a handle.").
-spec is_ref(term()) -> boolean().
is_ref(Term) ->
    is_reference(Term) andalso py_nif:is_handle(Term).

-spec repr(handle()) -> result().
repr(Handle) ->
    of_handle(handle(Handle), <<"repr">>, [Handle]).

of_handle(Handle, Function, Args) ->
    at_home(Handle, py_options:call(<<"builtins">>, Function, Args, [], #{binary => str}, ?TIMEOUT)).

%% ------------------------------------------------------------------------------------------
%% Contexts
%% ------------------------------------------------------------------------------------------

?DOC("Where the calling process's next call without context goes.").
-spec context() -> pid() | {error, term()}.
context() ->
    py_context_router:get_context().

?DOC("The context at an index of the router, from 1.").
-spec context(pos_integer()) -> pid() | {error, term()}.
context(N) ->
    py_context_router:get_context(N).

-spec start_contexts() -> {ok, [pid()]} | {error, term()}.
start_contexts() ->
    py_context_router:start().

-spec start_contexts(#{contexts => pos_integer(), mode => py_context:mode()}) ->
    {ok, [pid()]} | {error, term()}.
start_contexts(Options) ->
    py_context_router:start(Options).

-spec stop_contexts() -> ok.
stop_contexts() ->
    py_context_router:stop().

-spec contexts_started() -> boolean().
contexts_started() ->
    py_context_router:is_started().

-spec interrupt(pid()) -> ok | not_running.
interrupt(Ctx) ->
    py_context:interrupt(Ctx).

-spec register_pool(atom(), name() | {name(), name()}) -> ok | {error, term()}.
register_pool(Pool, What) ->
    py_context_router:register_pool(Pool, What).

-spec unregister_pool(name() | {name(), name()}) -> ok | {error, term()}.
unregister_pool(What) ->
    py_context_router:unregister_pool(What).

%% ------------------------------------------------------------------------------------------
%% What this Python is
%% ------------------------------------------------------------------------------------------

?DOC("The mode the router's contexts really run in; before they started, the one they would.").
-spec execution_mode() -> py_context:mode().
execution_mode() ->
    %% From the router's table: a context may be dead and about to be replaced.
    case py_context:mode(py_context_router:mode()) of
        {ok, Mode} -> Mode;
        {error, _} -> element(2, py_context:mode(auto))
    end.

?DOC("How many executors the router's contexts have; 4 by default in multi_executor.").
-spec num_executors() -> pos_integer().
num_executors() ->
    case execution_mode() of
        multi_executor -> py_config:get(num_executors);
        _ -> max(1, py_context_router:num_contexts())
    end.

-spec subinterp_supported() -> boolean().
subinterp_supported() ->
    element(2, py_nif:features()).

-spec owngil_supported() -> boolean().
owngil_supported() ->
    subinterp_supported().

-spec free_threaded() -> boolean().
free_threaded() ->
    element(3, py_nif:features()).

?DOC("The version of the Python the library was built with, such as `<<\"3.13.0\">>`.").
-spec version() -> {ok, binary()}.
version() ->
    {ok, list_to_binary(element(1, py_nif:features()))}.

%% ------------------------------------------------------------------------------------------
%% Callbacks and state
%% ------------------------------------------------------------------------------------------

-spec register_function(name(), fun(([term()]) -> term()) | fun(([term()], map()) -> term())) -> ok.
register_function(Name, Fun) ->
    ok = py_callback:register(Name, Fun). % matched, so that this function is on the stack of a misuse

-spec register_function(name(), module(), atom()) -> ok.
register_function(Name, Module, Function) ->
    ok = py_callback:register(Name, Module, Function).

-spec unregister_function(name()) -> ok.
unregister_function(Name) ->
    ok = py_callback:unregister(Name).

-spec state_store(term(), term()) -> ok | {error, full}.
state_store(Key, Value) -> py_state:store(Key, Value).

-spec state_fetch(term()) -> {ok, term()} | {error, not_found}.
state_fetch(Key) -> py_state:fetch(Key).

-spec state_remove(term()) -> ok.
state_remove(Key) -> py_state:remove(Key).

-spec state_keys() -> [term()].
state_keys() -> py_state:keys().

-spec state_clear() -> ok.
state_clear() -> py_state:clear().

-spec state_incr(term()) -> integer() | {error, full | not_a_counter}.
state_incr(Key) -> py_state:incr(Key).

-spec state_incr(term(), integer()) -> integer() | {error, full | not_a_counter}.
state_incr(Key, Amount) -> py_state:incr(Key, Amount).

-spec state_decr(term()) -> integer() | {error, full | not_a_counter}.
state_decr(Key) -> py_state:decr(Key).

-spec state_decr(term(), integer()) -> integer() | {error, full | not_a_counter}.
state_decr(Key, Amount) -> py_state:decr(Key, Amount).

%% ------------------------------------------------------------------------------------------
%% Logging and tracing
%% ------------------------------------------------------------------------------------------

?DOC("Python's `logging` goes to Erlang's `logger` from now on, from every level that is logged there.").
-spec configure_logging() -> ok | {error, term()}.
configure_logging() ->
    configure_logging(#{}).

?DOC("In every context, present and future. Options: `level` (one of `logger`'s: that of Python's root\n"
     "logger), `format` (a format string of Python's `logging`, the message alone by default). Waits for contexts that\n"
     "are busy for up to 30 seconds; `{error, [{Context, Reason}]}` names those that it could not reach.").
-spec configure_logging(py_log:options()) -> ok | {error, term()}.
configure_logging(Options) ->
    py_log:configure(Options).

?DOC("Spans of Python code (`erlang.Span`, `erlang.trace`) are kept from now on, in every context.").
-spec enable_tracing() -> ok.
enable_tracing() ->
    py_log:set_tracing(true).

?DOC("No further span is kept; those that were stay until `clear_traces/0`.").
-spec disable_tracing() -> ok.
disable_tracing() ->
    py_log:set_tracing(false).

?DOC("The finished spans, in the order in which they ended: the last `max_traces` of them.").
-spec get_traces() -> {ok, [py_log:span()]}.
get_traces() ->
    py_log:traces().

-spec clear_traces() -> ok.
clear_traces() ->
    py_log:clear_traces().

%% ------------------------------------------------------------------------------------------
%% Memory, modules, errors
%% ------------------------------------------------------------------------------------------

?DOC("`gc_stats`, `gc_count`, `gc_threshold` and, when tracemalloc traces, `traced_memory_current` and\n"
     "`traced_memory_peak` (bytes), of the context that the next call would take.").
-spec memory_stats() -> {ok, map()} | {error, term()}.
memory_stats() ->
    stats(call(<<"erlang._setup">>, <<"memory_stats">>, [])).

-spec memory_stats(pid()) -> {ok, map()} | {error, term()}.
memory_stats(Ctx) when is_pid(Ctx) ->
    stats(call(Ctx, <<"erlang._setup">>, <<"memory_stats">>, []));
memory_stats(_Ctx) ->
    ?MISUSE("a context is a pid").

stats({ok, Stats}) ->
    Keys = [{<<"gc_stats">>, gc_stats}, {<<"gc_count">>, gc_count}, {<<"gc_threshold">>, gc_threshold},
            {<<"traced_memory_current">>, traced_memory_current},
            {<<"traced_memory_peak">>, traced_memory_peak}],
    {ok, maps:from_list([{Key, maps:get(Name, Stats)} || {Name, Key} <- Keys, is_map_key(Name, Stats)])};
stats(Error) ->
    Error.

?DOC("Runs Python's garbage collector: how many unreachable objects it found.").
-spec gc() -> {ok, non_neg_integer()} | {error, term()}.
gc() ->
    call(<<"erlang._setup">>, <<"collect">>, []).

?DOC("Of one generation (0, 1 or 2), or of an explicit context.").
-spec gc(0..2 | pid()) -> {ok, non_neg_integer()} | {error, term()}.
gc(Ctx) when is_pid(Ctx) ->
    call(Ctx, <<"erlang._setup">>, <<"collect">>, []);
gc(Generation) when is_integer(Generation), Generation >= 0, Generation =< 2 ->
    call(<<"erlang._setup">>, <<"collect">>, [Generation]);
gc(_Which) ->
    ?MISUSE("what is collected is a generation (0, 1 or 2) or a context (a pid)").

?DOC("Reloads a module in every context that has loaded it.").
-spec reload(name()) -> ok | {error, [{pid(), term()}]}.
reload(Module) ->
    Name = py_options:name(Module, "the module"),
    Results = [{Ctx, call(Ctx, <<"erlang._setup">>, <<"reload">>, [Name])} || Ctx <- one_of_each()],
    case [{Ctx, Reason} || {Ctx, {error, Reason}} <- Results] of
        [] -> ok;
        Errors -> {error, Errors}
    end.

%% A context of each interpreter: several may share the main one.
one_of_each() ->
    [Ctx || {_, Ctx} <- lists:ukeysort(1, [{Id, Ctx} || {Ctx, _} <- py_context:all(),
                                                        {ok, Id} <- [py_context:get_interp_id(Ctx)]])].

?DOC("What Python would print for an error reason of this library.").
-spec format_error(term()) -> unicode:chardata().
format_error(Reason) ->
    py_error:format(Reason).

?HIDDEN.
-spec to_binary(name()) -> binary().
to_binary(Name) when is_binary(Name) -> Name;
to_binary(Name) when is_atom(Name) -> atom_to_binary(Name);
to_binary(Name) when is_list(Name) -> unicode:characters_to_binary(Name).
