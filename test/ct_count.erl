-module(ct_count).

%% @doc A Common Test hook that writes what happens to the file named by CT_COUNT, one line per
%% event, at once: whoever reads it also learns in which case a VM died.
%%
%%     start MODE SUITE CASE 0
%%     passed|failed|skipped MODE SUITE CASE MILLISECONDS
%%
%% MODE is the innermost group around the case that is named like a mode, or `-'. A case may be
%% `passed' and then `failed': end_per_testcase did not like it; the last line counts. What could
%% not run because something before it failed is `failed'.

-export([id/1, init/2]).
-export([pre_init_per_testcase/4, post_end_per_testcase/5, on_tc_fail/4, on_tc_skip/4]).

-define(MODES, [free_threaded, owngil, subinterp, multi_executor, worker, isolated]).

-record(state, {
    file :: file:filename() | undefined,
    %% Mode and start time (ms) of the cases that ran; a failure is reported without its mode.
    ran = #{} :: #{{module(), atom()} => {atom(), integer()}}
}).

id(_Options) ->
    ?MODULE.

init(?MODULE, _Options) ->
    case os:getenv("CT_COUNT") of
        false -> {ok, #state{}};
        File -> {ok, #state{file = File}}
    end.

pre_init_per_testcase(Suite, Case, Config, #state{ran = Ran} = State) ->
    Now = erlang:monotonic_time(millisecond),
    After = State#state{ran = Ran#{{Suite, Case} => {mode(group_names(Config)), Now}}},
    write(start, Suite, Case, [], After),
    {Config, After}.

post_end_per_testcase(Suite, Case, Config, Return, State) ->
    case proplists:get_value(tc_status, Config) of
        ok -> write(passed, Suite, Case, [], State);
        _ -> ok
    end,
    {Return, State}.

on_tc_fail(Suite, Name, _Reason, State) ->
    {Case, Groups} = case_and_groups(Name),
    write(failed, Suite, Case, Groups, State),
    State.

on_tc_skip(Suite, Name, {Kind, _Reason}, State) ->
    {Case, Groups} = case_and_groups(Name),
    case Kind of
        tc_user_skip -> write(skipped, Suite, Case, Groups, State);
        tc_auto_skip when Case =:= end_per_suite; Case =:= end_per_group -> ok;
        tc_auto_skip -> write(failed, Suite, Case, Groups, State)
    end,
    State.

case_and_groups({Case, Group}) -> {Case, [Group]};
case_and_groups(Case) -> {Case, []}.

group_names(Config) ->
    Path = [
        proplists:get_value(tc_group_properties, Config, [])
        | proplists:get_value(tc_group_path, Config, [])
    ],
    [proplists:get_value(name, Properties) || Properties <- Path].

mode(Groups) ->
    case [Group || Group <- Groups, lists:member(Group, ?MODES)] of
        [Mode | _] -> Mode;
        [] -> '-'
    end.

write(_, _, _, _, #state{file = undefined}) ->
    ok;
write(Event, Suite, Case, Groups, #state{file = File, ran = Ran}) ->
    Now = erlang:monotonic_time(millisecond),
    {Mode, Started} = maps:get({Suite, Case}, Ran, {mode(Groups), Now}),
    Line = io_lib:format("~ts ~ts ~ts ~ts ~b~n", [Event, Mode, Suite, Case, Now - Started]),
    ok = file:write_file(File, Line, [append]).
