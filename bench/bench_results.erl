-module(bench_results).

%% @doc Results of bin/bench: a map as it stands in the JSON file, its keys binaries.
%%
%%     date, revision, otp, python, machine, load, short      where they come from
%%     results                                                a list of rows
%%
%% A row has `question', `mode', `name' and `unit' (us or bytes), on a curve `axis' and `x', and either `failed' (a
%% reason) or, for one of what was done `times' times in each of `rounds' rounds: `median' and `min' of the rounds, `p99' and
%% `single' (the median) of single ones; the same of its `floor' as `floor_median' and `floor_min'; `ratio' of the
%% medians and `best' of the minima (see steadied/1). `best' is what is compared: noise only adds.

-export([read/1, write/2, key/1, label/1, steadied/1, better/2, baseline/2, compare/2, check/2, growths/1, problem/1]).

-export_type([results/0, problem/0]).

-type results() :: map().
-type problem() :: {failed, Row :: map()} | {missing, Row :: map()} | {lost, Row :: map(), Was :: number()}
                 | {grown, Row :: map(), By :: number()}.

%% How many times the baseline's `best' a row's may be, if the row does not say. README.md has the noise it is made for.
-define(TOLERANCE, 3.0).
%% Floors that are the same for every row of a question.
-define(SHARED, [<<"hand-off">>, <<"hand-off, the same mailbox">>, <<"message">>, <<"messages">>]).

%% ------------------------------------------------------------------------------------------
%% Files
%% ------------------------------------------------------------------------------------------

%% Python reads and writes JSON.
-spec read(file:filename()) -> results().
read(File) ->
    case file:read_file(File) of
        {ok, Text} ->
            case python(loads, [Text], #{}) of
                {ok, #{<<"results">> := _} = Results} -> Results;
                _ -> error({no_results, File})
            end;
        {error, Reason} ->
            error({Reason, File})
    end.

-spec write(file:filename(), results()) -> ok.
write(File, Results) ->
    {ok, Text} = python(dumps, [Results], #{indent => 1, sort_keys => true}),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, [Text, $\n]).

python(Function, Args, Kwargs) ->
    {ok, _} = application:ensure_all_started(erlang_python),
    py:call(json, Function, Args, Kwargs).

%% ------------------------------------------------------------------------------------------
%% Rows
%% ------------------------------------------------------------------------------------------

%% What makes a row the same as one of another file.
-spec key(map()) -> term().
key(#{<<"question">> := Question, <<"mode">> := Mode, <<"name">> := Name} = Row) ->
    {Question, Mode, Name, maps:get(<<"x">>, Row, none)}.

%% A row in one line.
-spec label(map()) -> unicode:chardata().
label(#{<<"question">> := Question, <<"mode">> := Mode} = Row) ->
    [Question, ", ", Mode, ": ", name(Row)].

name(#{<<"name">> := Name, <<"x">> := X}) -> io_lib:format("~ts, ~p", [Name, X]);
name(#{<<"name">> := Name}) -> Name.

%% The answers to a question, with a `best' that is over the middle one of the minima of all floors of the same name,
%% where these are the same everywhere: now and then one is slow in all its rounds, because of the core that its
%% process is on.
-spec steadied([map()]) -> [map()].
steadied(Rows) ->
    Floors = maps:from_list([{Name, middle(Minima)}
                             || Name <- ?SHARED,
                                [_ | _] = Minima <- [[Min || #{<<"floor">> := Floor, <<"floor_min">> := Min} <- Rows,
                                                             Floor =:= Name]]]),
    [case Row of
         #{<<"floor">> := Name, <<"min">> := Min} when is_map_key(Name, Floors) ->
             Row#{<<"best">> => bench:digits(Min / maps:get(Name, Floors))};
         #{} ->
             Row
     end || Row <- Rows].

middle(Values) -> lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

%% Of rows that were measured again the better ones, with the lower of both minima, since curves are of minima; a
%% failure stays one. The others as they were.
-spec better([map()], [map()]) -> [map()].
better(Rows, Again) ->
    New = by_key(Again),
    [case New of
         #{Key := Other} -> better_of(Row, Other);
         #{} -> Row
     end || Row <- Rows, Key <- [key(Row)]].

better_of(#{<<"failed">> := _} = Row, _) -> Row;
better_of(_, #{<<"failed">> := _} = Other) -> Other;
better_of(#{<<"min">> := A} = Row, #{<<"min">> := B} = Other) -> (lower_of(Row, Other))#{<<"min">> := min(A, B)}.

lower_of(#{<<"best">> := A} = Row, #{<<"best">> := B}) when A =< B -> Row;
lower_of(_, Other) -> Other.

%% Of two runs a baseline: of each row of the first the one with the higher `best', so that neither a lucky row nor a
%% slow floor makes others look lost. What the second does not have stays.
-spec baseline(results(), results()) -> results().
baseline(#{<<"results">> := Rows} = Results, #{<<"results">> := Others}) ->
    There = by_key(Others),
    Results#{<<"results">> := [higher_of(Row, maps:get(key(Row), There, Row)) || Row <- Rows]}.

higher_of(#{<<"best">> := A}, #{<<"best">> := B} = Other) when B > A -> Other;
higher_of(Row, _) -> Row.

by_key(Rows) -> maps:from_list([{key(Row), Row} || Row <- Rows]).

%% ------------------------------------------------------------------------------------------
%% Comparing
%% ------------------------------------------------------------------------------------------

%% Rows that both have, with how many times A's median and A's ratio to the floor B's are.
-spec compare(results(), results()) -> [{RowA :: map(), RowB :: map(), number(), number() | none}].
compare(#{<<"results">> := RowsA}, #{<<"results">> := RowsB}) ->
    Before = by_key(RowsA),
    [{RowA, RowB, MedianB / MedianA, ratio(RowA, RowB)}
     || #{<<"median">> := MedianB} = RowB <- RowsB,
        #{<<"median">> := MedianA} = RowA <- [maps:get(key(RowB), Before, none)]].

ratio(#{<<"best">> := A}, #{<<"best">> := B}) -> B / A;
ratio(_, _) -> none.

%% What is worse than the baseline allows, and curves that grow. Rows that the baseline does not have are not judged; those
%% that only the baseline has are missing, if their question was asked in their mode.
-spec check(results(), results()) -> [problem()].
check(Baseline, #{<<"results">> := Rows} = Results) ->
    Was = by_key(maps:get(<<"results">>, Baseline)),
    [{failed, Row} || #{<<"failed">> := _} = Row <- Rows]
    ++ [{lost, Row, Before}
        || #{<<"best">> := Now} = Row <- Rows,
           #{<<"best">> := Before} <- [maps:get(key(Row), Was, none)],
           Now > Before * maps:get(<<"tolerance">>, Row, ?TOLERANCE)]
    ++ [{grown, Row, By} || {#{<<"limit">> := Limit} = Row, By} <- growths(Rows), By > Limit]
    ++ [{missing, Row} || Row <- missing(Baseline, Results)].

%% A short run asks for less than a long one.
missing(#{<<"short">> := false}, #{<<"short">> := true}) ->
    [];
missing(#{<<"results">> := Before}, #{<<"results">> := Rows}) ->
    Asked = [{Question, Mode} || #{<<"question">> := Question, <<"mode">> := Mode} <- Rows],
    There = by_key(Rows),
    [Row || #{<<"question">> := Question, <<"mode">> := Mode} = Row <- Before,
            lists:member({Question, Mode}, Asked), not is_map_key(key(Row), There)].

%% The last row of each curve, and how many times the first point's cost its own is.
-spec growths([map()]) -> [{map(), number()}].
growths(Rows) ->
    Curves = lists:foldl(
        fun(#{<<"x">> := X, <<"limit">> := _, <<"min">> := _} = Row, In) ->
                Curve = setelement(4, key(Row), none),
                In#{Curve => [{X, Row} | maps:get(Curve, In, [])]};
           (_, In) ->
                In
        end, #{}, Rows),
    [begin
         Sorted = lists:sort(Points),
         {_, #{<<"min">> := First}} = hd(Sorted),
         {_, #{<<"min">> := Cost} = Last} = lists:last(Sorted),
         {Last, Cost / First}
     end || {_, Points} <- lists:sort(maps:to_list(Curves))].

%% A sentence.
-spec problem(problem()) -> unicode:chardata().
problem({failed, #{<<"failed">> := Why} = Row}) ->
    [label(Row), " failed: ", Why];
problem({lost, #{<<"best">> := Now} = Row, Before}) ->
    [label(Row), io_lib:format(" is ~.2f x its floor, ~.2f x in the baseline", [float(Now), float(Before)])];
problem({grown, #{<<"limit">> := Limit} = Row, By}) ->
    [label(Row), io_lib:format(" costs ~.2f times what the first of the curve does, allowed is ~p", [float(By), Limit])];
problem({missing, Row}) ->
    [label(Row), " is in the baseline and was not measured"].
