-module(py_context).
-behaviour(gen_server).

-include("py_doc.hrl").
-include("py_misuse.hrl").
-include("py_request.hrl").
?MODULEDOC("A context: a Python interpreter's seat, owned by a process.\n\n"
           "Calls on this node do not pass through the process. It opens and closes the context, prepares it\n"
           "(paths, imports, preload), runs its callbacks' processes and serves callers on other nodes.").

%% API
-export([start_link/2, start_link/3, new/1, stop/1, destroy/1]).
-export([call/4, call/5, call/6, call/7, eval/2, eval/3, eval/4, eval/5, exec/2, exec/3]).
-export([create_local_env/1, get_nif_ref/1, get_interp_id/1, is_subinterp/1, interrupt/1, info/1]).
-export([place/1, handle_place/1, run/2, mode/1, all/0]).

%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([context/0, mode/0, options/0]).

-type context() :: pid().
-type mode() :: auto | free_threaded | owngil | subinterp | multi_executor | worker | isolated.
-type options() :: #{id => integer(), mode => mode(), imports => [py:name()], preload => iodata(),
                     paths => [py:name()]}.

-define(TABLE, py_contexts).
%% Milliseconds after a callback until this process collects its garbage: messages it has handled hold
%% namespaces of callers that may be long dead, and with them what lives in those.
-define(IDLE, 200).

%% ------------------------------------------------------------------------------------------
%% API
%% ------------------------------------------------------------------------------------------

-spec start_link(integer(), mode()) -> {ok, context()} | {error, term()}.
start_link(Id, Mode) ->
    start_link(Id, Mode, #{}).

?DOC("Starts a context linked to the caller; waits until it serves, however long its imports take.\n\n"
     "`{error, {unsupported_mode, Mode, Why}}`: Why is a sentence.").
-spec start_link(integer(), mode(), options()) -> {ok, context()} | {error, term()}.
start_link(Id, Mode, Opts) when is_integer(Id), is_map(Opts) ->
    check_options(maps:to_list(Opts)),
    case {whereis(py_engine), mode(Mode)} of
        {undefined, _} -> {error, {context_down, not_started}};
        {_, {ok, Real}} -> start(Id, Real, Opts);
        {_, Error} -> Error
    end;
start_link(_Id, _Mode, _Opts) ->
    ?MISUSE("a context takes an integer, a mode and a map of options").

check_options([{Key, Value} | Rest]) ->
    ok = check_option(Key, Value),
    check_options(Rest);
check_options([]) ->
    ok.

check_option(id, Id) when is_integer(Id) -> ok;
check_option(mode, _) -> ok;
check_option(imports, Names) when is_list(Names) -> ok;
check_option(paths, Names) when is_list(Names) -> ok;
check_option(preload, Code) when is_binary(Code); is_list(Code) -> ok;
check_option(Key, Value) ->
    py_options:misuse(io_lib:format("there is no option ~tp => ~tp; allowed are id, mode, imports and "
                                    "paths (lists of names) and preload (source code)", [Key, Value])).

start(Id, Mode, Opts) ->
    gen_server:start_link(?MODULE, {Id, Mode, Opts}, [{timeout, infinity}]).

?DOC("Like `start_link/3`, with `id` (0) and `mode` (auto) among the options.").
-spec new(options()) -> {ok, context()} | {error, term()}.
new(Opts) when not is_map(Opts) ->
    ?MISUSE("py_context:new/1 takes a map of options");
new(Opts) ->
    start_link(maps:get(id, Opts, 0), maps:get(mode, Opts, auto), Opts).

?DOC("Stops a context: running calls are interrupted and answered `{error, {context_down, normal}}`.").
-spec stop(context()) -> ok.
stop(Ctx) when not is_pid(Ctx) ->
    ?MISUSE("a context is a pid");
stop(Ctx) ->
    try gen_server:stop(Ctx, normal, infinity)
    catch exit:_ -> ok % it was gone, or went before its turn
    end.

-spec destroy(context()) -> ok.
destroy(Ctx) ->
    stop(Ctx).

-spec call(context(), py:name(), py:name(), [term()]) -> py:result().
call(Ctx, Module, Function, Args) ->
    call(Ctx, Module, Function, Args, #{}, infinity).

?DOC("The fifth argument: keyword arguments (a map or a list of pairs), or a time-out.").
-spec call(context(), py:name(), py:name(), [term()], py:kwargs() | timeout()) -> py:result().
call(Ctx, Module, Function, Args, Timeout) when is_integer(Timeout); Timeout =:= infinity ->
    call(Ctx, Module, Function, Args, #{}, Timeout);
call(Ctx, Module, Function, Args, Kwargs) ->
    call(Ctx, Module, Function, Args, Kwargs, infinity).

-spec call(context(), py:name(), py:name(), [term()], py:kwargs(), py:timeout_or_options()) ->
    py:result().
call(Ctx, Module, Function, Args, Kwargs, Timeout) ->
    run(pid(Ctx), py_options:call(Module, Function, Args, Kwargs, Timeout, infinity)).

-spec call(context(), py:name(), py:name(), [term()], py:kwargs(), py:timeout_or_options(),
           py_nif:namespace()) -> py:result().
call(Ctx, Module, Function, Args, Kwargs, Timeout, Env) ->
    run_in(pid(Ctx), py_options:call(Module, Function, Args, Kwargs, Timeout, infinity), Env,
           {?MODULE, call, 7}).

-spec eval(context(), iodata()) -> py:result().
eval(Ctx, Code) ->
    eval(Ctx, Code, #{}, infinity).

-spec eval(context(), iodata(), map()) -> py:result().
eval(Ctx, Code, Locals) ->
    eval(Ctx, Code, Locals, infinity).

-spec eval(context(), iodata(), map(), py:timeout_or_options()) -> py:result().
eval(Ctx, Code, Locals, Timeout) ->
    run(pid(Ctx), py_options:eval(Code, Locals, Timeout, infinity)).

-spec eval(context(), iodata(), map(), py:timeout_or_options(), py_nif:namespace()) -> py:result().
eval(Ctx, Code, Locals, Timeout, Env) ->
    run_in(pid(Ctx), py_options:eval(Code, Locals, Timeout, infinity), Env, {?MODULE, eval, 5}).

-spec exec(context(), iodata()) -> ok | {error, term()}.
exec(Ctx, Code) ->
    run(pid(Ctx), py_options:exec(Code, infinity, infinity)).

-spec exec(context(), iodata(), py_nif:namespace()) -> ok | {error, term()}.
exec(Ctx, Code, Env) ->
    run_in(pid(Ctx), py_options:exec(Code, infinity, infinity), Env, {?MODULE, exec, 3}).

?DOC("A namespace that several processes can share: for `py_nif:context_exec/3` and its like.").
-spec create_local_env(context()) -> {ok, py_nif:namespace()} | {error, term()}.
create_local_env(Ctx) ->
    case place(Ctx) of
        {ok, {_, Ref}} -> {ok, py_nif:namespace(Ref)};
        Error -> Error
    end.

?DOC("The reference that `py_nif:context_exec/3` and its like take.").
-spec get_nif_ref(context()) -> py_nif:context() | {error, term()}.
get_nif_ref(Ctx) ->
    case place(Ctx) of
        {ok, {_, Ref}} -> Ref;
        Error -> Error
    end.

?DOC("Python's own id of the context's interpreter; 0 is the main interpreter.").
-spec get_interp_id(context()) -> {ok, integer()} | {error, term()}.
get_interp_id(Ctx) ->
    case info(Ctx) of
        #{interp_id := Id} -> {ok, Id};
        Error -> Error
    end.

-spec is_subinterp(context()) -> boolean().
is_subinterp(Ctx) ->
    case get_interp_id(Ctx) of
        {ok, Id} -> Id =/= 0;
        _ -> false
    end.

?DOC("Interrupts what runs in the context now: its caller gets `{error, interrupted}`.").
-spec interrupt(context()) -> ok | not_running.
interrupt(Ctx) ->
    case place(Ctx) of
        {ok, {_, Ref}} -> py_nif:context_interrupt(Ref);
        _ -> not_running
    end.

?DOC("What the context is and does: `id` (it was started with), `mode`, `interp_id`, `queued`, `running`\n"
     "(a number) and `running_ms` (both `undefined` when idle), `parked`, `calls`, `inlined` (those that ran\n"
     "on their caller's scheduler), `errors`, `busy_ms`,\n"
     "`namespaces`, `threads`, `lost_threads`, `gil_enabled_by` (`undefined`, or the module whose import\n"
     "switched a free-threaded Python's GIL on again). It asks nothing of Python, so it answers at once\n"
     "whatever runs; what only Python knows, its memory, is `py:memory_stats/1`.").
-spec info(context()) -> map() | {error, term()}.
info(Ctx) ->
    case place(Ctx) of
        {ok, {Pid, Ref}} ->
            {Mode, Interp, Calls, Errors, Busy, Threads, Lost, Running, Parked, Queued,
             GilCulprit, Inlined, Namespaces} =
                py_nif:context_info(Ref),
            #{pid => Pid, id => id(Pid), mode => Mode, interp_id => Interp, calls => Calls, errors => Errors,
              busy_ms => Busy div 1000000, threads => Threads, lost_threads => Lost,
              parked => Parked, queued => Queued, namespaces => Namespaces,
              inlined => Inlined, gil_enabled_by => GilCulprit,
              running => case Running of undefined -> undefined; {Token, _} -> Token end,
              running_ms => case Running of
                                undefined -> undefined;
                                {_, Ns} -> Ns div 1000000
                            end};
        Error ->
            Error
    end.

%% undefined: it ended just now.
id(Ctx) ->
    case ets:lookup(?TABLE, Ctx) of
        [{_, _, _, Id}] -> Id;
        [] -> undefined
    end.

%% ------------------------------------------------------------------------------------------
%% For the other modules
%% ------------------------------------------------------------------------------------------

?DOC("Runs a request in an explicit context, on whatever node that is.").
-spec run(context(), py_request:request()) -> ok | {ok, term()} | {error, term()}.
run(Ctx, Request) when is_pid(Ctx), node(Ctx) =:= node() ->
    case place(Ctx) of
        {ok, Place} -> py_request:in_context(Place, Request);
        Error -> Error
    end;
run(Ctx, Request) when is_pid(Ctx) ->
    remote(Ctx, {run, Request}, Request#request.timeout).

%% In an argument, so that the function that was called is on the stack.
pid(Ctx) when is_pid(Ctx) -> Ctx;
pid(_) -> py_options:misuse("a context is a pid").

run_in(Ctx, Request, Env, Caller) ->
    case place(Ctx) of
        {ok, {_, Ref}} -> py_request:in_env(Ref, Request, Env, Caller);
        Error -> Error
    end.

remote(Ctx, What, Timeout) ->
    try gen_server:call(Ctx, What, Timeout)
    catch
        exit:{timeout, _} -> {error, timeout};
        exit:{Reason, _} -> {error, {context_down, Reason}}
    end.

?DOC("The context behind a pid of this node.").
-spec place(context()) -> {ok, py_request:place()} | {error, {context_down, term()}}.
place(Ctx) when is_pid(Ctx) ->
    try ets:lookup(?TABLE, Ctx) of
        [{_, Ref, _, _}] -> {ok, {Ctx, Ref}};
        [] -> {error, {context_down, noproc}}
    catch
        error:badarg -> {error, {context_down, not_started}}
    end;
place(_Ctx) ->
    py_options:misuse("a context is a pid").

?DOC("Where the object of a handle lives.").
-spec handle_place(reference()) -> {ok, py_request:place()} | error.
handle_place(Handle) ->
    case py_nif:handle_place(Handle) of
        main ->
            in_main();
        {main, Pid} ->
            case is_process_alive(Pid) andalso place(Pid) of
                {ok, Place} -> {ok, Place};
                _ -> in_main()
            end;
        closed ->
            error;
        Pid ->
            case place(Pid) of
                {ok, Place} -> {ok, Place};
                _ -> error
            end
    end.

in_main() ->
    case py_context_router:main_place() of
        {ok, Place} -> {ok, py_context_router:living(Place)};
        _ -> error
    end.

?DOC("All contexts of this node, with their modes.").
-spec all() -> [{context(), mode()}].
all() ->
    [{Pid, Mode} || {Pid, _, Mode, _} <- ets:tab2list(?TABLE)].

?DOC("The mode that `auto` stands for, or a given one, if this Python has it.").
-spec mode(mode()) -> {ok, mode()} | {error, {unsupported_mode, term(), binary()}}.
mode(Mode) ->
    {_, Subinterpreters, FreeThreaded} = py_nif:features(),
    case Mode of
        auto when FreeThreaded -> {ok, free_threaded};
        auto when Subinterpreters -> {ok, subinterp};
        auto -> {ok, multi_executor};
        worker -> {ok, worker};
        multi_executor -> {ok, multi_executor};
        free_threaded when FreeThreaded -> {ok, free_threaded};
        free_threaded -> unsupported(Mode, <<"it needs a free-threaded Python (3.13t or newer)">>);
        subinterp when Subinterpreters -> {ok, subinterp};
        owngil when Subinterpreters -> {ok, owngil};
        _ when Mode =:= subinterp; Mode =:= owngil ->
            unsupported(Mode, <<"it needs Python 3.12 or newer">>);
        isolated -> unsupported(Mode, <<"contexts in a peer VM are not built yet">>);
        _ -> unsupported(Mode, <<"it is not one of auto, free_threaded, owngil, subinterp, "
                                 "multi_executor, worker">>)
    end.

unsupported(Mode, Why) ->
    {error, {unsupported_mode, Mode, Why}}.

%% ------------------------------------------------------------------------------------------
%% gen_server
%% ------------------------------------------------------------------------------------------

?HIDDEN.
init({Id, Mode, Opts}) ->
    process_flag(trap_exit, true),
    Tag = make_ref(),
    case py_engine:ensure_pool(Mode) of
        ok -> opened(py_nif:context_open(Mode, Id, Tag), Tag, Mode, Id, Opts);
        {error, Reason} -> failed(Reason)
    end.

%% A context that cannot start is an answer, not a crash of the caller that is linked to it.
failed(Reason) ->
    [Parent | _] = get('$ancestors'),
    true = unlink(if is_pid(Parent) -> Parent; true -> whereis(Parent) end),
    {stop, Reason}.

opened({error, Reason}, _Tag, _Mode, _Id, _Opts) ->
    failed(Reason);
opened(Ref, Tag, Mode, Id, Opts) ->
    receive
        {py_opened, Tag, ok} ->
            ets:insert(?TABLE, {self(), Ref, Mode, Id}),
            py_engine:watch(self()),
            py_import:prepare({self(), Ref}, Opts),
            {ok, #{ref => Ref, opts => Opts, callbacks => #{}, stir => none}};
        {py_opened, Tag, {error, Why}} ->
            failed({python, Why})
    end.

?HIDDEN.
handle_call({run, Request}, From, State) ->
    %% A caller on another node: a process of ours stands in for it.
    Ctx = self(),
    _ = spawn(fun() -> gen_server:reply(From, run(Ctx, Request)) end),
    {noreply, State};
handle_call(Call, _From, State) ->
    {reply, {error, {badarg, Call}}, State}.

?HIDDEN.
handle_cast(_Cast, State) ->
    {noreply, State}.

?HIDDEN.
handle_info({py_callback, Callback, Kind, Name, Args, Kwargs, Chain}, State) ->
    #{callbacks := Callbacks} = State,
    case py_callback:start(Kind, Callback, Name, Args, Kwargs, Chain) of
        replied -> {noreply, stirred(State)};
        Pid -> {noreply, stirred(State#{callbacks := Callbacks#{Pid => Callback}})}
    end;
handle_info({'EXIT', Pid, Reason}, #{callbacks := Callbacks} = State)
  when is_map_key(Pid, Callbacks) ->
    {Callback, Rest} = maps:take(Pid, Callbacks),
    py_callback:down(Callback, Reason),
    {noreply, State#{callbacks := Rest}};
handle_info({py_callback_cancel, Callback}, #{callbacks := Callbacks} = State) ->
    _ = [exit(Pid, kill) || {Pid, C} <- maps:to_list(Callbacks), C =:= Callback],
    {noreply, State};
handle_info(look_idle, #{stir := seen} = State) ->
    {noreply, look_later(State#{stir := unseen})};
handle_info(look_idle, State) ->
    {noreply, State#{stir := none}, hibernate};
handle_info(py_replaced, #{ref := Ref, opts := Opts} = State) ->
    %% The interpreter got stuck and was replaced; what waits is served when it is prepared.
    Ctx = self(),
    _ = spawn_link(fun() ->
                       py_request:go_first(),
                       py_import:prepare({Ctx, Ref}, Opts),
                       py_nif:context_prepared(Ref)
                   end),
    {noreply, State};
handle_info({'EXIT', _From, normal}, State) ->
    {noreply, State};
handle_info({'EXIT', _From, Reason}, State) ->
    {stop, Reason, State};
handle_info(_Info, State) ->
    {noreply, State}.

%% It hibernates when it had no callback for a while. Not by a time-out of the server's: one for each
%% callback costs the VM more than all the rest of it.
stirred(#{stir := seen} = State) -> State;
stirred(#{stir := unseen} = State) -> State#{stir := seen};
stirred(#{stir := none} = State) -> look_later(State#{stir := unseen}).

look_later(State) ->
    _ = erlang:send_after(?IDLE, self(), look_idle),
    State.

?HIDDEN.
terminate(Reason, #{ref := Ref, callbacks := Callbacks}) ->
    ets:delete(?TABLE, self()),
    py_nif:context_close(Ref, Reason),
    _ = [exit(Pid, kill) || Pid <- maps:keys(Callbacks)],
    ok.
