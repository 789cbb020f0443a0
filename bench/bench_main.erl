-module(bench_main).

%% @doc What bin/bench runs: asks the questions, each in a VM of its own, prints the answers and judges them.

-export([main/0, arguments/1]).

%% How often what seems lost is measured again before it is called lost.
-define(AGAIN, 4).
%% Longest time of a row in milliseconds, ten times what any needs.
-define(PATIENCE, 300000).
-define(MODES, [free_threaded, owngil, subinterp, multi_executor, worker]).
-define(USAGE, "usage: bin/bench [NAME...] [--mode MODE] [--short] [--json FILE] [--svg FOLDER] [--from FILE]\n"
               "                 [--check [BASELINE.json]] [--compare A B] [--baseline A B] [PYTHON=SPEC]\n").

%% ------------------------------------------------------------------------------------------
%% Arguments
%% ------------------------------------------------------------------------------------------

-spec main() -> no_return().
main() ->
    logger:set_primary_config(level, error),
    [Top | Arguments] = init:get_plain_arguments(),
    try
        ok = application:load(erlang_python),
        ok = application:set_env(erlang_python, num_contexts, 1), % Python reads and writes JSON here
        halt(do((arguments(Arguments))#{top => Top}))
    catch
        throw:Text ->
            io:format(standard_error, "bench: ~ts~n", [Text]),
            halt(2);
        Class:Reason:Stack ->
            io:put_chars(standard_error, ["bench: ", erl_error:format_exception(Class, Reason, Stack), $\n]),
            halt(2)
    end.

%% What is to be done; throws the usage.
-spec arguments([string()]) -> map().
arguments(Arguments) ->
    arguments(Arguments, #{names => [], modes => [], short => false}).

arguments(["--short" | Rest], Wanted) -> arguments(Rest, Wanted#{short => true});
arguments(["--mode", Mode | Rest], #{modes := Modes} = Wanted) ->
    case [M || M <- ?MODES, atom_to_list(M) =:= Mode] of
        [M] -> arguments(Rest, Wanted#{modes => Modes ++ [M]});
        [] -> throw(["no mode is called ", Mode])
    end;
arguments(["--json", File | Rest], Wanted) -> arguments(Rest, Wanted#{json => File});
arguments(["--svg", Folder | Rest], Wanted) -> arguments(Rest, Wanted#{svg => Folder});
arguments(["--from", File | Rest], Wanted) -> arguments(Rest, Wanted#{from => File});
arguments(["--baseline", A, B | Rest], Wanted) -> arguments(Rest, Wanted#{baseline => {A, B}});
arguments(["--compare", A, B | Rest], Wanted) -> arguments(Rest, Wanted#{compare => {A, B}});
arguments(["--check", File | Rest], Wanted) ->
    case filename:extension(File) of
        ".json" -> arguments(Rest, Wanted#{check => File});
        _ -> arguments([File | Rest], Wanted#{check => default})
    end;
arguments(["--check"], Wanted) -> arguments([], Wanted#{check => default});
arguments(["-" ++ _ | _], _Wanted) -> throw(?USAGE);
arguments([Name | Rest], #{names := Names} = Wanted) -> arguments(Rest, Wanted#{names => Names ++ [Name]});
arguments([], Wanted) -> Wanted.

do(#{compare := {A, B}}) ->
    print_comparison(bench_results:compare(bench_results:read(A), bench_results:read(B))),
    0;
do(#{baseline := {A, B}, top := Top}) ->
    Baseline = bench_results:baseline(bench_results:read(A), bench_results:read(B)),
    ok = bench_results:write(filename:join([Top, "bench", "baseline.json"]), Baseline),
    0;
do(Wanted) ->
    Results0 = case Wanted of
                   #{from := File} -> bench_results:read(File);
                   #{} -> results(Wanted)
               end,
    {Results, Status} = case Wanted of
                            #{check := _} -> judge(baseline(Wanted), Results0, Wanted, ?AGAIN);
                            #{} -> {Results0, length([failed || #{<<"failed">> := _} <- rows(Results0)])}
                        end,
    [ok = bench_results:write(Json, Results) || #{json := Json} <- [Wanted]],
    [draw(Folder, Results) || #{svg := Folder} <- [Wanted]],
    min(1, Status).

baseline(#{check := default, top := Top}) -> bench_results:read(filename:join([Top, "bench", "baseline.json"]));
baseline(#{check := File}) -> bench_results:read(File).

rows(#{<<"results">> := Rows}) -> Rows.

%% ------------------------------------------------------------------------------------------
%% Measuring
%% ------------------------------------------------------------------------------------------

results(#{names := Names, short := Short, top := Top} = Wanted) ->
    Questions = chosen(Names, questions(Top)),
    About = about(Short),
    io:format("~n~ts, OTP ~ts, CPython ~ts, revision ~ts, load ~p~n",
              [maps:get(<<"cpu">>, maps:get(<<"machine">>, About)) | [maps:get(Key, About)
               || Key <- [<<"otp">>, <<"python">>, <<"revision">>, <<"load">>]]]),
    About#{<<"results">> => [Row || Question <- Questions, Mode <- modes(Wanted),
                                    Row <- answers(Question, Mode, Short)]}.

%% Questions are the modules in bench/ that have rows.
questions(Top) ->
    [Module || File <- lists:sort(filelib:wildcard("*.erl", filename:join(Top, "bench"))),
               Module <- [list_to_atom(filename:rootname(File))],
               code:ensure_loaded(Module) =:= {module, Module},
               erlang:function_exported(Module, rows, 2)].

chosen([], All) ->
    All;
chosen(Names, All) ->
    [case [Q || Q <- All, atom_to_list(Q) =:= Name] of
         [Question] -> Question;
         [] -> throw(["there is no question ", Name, "; there are:\n",
                      [io_lib:format("  ~-10s ~ts~n", [Q, Q:about()]) || Q <- All]])
     end || Name <- Names].

%% All that this Python has; in short the default one, and one that is parallel.
modes(#{modes := [_ | _] = Modes}) -> Modes;
modes(#{short := Short}) ->
    All = [Mode || Mode <- ?MODES, element(1, py_context:mode(Mode)) =:= ok],
    {ok, Default} = py_context:mode(auto),
    case Short of
        true -> lists:usort([Default, hd(All)]);
        false -> All
    end.

answers(Question, Mode, Short) ->
    io:format("~n~ts (~ts): ~ts~n", [Question, Mode, Question:about()]),
    io:format("  ~-46s ~10s ~10s ~10s ~12s ~8s  ~s~n", ["", "median", "min", "p99", "per second", "x floor", "floor"]),
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 60000,
                                 args => ["-pa" | code:get_path()]}),
    try
        Count = peer:call(Peer, bench, open, [Question, Mode, #{short => Short}], ?PATIENCE),
        bench_results:steadied([answer(Question, Mode, fun() -> peer:call(Peer, bench, measure, [I], ?PATIENCE) end)
                                || I <- lists:seq(1, Count)])
    catch
        Class:Reason -> [answer(Question, Mode, fun() -> no_answer(Class, Reason) end)]
    after
        stop(Peer)
    end.

%% It may have ended by itself.
stop(Peer) ->
    try peer:stop(Peer)
    catch exit:_ -> ok
    end.

answer(Question, Mode, Row0) ->
    Row = (Row0())#{<<"question">> => atom_to_binary(Question), <<"mode">> => atom_to_binary(Mode)},
    print(Row),
    Row.

%% The rest of a question whose VM ended, hangs, or did not start the application.
no_answer(Class, Reason) ->
    #{<<"name">> => <<"the question">>, <<"unit">> => <<"us">>, <<"failed">> => text("~0tP", [{Class, Reason}, 15])}.

about(Short) ->
    {ok, _} = application:ensure_all_started(erlang_python),
    {ok, Python} = py:version(),
    {{Y, Mo, D}, {H, Mi, S}} = calendar:universal_time(),
    #{<<"date">> => text("~4..0b-~2..0b-~2..0bT~2..0b:~2..0b:~2..0bZ", [Y, Mo, D, H, Mi, S]),
      <<"otp">> => list_to_binary(erlang:system_info(otp_release)),
      <<"python">> => case py:free_threaded() of true -> <<Python/binary, "t">>; false -> Python end,
      <<"revision">> => list_to_binary(os:getenv("BENCH_REVISION", "unknown")),
      <<"load">> => load(),
      <<"short">> => Short,
      <<"machine">> => #{<<"cpu">> => cpu(), <<"cores">> => erlang:system_info(logical_processors_online),
                         <<"system">> => atom_to_binary(element(2, os:type()))}}.

text(Format, Arguments) -> unicode:characters_to_binary(io_lib:format(Format, Arguments)).

cpu() ->
    case file:read_file("/proc/cpuinfo") of
        {ok, Text} ->
            case re:run(Text, "model name\\s*: (.*)", [{capture, all_but_first, binary}]) of
                {match, [Name]} -> Name;
                nomatch -> <<"unknown processor">>
            end;
        _ ->
            list_to_binary(erlang:system_info(system_architecture))
    end.

%% What else the machine does: the load of the last minute.
load() ->
    case file:read_file("/proc/loadavg") of
        {ok, Text} -> binary_to_float(hd(binary:split(Text, <<" ">>)));
        _ -> none
    end.

%% ------------------------------------------------------------------------------------------
%% Judging
%% ------------------------------------------------------------------------------------------

%% What seems lost is measured again, and the better of the figures counts. What failed, failed.
judge(Baseline, Results, Wanted, Tries) ->
    Problems = bench_results:check(Baseline, Results),
    case [Problem || Problem <- Problems, lists:member(element(1, Problem), [lost, grown])] of
        [_ | _] = Doubtful when Tries > 0, not is_map_key(from, Wanted) ->
            io:format("~nonce more, since it seems lost:~n~ts", [sentences(Doubtful)]),
            Better = bench_results:better(rows(Results), again(Doubtful, Wanted)),
            judge(Baseline, Results#{<<"results">> := Better}, Wanted, Tries - 1);
        _ ->
            verdict(Baseline, Results, Problems),
            {Results, length(Problems)}
    end.

again(Problems, #{short := Short}) ->
    Asked = lists:usort([{Question, Mode}
                         || {_, #{<<"question">> := Question, <<"mode">> := Mode}, _} <- Problems]),
    [Row || {Question, Mode} <- Asked,
            Row <- answers(binary_to_existing_atom(Question), binary_to_existing_atom(Mode), Short)].

verdict(#{<<"python">> := Python, <<"date">> := Date} = Baseline, Results, Problems) ->
    Known = [bench_results:key(Row) || #{<<"best">> := _} = Row <- rows(Baseline)],
    Compared = [Row || #{<<"best">> := _} = Row <- rows(Results), lists:member(bench_results:key(Row), Known)],
    io:format("~n~b rows compared with the baseline of ~ts (CPython ~ts)~n", [length(Compared), Date, Python]),
    [io:format("~ts: ~.2f times the first of the curve~n", [bench_results:label(Row), float(By)])
     || {Row, By} <- bench_results:growths(rows(Results))],
    case {Problems, Compared} of
        {[], [_ | _]} -> io:format("nothing is lost~n");
        {[], []} -> throw("no row is in the baseline: nothing was checked");
        _ -> io:format("LOST~n~ts", [sentences(Problems)])
    end.

sentences(Problems) -> [[$\s, $\s, bench_results:problem(Problem), $\n] || Problem <- Problems].

%% ------------------------------------------------------------------------------------------
%% Printing, drawing
%% ------------------------------------------------------------------------------------------

print(#{<<"failed">> := Why} = Row) ->
    io:format("  ~-46ts FAILED ~ts~n", [name(Row), Why]);
print(#{<<"median">> := Median, <<"min">> := Min, <<"p99">> := P99, <<"unit">> := Unit} = Row) ->
    Rate = case Unit of <<"us">> -> integer_to_list(round(1000000 / Median)); _ -> "" end,
    io:format("  ~-46ts ~10ts ~10ts ~10ts ~12s",
              [name(Row), quantity(Median, Unit), quantity(Min, Unit), quantity(P99, Unit), Rate]),
    case Row of
        #{<<"ratio">> := Ratio, <<"floor">> := Floor} -> io:format(" ~8.2f  ~ts~n", [float(Ratio), Floor]);
        #{} -> io:nl()
    end.

name(#{<<"name">> := Name, <<"x">> := X}) -> text("~ts, ~p", [Name, X]);
name(#{<<"name">> := Name}) -> Name.

quantity(V, <<"us">>) when V >= 1000000 -> text("~.2f s ", [V / 1000000]);
quantity(V, <<"us">>) when V >= 1000 -> text("~.2f ms", [V / 1000]);
quantity(V, <<"us">>) -> text("~.2f us", [float(V)]);
quantity(V, _) when V >= 1000000 -> text("~.2f MB", [V / 1000000]);
quantity(V, _) -> text("~.2f kB", [V / 1000]).

print_comparison([]) ->
    throw("these two have no row in common");
print_comparison(Compared) ->
    io:format("  ~-66s ~10s ~10s ~9s ~11s~n", ["median", "A", "B", "B / A", "same of the"]),
    io:format("  ~-66s ~10s ~10s ~9s ~11s~n", ["", "", "", "", "x floor"]),
    [io:format("  ~-66ts ~10ts ~10ts ~9.2f ~11s~n",
               [bench_results:label(A), quantity(MedianA, Unit), quantity(MedianB, Unit), Medians,
                case Ratios of none -> ""; _ -> text("~.2f", [Ratios]) end])
     || {#{<<"unit">> := Unit, <<"median">> := MedianA} = A, #{<<"median">> := MedianB}, Medians, Ratios} <- Compared].

draw(Folder, Results) ->
    [begin
         File = filename:join(Folder, Name),
         ok = filelib:ensure_dir(File),
         ok = file:write_file(File, unicode:characters_to_binary(bench_svg:chart(Chart)))
     end || {Name, Chart} <- bench_svg:charts(Results)].
