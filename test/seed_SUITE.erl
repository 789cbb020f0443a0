-module(seed_SUITE).

%% @doc Every Erlang example of the guide this library was made after, as it was printed there.
%%
%% A case is a section. What the guide prints is in the comments where it could not be code; `Data'
%% and the module heavy_compute, which it only names, are ours.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        execution_modes, own_gil_usage, process_local_environments, explicit_context_by_index,
        pool_size, rate_limiting, overload_protection, configuration, check_support,
        using_the_context_router, explicit_context_selection, context_router_api, parallel_execution,
        verify_mode, monitoring, shared_state, shared_state_from_python,
        reentrant_callbacks, nested_callbacks, nested_callbacks_at_once, verifying_the_build
    ]).

init_per_group(Mode, Config) ->
    Dir = proplists:get_value(priv_dir, Config),
    ok = file:write_file(filename:join(Dir, "heavy_compute.py"),
                         "def run(data): return sum(i * i for i in range(data))\n"),
    ok = py_modes:start(Mode, [{paths, [Dir]}]),
    [{mode, Mode}, {dir, Dir} | Config].

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

%% Each case has a process and contexts of its own.
init_per_testcase(_Case, Config) ->
    ok = py_modes:start(py_modes:mode(Config), [{paths, [proplists:get_value(dir, Config)]}]),
    Config.

end_per_testcase(_Case, Config) ->
    case {proplists:get_value(tc_status, Config), py_modes:messages()} of
        {ok, [_ | _] = Messages} -> {fail, {left_behind, Messages}};
        _ -> ok
    end.

%% ------------------------------------------------------------------------------------------
%% Execution Modes
%% ------------------------------------------------------------------------------------------

execution_modes(Config) ->
    %% Check current execution mode
    ExecutionMode = py:execution_mode(),
    %% => free_threaded | subinterp | multi_executor
    ?assertEqual(py_modes:mode(Config), ExecutionMode),
    %% Check number of executor threads
    NumExecutors = py:num_executors(),
    %% => 4 (default)
    case ExecutionMode of
        multi_executor -> ?assertEqual(4, NumExecutors);
        _ -> ?assertEqual(py_context_router:num_contexts(), NumExecutors)
    end.

own_gil_usage(Config) ->
    {Data1, Data2, Test} = {100000, 200000, self()},
    case py:owngil_supported() of
        true ->
            %% Create OWN_GIL contexts for parallel execution
            {ok, Ctx1} = py_context:start_link(1, owngil),
            {ok, Ctx2} = py_context:start_link(2, owngil),
            [{ok, _} = py:call(Ctx, 'erlang._setup', add_path,
                               [unicode:characters_to_binary(proplists:get_value(dir, Config))])
             || Ctx <- [Ctx1, Ctx2]],
            %% These execute in parallel with independent GILs
            spawn(fun() -> Test ! {1, py_context:call(Ctx1, heavy_compute, run, [Data1])} end),
            spawn(fun() -> Test ! {2, py_context:call(Ctx2, heavy_compute, run, [Data2])} end),
            [receive {N, Result} -> ?assertMatch({ok, Sum} when is_integer(Sum), Result)
             after 20000 -> error(nothing)
             end || N <- [1, 2]],
            [ok = py_context:stop(Ctx) || Ctx <- [Ctx1, Ctx2]];
        false ->
            {error, {unsupported_mode, owngil, Why}} = py_context:start_link(1, owngil),
            ?assertNotEqual(nomatch, string:find(Why, "3.12"))
    end.

process_local_environments(Config) ->
    {ok, Ctx} = py_context:start_link(1, py_modes:mode(Config)),
    %% Multiple processes can share an OWN_GIL context with isolated namespaces
    {ok, Env} = py_context:create_local_env(Ctx),
    CtxRef = py_context:get_nif_ref(Ctx),
    ok = py_nif:context_exec(CtxRef, <<"x = 42">>, Env),
    {ok, 42} = py_nif:context_eval(CtxRef, <<"x">>, #{}, Env),
    %% Isolated they are, and shared by whom it is given to.
    {ok, Other} = py_context:create_local_env(Ctx),
    {error, {'NameError', _}} = py_nif:context_eval(CtxRef, <<"x">>, #{}, Other),
    [{ok, 42}] = py_modes:at_once([fun() -> py_nif:context_eval(CtxRef, <<"x">>, #{}, Env) end]),
    {ok, 4.0} = py_nif:context_call(CtxRef, math, sqrt, [16], #{}, Env),
    ok = py_context:stop(Ctx).

explicit_context_by_index(_) ->
    %% Get a specific context by index (1-based)
    Ctx = py:context(1),
    {ok, Result} = py:call(Ctx, math, sqrt, [16]),
    %% Or use automatic scheduler-affinity routing
    {ok, Result} = py:call(math, sqrt, [16]),
    ?assertEqual(4.0, Result).

%% ------------------------------------------------------------------------------------------
%% Pool size, rate limiting, configuration
%% ------------------------------------------------------------------------------------------

pool_size(Config) ->
    %% {erlang_python, [
    %%     {num_contexts, 16} %% Override scheduler count
    %% ]}
    ok = py_modes:start(py_modes:mode(Config), [{num_contexts, 16}]),
    ?assertEqual(16, py_context_router:num_contexts()),
    ok = py_context_router:stop(),
    %% Start with custom pool size
    {ok, Contexts} = py_context_router:start(#{contexts => 16}),
    ?assertEqual(16, length(Contexts)),
    ?assertEqual({ok, 4.0}, py:call(py:context(16), math, sqrt, [16])).

rate_limiting(_) ->
    %% Check semaphore status
    ?assertEqual(erlang:system_info(schedulers) * 2 + 1, py_semaphore:max_concurrent()),
    ?assertEqual(0, py_semaphore:current()),
    %% Dynamically adjust limit
    py_semaphore:set_max_concurrent(50),
    ?assertEqual(50, py_semaphore:max_concurrent()),
    ok = py_semaphore:acquire(1000),
    ?assertEqual(1, py_semaphore:current()),
    py_semaphore:release(),
    ?assertEqual(0, py_semaphore:current()).

overload_protection(_) ->
    py_semaphore:set_max_concurrent(1),
    ok = py_semaphore:acquire(1000),
    {error, {overloaded, Current, Max}} = py:call(math, sqrt, [16], #{}, 50),
    ?assertEqual({1, 1}, {Current, Max}),
    {error, {overloaded, 1, 1}} = py:call(math, sqrt, [16], #{}, #{overload => fail}),
    py_semaphore:release(),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

%% The whole sys.config of the guide.
configuration(Config) ->
    Mode = py_modes:mode(Config),
    [{erlang_python, Settings}] =
        [{erlang_python, [
            {max_concurrent, 50},
            {num_executors, 8},
            {num_workers, 4},
            {num_async_workers, 2},
            {num_subinterp_workers, 4}
        ]}],
    ok = py_modes:start(Mode, Settings),
    ?assertEqual(50, py_semaphore:max_concurrent()),
    case Mode of
        multi_executor ->
            ?assertEqual(8, py:num_executors());
        _ ->
            ?assertEqual(4, py_context_router:num_contexts()),
            ?assertEqual(4, py:num_executors())
    end,
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

%% ------------------------------------------------------------------------------------------
%% Parallel Execution with Sub-interpreters
%% ------------------------------------------------------------------------------------------

check_support(Config) ->
    case py_modes:mode(Config) of
        subinterp ->
            %% Check if subinterpreters are supported (Python 3.12+)
            true = py:subinterp_supported(),
            %% Check current execution mode
            subinterp = py:execution_mode();
        Mode ->
            ?assertEqual(lists:member(subinterp, py_modes:modes()), py:subinterp_supported()),
            ?assertEqual(Mode, py:execution_mode())
    end.

using_the_context_router(_) ->
    %% Start contexts (usually done by application startup)
    {ok, _} = py:start_contexts(),
    %% Calls are automatically routed to subinterpreters
    {ok, 4.0} = py:call(math, sqrt, [16]),
    {ok, 6} = py:eval(<<"2 + 4">>),
    ok = py:exec(<<"x = 42">>).

explicit_context_selection(_) ->
    %% Get a specific context by index (1-based)
    Ctx = py:context(1),
    %% All operations on this context share state
    ok = py:exec(Ctx, <<"my_var = 'hello'">>),
    {ok, <<"hello">>} = py:eval(Ctx, <<"my_var">>),
    {ok, 4.0} = py:call(Ctx, math, sqrt, [16]),
    %% Different context has isolated state
    Ctx2 = py:context(2),
    {error, _} = py:eval(Ctx2, <<"my_var">>). %% Not defined in Ctx2

context_router_api(_) ->
    %% Start router with default number of contexts (scheduler count)
    {ok, Running} = py_context_router:start(),
    ?assertEqual(py_context_router:contexts(), Running),
    %% Start with custom number of contexts
    {ok, Contexts} = py_context_router:start(#{contexts => 8}),
    ?assertEqual(8, length(Contexts)),
    %% Get context for current scheduler (automatic affinity)
    Automatic = py_context_router:get_context(),
    ?assert(lists:member(Automatic, Contexts)),
    %% Get specific context by index
    Ctx = py_context_router:get_context(1),
    ?assertEqual(hd(Contexts), Ctx),
    %% Bind current process to a specific context
    ok = py_context_router:bind_context(Ctx),
    ?assertEqual(Ctx, py_context_router:get_context()),
    %% Unbind (return to scheduler-based routing)
    ok = py_context_router:unbind_context(),
    %% Get number of active contexts
    N = py_context_router:num_contexts(),
    ?assertEqual(8, N),
    %% Stop all contexts
    ok = py_context_router:stop(),
    ?assertEqual(0, py_context_router:num_contexts()),
    ?assertMatch({error, {context_down, _}}, py:call(math, sqrt, [16])).

parallel_execution(_) ->
    %% Execute multiple calls in parallel
    {ok, Results} = py:parallel([
        {math, sqrt, [16]},
        {math, sqrt, [25]},
        {math, sqrt, [36]}
    ]),
    %% => {ok, [{ok, 4.0}, {ok, 5.0}, {ok, 6.0}]}
    ?assertEqual([{ok, 4.0}, {ok, 5.0}, {ok, 6.0}], Results).

verify_mode(_) ->
    %% 1> application:ensure_all_started(erlang_python).
    {ok, []} = application:ensure_all_started(erlang_python),
    %% 2> py:execution_mode().
    %% free_threaded
    case py:free_threaded() of
        true ->
            ok = py_modes:start(auto),
            free_threaded = py:execution_mode();
        false ->
            ok
    end.

%% ------------------------------------------------------------------------------------------
%% Monitoring, shared state
%% ------------------------------------------------------------------------------------------

monitoring(_) ->
    %% Current load
    Load = py_semaphore:current(),
    Max = py_semaphore:max_concurrent(),
    Utilization = Load / Max * 100,
    io:format("Python load: ~.1f%~n", [Utilization]),
    %% Execution mode info
    Mode = py:execution_mode(),
    Executors = py:num_executors(),
    io:format("Mode: ~p, Executors: ~p~n", [Mode, Executors]),
    %% Memory stats
    {ok, Stats} = py:memory_stats(),
    io:format("GC stats: ~p~n", [maps:get(gc_stats, Stats)]).

shared_state(_) ->
    %% Set config that all workers can read
    py:state_store(<<"app_config">>, #{model => <<"gpt-4">>, timeout => 30000}),
    %% Read metrics
    _ = py:state_incr(<<"requests_total">>),
    {ok, Total} = py:state_fetch(<<"requests_total">>),
    ?assertEqual(1, Total),
    ok = py:state_clear().

shared_state_from_python(_) ->
    py:state_store(<<"app_config">>, #{model => <<"gpt-4">>, timeout => 30000}),
    Workers = [fun() ->
                   ok = py_context_router:bind_context(N),
                   ok = py:exec(<<"
from erlang import state_set, state_get, state_incr, state_decr

data = b'12345'
# Share configuration across workers
config = state_get('app_config')
# Thread-safe metrics
state_incr('requests_total')
state_incr('bytes_processed', len(data))
">>),
                   py:eval(<<"config">>)
               end || N <- [1, 2]],
    [{ok, #{<<"model">> := <<"gpt-4">>, <<"timeout">> := 30000}} = Read || Read <- py_modes:at_once(Workers)],
    ?assertEqual({ok, 2}, py:state_fetch(<<"requests_total">>)),
    ?assertEqual({ok, 10}, py:state_fetch(<<"bytes_processed">>)),
    ok = py:state_clear().

%% ------------------------------------------------------------------------------------------
%% Reentrant Callbacks
%% ------------------------------------------------------------------------------------------

reentrant_callbacks(_) ->
    %% Register an Erlang function that calls Python
    py:register_function(compute_via_python, fun([X]) ->
        {ok, Result} = py:call('__main__', complex_compute, [X]),
        Result * 2 %% Erlang post-processing
    end),
    %% Python code that uses the callback
    py:exec(<<"
def process(x):
    from erlang import call
    # Calls Erlang, which calls Python's complex_compute
    result = call('compute_via_python', x)
    return result + 1
">>),
    ok = py:exec(<<"def complex_compute(x): return x * x">>),
    ?assertEqual({ok, 19}, py:call('__main__', process, [3])),
    ok = py:unregister_function(compute_via_python).

nested_callbacks(_) ->
    register_level(),
    define_levels(),
    %% Test 10 levels of nesting
    {ok, 10} = py:call('__main__', start, [10]),
    ok = py:unregister_function(level).

nested_callbacks_at_once(_) ->
    register_level(),
    ?assertEqual(lists:duplicate(8, {ok, 10}), py_modes:at_once(lists:duplicate(8, fun() ->
        define_levels(),
        py:call('__main__', start, [10])
    end))),
    ok = py:unregister_function(level).

register_level() ->
    %% Each level alternates between Erlang and Python
    py:register_function(level, fun([N, Max]) ->
        case N >= Max of
            true -> N;
            false ->
                {ok, Result} = py:call('__main__', next_level, [N + 1, Max]),
                Result
        end
    end).

define_levels() ->
    py:exec(<<"
def next_level(n, max):
    from erlang import call
    return call('level', n, max)

def start(max):
    from erlang import call
    return call('level', 1, max)
">>).

%% ------------------------------------------------------------------------------------------
%% Verifying the Build
%% ------------------------------------------------------------------------------------------

verifying_the_build(_) ->
    ok = application:stop(erlang_python),
    %% Check that the NIF loaded successfully
    %% 1> application:ensure_all_started(erlang_python).
    {ok, [erlang_python]} = application:ensure_all_started(erlang_python),
    %% Run basic verification
    %% 2> py:eval("1 + 1").
    {ok, 2} = py:eval("1 + 1").
