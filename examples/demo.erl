-module(demo).

%% @doc What `bin/demo' shows: calls, an error, a time-out, and then the job: every module of the
%% Python standard library parsed and measured (ast_report.py), on one context and on as many as
%% there are cores, in each mode this Python has, beside as many plain OS processes. Uses nothing
%% but the public interface.

-export([main/1]).

%% Modes whose contexts run Python in parallel first.
-define(MODES, [free_threaded, owngil, subinterp, multi_executor, worker]).
%% Each figure is the best of at most so many runs, for other programs share the machine.
-define(MAX_ROUNDS, 3).
%% What the job may take altogether, in seconds: fewer rounds, then fewer files.
-define(BUDGET, 40).
-define(MAX_CONTEXTS, 16).
-define(BAR, 30).

%% `main([Folder])': the folder where ast_report.py is. Ends the VM, with status 1 if anything
%% shown was not what it should be.
-spec main([string()]) -> no_return().
main([Folder]) ->
    Status =
        try
            {ok, _} = application:ensure_all_started(erlang_python),
            run(Folder),
            0
        catch
            Class:Reason:Stack ->
                io:format(standard_error, "~ndemo: ~ts~n", [
                    erl_error:format_exception(Class, Reason, Stack)
                ]),
                1
        end,
    init:stop(Status),
    timer:sleep(infinity).

run(Folder) ->
    {ok, Version} = py:version(),
    Cores = erlang:system_info(schedulers_online),
    io:format("CPython ~ts inside Erlang/OTP ~ts, ~b cores, default mode ~ts~n", [
        hd(string:lexemes(Version, " ")),
        erlang:system_info(otp_release),
        Cores,
        py:execution_mode()
    ]),
    show_calls(),
    show_error(),
    show_timeout(),
    show_job(Folder, min(Cores, ?MAX_CONTEXTS)).

%%% Calls, errors, time-outs

show_calls() ->
    title("Calls"),
    show("py:call(math, sqrt, [16])", {ok, 4.0}, py:call(math, sqrt, [16])),
    show(
        "py:eval(<<\"sum(x * x for x in range(n))\">>, #{n => 10})",
        {ok, 285},
        py:eval(<<"sum(x * x for x in range(n))">>, #{n => 10})
    ),
    ok = py:exec(<<"def greet(name):\n    return {'hello': [name]}">>),
    show(
        "py:call('__main__', greet, [<<\"Joe\">>])",
        {ok, #{<<"hello">> => [<<"Joe">>]}},
        py:call('__main__', greet, [<<"Joe">>])
    ).

show_error() ->
    title("Errors"),
    Brief = {error, {'ZeroDivisionError', "division by zero"}},
    show("py:eval(<<\"1 / 0\">>)", Brief, py:eval(<<"1 / 0">>)),
    Error = {error, {'JSONDecodeError', _, _}} =
        py:call(json, loads, [<<"[1, 2,,]">>], #{}, #{traceback => true}),
    io:format("  py:call(json, loads, [<<\"[1, 2,,]\">>], #{}, #{traceback => true}), formatted:~n"),
    [
        io:format("    ~ts~n", [Line])
     || Line <- string:lexemes(unicode:characters_to_list(py:format_error(Error)), "\n")
    ],
    ok.

show_timeout() ->
    title("Time-outs"),
    ok = py:exec(<<"def forever():\n    while True:\n        pass">>),
    {Microseconds, Result} = timer:tc(fun() -> py:call('__main__', forever, [], #{}, 200) end),
    show("py:call('__main__', forever, [], #{}, 200)", {error, timeout}, Result),
    io:format("    after ~b ms; the loop is interrupted, and the same context serves on:~n", [
        Microseconds div 1000
    ]),
    show("py:eval(<<\"6 * 7\">>)", {ok, 42}, py:eval(<<"6 * 7">>)).

show(Text, Expected, Expected) ->
    io:format("  ~ts~n    ~tp~n", [Text, Expected]);
show(Text, Expected, Result) ->
    error({unexpected, Text, Result, Expected}).

%%% The job

show_job(Folder, Cores) ->
    title("Every module of the standard library, parsed and measured with ast"),
    {Modes, Missing} = lists:partition(fun(Mode) -> why_not(Mode) =:= none end, ?MODES),
    Runs = [{Kind, Size} || Kind <- [os_processes | Modes], Size <- lists:usort([1, Cores])],
    {ok, Python} = py:eval(<<"__import__('sys').executable">>),
    {Paths, Rounds} = plan(Folder, Runs),
    Job = #{paths => Paths, folder => Folder, python => Python},
    progress(0, 1),
    Results = [
        run_counted(Job, Kind, Size, Done, length(Runs) * Rounds)
     || {Done, {Kind, Size}} <- enumerate(lists:append(lists:duplicate(Rounds, Runs)))
    ],
    clear_line(),
    io:format("  ~b files; each figure the best of ~b~n~n", [length(Paths), Rounds]),
    Rates = best(Results),
    table(Runs, Rates),
    summary([Reports || {_, _, Reports} <- Results], Paths),
    [io:format("  not here: ~ts (~ts)~n", [Mode, why_not(Mode)]) || Mode <- Missing],
    verdict(Modes, Rates, Cores).

%% The files to measure and how many rounds, so that it fits the budget: measures a few to know.
plan(Folder, Runs) ->
    Context = start_context(worker, Folder),
    {ok, All} = py:call(Context, ast_report, modules, []),
    Some = every(20, All),
    {Microseconds, _} = timer:tc(fun() ->
        [{ok, _} = py:call(Context, ast_report, measure, [Path]) || Path <- Some]
    end),
    ok = py_context:stop(Context),
    Round = Microseconds / 1.0e6 / length(Some) * length(All) * lists:sum(lists:map(fun cost/1, Runs)),
    Step = max(1, ceil(Round / ?BUDGET)),
    Step > 1 andalso io:format("  this machine is slow: every ~b. file only~n", [Step]),
    {every(Step, All), max(1, min(?MAX_ROUNDS, trunc(?BUDGET / Round)))}.

cost({Kind, Size}) when Kind =:= os_processes; Kind =:= free_threaded; Kind =:= owngil -> 1 / Size;
cost(_) -> 1.

every(Step, List) ->
    [Item || {Index, Item} <- enumerate(List), Index rem Step =:= 0].

run_counted(Job, Kind, Size, Done, Total) ->
    #{paths := Paths} = Job,
    Advance = fun(Part) -> progress(Done + Part, Total) end,
    {Seconds, Reports} = measure_all(start_workers(Kind, Size, Job), Paths, Advance),
    {{Kind, Size}, length(Paths) / Seconds, Reports}.

%% The best rate of each {Kind, Size}.
best(Rounds) ->
    lists:foldl(
        fun({Run, Rate, _}, Best) ->
            maps:update_with(Run, fun(Old) -> max(Old, Rate) end, Rate, Best)
        end,
        #{},
        Rounds
    ).

%% A worker is a process that answers {measure, From, Path} with {measured, Self, Path, Report}.
start_workers(Kind, Size, Job) ->
    Self = self(),
    Workers = [
        spawn_link(fun() -> start_worker(Kind, Self, Job) end)
     || _ <- lists:seq(1, Size)
    ],
    [
        receive
            {ready, Worker} -> Worker
        end
     || Worker <- Workers
    ].

start_worker(os_processes, Owner, #{folder := Folder, python := Python, paths := [Path | _]}) ->
    Port = open_port({spawn_executable, Python}, [
        {args, [filename:join(Folder, "ast_report.py"), "--serve"]}, {line, 65536}, binary
    ]),
    Measure = fun(File) ->
        port_command(Port, [File, $\n]),
        receive
            {Port, {data, {eol, Json}}} -> Json
        end
    end,
    _ = Measure(Path),
    Owner ! {ready, self()},
    serve(Measure, fun() -> port_close(Port) end);
start_worker(Mode, Owner, #{folder := Folder, paths := [Path | _]}) ->
    Context = start_context(Mode, Folder),
    Measure = fun(File) ->
        {ok, Report} = py:call(Context, ast_report, measure, [File]),
        Report
    end,
    _ = Measure(Path),
    Owner ! {ready, self()},
    serve(Measure, fun() -> py_context:stop(Context) end).

serve(Measure, Stop) ->
    receive
        {measure, From, Path} ->
            From ! {measured, self(), Path, Measure(Path)},
            serve(Measure, Stop);
        {stop, From} ->
            _ = Stop(),
            From ! {stopped, self()}
    end.

start_context(Mode, Folder) ->
    {ok, Context} = py_context:new(#{mode => Mode}),
    {ok, _} = py:call(Context, sys, 'path.insert', [0, unicode:characters_to_binary(Folder)]),
    Context.

%% Each worker gets the next path as soon as it has done one. Returns the seconds it took and
%% Path => Report.
measure_all(Workers, Paths, Advance) ->
    Started = erlang:monotonic_time(),
    {Later, _} = lists:foldl(
        fun(Worker, {[Path | Rest], N}) ->
            Worker ! {measure, self(), Path},
            {Rest, N + 1}
        end,
        {Paths, 0},
        Workers
    ),
    Reports = collect(Later, length(Paths), #{}, Advance),
    Ended = erlang:monotonic_time(),
    _ = [Worker ! {stop, self()} || Worker <- Workers],
    [
        receive
            {stopped, Worker} -> ok
        end
     || Worker <- Workers
    ],
    {erlang:convert_time_unit(Ended - Started, native, microsecond) / 1.0e6, Reports}.

collect(_, Total, Reports, _) when map_size(Reports) =:= Total ->
    Reports;
collect(Later, Total, Reports, Advance) ->
    receive
        {measured, Worker, Path, Report} ->
            Rest = hand_out(Worker, Later),
            Done = map_size(Reports) + 1,
            Done rem 32 =:= 0 andalso Advance(Done / Total),
            collect(Rest, Total, Reports#{Path => Report}, Advance)
    end.

hand_out(_, []) ->
    [];
hand_out(Worker, [Path | Rest]) ->
    Worker ! {measure, self(), Path},
    Rest.

%% `none', or the sentence in which a mode says what it is missing.
why_not(Mode) ->
    case py_context:new(#{mode => Mode}) of
        {ok, Context} ->
            ok = py_context:stop(Context),
            none;
        {error, {unsupported_mode, Mode, Why}} ->
            Why
    end.

%%% What is printed

table(Runs, Rates) ->
    io:format("  ~-16ts~10ts~12ts~12ts~22ts~n", [
        "mode", "contexts", "files/s", "speed-up", "of the OS processes"
    ]),
    [row(Run, Rates) || Run <- Runs],
    io:nl().

row({Kind, Size} = Run, Rates) ->
    #{Run := Rate, {Kind, 1} := One, {os_processes, Size} := Floor} = Rates,
    Share =
        case Kind of
            os_processes -> "";
            _ -> io_lib:format("~.2f", [Rate / Floor])
        end,
    Row = io_lib:format("  ~-16ts~10b~12b~12.2f~22ts", [
        label(Kind), Size, round(Rate), Rate / One, Share
    ]),
    io:format("~ts~n", [string:trim(Row, trailing)]).

label(os_processes) -> "(OS processes)";
label(Mode) -> atom_to_list(Mode).

%% Every run of every mode must have found the same; ports answer in JSON, which is not compared.
summary(AllReports, Paths) ->
    [Reports | Others] = [R || R <- AllReports, is_map(maps:get(hd(Paths), R))],
    lists:all(fun(Other) -> Other =:= Reports end, Others) orelse error(modes_disagree),
    Sum = fun(Key) -> lists:sum([maps:get(Key, R) || R <- maps:values(Reports)]) end,
    {Deepest, DeepestPath} = most(<<"nesting">>, Reports),
    {[Lines, Name], LongestPath} = most(<<"longest">>, Reports),
    io:format("  every run found the same: ~b lines, ~b functions~n", [
        Sum(<<"lines">>), Sum(<<"functions">>)
    ]),
    io:format("  deepest nesting: ~b, in ~ts~n", [Deepest, DeepestPath]),
    io:format("  longest function: ~ts, ~b lines, in ~ts~n", [Name, Lines, LongestPath]).

most(Key, Reports) ->
    {Value, Path} = lists:max([{maps:get(Key, R), P} || {P, R} <- maps:to_list(Reports)]),
    {Value, filename:basename(Path)}.

verdict(Modes, Rates, Cores) ->
    case [Mode || Mode <- [free_threaded, owngil], lists:member(Mode, Modes)] of
        [] ->
            io:format(
                "~nThis Python has no mode that runs Python code in parallel: that takes 3.12 or "
                "newer.~nTo get one and see it:  bin/demo PYTHON=3.13~n"
            );
        [Mode | _] ->
            #{{Mode, Cores} := Rate, {Mode, 1} := One, {os_processes, Cores} := Floor} = Rates,
            io:format(
                "~n~ts: ~b contexts in one VM do ~.2f times the work of one, ~.2f of what ~b OS "
                "processes do.~n",
                [Mode, Cores, Rate / One, Rate / Floor, Cores]
            )
    end.

title(Text) ->
    io:format("~n~ts~n", [emphasise(Text)]).

emphasise(Text) ->
    case is_terminal() of
        true -> ["\e[1m", Text, "\e[0m"];
        false -> Text
    end.

%% Only a terminal sees the bar move.
progress(Done, Total) ->
    Filled = round(?BAR * Done / Total),
    is_terminal() andalso
        io:format("\r  [~ts~ts] ~b %", [
            lists:duplicate(Filled, $#),
            lists:duplicate(?BAR - Filled, $.),
            round(100 * Done / Total)
        ]),
    ok.

clear_line() ->
    is_terminal() andalso io:format("\r\e[K"),
    ok.

%% bin/demo knows; under -noshell the VM cannot tell.
is_terminal() ->
    os:getenv("DEMO_TERMINAL") =:= "yes".

enumerate(List) ->
    lists:zip(lists:seq(0, length(List) - 1), List).
