-module(router_SUITE).

%% @doc The router: how many contexts there are, who gets which, pools, and what dies under it.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

suite() ->
    [{timetrap, {seconds, 120}}].

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        as_started, settings, start_again, grow_and_shrink, shrink_in_flight, another_mode,
        wrong_arguments, too_many_contexts, many_schedulers, stop_and_start, without_application, resized_at_once,
        by_scheduler, get_context_forms,
        pools, pool_of_another_mode, pool_is_resized, pool_contexts_are_replaced, pool_errors,
        bound_to_a_pool,
        registered_modules, registered_functions, registrations_by_name, registered_pool_stops,
        registration_errors,
        lost_namespace, others_step_in, many_are_killed, mode_while_one_is_replaced, killed_router, killed_router_replaces, killed_supervisor, killed_helpers,
        registrations_outlive_the_router
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

%% Every case starts from what the application starts.
init_per_testcase(_Case, Config) ->
    Mode = py_modes:mode(Config),
    case whereis(py_context_router) of
        undefined -> ok = py_modes:start(Mode);
        _ -> {ok, _} = py_context_router:start(#{contexts => usual(Mode), mode => Mode})
    end,
    Config.

end_per_testcase(_Case, Config) ->
    case proplists:get_value(tc_status, Config) of
        ok -> nothing_left();
        _ -> ok
    end.

%% Whatever a case did: no message is left, no slot is taken, each context serves.
nothing_left() ->
    try
        [] = py_modes:messages(),
        py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end),
        [{ok, 1} = py:eval(Ctx, <<"1">>, #{}, 10000) || Ctx <- py_context_router:contexts()],
        [] = py_context_router:list_pool_registrations(),
        ok
    catch
        Class:Reason:Stack -> {fail, {left_behind, Class, Reason, Stack}}
    end.

usual(multi_executor) -> max(4, usual(any));
usual(_) -> max(2, erlang:system_info(schedulers)).

%% All of them serve, and no two are the same.
serve(Contexts) ->
    ?assertEqual(length(Contexts), length(lists:usort(Contexts))),
    [?assertEqual({ok, 4.0}, py:call(Ctx, math, sqrt, [16])) || Ctx <- Contexts],
    ok.

modes_of(Contexts) ->
    lists:usort([maps:get(mode, py_context:info(Ctx)) || Ctx <- Contexts]).

%% ------------------------------------------------------------------------------------------
%% How many
%% ------------------------------------------------------------------------------------------

as_started(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode),
    N = usual(Mode),
    Contexts = py_context_router:contexts(),
    ?assertEqual(N, length(Contexts)),
    ?assertEqual(N, py_context_router:num_contexts()),
    ?assertEqual(true, py_context_router:is_started()),
    ?assertEqual(true, py:contexts_started()),
    ?assertEqual([Mode], modes_of(Contexts)),
    ?assertEqual(Contexts, [py_context_router:get_context(I) || I <- lists:seq(1, N)]),
    ?assertEqual(Contexts, [py:context(I) || I <- lists:seq(1, N)]),
    serve(Contexts).

settings(Config) ->
    Mode = py_modes:mode(Config),
    Named = case Mode of
                _ when Mode =:= subinterp; Mode =:= owngil -> num_subinterp_workers;
                _ -> num_workers
            end,
    [begin
         ok = py_modes:start(Mode, Settings),
         ?assertEqual(Expected, py_context_router:num_contexts()),
         serve(py_context_router:contexts())
     end || {Expected, Settings} <- [{5, [{num_contexts, 5}]},
                                     {6, [{Named, 6}]},
                                     {5, [{num_contexts, 5}, {Named, 6}]}]],
    Mode =:= multi_executor andalso
        begin
            ok = py_modes:start(Mode, [{num_contexts, 2}, {num_executors, 3}]),
            ?assertEqual(3, py_context_router:num_contexts()),
            ?assertEqual(3, py:num_executors())
        end,
    ok = py_modes:start(Mode).

start_again(_) ->
    Contexts = py_context_router:contexts(),
    ?assertEqual({ok, Contexts}, py_context_router:start()),
    ?assertEqual({ok, Contexts}, py_context_router:start(#{})),
    ?assertEqual({ok, Contexts}, py:start_contexts()),
    ?assertEqual({ok, Contexts}, py:start_contexts(#{contexts => length(Contexts)})).

%% The first ones stay what they are.
grow_and_shrink(Config) ->
    Mode = py_modes:mode(Config),
    Contexts = py_context_router:contexts(),
    N = length(Contexts),
    [First | _] = Contexts,
    ok = py:exec(First, <<"kept = 1">>),
    {ok, More} = py_context_router:start(#{contexts => N + 3}),
    ?assertEqual(Contexts, lists:sublist(More, N)),
    ?assertEqual(N + 3, length(More)),
    ?assertEqual(More, py_context_router:contexts()),
    ?assertEqual([Mode], modes_of(More)),
    serve(More),
    {ok, Fewer} = py_context_router:start(#{contexts => 1, mode => Mode}),
    ?assertEqual([First], Fewer),
    ?assertEqual(1, py_context_router:num_contexts()),
    py_modes:wait_until(fun() -> not lists:any(fun is_process_alive/1, tl(More)) end),
    [?assertMatch({error, {context_down, _}}, py:eval(Ctx, <<"1">>)) || Ctx <- tl(More)],
    ?assertMatch({error, _}, py_context_router:get_context(2)),
    ?assertEqual(First, py_context_router:get_context(1)),
    ?assertEqual({ok, 1}, py:eval(First, <<"kept">>)),
    [?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])) || _ <- lists:seq(1, 10)].

%% Those that go do what they have first; nobody waits for them.
shrink_in_flight(_) ->
    {ok, [_, Second, Third]} = py_context_router:start(#{contexts => 3}),
    Endless = py:spawn_call(Third, builtins, exec, [<<"while True: pass">>, #{}]),
    Running = py:spawn_call(Second, time, sleep, [0.5]),
    [py_modes:wait_until(fun() -> maps:get(running_ms, py_context:info(Ctx)) =/= undefined end)
     || Ctx <- [Second, Third]],
    Queued = [py:spawn_call(Ctx, math, sqrt, [16]) || Ctx <- [Second, Third]],
    {Ms, {ok, _}} = py_modes:elapsed(fun() -> py_context_router:start(#{contexts => 1}) end),
    ?assert(Ms < 400, Ms),
    ?assertEqual({ok, none}, py:await(Running, 5000)),
    py_modes:wait_until(fun() -> not is_process_alive(Second) end),
    ?assert(is_process_alive(Third)),
    ok = py_context:interrupt(Third),
    ?assertEqual({error, interrupted}, py:await(Endless, 5000)),
    ?assertEqual([{ok, 4.0}, {ok, 4.0}], [py:await(Ref, 5000) || Ref <- Queued]),
    py_modes:wait_until(fun() -> not is_process_alive(Third) end).

another_mode(Config) ->
    Mode = py_modes:mode(Config),
    Before = py_context_router:contexts(),
    [begin
         {ok, Contexts} = py_context_router:start(#{contexts => 2, mode => Other}),
         ?assertEqual([Other], modes_of(Contexts)),
         ?assertEqual([], [Ctx || Ctx <- Contexts, lists:member(Ctx, Before)]),
         serve(Contexts),
         {ok, 2} = py:eval(<<"1 + 1">>)
     end || Other <- py_modes:modes() -- [Mode]],
    {ok, Back} = py_context_router:start(#{contexts => 2, mode => Mode}),
    ?assertEqual([Mode], modes_of(Back)).

wrong_arguments(Config) ->
    Mode = py_modes:mode(Config),
    Contexts = py_context_router:contexts(),
    N = length(Contexts),
    Missing = [free_threaded, owngil, subinterp, multi_executor, worker] -- py_modes:modes(),
    [begin
         ?assertMatch({Opts, {error, _}}, {Opts, py_context_router:start(Opts)}),
         ?assertMatch({Opts, {error, _}}, {Opts, py:start_contexts(Opts)}),
         ?assertEqual({Opts, Contexts}, {Opts, py_context_router:contexts()})
     end || Opts <- [#{contexts => 0}, #{contexts => -1}, #{contexts => many}, #{contexts => 2.0},
                     #{contexts => 100000}, #{mode => no_such_mode}, #{mode => isolated},
                     #{contexts => 3, mode => no_such_mode}, #{contexts => 0, mode => Mode},
                     #{contexts => N, mode => isolated}]
                 ++ [#{contexts => N + 1, mode => M} || M <- Missing]],
    %% An unknown option is one that was mistyped.
    [py_modes:misuse(fun() -> py_context_router:start(Opts) end) || Opts <- [[], 3, #{context => 3}]],
    ?assertEqual(Contexts, py_context_router:contexts()),
    serve(Contexts).

too_many_contexts(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{max_contexts, 6}]),
    Contexts = py_context_router:contexts(),
    ?assertMatch({error, {too_many_contexts, 7, 6}}, py_context_router:start(#{contexts => 7})),
    ?assertEqual(Contexts, py_context_router:contexts()),
    {ok, Six} = py_context_router:start(#{contexts => 6}),
    ?assertMatch({error, {too_many_contexts, 1, 6}}, py_context_router:start_pool(one_more, 1)),
    ?assertEqual(false, py_context_router:pool_started(one_more)),
    serve(Six),
    {ok, _} = py_context_router:start(#{contexts => 5}),
    {ok, [_]} = py_context_router:start_pool(one_more, 1, Mode),
    ?assertMatch({error, {too_many_contexts, _, 6}}, py_context_router:start(#{contexts => 6})),
    ?assertMatch({error, {too_many_contexts, _, 6}}, py_context_router:start_pool(one_more, 2, Mode)),
    ok = py_context_router:stop_pool(one_more),
    {ok, _} = py_context_router:start(#{contexts => 6}),
    ok = py_modes:start(Mode).

%% As many contexts as schedulers, but no more than max_contexts.
many_schedulers(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{max_contexts, 1}]),
    ?assertEqual(1, py_context_router:num_contexts()),
    ok = py_modes:start(Mode, [{max_contexts, 3}, {num_executors, 5}, {num_contexts, 3}]),
    ?assertEqual(3, py_context_router:num_contexts()),
    ok = py_modes:start(Mode),
    case Mode of
        multi_executor -> % where 64 contexts cost little
            Peer = py_peer:start(Mode, [], [{"ERL_FLAGS", "+S 70"}]),
            ?assertEqual(70, py_peer:call(Peer, erlang, system_info, [schedulers])),
            ?assertEqual(64, py_peer:call(Peer, py_context_router, num_contexts, [])),
            ?assertEqual({ok, 4.0}, py_peer:call(Peer, py, call, [math, sqrt, [16]])),
            py_peer:stop(Peer);
        _ ->
            ok
    end.

stop_and_start(Config) ->
    Mode = py_modes:mode(Config),
    [Ctx | _] = Contexts = py_context_router:contexts(),
    {ok, _} = py_context_router:start_pool(short_lived, 1, Mode),
    Stopped = {error, {context_down, not_started}},
    [begin
         ok = Stop(),
         ?assertEqual(false, py_context_router:is_started()),
         ?assertEqual(false, py:contexts_started()),
         ?assertEqual([], py_context_router:contexts()),
         ?assertEqual(0, py_context_router:num_contexts()),
         ?assertEqual(Stopped, py_context_router:get_context()),
         ?assertEqual(Stopped, py_context_router:get_context(1)),
         ?assertEqual(Stopped, py_context_router:bind_context(1)),
         ?assertEqual(Stopped, py:context()),
         [?assertEqual(Stopped, Result) || Result <- py_modes:at_once([
             fun() -> py:call(math, sqrt, [16]) end,
             fun() -> py:eval(<<"1">>) end,
             fun() -> py:exec(<<"1">>) end,
             fun() -> py:await(py:spawn_call(math, sqrt, [16])) end,
             fun() -> {ok, [R]} = py:parallel([{math, sqrt, [16]}]), R end
         ])],
         ?assertEqual(false, py_context_router:pool_started(short_lived)),
         ?assertMatch({error, {context_down, _}}, py:eval(Ctx, <<"1">>))
     end || Stop <- [fun py_context_router:stop/0, fun py_context_router:stop/0,
                     fun py:stop_contexts/0]],
    {ok, Again} = py_context_router:start(),
    ?assertEqual(usual(Mode), length(Again)),
    ?assertEqual([Mode], modes_of(Again)),
    ?assertEqual([], [C || C <- Again, lists:member(C, Contexts)]),
    ?assertEqual({ok, 2}, py:eval(<<"1 + 1">>)),
    ok = py_context_router:stop(),
    {ok, [_, _, _]} = py_context_router:start(#{contexts => 3, mode => Mode}).

without_application(Config) ->
    ok = py_modes:stop(),
    NotStarted = {error, {context_down, not_started}},
    ?assertEqual(false, py_context_router:is_started()),
    [?assertEqual(NotStarted, Fun()) || Fun <- [
        fun() -> py_context_router:start() end,
        fun() -> py_context_router:start(#{contexts => 2}) end,
        fun() -> py_context_router:start_pool(some, 2) end,
        fun() -> py_context_router:stop_pool(some) end,
        fun() -> py_context_router:register_pool(some, math) end,
        fun() -> py_context_router:get_context() end,
        fun() -> py_context_router:get_context(1) end
    ]],
    ?assertEqual(ok, py_context_router:stop()),
    ?assertEqual([], py_context_router:contexts()),
    ok = py_modes:start(py_modes:mode(Config)).

%% Twenty processes ask for different numbers: each answer is one that was, and all agree at the end.
resized_at_once(_) ->
    Results = py_modes:at_once([fun() ->
                  N = 2 + I rem 4,
                  {ok, Contexts} = py_context_router:start(#{contexts => N}),
                  {N, length(Contexts)}
              end || I <- lists:seq(1, 20)]),
    [?assertEqual(N, Length) || {N, Length} <- Results],
    serve(py_context_router:contexts()).

%% ------------------------------------------------------------------------------------------
%% Which one
%% ------------------------------------------------------------------------------------------

%% A process without binding and namespace: by the scheduler it runs on.
by_scheduler(_) ->
    Contexts = py_context_router:contexts(),
    Schedulers = lists:seq(1, erlang:system_info(schedulers_online)),
    Self = self(),
    Picked = [begin
                  Pid = spawn_opt(fun() -> Self ! {self(), py_context_router:get_context()} end,
                                  [{scheduler, S}]),
                  receive {Pid, Ctx} -> Ctx end
              end || S <- Schedulers],
    [?assert(lists:member(Ctx, Contexts)) || Ctx <- Picked],
    ?assertEqual(min(length(Contexts), length(Schedulers)), length(lists:usort(Picked))).

get_context_forms(Config) ->
    {ok, [A, B]} = py_context_router:start_pool(forms, 2, py_modes:mode(Config)),
    ?assert(lists:member(py_context_router:get_context(forms), [A, B])),
    ?assert(lists:member(py_context_router:get_context(default), py_context_router:contexts())),
    ?assertEqual({error, {no_pool, nowhere}}, py_context_router:get_context(nowhere)),
    N = py_context_router:num_contexts(),
    [?assertMatch({error, _}, py_context_router:get_context(I)) || I <- [0, -1, N + 1]],
    [py_modes:misuse(fun() -> py_context_router:get_context(Wrong) end) || Wrong <- ["default", 1.0, self()]],
    ok = py_context_router:stop_pool(forms).

%% ------------------------------------------------------------------------------------------
%% Pools
%% ------------------------------------------------------------------------------------------

pools(Config) ->
    Mode = py_modes:mode(Config),
    Default = py_context_router:contexts(),
    {ok, A} = py_context_router:start_pool(pool_a, 2, Mode),
    {ok, B} = py_context_router:start_pool(pool_b, 1),
    ?assertEqual({2, 1}, {length(A), length(B)}),
    serve(A ++ B ++ Default),
    ?assertEqual([Mode], modes_of(A)),
    ?assertEqual({ok, hd(modes_of(B))}, py_context:mode(auto)),
    ?assertEqual([true, true, false], [py_context_router:pool_started(P) || P <- [pool_a, pool_b, pool_c]]),
    ?assertEqual({2, 1, 0}, {py_context_router:num_contexts(pool_a),
                             py_context_router:num_contexts(pool_b),
                             py_context_router:num_contexts(pool_c)}),
    ?assertEqual({A, B, []}, {py_context_router:contexts(pool_a), py_context_router:contexts(pool_b),
                              py_context_router:contexts(pool_c)}),
    %% The default pool is as it was.
    ?assertEqual(Default, py_context_router:contexts()),
    ok = py:exec(hd(B), <<"import __main__\n__main__.where = 'b'\nimport builtins\nbuiltins.where = 'b'">>),
    ?assertEqual({ok, <<"b">>}, py:call(pool_b, builtins, eval, [<<"where">>, #{}])),
    ok = py:exec(hd(B), <<"import builtins, __main__\ndel builtins.where, __main__.where">>),
    ok = py_context_router:stop_pool(pool_a),
    ?assertEqual([], py_context_router:contexts(pool_a)),
    ?assertEqual(false, py_context_router:pool_started(pool_a)),
    [?assertMatch({error, {context_down, _}}, py:eval(Ctx, <<"1">>)) || Ctx <- A],
    ?assertEqual({error, {no_pool, pool_a}}, py:call(pool_a, math, sqrt, [16])),
    ?assertEqual({error, {no_pool, pool_a}}, py_context_router:stop_pool(pool_a)),
    serve(B ++ Default),
    ok = py_context_router:stop_pool(pool_b),
    %% A name may be used again.
    {ok, [_]} = py_context_router:start_pool(pool_a, 1, Mode),
    ?assertEqual({ok, 4.0}, py:call(pool_a, math, sqrt, [16])),
    ok = py_context_router:stop_pool(pool_a).

pool_of_another_mode(_) ->
    [begin
         {ok, Contexts} = py_context_router:start_pool(mixed, 2, Mode),
         ?assertEqual([Mode], modes_of(Contexts)),
         ?assertEqual({ok, 4.0}, py:call(mixed, math, sqrt, [16])),
         serve(Contexts)
     end || Mode <- py_modes:modes()],
    ok = py_context_router:stop_pool(mixed).

pool_is_resized(Config) ->
    Mode = py_modes:mode(Config),
    {ok, [A]} = py_context_router:start_pool(sized, 1, Mode),
    {ok, [A, B, C]} = py_context_router:start_pool(sized, 3, Mode),
    {ok, [A, B]} = py_context_router:start_pool(sized, 2, Mode),
    py_modes:wait_until(fun() -> not is_process_alive(C) end),
    {ok, [A, B]} = py_context_router:start_pool(sized, 2, Mode),
    serve([A, B]),
    ok = py_context_router:stop_pool(sized).

pool_contexts_are_replaced(Config) ->
    {ok, [A, B]} = py_context_router:start_pool(fragile, 2, py_modes:mode(Config)),
    exit(B, kill),
    py_modes:wait_until(fun() ->
        case py_context_router:contexts(fragile) of
            [A, C] -> C =/= B;
            _ -> false
        end
    end),
    serve(py_context_router:contexts(fragile)),
    ok = py_context_router:stop_pool(fragile),
    %% One that dies while its pool goes does not come back.
    {ok, [D]} = py_context_router:start_pool(fragile, 1, py_modes:mode(Config)),
    exit(D, kill),
    ok = py_context_router:stop_pool(fragile),
    _ = sys:get_state(py_context_router),
    ?assertEqual(false, py_context_router:pool_started(fragile)).

pool_errors(Config) ->
    Mode = py_modes:mode(Config),
    [py_modes:misuse(fun() -> py_context_router:start_pool(Pool, Size, Mode) end)
     || {Pool, Size} <- [{"text", 1}, {<<"binary">>, 1}, {1, 1}, {wrong, 0}, {wrong, -1}, {wrong, many},
                         {wrong, 1.0}]],
    [?assertMatch({error, {unsupported_mode, M, _}}, py_context_router:start_pool(wrong, 1, M))
     || M <- [isolated, no_such_mode]
             ++ ([free_threaded, owngil, subinterp, multi_executor, worker] -- py_modes:modes())],
    ?assertEqual(false, py_context_router:pool_started(wrong)),
    %% A pool that could not be changed is as it was.
    {ok, [Ctx]} = py_context_router:start_pool(right, 1, Mode),
    {error, _} = py_context_router:start_pool(right, 2, no_such_mode),
    {error, _} = py_context_router:start_pool(right, 100000, Mode),
    ?assertEqual([Ctx], py_context_router:contexts(right)),
    serve([Ctx]),
    ok = py_context_router:stop_pool(right),
    ?assertEqual({error, {no_pool, nowhere}}, py_context_router:stop_pool(nowhere)),
    ?assertEqual({error, {no_pool, nowhere}}, py:call(nowhere, math, sqrt, [16])).

bound_to_a_pool(Config) ->
    {ok, [A, B]} = py_context_router:start_pool(bound, 2, py_modes:mode(Config)),
    [ok] = py_modes:at_once([fun() ->
        ok = py_context_router:bind_context(bound, 2),
        ?assertEqual(B, py:context()),
        ok = py:exec(<<"here = 1">>),
        ?assertEqual({ok, 1}, py:eval(B, <<"here">>)),
        ok = py_context_router:bind_context(bound, 1),
        ?assertEqual(A, py:context()),
        [?assertMatch({error, _}, py_context_router:bind_context(bound, I)) || I <- [0, 3]],
        ?assertMatch({error, {no_pool, nowhere}}, py_context_router:bind_context(nowhere, 1)),
        ?assertEqual(A, py:context()),
        ok = py_context_router:unbind_context(bound),
        ?assertEqual(undefined, py_request:where()),
        ok
    end]),
    ok = py_context_router:stop_pool(bound).

%% ------------------------------------------------------------------------------------------
%% Pools by module
%% ------------------------------------------------------------------------------------------

%% A pool of one context whose builtins say so; functions of a module that look there.
marked_pool(Pool, Config) ->
    {ok, [Ctx]} = py_context_router:start_pool(Pool, 1, py_modes:mode(Config)),
    Ctx.

calls(Ctx) ->
    maps:get(calls, py_context:info(Ctx)).

%% Whether Fun's calls (there are ten) went to Ctx.
goes_to(Ctx, Fun) ->
    Before = calls(Ctx),
    [{ok, _} = Fun() || _ <- lists:seq(1, 10)],
    py_modes:wait_until(fun() -> calls(Ctx) =:= Before + 10 end, 1000).

goes_elsewhere(Ctx, Fun) ->
    Before = calls(Ctx),
    [{ok, _} = Fun() || _ <- lists:seq(1, 10)],
    ?assertEqual(Before, calls(Ctx)).

%% In multi_executor a call that needs no namespace goes to any executor, so there it is the pool's
%% error that tells where a call goes.
registered_modules(Config) ->
    Ctx = marked_pool(by_module, Config),
    Call = fun() -> py:call(cmath, sqrt, [16]) end,
    ok = py_context_router:register_pool(by_module, cmath),
    ?assertEqual(by_module, py_context_router:lookup_pool(cmath, sqrt)),
    ?assertEqual(default, py_context_router:lookup_pool(math, sqrt)),
    case py_modes:mode(Config) of
        multi_executor -> {ok, _} = Call();
        _ ->
            goes_to(Ctx, Call),
            goes_to(Ctx, fun() -> py:await(py:spawn_call(cmath, sqrt, [16])) end),
            goes_elsewhere(Ctx, fun() -> py:call(math, sqrt, [16]) end),
            goes_elsewhere(Ctx, fun() -> py:call(py:context(1), cmath, sqrt, [16]) end)
    end,
    ok = py_context_router:unregister_pool(cmath),
    ?assertEqual(default, py_context_router:lookup_pool(cmath, sqrt)),
    py_modes:mode(Config) =:= multi_executor orelse goes_elsewhere(Ctx, Call),
    ok = py_context_router:stop_pool(by_module).

%% A function's registration goes before its module's.
registered_functions(Config) ->
    A = marked_pool(by_function, Config),
    B = marked_pool(by_module, Config),
    ok = py:register_pool(by_function, {cmath, sqrt}),
    ok = py:register_pool(by_module, cmath),
    ?assertEqual({by_function, by_module}, {py_context_router:lookup_pool(cmath, sqrt),
                                            py_context_router:lookup_pool(cmath, exp)}),
    ?assertEqual([{{<<"cmath">>, '_'}, by_module}, {{<<"cmath">>, <<"sqrt">>}, by_function}],
                 py_context_router:list_pool_registrations()),
    py_modes:mode(Config) =:= multi_executor orelse
        begin
            goes_to(A, fun() -> py:call(cmath, sqrt, [16]) end),
            goes_to(B, fun() -> py:call(cmath, exp, [0]) end)
        end,
    %% Again: to another pool.
    ok = py_context_router:register_pool(by_module, cmath, sqrt),
    ?assertEqual(by_module, py_context_router:lookup_pool(cmath, sqrt)),
    ok = py:unregister_pool({cmath, sqrt}),
    ?assertEqual(by_module, py_context_router:lookup_pool(cmath, sqrt)),
    ok = py_context_router:unregister_pool(cmath, sqrt),
    ok = py:unregister_pool(cmath),
    ?assertEqual([], py_context_router:list_pool_registrations()),
    ok = py_context_router:stop_pool(by_function),
    ok = py_context_router:stop_pool(by_module).

%% A name is the same whether atom, binary or string.
registrations_by_name(Config) ->
    _ = marked_pool(named, Config),
    Names = [cmath, <<"cmath">>, "cmath"],
    [begin
         ok = py_context_router:register_pool(named, Name),
         [?assertEqual(named, py_context_router:lookup_pool(Other, F))
          || Other <- Names, F <- [sqrt, <<"sqrt">>, "sqrt"]],
         ok = py_context_router:unregister_pool(Unname)
     end || Name <- Names, Unname <- Names],
    ?assertEqual([], py_context_router:list_pool_registrations()),
    ok = py_context_router:stop_pool(named).

%% Its calls do not quietly go elsewhere.
registered_pool_stops(Config) ->
    Mode = py_modes:mode(Config),
    _ = marked_pool(passing, Config),
    ok = py:register_pool(passing, cmath),
    ok = py_context_router:stop_pool(passing),
    ?assertEqual({error, {no_pool, passing}}, py:call(cmath, sqrt, [16])),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])),
    {ok, _} = py_context_router:start_pool(passing, 1, Mode),
    ?assertMatch({ok, _}, py:call(cmath, sqrt, [16])),
    ok = py:unregister_pool(cmath),
    ok = py_context_router:stop_pool(passing).

registration_errors(Config) ->
    ?assertEqual({error, {no_pool, nowhere}}, py:register_pool(nowhere, math)),
    ?assertEqual({error, {no_pool, nowhere}}, py:register_pool(nowhere, {math, sqrt})),
    ?assertEqual(ok, py:unregister_pool(never_registered)),
    ?assertEqual(default, py_context_router:lookup_pool(math, sqrt)),
    _ = marked_pool(strict, Config),
    [py_modes:misuse(fun() -> py:register_pool(strict, Wrong) end) || Wrong <- [1, {math}, self(), #{}]],
    %% Whoever registers at the same time loses nothing (trap 63).
    Modules = [iolist_to_binary(io_lib:format("module_~b", [I])) || I <- lists:seq(1, 50)],
    [ok = R || R <- py_modes:at_once([fun() -> py:register_pool(strict, M) end || M <- Modules])],
    ?assertEqual([{{M, '_'}, strict} || M <- lists:sort(Modules)], py_context_router:list_pool_registrations()),
    [ok = R || R <- py_modes:at_once([fun() -> py:unregister_pool(M) end || M <- Modules])],
    ok = py_context_router:stop_pool(strict).

%% ------------------------------------------------------------------------------------------
%% What dies
%% ------------------------------------------------------------------------------------------

%% While a dead context is not replaced yet, calls that any context may serve go to another.
others_step_in(Config) ->
    [First, Second | _] = py_context_router:contexts(),
    {ok, Handle} = py:call(Second, builtins, list, [[1, 1]], #{return => handle}),
    ok = sys:suspend(py_context_router),
    try
        Monitor = monitor(process, First),
        exit(First, kill),
        receive {'DOWN', Monitor, process, First, killed} -> ok end,
        %% From every scheduler, so from those that the dead one belongs to as well.
        Results = [{py_modes:at_once([fun() ->
                        process_flag(scheduler, N),
                        erlang:yield(),
                        {py:call(math, sqrt, [16]), py:await(py:spawn_call(math, sqrt, [16])),
                         py:eval(<<"1 + 1">>), py:exec(<<"x = 1">>)}
                    end])} || N <- lists:seq(1, erlang:system_info(schedulers_online))],
        ?assertEqual([], [R || R <- Results, R =/= {[{{ok, 4.0}, {ok, 4.0}, {ok, 2}, ok}]}]),
        case py_modes:mode(Config) of
            Mode when Mode =:= subinterp; Mode =:= owngil -> ok;
            _ -> [?assertEqual({ok, 2}, py:call(Handle, count, [1])) || _ <- lists:seq(1, 10)]
        end
    after
        ok = sys:resume(py_context_router)
    end,
    py_modes:wait_until(fun() -> not lists:member(First, py_context_router:contexts()) end).

%% Whose context died starts anew elsewhere, whatever comes next.
lost_namespace(_) ->
    [begin
         ok = py:exec(<<"import math\nx = 1">>),
         Ctx = py_context_router:get_context(),
         Monitor = monitor(process, Ctx),
         exit(Ctx, kill),
         receive {'DOWN', Monitor, process, Ctx, killed} -> ok end,
         py_modes:wait_until(fun() -> not lists:member(Ctx, py_context_router:contexts()) end),
         ?assertEqual({What, Expected}, {What, Ask()}),
         ?assertEqual({ok, false}, py:eval(<<"'x' in globals()">>))
     end || {What, Expected, Ask} <- [
         {call, {ok, 2.0}, fun() -> py:call(math, sqrt, [4]) end},
         {spawn_call, {ok, 2.0}, fun() -> py:await(py:spawn_call(math, sqrt, [4])) end},
         {async_call, {ok, 2.0}, fun() -> py:await(py:async_call(math, sqrt, [4])) end},
         {parallel, {ok, [{ok, 2.0}]}, fun() -> py:parallel([{math, sqrt, [4]}]) end},
         {stream, {ok, [0, 1]}, fun() -> py:stream(builtins, range, [2]) end},
         {get_context, true, fun() -> is_process_alive(py_context_router:get_context()) end}
     ]].

%% Traps 88, 103, 105: each is replaced, none is handed out again, no thread is left.
many_are_killed(Config) ->
    Mode = py_modes:mode(Config),
    N = py_context_router:num_contexts(),
    Kill = fun() ->
        Old = py_context_router:contexts(),
        [exit(Ctx, kill) || Ctx <- Old],
        py_modes:wait_until(fun() ->
            New = py_context_router:contexts(),
            length(New) =:= N andalso [] =:= [C || C <- New, lists:member(C, Old)]
        end),
        serve(py_context_router:contexts())
    end,
    [Kill() || _ <- lists:seq(1, 3)],
    Before = threads(),
    [Kill() || _ <- lists:seq(1, 10)],
    py_modes:wait_until(fun() -> threads() =< Before end, 20000),
    %% The old ones are nowhere.
    py_modes:wait_until(fun() ->
        lists:all(fun({Pid, _}) -> is_process_alive(Pid) end, py_context:all())
    end),
    ?assertEqual([Mode], modes_of(py_context_router:contexts())).

threads() ->
    element(2, py_nif:counters()).

kill_registered(Name) ->
    Pid = whereis(Name),
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end,
    py_modes:wait_until(fun() -> is_pid(whereis(Name)) andalso whereis(Name) =/= Pid end),
    py_modes:wait_until(fun() ->
        case whereis(py_context_router) of
            undefined -> false;
            Router -> try sys:get_state(Router), true catch exit:_ -> false end
        end
    end, 30000).

%% Contexts do not die with the router, and calls do not notice.
%% The mode is the router's: it needs no context that lives.
mode_while_one_is_replaced(Config) ->
    Mode = py_modes:mode(Config),
    [First | _] = py_context_router:contexts(),
    Executors = py:num_executors(),
    ok = sys:suspend(py_context_router), % as if the new one took long to start
    try
        exit(First, kill),
        py_modes:wait_until(fun() -> element(1, py_context:place(First)) =:= error end),
        ?assertEqual({Mode, Executors}, {py:execution_mode(), py:num_executors()})
    after
        ok = sys:resume(py_context_router)
    end,
    py_modes:wait_until(fun() -> lists:all(fun is_process_alive/1, py_context_router:contexts()) end).

killed_router(Config) ->
    {ok, Pool} = py_context_router:start_pool(surviving, 1, py_modes:mode(Config)),
    Contexts = py_context_router:contexts(),
    ok = py:exec(hd(Contexts), <<"kept = 1">>),
    Running = py:spawn_call(hd(Contexts), time, sleep, [0.3]),
    exit(whereis(py_context_router), kill),
    [?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])) || _ <- lists:seq(1, 100)],
    py_modes:wait_until(fun() -> whereis(py_context_router) =/= undefined end),
    ?assertEqual({ok, none}, py:await(Running)),
    ?assertEqual(Contexts, py_context_router:contexts()),
    ?assertEqual({ok, Contexts}, py_context_router:start()),
    ?assertEqual(Pool, py_context_router:contexts(surviving)),
    ?assertEqual({ok, 1}, py:eval(hd(Contexts), <<"kept">>)),
    serve(Contexts ++ Pool),
    %% It is the new router's to grow, shrink and stop.
    {ok, More} = py_context_router:start(#{contexts => length(Contexts) + 1}),
    ?assertEqual(Contexts, lists:droplast(More)),
    ok = py_context_router:stop_pool(surviving).

%% The new router replaces what died before and after it came.
killed_router_replaces(_) ->
    [A, B | _] = py_context_router:contexts(),
    exit(whereis(py_context_router), kill),
    exit(A, kill),
    py_modes:wait_until(fun() ->
        Ctx = py_context_router:get_context(1),
        Ctx =/= A andalso {ok, 1} =:= py:eval(Ctx, <<"1">>)
    end),
    ?assertEqual(B, py_context_router:get_context(2)),
    exit(B, kill),
    py_modes:wait_until(fun() ->
        Ctx = py_context_router:get_context(2),
        Ctx =/= B andalso {ok, 1} =:= py:eval(Ctx, <<"1">>)
    end).

killed_supervisor(Config) ->
    Mode = py_modes:mode(Config),
    N = py_context_router:num_contexts(),
    Old = py_context_router:contexts(),
    kill_registered(py_context_sup),
    py_modes:wait_until(fun() ->
        New = py_context_router:contexts(),
        length(New) =:= N andalso [] =:= [C || C <- New, lists:member(C, Old)]
    end, 20000),
    serve(py_context_router:contexts()),
    ?assertEqual([Mode], modes_of(py_context_router:contexts())),
    ?assertEqual({ok, 2}, py:eval(<<"1 + 1">>)).

%% Trap 104: the application outlives the death of any of its processes. Each case of this suite that
%% kills one counts for the supervisor's intensity, so these wait for a fresh count.
killed_helpers(Config) ->
    Mode = py_modes:mode(Config),
    [begin
         ok = py_modes:start(Mode),
         kill_registered(Name),
         py_modes:wait_until(fun() -> {ok, 2} =:= py:eval(<<"1 + 1">>, #{}, 5000) end, 20000),
         serve(py_context_router:contexts()),
         ?assertEqual(0, py_semaphore:current()),
         ?assert(lists:keymember(erlang_python, 1, application:which_applications()))
     end || Name <- [py_tables, py_engine, py_context_sup, py_context_router]],
    %% A kill while calls are made: each is answered.
    [begin
         ok = py_modes:start(Mode),
         Self = self(),
         Callers = [spawn(fun() -> Self ! {self(), [py:call(math, sqrt, [16]) || _ <- lists:seq(1, 300)]} end)
                    || _ <- lists:seq(1, 10)],
         kill_registered(Name),
         Results = lists:append([receive {Pid, R} -> R after 30000 -> [no_answer] end || Pid <- Callers]),
         ?assertEqual([], [R || R <- Results, R =/= {ok, 4.0}, not is_down(R)]),
         py_modes:wait_until(fun() -> {ok, 2} =:= py:eval(<<"1 + 1">>, #{}, 5000) end, 20000)
     end || Name <- [py_tables, py_engine, py_context_sup]],
    ok = py_modes:start(Mode).

is_down({error, {context_down, _}}) -> true;
is_down(_) -> false.

registrations_outlive_the_router(Config) ->
    {ok, _} = py_context_router:start_pool(kept, 1, py_modes:mode(Config)),
    ok = py:register_pool(kept, cmath),
    kill_registered(py_context_router),
    ?assertEqual(kept, py_context_router:lookup_pool(cmath, sqrt)),
    ?assertMatch({ok, _}, py:call(cmath, sqrt, [16])),
    ok = py:unregister_pool(cmath),
    ok = py_context_router:stop_pool(kept).
