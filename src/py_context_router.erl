-module(py_context_router).
-behaviour(gen_server).

-include("py_doc.hrl").
-include("py_misuse.hrl").
-include("py_request.hrl").
?MODULEDOC("Hands out contexts: by scheduler, by binding, by pool; and replaces dead ones at their index.\n\n"
           "The places of each pool are a tuple in a persistent term, so that picking one costs\n"
           "no message and no copy.").

%% API
-export([start_link/0, start/0, start/1, stop/0, is_started/0]).
-export([get_context/0, get_context/1, bind_context/1, bind_context/2, unbind_context/0,
         unbind_context/1, num_contexts/0, num_contexts/1, contexts/0, contexts/1]).
-export([start_pool/2, start_pool/3, stop_pool/1, pool_started/1]).
-export([register_pool/2, register_pool/3, unregister_pool/1, unregister_pool/2, lookup_pool/2,
         list_pool_registrations/0]).
-export([forget_all/0, mode/0, pick/1, living/1, place/1, pool_place/1, main_place/0]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-type pool() :: atom().
-define(DEFAULT, default).
-define(MAIN, '$main').
-define(POOLS, {?MODULE, pools}). % name => mode, for a router that is started again
-define(REGISTRATIONS, 'py_context_router:registrations').
-define(DRAIN, 30000). % ms
-define(NOT_STARTED, {error, {context_down, not_started}}).

%% ------------------------------------------------------------------------------------------
%% Starting and stopping
%% ------------------------------------------------------------------------------------------

?HIDDEN.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], [{timeout, infinity}]).

?DOC("Starts the contexts; on a running router, what runs.").
-spec start() -> {ok, [py_context:context()]} | {error, term()}.
start() ->
    start(#{}).

?DOC("Starts, or grows or shrinks to, `contexts` contexts of mode `mode`. The last ones go first: they get no\n"
     "new calls, and end when they have done what they have, or after 30 seconds.").
-spec start(#{contexts => pos_integer(), mode => py_context:mode()}) ->
    {ok, [py_context:context()]} | {error, term()}.
start(Opts) ->
    is_map(Opts) andalso maps:without([contexts, mode], Opts) =:= #{}
        orelse py_options:misuse("the options of the router are a map of contexts and mode"),
    request({start, Opts}).

?DOC("Stops all contexts of all pools. Calls then answer `{error, {context_down, not_started}}`.").
-spec stop() -> ok.
stop() ->
    case request(stop) of
        ok -> ok;
        ?NOT_STARTED -> ok
    end.

-spec is_started() -> boolean().
is_started() ->
    persistent_term:get(pool_key(?DEFAULT), {}) =/= {}.

?DOC("Starts a pool of contexts under a name; mode `auto`.").
-spec start_pool(pool(), pos_integer()) -> {ok, [py_context:context()]} | {error, term()}.
start_pool(Pool, Size) ->
    start_pool(Pool, Size, auto).

-spec start_pool(pool(), pos_integer(), py_context:mode()) ->
    {ok, [py_context:context()]} | {error, term()}.
start_pool(Pool, Size, Mode) when is_atom(Pool), is_integer(Size), Size > 0 ->
    request({start_pool, Pool, Size, Mode});
start_pool(_Pool, _Size, _Mode) ->
    ?MISUSE("a pool has a name (an atom) and a size (a positive integer)").

-spec stop_pool(pool()) -> ok | {error, {no_pool, pool()}}.
stop_pool(Pool) ->
    request({stop_pool, Pool}).

-spec pool_started(pool()) -> boolean().
pool_started(Pool) ->
    persistent_term:get(pool_key(Pool), {}) =/= {}.

request(What) ->
    try gen_server:call(?MODULE, What, infinity)
    catch exit:{noproc, _} -> ?NOT_STARTED
    end.

%% ------------------------------------------------------------------------------------------
%% Which context
%% ------------------------------------------------------------------------------------------

?DOC("Where the caller's next call without context goes.").
-spec get_context() -> py_context:context() | {error, term()}.
get_context() ->
    Found = case py_request:where() of
                undefined -> pool_place(?DEFAULT);
                {index, Index} -> place(Index);
                {context, Place} -> {ok, Place}
            end,
    pid_or_error(Found).

?DOC("The context at an index, from 1; or by scheduler in a pool.").
-spec get_context(pos_integer() | pool()) -> py_context:context() | {error, term()}.
get_context(Index) when is_integer(Index) ->
    pid_or_error(place(Index));
get_context(Pool) when is_atom(Pool) ->
    pid_or_error(pool_place(Pool));
get_context(_Which) ->
    ?MISUSE("a context is named by its index or by its pool").

pid_or_error({ok, {Pid, _}}) -> Pid;
pid_or_error(Error) -> Error.

?DOC("Binds the calling process's calls to a context (a pid) or to an index of the router.").
-spec bind_context(py_context:context() | pos_integer()) -> ok | {error, term()}.
bind_context(Index) when is_integer(Index), Index > 0 ->
    case place(Index) of
        {ok, _} -> py_request:bind({index, Index});
        Error -> Error
    end;
bind_context(Ctx) when is_pid(Ctx) ->
    case index_of(Ctx) of
        undefined ->
            case py_context:place(Ctx) of
                {ok, Place} -> py_request:bind({context, Place});
                Error -> Error
            end;
        Index ->
            py_request:bind({index, Index})
    end;
bind_context(_Which) ->
    ?MISUSE("a process is bound to a context (a pid) or to an index of the router, from 1").

?DOC("Binds to the index-th context of a pool.").
-spec bind_context(pool(), pos_integer()) -> ok | {error, term()}.
bind_context(Pool, Index) ->
    case element_of(persistent_term:get(pool_key(Pool), {}), Index, {error, {no_pool, Pool}}) of
        {ok, Place} -> py_request:bind({context, Place});
        Error -> Error
    end.

-spec unbind_context() -> ok.
unbind_context() ->
    py_request:unbind().

?DOC("Removes the binding, whichever pool it was made for.").
-spec unbind_context(pool()) -> ok.
unbind_context(_Pool) ->
    py_request:unbind().

-spec num_contexts() -> non_neg_integer().
num_contexts() ->
    num_contexts(?DEFAULT).

-spec num_contexts(pool()) -> non_neg_integer().
num_contexts(Pool) ->
    tuple_size(persistent_term:get(pool_key(Pool), {})).

-spec contexts() -> [py_context:context()].
contexts() ->
    contexts(?DEFAULT).

-spec contexts(pool()) -> [py_context:context()].
contexts(Pool) ->
    [Pid || {Pid, _} <- tuple_to_list(persistent_term:get(pool_key(Pool), {}))].

index_of(Ctx) ->
    Places = tuple_to_list(persistent_term:get(pool_key(?DEFAULT), {})),
    case [I || {I, {Pid, _}} <- lists:zip(lists:seq(1, length(Places)), Places), Pid =:= Ctx] of
        [Index] -> Index;
        [] -> undefined
    end.

?DOC("The mode that the default pool was started with, or would be: maybe `auto`.").
-spec mode() -> py_context:mode().
mode() ->
    maps:get(?DEFAULT, persistent_term:get(?POOLS, #{}), py_config:get(context_mode)).

?DOC("The place for a request that has none: its module's pool, else by scheduler.").
-spec pick(py_request:request()) -> {ok, py_request:place()} | {error, term()}.
pick(#request{op = ?OP_CALL, target = Module, function = Function}) ->
    case persistent_term:get(?REGISTRATIONS, #{}) of
        Empty when map_size(Empty) =:= 0 ->
            pool_place(?DEFAULT);
        Registrations ->
            pool_place(lookup(Module, Function, Registrations))
    end;
pick(_Request) ->
    pool_place(?DEFAULT).

%% Of its persistent term; what every call looks up is an atom, which is found twice as fast as a tuple.
pool_key(?DEFAULT) -> 'py_context_router:default';
pool_key(Pool) -> {?MODULE, pool, Pool}.

?DOC("The place by scheduler in a pool.").
-spec pool_place(pool()) -> {ok, py_request:place()} | {error, term()}.
pool_place(Pool) ->
    case persistent_term:get(pool_key(Pool), {}) of
        {} when Pool =:= ?DEFAULT -> ?NOT_STARTED;
        {} -> {error, {no_pool, Pool}};
        Places ->
            Index = erlang:system_info(scheduler_id) rem tuple_size(Places) + 1,
            {ok, element(Index, Places)}
    end.

?DOC("The place, or one in its pool whose context lives if its own does not.").
-spec living(py_request:place()) -> py_request:place().
living({Pid, _} = Place) ->
    case is_process_alive(Pid) of
        true -> Place;
        false -> hd(beside(Pid) ++ [Place])
    end.

beside(Pid) ->
    Pools = [tuple_to_list(persistent_term:get(pool_key(Pool), {}))
             || Pool <- maps:keys(persistent_term:get(?POOLS, #{}))],
    [Place || Places <- Pools, lists:keymember(Pid, 1, Places), {Other, _} = Place <- Places,
              is_process_alive(Other)].

?DOC("The place at an index of the default pool.").
-spec place(pos_integer()) -> {ok, py_request:place()} | {error, term()}.
place(Index) ->
    element_of(persistent_term:get(pool_key(?DEFAULT), {}), Index, ?NOT_STARTED).

element_of({}, _Index, Error) -> Error;
element_of(Places, Index, _) when is_integer(Index), Index > 0, Index =< tuple_size(Places) ->
    {ok, element(Index, Places)};
element_of(Places, Index, _) ->
    {error, {badarg, [Index], {no_context, tuple_size(Places)}}}.

?DOC("A context of the main interpreter, for packages that only it can load.").
-spec main_place() -> {ok, py_request:place()} | {error, term()}.
main_place() ->
    case persistent_term:get(pool_key(?MAIN), {}) of
        {} -> main_or_any();
        Places -> {ok, element(1, Places)}
    end.

%% Where all contexts live in the main interpreter any of them will do.
main_or_any() ->
    case py:execution_mode() of
        Mode when Mode =:= subinterp; Mode =:= owngil -> request(ensure_main);
        _ -> pool_place(?DEFAULT)
    end.

%% ------------------------------------------------------------------------------------------
%% Pools by module
%% ------------------------------------------------------------------------------------------

?DOC("Sends calls of a module, or of one function, to a pool.").
-spec register_pool(pool(), py:name() | {py:name(), py:name()}) -> ok | {error, term()}.
register_pool(Pool, {Module, Function}) ->
    register_pool(Pool, Module, Function);
register_pool(Pool, Module) ->
    request({register, key(Module, '_'), Pool}).

-spec register_pool(pool(), py:name(), py:name()) -> ok | {error, term()}.
register_pool(Pool, Module, Function) ->
    request({register, key(Module, Function), Pool}).

-spec unregister_pool(py:name() | {py:name(), py:name()}) -> ok | {error, term()}.
unregister_pool({Module, Function}) ->
    unregister_pool(Module, Function);
unregister_pool(Module) ->
    request({unregister, key(Module, '_')}).

-spec unregister_pool(py:name(), py:name()) -> ok | {error, term()}.
unregister_pool(Module, Function) ->
    request({unregister, key(Module, Function)}).

?DOC("The pool for a function; `default` if none was registered.").
-spec lookup_pool(py:name(), py:name()) -> pool().
lookup_pool(Module, Function) ->
    lookup(Module, Function, persistent_term:get(?REGISTRATIONS, #{})).

-spec list_pool_registrations() -> [{{binary(), binary() | '_'}, pool()}].
list_pool_registrations() ->
    lists:sort(maps:to_list(persistent_term:get(?REGISTRATIONS, #{}))).

lookup(Module, Function, Registrations) when not is_reference(Module) ->
    Default = maps:get(key(Module, '_'), Registrations, ?DEFAULT),
    maps:get(key(Module, Function), Registrations, Default);
lookup(_Handle, _Function, _Registrations) ->
    ?DEFAULT.

key(Module, '_') -> {name(Module), '_'};
key(Module, Function) -> {name(Module), name(Function)}.

name(Name) when is_atom(Name); is_binary(Name); is_list(Name) -> py:to_binary(Name);
name(_) -> py_options:misuse("modules and functions are named by atoms, binaries or strings").

%% ------------------------------------------------------------------------------------------
%% gen_server
%% ------------------------------------------------------------------------------------------

%% pools: name -> mode; members: context -> {pool, index}.
?HIDDEN.
init([]) ->
    process_flag(trap_exit, true),
    State = adopt(#{pools => #{}, members => #{}}),
    case num_contexts() > 0 of
        true -> {ok, State};
        false -> start_default(State)
    end.

%% What an earlier router started and lives on; what died with it is replaced by its 'DOWN'.
adopt(State) ->
    maps:fold(
        fun(Pool, Mode, #{pools := Pools, members := Members} = S) ->
            Pids = contexts(Pool),
            _ = [monitor(process, Pid) || Pid <- Pids],
            Indexed = lists:zip(Pids, [{Pool, I} || I <- lists:seq(1, length(Pids))]),
            S#{pools := Pools#{Pool => Mode}, members := maps:merge(Members, maps:from_list(Indexed))}
        end, State, persistent_term:get(?POOLS, #{})).

?HIDDEN.
-spec forget_all() -> ok.
forget_all() ->
    _ = [persistent_term:erase(pool_key(Pool)) || Pool <- maps:keys(persistent_term:get(?POOLS, #{}))],
    persistent_term:put(?POOLS, #{}),
    persistent_term:put(?REGISTRATIONS, #{}).

start_default(State) ->
    case grow(?DEFAULT, default_size(#{}), py_config:get(context_mode), State) of
        {ok, _, State1} -> {ok, start_main(State1)};
        {error, Reason, _} -> {stop, Reason}
    end.

%% Requests for packages that only the main interpreter can load go to a context of its own.
start_main(#{pools := Pools} = State) ->
    case py_context:mode(maps:get(?DEFAULT, Pools)) of
        {ok, Mode} when Mode =:= subinterp; Mode =:= owngil ->
            case grow(?MAIN, 1, worker, State) of
                {ok, _, State1} ->
                    State1;
                {error, Reason, State1} ->
                    logger:error("No Python context in the main interpreter: ~tp", [Reason]),
                    State1
            end;
        _ ->
            State
    end.

default_size(Opts) ->
    Mode = maps:get(mode, Opts, py_config:get(context_mode)),
    case maps:find(contexts, Opts) of
        {ok, N} -> N;
        error -> configured_size(py_context:mode(Mode))
    end.

configured_size({ok, Mode}) ->
    Named = case Mode of
                subinterp -> py_config:get(num_subinterp_workers);
                owngil -> py_config:get(num_subinterp_workers);
                _ -> py_config:get(num_workers)
            end,
    Size = case {py_config:get(num_contexts), Named} of
               {undefined, undefined} -> max(2, erlang:system_info(schedulers));
               {undefined, _} -> Named;
               {N, _} -> N
           end,
    Wanted = case Mode of
                 multi_executor -> max(Size, py_config:get(num_executors));
                 _ -> Size
             end,
    min(Wanted, py_config:get(max_contexts));
configured_size({error, _}) ->
    1.

?HIDDEN.
handle_call({start, Opts}, _From, #{pools := Pools} = State) ->
    Running = num_contexts(),
    case Opts of
        _ when Running > 0, map_size(Opts) =:= 0 ->
            {reply, {ok, contexts()}, State};
        #{contexts := N} when not (is_integer(N) andalso N > 0) ->
            {reply, {error, {badarg, [contexts], N}}, State};
        _ ->
            Mode = maps:get(mode, Opts, maps:get(?DEFAULT, Pools, py_config:get(context_mode))),
            resize(?DEFAULT, default_size(Opts), Mode, State)
    end;
handle_call({start_pool, Pool, Size, Mode}, _From, State) ->
    resize(Pool, Size, Mode, State);
handle_call({stop_pool, Pool}, _From, State) ->
    case pool_started(Pool) of
        true -> {reply, ok, shrink(Pool, 0, State)};
        false -> {reply, {error, {no_pool, Pool}}, State}
    end;
handle_call(stop, _From, #{pools := Pools} = State) ->
    {reply, ok, lists:foldl(fun(Pool, S) -> shrink(Pool, 0, S) end, State, maps:keys(Pools))};
handle_call(ensure_main, _From, State) ->
    case grow(?MAIN, 1, worker, State) of
        {ok, _, State1} -> {reply, element_of(persistent_term:get(pool_key(?MAIN)), 1, none), State1};
        {error, Reason, State1} -> {reply, {error, Reason}, State1}
    end;
handle_call({register, Key, Pool}, _From, State) ->
    case pool_started(Pool) of
        true ->
            Registrations = persistent_term:get(?REGISTRATIONS),
            persistent_term:put(?REGISTRATIONS, Registrations#{Key => Pool}),
            {reply, ok, State};
        false ->
            {reply, {error, {no_pool, Pool}}, State}
    end;
handle_call({unregister, Key}, _From, State) ->
    persistent_term:put(?REGISTRATIONS, maps:remove(Key, persistent_term:get(?REGISTRATIONS))),
    {reply, ok, State}.

?HIDDEN.
handle_cast(_Cast, State) ->
    {noreply, State}.

?HIDDEN.
handle_info({'DOWN', _Monitor, process, Pid, Reason}, #{members := Members} = State) ->
    case maps:take(Pid, Members) of
        {{Pool, Index}, Rest} ->
            logger:warning("Python context ~p (~p ~p) died: ~tp; it is replaced",
                           [Pid, Pool, Index, Reason]),
            {noreply, replace(Pool, Index, State#{members := Rest})};
        error ->
            {noreply, State}
    end;
handle_info({replace, Pool, Index}, State) ->
    {noreply, replace(Pool, Index, State)};
handle_info(_Info, State) ->
    {noreply, State}.

?HIDDEN.
terminate(_Reason, #{pools := Pools} = State) ->
    lists:foldl(fun(Pool, S) -> shrink(Pool, 0, S) end, State, maps:keys(Pools)).

%% What cannot be had changes nothing.
resize(Pool, Size, Mode, State) ->
    case py_context:mode(Mode) of
        {ok, _} -> resize_to(Pool, Size, Mode, State);
        Error -> {reply, Error, State}
    end.

resize_to(Pool, Size, Mode, #{pools := Pools} = State) ->
    Running = num_contexts(Pool),
    Room = room(State) + Running,
    case Pools of
        #{} when Size > Room ->
            {reply, {error, {too_many_contexts, Size, py_config:get(max_contexts)}}, State};
        #{Pool := Other} when Other =/= Mode, Running > 0 ->
            resize_to(Pool, Size, Mode, shrink(Pool, 0, State));
        #{} when Size =< Running ->
            State1 = shrink(Pool, Size, fun drain/1, State),
            {reply, {ok, contexts(Pool)}, State1};
        #{} ->
            case grow(Pool, Size, Mode, State) of
                {ok, Contexts, State1} when Pool =:= ?DEFAULT -> {reply, {ok, Contexts}, start_main(State1)};
                {ok, Contexts, State1} -> {reply, {ok, Contexts}, State1};
                {error, Reason, State1} -> {reply, {error, Reason}, State1}
            end
    end.

%% All or nothing: what was started before a failure is stopped again.
grow(Pool, Size, Mode, State) ->
    Before = num_contexts(Pool),
    case Pool =:= ?MAIN orelse Size =< room(State) + Before of
        true -> grow_to(Pool, Size, Mode, Before, State);
        false -> {error, {too_many_contexts, Size, py_config:get(max_contexts)}, State}
    end.

room(#{members := Members}) ->
    py_config:get(max_contexts) - length([Pool || {Pool, _} <- maps:values(Members), Pool =/= ?MAIN]).

grow_to(Pool, Size, _Mode, _Before, State) when Size =:= 0 ->
    {ok, contexts(Pool), State};
grow_to(Pool, Size, Mode, Before, State) ->
    case num_contexts(Pool) of
        Size ->
            {ok, contexts(Pool), State};
        Count ->
            case add(Pool, Count + 1, Mode, State) of
                {ok, State1} -> grow_to(Pool, Size, Mode, Before, State1);
                {error, Reason} -> {error, Reason, shrink(Pool, Before, State)}
            end
    end.

add(Pool, Index, Mode, #{pools := Pools, members := Members} = State) ->
    case py_context_sup:start_context(Index, Mode, #{}) of
        {ok, Pid} ->
            _ = monitor(process, Pid),
            publish(Pool, Index, Pid),
            persistent_term:put(?POOLS, Pools#{Pool => Mode}),
            {ok, State#{pools := Pools#{Pool => Mode}, members := Members#{Pid => {Pool, Index}}}};
        {error, Reason} ->
            {error, Reason}
    end.

publish(Pool, Index, Pid) ->
    {ok, Place} = py_context:place(Pid),
    Places = persistent_term:get(pool_key(Pool), {}),
    New = case tuple_size(Places) >= Index of
              true -> setelement(Index, Places, Place);
              false -> erlang:append_element(Places, Place)
          end,
    persistent_term:put(pool_key(Pool), New),
    case Pool of
        ?MAIN -> py_nif:main_context(element(2, Place));
        _ -> ok
    end.

replace(Pool, Index, #{pools := Pools} = State) ->
    case num_contexts(Pool) >= Index andalso add(Pool, Index, maps:get(Pool, Pools), State) of
        false ->
            State;
        {ok, State1} ->
            State1;
        {error, Reason} ->
            logger:error("No new Python context for ~p ~p: ~tp; tried again in a second",
                         [Pool, Index, Reason]),
            _ = erlang:send_after(1000, self(), {replace, Pool, Index}),
            State
    end.

shrink(Pool, Size, State) ->
    shrink(Pool, Size, fun py_context:stop/1, State).

%% The places go first, so that nobody new is sent to a context that drains.
shrink(Pool, Size, End, #{members := Members} = State) ->
    Places = tuple_to_list(persistent_term:get(pool_key(Pool), {})),
    {Keep, Drop} = lists:split(min(Size, length(Places)), Places),
    persistent_term:put(pool_key(Pool), list_to_tuple(Keep)),
    Pids = [Pid || {Pid, _} <- Drop],
    State1 = State#{members := maps:without(Pids, Members)},
    lists:foreach(End, Pids),
    State1.

%% What runs there and what is in its queue is done before a last call is.
drain(Pid) ->
    _ = spawn(fun() ->
                  _ = py:call(Pid, builtins, bool, [], #{timeout => ?DRAIN}),
                  py_context:stop(Pid)
              end),
    ok.
