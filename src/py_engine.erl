-module(py_engine).
-behaviour(gen_server).

-include("py_doc.hrl").
?MODULEDOC("Starts Python and hears what the library has to say (threads given up, interpreters left\n"
           "behind, failed casts); all of it goes to the log.").

%% API
-export([start_link/0, ensure_pool/1, watch/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], [{timeout, infinity}]).

?DOC("Starts the executors of mode multi_executor, once; other modes need nothing.").
-spec ensure_pool(py_context:mode()) -> ok | {error, term()}.
ensure_pool(multi_executor) ->
    gen_server:call(?MODULE, ensure_pool, infinity);
ensure_pool(_Mode) ->
    ok.

?DOC("Takes a context out of the table when it dies, even if it cannot do so itself.").
-spec watch(pid()) -> ok.
watch(Ctx) ->
    gen_server:cast(?MODULE, {watch, Ctx}).

?HIDDEN.
init([]) ->
    process_flag(trap_exit, true),
    Settings = {py_config:get(max_concurrent), py_config:get(thread_stack) * 1024 * 1024,
                py_config:get(max_threads), py_config:get(interrupt_grace),
                py_config:get(max_callback_depth), guard(py_config:get(guard)),
                py_config:get(overload_wait)},
    Tag = make_ref(),
    ok = py_nif:loop_setup(py_config:get(max_async_tasks), py_config:get(event_loop)),
    case py_nif:setup(Settings, self()) of
        ok ->
            ok = py_nif:main_start(package_dir(), virtual_env(), Tag),
            receive
                {py_main, Tag, ok} -> {ok, #{pool => 0}};
                {py_main, Tag, {error, Why}} -> {stop, {python, Why}}
            end;
        {error, Reason} ->
            {stop, Reason}
    end.

guard(true) -> 1;
guard(false) -> 0.

package_dir() ->
    unicode:characters_to_binary(filename:join(code:priv_dir(erlang_python), "python")).

%% The setting first, then what a Python user exported.
virtual_env() ->
    case py_config:get(venv) of
        undefined -> unicode:characters_to_binary(os:getenv("VIRTUAL_ENV", ""));
        Dir -> unicode:characters_to_binary(Dir)
    end.

?HIDDEN.
handle_call(ensure_pool, _From, #{pool := 0} = State) ->
    Size = py_config:get(num_executors),
    Tag = make_ref(),
    case py_nif:pool_open(Size, Tag) of
        ok ->
            _ = [receive {py_opened, Tag, Result} -> Result end || _ <- lists:seq(1, Size)],
            {reply, ok, State#{pool := Size}};
        {error, _} = Error ->
            {reply, Error, State}
    end;
handle_call(ensure_pool, _From, State) ->
    {reply, ok, State};
handle_call(Call, _From, State) ->
    {reply, {error, {badarg, Call}}, State}.

?HIDDEN.
handle_cast({watch, Ctx}, State) ->
    _ = monitor(process, Ctx),
    {noreply, State};
handle_cast(_Cast, State) ->
    {noreply, State}.

?HIDDEN.
handle_info({py_event, {gil_enabled, Module}}, State) ->
    logger:warning("The import of ~ts switched Python's GIL on, for good: it does not declare that it can "
                   "do without. Python code of this interpreter no longer runs in parallel", [Module]),
    {noreply, State};
handle_info({py_event, {inline_overrun, Function}}, State) ->
    logger:warning("Calls of Python's ~ts with the option inline keep a scheduler for more than a millisecond: "
                   "from now on that function is called without it", [Function]),
    {noreply, State};
handle_info({py_event, {What, Executor}}, State) ->
    logger:warning("Python executor ~ts: ~ts", [Executor, sentence(What)]),
    {noreply, State};
handle_info({py_forward, Pid, Term}, State) ->
    Pid ! Term, % erlang.send to another node
    {noreply, State};
handle_info({Ref, {error, Reason}}, State) when is_reference(Ref) ->
    logger:warning("A Python cast failed: ~tp", [Reason]),
    {noreply, State};
handle_info({'DOWN', _, process, Ctx, _}, State) ->
    ets:delete(py_contexts, Ctx),
    {noreply, State};
handle_info(_Info, State) ->
    {noreply, State}.

sentence(thread_given_up) ->
    "a thread did not stop within interrupt_grace and was given up; another serves in its place";
sentence(left_behind) ->
    "its interpreter was left behind, because threads that cannot be ended are still inside".

?HIDDEN.
terminate(_Reason, _State) ->
    py_nif:pool_close().
