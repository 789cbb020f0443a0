-module(inline_SUITE).

%% @doc Calls that run on their caller's scheduler (inline_cases). Each mode in a VM of its own: a thread of Python's
%% that other suites left running keeps calls off the schedulers.

-compile([export_all, nowarn_export_all]).

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    py_modes:all().

groups() ->
    py_modes:groups(cases()).

cases() ->
    [runs_inline, python_function, values_and_errors, only_atoms, not_for_code, in_context, pool_and_bound,
     no_import, busy_context, parked_context, python_threads, under_a_callback,
     no_callback, no_shared_state, sends, logs,
     overrun, deadline, no_time, interrupted, interrupted_often, context_stopped, limit, counters,
     many, with_kills, stopped_and_started, replaced, no_coroutine].

init_per_group(Mode, Config) ->
    ok = py_modes:start(Mode),
    [{mode, Mode}, {peer, py_peer:start(Mode)} | Config].

end_per_group(Mode, Config) ->
    py_peer:stop(proplists:get_value(peer, Config)),
    py_modes:end_per_group(Mode, Config).

'$handle_undefined_function'(Case, Args) ->
    case {lists:member(Case, cases()), Args} of
        {true, [Config]} -> py_peer:call(proplists:get_value(peer, Config), inline_cases, run, [Case, Config]);
        {true, []} -> [];
        _ -> error_handler:raise_undef_exception(?MODULE, Case, Args)
    end.
