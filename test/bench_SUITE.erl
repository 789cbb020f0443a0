-module(bench_SUITE).

%% @doc The tools of bin/bench: files of results, comparing and judging them, charts; a row is measured. The
%% questions are only asked for their rows: to answer them takes its time, and needs floors in C.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

suite() ->
    [{timetrap, {minutes, 1}}].

all() ->
    [json_round_trip, no_results, comparison, check_passes, check_finds_a_loss, check_finds_growth,
     check_finds_what_is_missing, better_of_two, baseline_of_two, floors_are_steadied, the_baseline_is_one,
     every_question_has_rows_with_floors, a_row_is_measured, a_failure_is_a_row, charts_are_xml, arguments].

%% All of bench/ but the soak test, which is a script of its own, compiled without warnings.
init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erlang_python),
    Files = [File || File <- filelib:wildcard(filename:join([top(), "bench", "*.erl"])),
                     filename:basename(File) =/= "soak.erl"],
    Modules = [load(File) || File <- Files],
    [{modules, Modules} | Config].

end_per_suite(Config) ->
    [begin code:purge(Module), code:delete(Module) end || Module <- proplists:get_value(modules, Config)],
    ok = application:stop(erlang_python).

%% The floors in C are not built here.
load(File) ->
    {ok, Module, Binary} = compile:file(File, [binary, return_errors, warnings_as_errors, report]),
    case Module of
        floors -> ok;
        _ -> {module, Module} = code:load_binary(Module, File, Binary)
    end,
    Module.

%% ------------------------------------------------------------------------------------------
%% Files
%% ------------------------------------------------------------------------------------------

json_round_trip(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "results.json"),
    Results = results([row(<<"a \"quoted\" name, ä"/utf8>>, 3.5), (row(<<"b">>, 1.25))#{<<"x">> => 100000}]),
    ok = bench_results:write(File, Results),
    ?assertEqual(Results, bench_results:read(File)),
    {ok, Text} = file:read_file(File),
    ok = bench_results:write(File, bench_results:read(File)),
    ?assertEqual({ok, Text}, file:read_file(File)).

no_results(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "none.json"),
    ?assertError({enoent, File}, bench_results:read(File)),
    ok = file:write_file(File, "[1, 2]"),
    ?assertError({no_results, File}, bench_results:read(File)).

%% ------------------------------------------------------------------------------------------
%% Judging
%% ------------------------------------------------------------------------------------------

comparison(_) ->
    A = results([row(<<"same">>, 2.0), row(<<"only a">>, 1.0), maps:remove(<<"best">>, row(<<"no floor">>, 1.0))]),
    B = results([(row(<<"same">>, 3.0))#{<<"median">> => 20.0}, row(<<"only b">>, 1.0),
                 maps:remove(<<"best">>, row(<<"no floor">>, 1.0))]),
    ?assertMatch([{#{<<"name">> := <<"same">>}, #{}, 2.0, 1.5}, {#{<<"name">> := <<"no floor">>}, #{}, 1.0, none}],
                 bench_results:compare(A, B)).

%% The same, what is better, what is new, and noise.
check_passes(_) ->
    Baseline = results([row(<<"a">>, 2.0), row(<<"b">>, 2.0)]),
    ?assertEqual([], bench_results:check(Baseline, Baseline)),
    Now = [row(<<"a">>, 0.5), row(<<"b">>, 3.9), row(<<"new">>, 99.0)],
    ?assertEqual([], bench_results:check(Baseline, results(Now))),
    %% Absolute times are nobody's business.
    Slow = [(row(<<"a">>, 2.0))#{<<"median">> => 1.0e9}, row(<<"b">>, 2.0)],
    ?assertEqual([], bench_results:check(Baseline, results(Slow))).

check_finds_a_loss(_) ->
    Now = results([row(<<"a">>, 2.0), row(<<"b">>, 2.0)]),
    Doctored = results([row(<<"a">>, 0.6), row(<<"b">>, 2.0)]),
    ?assertMatch([{lost, #{<<"name">> := <<"a">>}, 0.6}], bench_results:check(Doctored, Now)),
    [Problem] = bench_results:check(Doctored, Now),
    ?assertEqual(<<"calls, worker: a is 2.00 x its floor, 0.60 x in the baseline">>,
                 unicode:characters_to_binary(bench_results:problem(Problem))),
    %% A row may be stricter, and one in another mode is another.
    Strict = results([(row(<<"a">>, 2.0))#{<<"tolerance">> => 1.5}]),
    ?assertMatch([{lost, _, 1.2}], bench_results:check(results([row(<<"a">>, 1.2)]), Strict)),
    ?assertEqual([], bench_results:check(results([(row(<<"a">>, 0.1))#{<<"mode">> => <<"owngil">>}]), Now)),
    ?assertMatch([{failed, _}], bench_results:check(Now, results([failed(<<"a">>), row(<<"b">>, 2.0)]))).

check_finds_growth(_) ->
    Curve = fun(Costs) -> results([(row(<<"curve">>, 1.0))#{<<"x">> => X, <<"limit">> => 2, <<"min">> => Cost}
                                   || {X, Cost} <- Costs]) end,
    Flat = Curve([{0, 1.0}, {10, 5.0}, {100, 1.9}]),
    ?assertEqual([], bench_results:check(Flat, Flat)),
    ?assertMatch([{#{<<"x">> := 100}, 1.9}], bench_results:growths(maps:get(<<"results">>, Flat))),
    Steep = Curve([{100, 2.1}, {10, 1.0}, {0, 1.0}]),
    ?assertMatch([{grown, #{<<"x">> := 100}, 2.1}], bench_results:check(Flat, Steep)).

%% A row that the baseline has and a run of the same question has no more; a short run has fewer than a long one.
check_finds_what_is_missing(_) ->
    Baseline = results([row(<<"a">>, 2.0), row(<<"b">>, 2.0), (row(<<"c">>, 1.0))#{<<"question">> => <<"scale">>}]),
    Now = results([row(<<"a">>, 2.0)]),
    ?assertMatch([{missing, #{<<"name">> := <<"b">>}}], bench_results:check(Baseline, Now)),
    ?assertEqual([], bench_results:check(Baseline#{<<"short">> => false}, Now)).

better_of_two(_) ->
    First = [row(<<"a">>, 2.0), row(<<"b">>, 2.0), failed(<<"c">>), row(<<"d">>, 2.0), row(<<"e">>, 2.0)],
    Again = [row(<<"a">>, 1.0), (row(<<"b">>, 3.0))#{<<"min">> => 8.0}, row(<<"c">>, 4.0), failed(<<"d">>)],
    ?assertEqual([row(<<"a">>, 1.0), (row(<<"b">>, 2.0))#{<<"min">> => 8.0}, failed(<<"c">>), failed(<<"d">>),
                  row(<<"e">>, 2.0)],
                 bench_results:better(First, Again)).

baseline_of_two(_) ->
    A = results([row(<<"a">>, 1.0), row(<<"b">>, 2.0), row(<<"c">>, 1.0)]),
    B = results([row(<<"a">>, 3.0), row(<<"b">>, 1.0), row(<<"d">>, 1.0)]),
    ?assertEqual(results([row(<<"a">>, 3.0), row(<<"b">>, 2.0), row(<<"c">>, 1.0)]), bench_results:baseline(A, B)).

%% One floor that was slow throughout does not make its row look good; floors of single rows stay theirs.
floors_are_steadied(_) ->
    Row = fun(Floor, FloorMin) ->
              (row(Floor, 1.0))#{<<"floor">> => Floor, <<"min">> => 10.0, <<"floor_min">> => FloorMin}
          end,
    Best = [Best || #{<<"best">> := Best} <- bench_results:steadied(
                        [Row(<<"hand-off">>, 5.0), Row(<<"hand-off">>, 50.0), Row(<<"hand-off">>, 4.0),
                         Row(<<"message">>, 0.5), Row(<<"hand-offs">>, 2.0)])],
    ?assertEqual([2.0, 2.0, 2.0, 20.0, 1.0], Best).

%% What is committed can be read, agrees with itself, and is found out when it is doctored.
the_baseline_is_one(_) ->
    Baseline = #{<<"results">> := Rows} = bench_results:read(filename:join([top(), "bench", "baseline.json"])),
    ?assertEqual([], bench_results:check(Baseline, Baseline)),
    Compared = length([best || #{<<"best">> := _} <- Rows]),
    ?assert(Compared > 50),
    Doctored = Baseline#{<<"results">> := [case Row of
                                               #{<<"best">> := Best} -> Row#{<<"best">> := Best / 4};
                                               #{} -> Row
                                           end || Row <- Rows]},
    ?assertEqual(Compared, length(bench_results:check(Doctored, Baseline))).

%% ------------------------------------------------------------------------------------------
%% Measuring
%% ------------------------------------------------------------------------------------------

every_question_has_rows_with_floors(Config) ->
    Questions = [Module || Module <- proplists:get_value(modules, Config), erlang:function_exported(Module, rows, 2)],
    ?assert(length(Questions) >= 10),
    [begin
         Text = Question:about(),
         ?assert(length(Text) > 10),
         Rows = Question:rows(py:execution_mode(), #{short => true}),
         ?assertMatch([_ | _], [Name || #{name := Name, floor := {_, Floor}} <- Rows, is_function(Floor, 1)]),
         ?assertEqual([], [Row || Row <- Rows, not is_function(maps:get(run, Row, none), 1)])
     end || Question <- Questions, Question =/= cpu]. % it burns to find out how long a turn takes

a_row_is_measured(_) ->
    Row = #{name => "sleep", times => 3, rounds => 3, axis => "sleepers", x => 1,
            run => fun(N) -> timer:sleep(10 * N) end, floor => {"less sleep", fun(N) -> timer:sleep(2 * N) end}},
    Result = measured([Row]),
    #{<<"name">> := <<"sleep">>, <<"unit">> := <<"us">>, <<"median">> := Median, <<"min">> := Min, <<"p99">> := P99,
      <<"floor">> := <<"less sleep">>, <<"floor_min">> := FloorMin, <<"best">> := Best, <<"times">> := 3,
      <<"rounds">> := 3, <<"axis">> := <<"sleepers">>, <<"x">> := 1} = Result,
    ?assert(10000 =< Min andalso Min =< Median andalso Median =< P99),
    ?assert(abs(Best - Min / FloorMin) =< 0.01 * Best),
    ?assert(Best > 1.5).

a_failure_is_a_row(_) ->
    ?assertMatch(#{<<"name">> := <<"bad">>, <<"failed">> := _},
                 measured([#{name => "bad", times => 1, run => fun(_) -> exit(enough) end}])).

%% As in a VM of its own, with this module as the question.
measured(Rows) ->
    persistent_term:put(?MODULE, Rows),
    #{level := Level} = logger:get_primary_config(),
    try
        ?assertEqual(length(Rows), bench:open(?MODULE, worker, #{short => true})),
        bench:measure(1)
    after
        logger:set_primary_config(level, Level),
        exit(whereis(bench), kill)
    end.

about() -> "a question of the tests".

settings(_Mode) -> not_started.

rows(worker, #{short := true}) -> persistent_term:get(?MODULE).

%% ------------------------------------------------------------------------------------------
%% Charts, arguments
%% ------------------------------------------------------------------------------------------

%% Python reads the SVG: well-formed, a line for each mode and one for the floor, all within the picture.
charts_are_xml(_) ->
    Rows = [(row(<<"calls by many">>, 2.0))#{<<"mode">> => Mode, <<"x">> => X, <<"axis">> => <<"callers">>,
                                             <<"median">> => 3.5 * X}
            || Mode <- [<<"worker">>, <<"owngil">>], X <- [1, 8, 5000]]
        ++ [(row(<<"a <full> & busy mailbox">>, 2.0))#{<<"question">> => <<"scale">>, <<"x">> => X,
                                                       <<"axis">> => <<"messages">>}
            || X <- [0, 10, 100000]],
    Charts = bench_svg:charts(results(Rows)),
    ?assertEqual(["calls-latency.svg", "calls-throughput.svg", "scale-a-full-busy-mailbox.svg"],
                 [lists:flatten(File) || {File, _} <- Charts]),
    ?assertEqual([2, 3, 2], [lines_in(bench_svg:chart(Chart)) || {_, Chart} <- Charts]),
    Linear = #{title => "t", x => "x", y => "y", x_scale => linear, y_scale => linear,
               series => [{"s", [{0, 0}, {7, 3.3}]}]},
    ?assertEqual(1, lines_in(bench_svg:chart(Linear))).

lines_in(Svg) ->
    ok = py:exec(<<"
import xml.etree.ElementTree as tree
def lines(text):
    top = tree.fromstring(text)
    width, height = float(top.get('width')), float(top.get('height'))
    lines = top.findall('{http://www.w3.org/2000/svg}polyline')
    for line in lines:
        for point in line.get('points').split():
            x, y = map(float, point.split(','))
            assert 0 <= x <= width and 0 <= y <= height, point
    return len(lines)
">>),
    {ok, Lines} = py:call('__main__', lines, [unicode:characters_to_binary(Svg)]),
    Lines.

arguments(_) ->
    ?assertEqual(#{names => [], modes => [], short => false}, bench_main:arguments([])),
    ?assertEqual(#{names => ["calls", "cpu"], modes => [owngil], short => true, check => default, json => "f.json"},
                 bench_main:arguments(["--short", "--check", "calls", "--mode", "owngil", "--json", "f.json", "cpu"])),
    ?assertMatch(#{check := "b.json", names := []}, bench_main:arguments(["--check", "b.json"])),
    ?assertMatch(#{compare := {"a", "b"}}, bench_main:arguments(["--compare", "a", "b"])),
    ?assertThrow(_, bench_main:arguments(["--mode", "no_such"])),
    ?assertThrow(_, bench_main:arguments(["--what"])).

%% ------------------------------------------------------------------------------------------

results(Rows) ->
    #{<<"date">> => <<"2026-01-01T00:00:00Z">>, <<"otp">> => <<"25">>, <<"python">> => <<"3.13.0">>, <<"short">> => true,
      <<"results">> => Rows}.

row(Name, Best) ->
    #{<<"question">> => <<"calls">>, <<"mode">> => <<"worker">>, <<"name">> => Name, <<"unit">> => <<"us">>,
      <<"median">> => 10.0, <<"min">> => 9.5, <<"p99">> => 20.0, <<"single">> => 10.0, <<"floor">> => <<"hand-off">>,
      <<"floor_median">> => 5.0, <<"floor_min">> => 4.5, <<"ratio">> => Best, <<"best">> => Best}.

failed(Name) ->
    #{<<"question">> => <<"calls">>, <<"mode">> => <<"worker">>, <<"name">> => Name, <<"unit">> => <<"us">>,
      <<"failed">> => <<"why">>}.

%% The project's folder, from wherever rebar3 put this module.
top() ->
    top(filename:absname(filename:dirname(code:which(?MODULE)))).

top(Folder) ->
    case filelib:is_regular(filename:join([Folder, "c_src", "nif.c"])) of
        true -> Folder;
        false when Folder =/= "/" -> top(filename:dirname(Folder))
    end.
