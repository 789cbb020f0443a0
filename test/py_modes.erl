-module(py_modes).

%% @doc Runs the cases of a suite once in every mode that this Python has.
%%
%%     all() -> py_modes:all().
%%     groups() -> py_modes:groups([case_one, case_two]).
%%     init_per_group(Mode, Config) -> py_modes:init_per_group(Mode, Config).
%%     end_per_group(Mode, Config) -> py_modes:end_per_group(Mode, Config).
%%
%% Each group is named like its mode (ct_count splits the figures by that) and starts the application
%% anew with `context_mode' set to it. A case asks mode/1 which one it runs in.

-export([modes/0, all/0, all/1, groups/1, groups/2, init_per_group/2, end_per_group/2, mode/1]).
-export([start/1, start/2, stop/0, is_main/1, is_parallel/1]).
-export([messages/0, wait_until/1, wait_until/2, elapsed/1, at_once/1, threads/0, own_threads/0, rss/0]).
-export([fast_enough/2, misuse/1, misuse/2, hear_log/1, unhear_log/0, log/2]).

%% ------------------------------------------------------------------------------------------
%% Modes
%% ------------------------------------------------------------------------------------------

%% The modes this Python has.
modes() ->
    [Mode || Mode <- [free_threaded, owngil, subinterp, multi_executor, worker],
             element(1, py_context:mode(Mode)) =:= ok].

%% All groups, or those of some modes.
all() ->
    all(modes()).

all(Modes) ->
    [{group, Mode} || Mode <- Modes, lists:member(Mode, modes())].

groups(Cases) ->
    groups(Cases, modes()).

groups(Cases, Modes) ->
    [{Mode, [], Cases} || Mode <- Modes, lists:member(Mode, modes())].

init_per_group(Mode, Config) ->
    ok = start(Mode),
    [{mode, Mode} | Config].

end_per_group(_Mode, _Config) ->
    stop().

mode(Config) ->
    proplists:get_value(mode, Config).

%% Whether the contexts of a mode share the main interpreter.
is_main(Mode) ->
    lists:member(Mode, [free_threaded, multi_executor, worker]).

%% Whether two contexts of a mode compute at the same time.
is_parallel(Mode) ->
    lists:member(Mode, [free_threaded, owngil]).

%% ------------------------------------------------------------------------------------------
%% The application
%% ------------------------------------------------------------------------------------------

start(Mode) ->
    start(Mode, []).

%% Stops it if it runs; all settings are the default ones but these.
start(Mode, Settings) ->
    ok = stop(),
    [ok = application:set_env(erlang_python, Key, Value)
     || {Key, Value} <- [{context_mode, Mode} | Settings]],
    {ok, _} = application:ensure_all_started(erlang_python),
    ok.

stop() ->
    case application:stop(erlang_python) of
        ok -> ok;
        {error, {not_started, _}} -> ok
    end,
    _ = application:load(erlang_python),
    [ok = application:unset_env(erlang_python, Key)
     || {Key, _} <- application:get_all_env(erlang_python), Key =/= included_applications],
    ok.

%% ------------------------------------------------------------------------------------------
%% What cases need
%% ------------------------------------------------------------------------------------------

%% The mailbox of the calling process.
messages() ->
    {messages, Messages} = process_info(self(), messages),
    Messages.

%% For what sends no event: looks until Fun answers true; an error after ten seconds.
wait_until(Fun) ->
    wait_until(Fun, 10000).

wait_until(Fun, Timeout) ->
    wait_until_at(Fun, erlang:monotonic_time(millisecond) + Timeout).

wait_until_at(Fun, Deadline) ->
    case Fun() of
        true ->
            ok;
        Other ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true -> timer:sleep(5), wait_until_at(Fun, Deadline);
                false -> error({waited_in_vain, Other})
            end
    end.

%% {Milliseconds, Result} of Fun.
elapsed(Fun) ->
    {Microseconds, Result} = timer:tc(Fun),
    {Microseconds / 1000, Result}.

%% The results, in order, of funs that run at the same time in processes of their own.
at_once(Funs) ->
    Self = self(),
    Started = [spawn_monitor(fun() ->
                   receive go -> ok end,
                   Self ! {self(), Fun()}
               end) || Fun <- Funs],
    [Pid ! go || {Pid, _} <- Started],
    [receive
         {Pid, Result} -> demonitor(Monitor, [flush]), Result;
         {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
     end || {Pid, Monitor} <- Started].

%% The operating system's threads of the VM.
threads() ->
    {ok, Threads} = file:list_dir("/proc/self/task"),
    length(Threads).

%% How many of our own threads have which name.
own_threads() ->
    Names = [Name || File <- filelib:wildcard("/proc/self/task/*/comm"), {ok, <<"py:", Name/binary>>} <- [file:read_file(File)]],
    maps:to_list(lists:foldl(fun(Name, In) -> maps:update_with(string:trim(Name), fun(N) -> N + 1 end, 1, In) end,
                             #{}, Names)).

%% Resident memory of the VM in bytes.
rss() ->
    {ok, Statm} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:split(Statm, " ", all),
    binary_to_integer(Pages) * 4096.

%% The end of a case that measures: what is too slow is a failure, unless the machine is busy with
%% something else.
fast_enough(IsFast, Text) ->
    ct:pal("~ts", [Text]),
    case IsFast orelse processor_share() of
        true -> {comment, Text};
        Share when Share < 0.85 -> {skip, lists:flatten(io_lib:format("the machine is busy (we get ~b %): ~ts",
                                                                      [round(100 * Share), Text]))};
        _ -> error({too_slow, Text})
    end.

%% Which part of the processors this VM gets when it wants them all.
processor_share() ->
    Schedulers = erlang:system_info(schedulers_online),
    {Before, _} = statistics(runtime),
    {Ms, _} = elapsed(fun() -> at_once(lists:duplicate(Schedulers, fun() -> spin(200) end)) end),
    {After, _} = statistics(runtime),
    (After - Before) / (Ms * Schedulers).

spin(Ms) ->
    spin_until(erlang:monotonic_time(millisecond) + Ms).

spin_until(End) ->
    erlang:monotonic_time(millisecond) >= End orelse spin_until(End).

%% What the shell would say about the misuse that Fun is: it has to raise badarg out of the public
%% function that was called, whose error_info names who says it.
misuse(Fun) ->
    {_, Sentence} = misuse_in(Fun),
    Sentence.

%% The same of one function.
misuse({Module, Function}, Fun) ->
    {{Module, Function}, Sentence} = misuse_in(Fun),
    Sentence.

-define(PUBLIC, [py, py_context, py_context_router, py_semaphore, py_state, py_import, py_nif]).

misuse_in(Fun) ->
    try Fun() of
        Result -> error({no_misuse, Result})
    catch
        error:badarg:Stack ->
            [{Raising, Function, Arity, Where} | _] = Stack,
            true = lists:member(Raising, ?PUBLIC) orelse error({raised_in, Stack}),
            true = erlang:function_exported(Raising, Function, Arity) orelse error({raised_in, Stack}),
            #{module := Module} = proplists:get_value(error_info, Where),
            Sentences = maps:values(Module:format_error(badarg, Stack)),
            {{Raising, Function}, unicode:characters_to_binary(lists:join(" ", Sentences))}
    end.

%% What is logged also comes as {log, Level, Text} to Pid.
hear_log(Pid) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => Pid}).

unhear_log() ->
    ok = logger:remove_handler(?MODULE).

log(#{level := Level} = Event, #{config := Pid}) ->
    Text = logger_formatter:format(Event, #{template => [msg], single_line => false}),
    Pid ! {log, Level, unicode:characters_to_binary(Text)}.
