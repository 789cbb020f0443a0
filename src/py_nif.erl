-module(py_nif).

-include("py_doc.hrl").
?MODULEDOC("The NIF's functions. Only py, py_request, py_async, py_parallel, py_stream,\n"
           "py_context, py_context_router, py_engine, py_semaphore, py_callback and py_log call them; `context_exec/3`, `context_eval/4` and `context_call/6` are for everybody.").

%% API
-export([context_call/6, context_eval/4, context_exec/3]).
%% The library's functions; shapes are at their definitions in c_src/nif.c.
-export([call_inline/9, callback_reply/2, cancel/1, cancel_waiting/1, context_close/2, context_info/1,
         context_interrupt/1, context_open/3, context_prepared/1, main_context/1, counters/0, features/0, handle_place/1, is_handle/1,
         main_start/3, namespace/1, interrupt/1, loop_setup/2, owner/0, owner_for/1, pool_close/0, pool_open/2, setup/2, slot_acquire/4,
         sink_dropped/0, sink_open/1, sink_set/2, sink_taken/1,
         slot_release/1, slots/0, slots_set_max/1, submit/13, ticket/0, ticket_token/1]).

-on_load(init/0).

-export_type([context/0, namespace/0, owner/0, token/0]).

-opaque context() :: reference().
-opaque namespace() :: reference().
-opaque owner() :: reference().
-type token() :: non_neg_integer().

-define(NOT_LOADED, erlang:nif_error({not_loaded, ?MODULE})).

?DOC("Executes statements in an explicit environment of a context; waits without limit.").
-spec context_exec(context(), iodata(), namespace()) -> ok | {error, term()}.
context_exec(Ref, Code, Env) ->
    py_request:in_env(Ref, py_options:exec(Code, infinity, infinity), Env, {?MODULE, context_exec, 3}).

?DOC("Evaluates an expression, with locals, in an explicit environment; waits without limit.").
-spec context_eval(context(), iodata(), map(), namespace()) -> {ok, term()} | {error, term()}.
context_eval(Ref, Code, Locals, Env) ->
    py_request:in_env(Ref, py_options:eval(Code, Locals, infinity, infinity), Env,
                      {?MODULE, context_eval, 4}).

?DOC("Calls a function with an explicit environment; waits without limit.").
-spec context_call(context(), py:name(), py:name(), [term()], py:kwargs(), namespace()) ->
    {ok, term()} | {error, term()}.
context_call(Ref, Module, Function, Args, Kwargs, Env) ->
    py_request:in_env(Ref, py_options:call(Module, Function, Args, Kwargs, infinity, infinity), Env,
                      {?MODULE, context_call, 6}).

init() ->
    case erlang:load_nif(filename:join(priv_dir(), "erlang_python"), 0) of
        {error, {upgrade, _}} ->
            {error, "another build of the library serves in this VM, and Python cannot be started twice "
                    "in a process: it goes on; restart the VM to have this one"};
        Result ->
            Result
    end.

priv_dir() ->
    case code:priv_dir(erlang_python) of
        {error, bad_name} ->
            filename:join([filename:dirname(filename:dirname(code:which(?MODULE))), "priv"]);
        Dir ->
            Dir
    end.

-spec setup(tuple(), pid()) -> ok | {error, system_limit}.
setup(_Settings, _EventProcess) -> ?NOT_LOADED.

-spec loop_setup(pos_integer(), auto | asyncio | uvloop) -> ok.
loop_setup(_MaxTasks, _Kind) -> ?NOT_LOADED.

-spec main_start(iodata(), iodata(), term()) -> ok | {error, system_limit}.
main_start(_PackageDir, _VirtualEnv, _Tag) -> ?NOT_LOADED.

-spec features() -> {string(), boolean(), boolean()}.
features() -> ?NOT_LOADED.

-spec context_open(atom(), integer(), term()) -> context() | {error, system_limit}.
context_open(_Mode, _Number, _Tag) -> ?NOT_LOADED.

-spec context_close(context(), term()) -> ok.
context_close(_Context, _Reason) -> ?NOT_LOADED.

-spec context_info(context()) -> tuple().
context_info(_Context) -> ?NOT_LOADED.

-spec context_interrupt(context()) -> ok | not_running.
context_interrupt(_Context) -> ?NOT_LOADED.

-spec context_prepared(context()) -> ok.
context_prepared(_Context) -> ?NOT_LOADED.

-spec main_context(context()) -> ok.
main_context(_Context) -> ?NOT_LOADED.

-spec pool_open(pos_integer(), term()) -> ok | {error, system_limit}.
pool_open(_Size, _Tag) -> ?NOT_LOADED.

-spec pool_close() -> ok.
pool_close() -> ?NOT_LOADED.

-spec submit(context(), owner() | none, namespace() | none, pid(), Reference :: term(), 0..2, term(),
             term(), term(), term(), timeout(), non_neg_integer(), non_neg_integer()) ->
    token() | {error, term()}.
submit(_Context, _Owner, _Namespace, _ReplyTo, _Ref, _Op, _Target, _Function, _Arguments,
       _Keywords, _Timeout, _Flags, _Depth) -> ?NOT_LOADED.

-spec call_inline(context(), owner() | none, namespace() | none, atom(), atom(), list(), map() | list(),
                  timeout(), non_neg_integer()) -> {ok, term()} | {error, term()} | normal.
call_inline(_Context, _Owner, _Namespace, _Module, _Function, _Arguments, _Keywords, _Timeout, _Flags) ->
    ?NOT_LOADED.

-spec cancel(token()) -> waiting | queued | running | replied | ended.
cancel(_Token) -> ?NOT_LOADED.

-spec interrupt(token()) -> ok.
interrupt(_Token) -> ?NOT_LOADED.

-spec cancel_waiting(token()) -> boolean().
cancel_waiting(_Token) -> ?NOT_LOADED.

-spec ticket() -> reference().
ticket() -> ?NOT_LOADED.

-spec ticket_token(reference()) -> token() | foreign.
ticket_token(_Ticket) -> ?NOT_LOADED.

-spec owner_for(pid()) -> owner().
owner_for(_Pid) -> ?NOT_LOADED.

-spec owner() -> owner().
owner() -> ?NOT_LOADED.

-spec namespace(context()) -> namespace().
namespace(_Context) -> ?NOT_LOADED.

-spec slots() -> {Current :: integer(), Max :: pos_integer(), Waiting :: integer()}.
slots() -> ?NOT_LOADED.

-spec slots_set_max(pos_integer()) -> ok.
slots_set_max(_Max) -> ?NOT_LOADED.

-spec slot_acquire(owner(), pid(), reference(), timeout()) -> token() | {error, system_limit}.
slot_acquire(_Owner, _ReplyTo, _Ref, _Timeout) -> ?NOT_LOADED.

-spec slot_release(owner()) -> ok.
slot_release(_Owner) -> ?NOT_LOADED.

-spec callback_reply(reference(), {ok, term()} | {error, term()}) -> boolean().
callback_reply(_Callback, _Answer) -> ?NOT_LOADED.

-spec is_handle(term()) -> boolean().
is_handle(_Term) -> ?NOT_LOADED.

-spec handle_place(reference()) -> main | {main, pid()} | pid() | closed.
handle_place(_Handle) -> ?NOT_LOADED.

-spec counters() -> {Namespaces :: integer(), Threads :: integer(), MaxThreads :: integer()}.
counters() -> ?NOT_LOADED.

-spec sink_open(pos_integer()) -> ok.
sink_open(_Bound) -> ?NOT_LOADED.

-spec sink_taken(pos_integer()) -> ok.
sink_taken(_Units) -> ?NOT_LOADED.

-spec sink_dropped() -> {Records :: non_neg_integer(), Spans :: non_neg_integer()}.
sink_dropped() -> ?NOT_LOADED.

-spec sink_set(Level :: integer(), Tracing :: 0..1) -> ok.
sink_set(_Level, _Tracing) -> ?NOT_LOADED.
