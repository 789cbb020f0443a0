-module(bench_svg).

%% @doc Line charts as SVG, and those that bin/bench makes of its results.

-export([chart/1, charts/1]).

-export_type([chart/0]).

%% Axes are linear, or logarithmic: there 0 has a place of its own before the first power of ten.
-type chart() :: #{title := unicode:chardata(), x := unicode:chardata(), y := unicode:chardata(),
                   x_scale := linear | log, y_scale := linear | log,
                   series := [{unicode:chardata(), [{number(), number()}]}]}.

-define(WIDTH, 820).
-define(HEIGHT, 440).
-define(LEFT, 80).
-define(RIGHT, 270). % the legend's place
-define(TOP, 50).
-define(BOTTOM, 60).
-define(COLOURS, ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#000000"]).

%% ------------------------------------------------------------------------------------------
%% What is drawn of results
%% ------------------------------------------------------------------------------------------

%% File names and charts.
-spec charts(bench_results:results()) -> [{file:filename(), chart()}].
charts(#{<<"results">> := Rows} = Results) ->
    From = io_lib:format("OTP ~ts, CPython ~ts", [maps:get(Key, Results) || Key <- [<<"otp">>, <<"python">>]]),
    Calls = curve(<<"calls">>, <<"calls by many">>, Rows),
    Sizes = curve(<<"convert">>, <<"bytes over size">>, Rows),
    Names = lists:usort([Name || #{<<"question">> := <<"scale">>, <<"name">> := Name, <<"x">> := _} <- Rows]),
    [{File, Chart#{title => [Title, " (", From, ")"], x_scale => log, y_scale => log}}
     || {File, Title, #{series := [_ | _]} = Chart} <-
            [{"calls-latency.svg", "py:call(math, sqrt, [16]): what a caller waits",
              #{x => "callers", y => "microseconds, median", series => by_mode(Calls, fun single/1)}},
             {"calls-throughput.svg", "py:call(math, sqrt, [16]): calls a second",
              #{x => "callers", y => "calls a second",
                series => by_mode(Calls, fun rate/1) ++ floor(Calls, fun floor_rate/1)}},
             {"convert-size.svg", "bytes to Python and back",
              #{x => "bytes", y => "microseconds, median",
                series => by_mode(Sizes, fun median/1) ++ floor(Sizes, fun floor_median/1)}}
             | [{file(Name), Name,
                 #{x => axis(Curve), y => "microseconds for one, median",
                   series => by_mode(Curve, fun median/1) ++ floor(Curve, fun floor_median/1)}}
                || Name <- Names, Curve <- [curve(<<"scale">>, Name, Rows)]]]].

curve(Question, Name, Rows) ->
    [Row || #{<<"question">> := Q, <<"name">> := N, <<"x">> := _, <<"median">> := _} = Row <- Rows,
            Q =:= Question, N =:= Name].

by_mode(Rows, Value) ->
    Modes = lists:usort([Mode || #{<<"mode">> := Mode} <- Rows]),
    [{Mode, lists:sort([{X, Value(Row)} || #{<<"mode">> := M, <<"x">> := X} = Row <- Rows, M =:= Mode])}
     || Mode <- Modes].

%% The floor as the first mode's run saw it.
floor([#{<<"mode">> := First, <<"floor">> := Name} | _] = Rows, Value) ->
    [{["floor: ", Name],
      lists:sort([{X, Value(Row)} || #{<<"mode">> := Mode, <<"x">> := X} = Row <- Rows, Mode =:= First])}];
floor(_, _) ->
    [].

axis([#{<<"axis">> := Axis} | _]) -> Axis.

median(#{<<"median">> := Value}) -> Value.
floor_median(#{<<"floor_median">> := Value}) -> Value.
single(#{<<"single">> := Value}) -> Value.
rate(Row) -> 1000000 / median(Row).
floor_rate(Row) -> 1000000 / floor_median(Row).

%% scale-call-callers-that-wait.svg
file(Name) ->
    ["scale-", [Char || <<Char>> <= re:replace(Name, "[^A-Za-z0-9]+", "-", [global, {return, binary}])], ".svg"].

%% ------------------------------------------------------------------------------------------
%% A chart
%% ------------------------------------------------------------------------------------------

%% The text of the SVG file.
-spec chart(chart()) -> unicode:chardata().
chart(#{title := Title, x := X, y := Y, x_scale := XScale, y_scale := YScale, series := Series}) ->
    {Xs, Ys} = lists:unzip(lists:append([Points || {_, Points} <- Series])),
    Across = scale(XScale, Xs, ?LEFT, ?WIDTH - ?RIGHT),
    Up = scale(YScale, Ys, ?HEIGHT - ?BOTTOM, ?TOP),
    Coloured = lists:zip3(lists:seq(0, length(Series) - 1), Series,
                          [lists:nth(1 + I rem length(?COLOURS), ?COLOURS) || I <- lists:seq(0, length(Series) - 1)]),
    [io_lib:format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ~b ~b\" width=\"~b\" height=\"~b\" "
                   "font-family=\"sans-serif\" font-size=\"12\">~n", [?WIDTH, ?HEIGHT, ?WIDTH, ?HEIGHT]),
     "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
     text(?LEFT, 25, "start", 15, Title),
     [[line(Px, ?TOP, Px, ?HEIGHT - ?BOTTOM), text(Px, ?HEIGHT - ?BOTTOM + 18, "middle", 12, Label)]
      || {Px, Label} <- ticks(Across)],
     [[line(?LEFT, Py, ?WIDTH - ?RIGHT, Py), text(?LEFT - 8, Py + 4, "end", 12, Label)] || {Py, Label} <- ticks(Up)],
     text((?LEFT + ?WIDTH - ?RIGHT) / 2, ?HEIGHT - 15, "middle", 13, X),
     io_lib:format("<g transform=\"translate(18 ~.1f) rotate(-90)\">", [(?TOP + ?HEIGHT - ?BOTTOM) / 2]),
     text(0, 0, "middle", 13, Y), "</g>\n",
     [series(I, Name, Points, Colour, Across, Up) || {I, {Name, Points}, Colour} <- Coloured],
     "</svg>\n"].

series(I, Name, Points, Colour, Across, Up) ->
    Places = [{place(X, Across), place(Y, Up)} || {X, Y} <- Points],
    Height = ?TOP + 10 + 20 * I,
    [io_lib:format("<polyline fill=\"none\" stroke=\"~s\" stroke-width=\"2\"~s points=\"~s\"/>~n",
                   [Colour, dashes(Name), lists:join(" ", [io_lib:format("~.1f,~.1f", [X, Y]) || {X, Y} <- Places])]),
     [io_lib:format("<circle cx=\"~.1f\" cy=\"~.1f\" r=\"3\" fill=\"~s\"/>~n", [X, Y, Colour]) || {X, Y} <- Places],
     io_lib:format("<line x1=\"~b\" y1=\"~b\" x2=\"~b\" y2=\"~b\" stroke=\"~s\" stroke-width=\"2\"~s/>~n",
                   [?WIDTH - ?RIGHT + 15, Height, ?WIDTH - ?RIGHT + 35, Height, Colour, dashes(Name)]),
     text(?WIDTH - ?RIGHT + 41, Height + 4, "start", 11, Name)].

%% Floors are dashed.
dashes(["floor" ++ _ | _]) -> " stroke-dasharray=\"5 4\"";
dashes(_) -> "".

line(X1, Y1, X2, Y2) ->
    io_lib:format("<line x1=\"~.1f\" y1=\"~.1f\" x2=\"~.1f\" y2=\"~.1f\" stroke=\"#dddddd\"/>~n",
                  [float(V) || V <- [X1, Y1, X2, Y2]]).

text(X, Y, Anchor, Size, Text) ->
    io_lib:format("<text x=\"~.1f\" y=\"~.1f\" text-anchor=\"~s\" font-size=\"~b\">~ts</text>~n",
                  [float(X), float(Y), Anchor, Size, escaped(Text)]).

escaped(Text) ->
    [case Char of $< -> "&lt;"; $> -> "&gt;"; $& -> "&amp;"; _ -> Char end || Char <- unicode:characters_to_list(Text)].

%% ------------------------------------------------------------------------------------------
%% Scales
%% ------------------------------------------------------------------------------------------

%% From which value to which, at which places. A logarithmic one is over powers of ten; `zero' is where 0 is.
scale(linear, Values, From, To) ->
    Step = step(lists:max(Values)),
    {linear, 0, Step, Step * ceil(lists:max(Values) / Step), From, To};
scale(log, Values, From, To) ->
    Positive = [V || V <- Values, V > 0],
    Low = floor(math:log10(lists:min(Positive))),
    High = max(Low + 1, ceil(math:log10(lists:max(Positive)))),
    {log, case length(Positive) < length(Values) of true -> Low - 1; false -> Low end, Low, High, From, To}.

step(Max) when Max > 0 ->
    Power = math:pow(10, floor(math:log10(Max))),
    Power * hd([S || S <- [0.2, 0.5, 1.0], Max / (Power * S) =< 6] ++ [2.0]);
step(_) ->
    1.

place(Value, {linear, Low, _, High, From, To}) -> From + (To - From) * (Value - Low) / (High - Low);
place(Value, {log, Low, _, High, From, To}) when Value > 0 -> From + (To - From) * (math:log10(Value) - Low) / (High - Low);
place(_, {log, _, _, _, From, _}) -> float(From).

ticks({linear, Low, Step, High, _, _} = Scale) ->
    [{place(Value, Scale), number(Value)} || I <- lists:seq(0, round((High - Low) / Step)), Value <- [Low + I * Step]];
ticks({log, Low, First, High, From, _} = Scale) ->
    [{float(From), "0"} || Low < First]
    ++ [{place(Value, Scale), number(Value)}
        || P <- lists:seq(First, High), Digit <- digits(High - First), P < High orelse Digit =:= 1,
           Value <- [Digit * math:pow(10, P)]].

digits(Decades) when Decades < 3 -> [1, 2, 5];
digits(_) -> [1].

%% 0.05, 1, 100, 10 k, 10 M
number(V) when V >= 1000000 -> [number(V / 1000000), " M"];
number(V) when V >= 1000 -> [number(V / 1000), " k"];
number(V) when V == round(V) -> integer_to_list(round(V));
number(V) -> float_to_list(V, [{decimals, 6}, compact]).
