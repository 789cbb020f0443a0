-module(bench).

%% @doc Measures the rows of a question.
%%
%% A question is a module of this folder with `about/0', a line of text, and `rows(Mode, Options)', called
%% in a VM of its own in which the application runs in that mode. If it has `settings(Mode)', those are
%% the application's; `not_started' means that the question starts it itself. A row is a map:
%%
%%     name      what is measured
%%     run       fun(N) that does it N times. Its time is what is measured, unless it returns {each, Value}:
%%               nanoseconds, or bytes, for one
%%     floor     {Name, fun(N)}: what it is compared with; none where the row is for orientation
%%     prepare   fun() before each run, in the same process, not timed
%%     setup     fun() once before the row, in a process that lives as long as the question
%%     axis, x   the row is a point of a curve: over what, and where
%%     limit     how much more one may cost at the curve's last point than at its first
%%     tolerance how much its ratio may differ from the baseline's (bench_results.erl has the default)
%%     unit      time (the default) or memory
%%     times     N, if it is not to be found out; then nothing is warmed up either
%%     rounds    how often it is measured, if not as often as the others
%%     slice     how many at a time are timed for p99: more than one where Erlang does not see the single one
%%     singles   fun() with the times of single ones, where `run' cannot tell them
%%
%% Each run takes place in a process of its own, so that none pays for another's garbage, and takes turns with
%% its floor, so that both see the same machine.

-export([open/3, measure/1]).
-export([digits/1, thread/0, message/0, calls/1, callers/2, repeat/2, timed/1, in_peer/1, rss/0, powers/2]).

-export_type([row/0, options/0]).

-type row() :: #{name := string(), run := fun((pos_integer()) -> term()), floor => {string(), fun()},
                 prepare => fun(), setup => fun(), axis => string(), x => number(), limit => number(),
                 tolerance => number(), unit => time | memory, times => pos_integer(),
                 rounds => pos_integer(), slice => pos_integer(), singles => fun()}.
-type options() :: #{short := boolean()}.

-define(SINGLES, 2000).
%% How many times longer than planned all rounds of a row may take.
-define(PATIENCE, 6).

%% ------------------------------------------------------------------------------------------
%% In the VM of a question
%% ------------------------------------------------------------------------------------------

%% Starts the application as the question wants it, and says how many rows there are.
-spec open(module(), atom(), options()) -> non_neg_integer().
open(Question, Mode, Options) ->
    logger:set_primary_config(level, none), % a failure is in its row
    {module, Question} = code:ensure_loaded(Question),
    Self = self(),
    {_, Monitor} = spawn_monitor(fun() ->
        register(?MODULE, self()),
        start(Mode, settings(Question, Mode)),
        Rows = Question:rows(Mode, Options),
        Self ! {rows, length(Rows)},
        serve(Rows, Options)
    end),
    receive
        {rows, N} -> demonitor(Monitor, [flush]), N;
        {'DOWN', Monitor, process, _, Reason} -> error(Reason)
    end.

settings(Question, Mode) ->
    case erlang:function_exported(Question, settings, 1) of
        true -> Question:settings(Mode);
        false -> []
    end.

start(_Mode, not_started) ->
    ok;
start(Mode, Settings) ->
    ok = application:load(erlang_python),
    [ok = application:set_env(erlang_python, Key, Value)
     || {Key, Value} <- [{context_mode, Mode} | Settings]],
    {ok, _} = application:ensure_all_started(erlang_python).

%% The figures of a row: see bench_results.erl.
-spec measure(pos_integer()) -> map().
measure(I) ->
    Monitor = monitor(process, ?MODULE),
    ?MODULE ! {measure, self(), Monitor, I},
    receive
        {Monitor, Result} -> demonitor(Monitor, [flush]), Result;
        {'DOWN', Monitor, process, _, Reason} -> error(Reason)
    end.

serve(Rows, Options) ->
    receive
        {measure, From, Tag, I} ->
            Row = lists:nth(I, Rows),
            From ! {Tag, try result(Row, Options) catch error:Reason -> failed(Row, Reason) end},
            serve(Rows, Options)
    end.

%% ------------------------------------------------------------------------------------------
%% A row
%% ------------------------------------------------------------------------------------------

result(Row, Options) ->
    _ = (maps:get(setup, Row, fun() -> ok end))(),
    Floor = floor_row(Row),
    Goal = goal(Options),
    Times = times(Row, Goal),
    FloorTimes = times(Floor, Goal),
    Rounds = rounds(Row, Options),
    End = erlang:monotonic_time(nanosecond) + ?PATIENCE * Rounds * Goal,
    {Ours, Floors} = lists:unzip(rounds(fun() -> {sample(Row, Times), sample(Floor, FloorTimes)} end, Rounds, End, [])),
    Singles = lists:sort(singles(Row, Ours, Goal)),
    maps:merge(about(Row), maps:merge(
        #{<<"median">> => value(Row, median(Ours)), <<"min">> => value(Row, lists:min(Ours)),
          <<"p99">> => value(Row, percentile(99, Singles)), <<"single">> => value(Row, percentile(50, Singles)),
          <<"rounds">> => length(Ours), <<"times">> => Times},
        beside(Row, Ours, Floors))).

failed(Row, Reason) ->
    Text = unicode:characters_to_binary(io_lib:format("~0tP", [Reason, 15])),
    (about(Row))#{<<"failed">> => Text}.

about(#{name := Name} = Row) ->
    Kept = [{<<"x">>, x}, {<<"limit">>, limit}, {<<"tolerance">>, tolerance}],
    Texts = [{<<"axis">>, axis}],
    maps:from_list([{<<"name">>, list_to_binary(Name)},
                    {<<"unit">>, case unit(Row) of time -> <<"us">>; memory -> <<"bytes">> end}]
                   ++ [{Key, maps:get(In, Row)} || {Key, In} <- Kept, is_map_key(In, Row)]
                   ++ [{Key, list_to_binary(maps:get(In, Row))} || {Key, In} <- Texts, is_map_key(In, Row)]).

beside(#{floor := {Name, _}} = Row, Ours, Floors) ->
    #{<<"floor">> => list_to_binary(Name), <<"floor_median">> => value(Row, median(Floors)),
      <<"floor_min">> => value(Row, lists:min(Floors)), <<"ratio">> => digits(median(Ours) / median(Floors)),
      <<"best">> => digits(lists:min(Ours) / lists:min(Floors))};
beside(_Row, _Ours, _Floors) ->
    #{}.

floor_row(#{floor := {_, Run}} = Row) -> (maps:with([prepare, times, unit], Row))#{run => Run};
floor_row(_Row) -> #{run => fun(_) -> {each, 1} end, times => 1}.

%% Nanoseconds that a run should take.
goal(#{short := true}) -> 4000000;
goal(#{short := false}) -> 10000000.

%% Many short ones rather than a few long ones: what differs is mostly on which cores the process and the thread are.
rounds(#{rounds := Rounds}, _Options) -> Rounds;
rounds(_Row, #{short := true}) -> 15;
rounds(_Row, #{short := false}) -> 25.

%% Three at least, even if they take long.
rounds(_Round, 0, _End, Done) ->
    Done;
rounds(Round, Left, End, Done) ->
    case length(Done) >= 3 andalso erlang:monotonic_time(nanosecond) > End of
        true -> Done;
        false -> rounds(Round, Left - 1, End, [Round() | Done])
    end.

%% How many take about so long. Of two looks the faster one counts: the first may have had to wait for something.
times(#{times := Times}, _Goal) -> Times;
times(Row, Goal) -> times(Row, Goal, maps:get(slice, Row, 1)).

times(Row, Goal, N) ->
    Took = min(sample(Row, N), sample(Row, N)) * N,
    if
        Took >= Goal / 4 -> max(1, round(N * Goal / Took));
        true -> times(Row, Goal, 2 * N)
    end.

%% What one takes, if N are done.
sample(Row, N) ->
    alone(fun() ->
        prepare(Row),
        timed(fun() -> (maps:get(run, Row))(N) end, N)
    end).

timed(Run, N) ->
    Start = erlang:monotonic_time(nanosecond),
    Result = Run(),
    Took = erlang:monotonic_time(nanosecond) - Start,
    case Result of
        {each, Value} -> Value;
        _ -> max(1, Took) / N
    end.

singles(#{singles := Singles} = Row, _Ours, _Goal) ->
    alone(fun() -> prepare(Row), Singles() end);
singles(#{times := _}, Ours, _Goal) ->
    Ours;
singles(#{run := Run} = Row, _Ours, Goal) ->
    Slice = maps:get(slice, Row, 1),
    alone(fun() ->
        prepare(Row),
        End = erlang:monotonic_time(nanosecond) + 8 * Goal,
        singles(fun() -> timed(fun() -> Run(Slice) end, Slice) end, End, ?SINGLES, [])
    end).

singles(_One, _End, 0, Times) ->
    Times;
singles(One, End, Left, Times) ->
    Time = One(),
    case erlang:monotonic_time(nanosecond) > End of
        true -> [Time | Times];
        false -> singles(One, End, Left - 1, [Time | Times])
    end.

prepare(Row) ->
    _ = (maps:get(prepare, Row, fun() -> ok end))(),
    ok.

%% Fun's value, from a process of its own.
alone(Fun) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({alone, Fun()}) end),
    receive
        {'DOWN', Monitor, process, Pid, {alone, Value}} -> Value;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end.

unit(Row) -> maps:get(unit, Row, time).

value(Row, Value) ->
    case unit(Row) of
        time -> digits(Value / 1000);
        memory -> round(Value)
    end.

%% Four of them count.
-spec digits(number()) -> number().
digits(Value) when Value > 0 ->
    Factor = math:pow(10, 3 - floor(math:log10(Value))),
    round(Value * Factor) / Factor;
digits(Value) ->
    Value.

median(Values) -> percentile(50, lists:sort(Values)).

percentile(P, Sorted) -> lists:nth(max(1, ceil(P * length(Sorted) / 100)), Sorted).

%% ------------------------------------------------------------------------------------------
%% What questions are made of
%% ------------------------------------------------------------------------------------------

%% The floor of what goes to another thread.
-spec thread() -> {string(), fun()}.
thread() -> {"hand-off", fun floors:thread/1}.

%% The floor of what goes to another process.
-spec message() -> {string(), fun()}.
message() -> {"message", fun floors:message/1}.

%% The `run' of plain calls.
-spec calls(non_neg_integer()) -> ok.
calls(0) -> ok;
calls(N) -> {ok, 4.0} = py:call(math, sqrt, [16]), calls(N - 1).

%% Does Fun N times.
-spec repeat(fun(() -> term()), non_neg_integer()) -> ok.
repeat(_Fun, 0) -> ok;
repeat(Fun, N) -> _ = Fun(), repeat(Fun, N - 1).

%% Nanoseconds.
-spec timed(fun(() -> term())) -> number().
timed(Run) -> timed(fun() -> _ = Run(), ok end, 1).

%% The `run' and `singles' of a row: Fun(M) in so many processes at once. The time starts when all of them are there.
-spec callers(pos_integer(), fun((pos_integer()) -> term())) -> map().
callers(Count, Fun) ->
    #{run => fun(N) ->
          Each = max(1, N div Count),
          {Took, _} = at_once(Count, fun() -> Fun(Each) end),
          {each, Took / (Each * Count)}
      end,
      singles => fun() ->
          Each = max(1, ?SINGLES div Count),
          {_, Times} = at_once(Count, fun() ->
              [timed(fun() -> Fun(1) end) || _ <- lists:seq(1, Each)]
          end),
          lists:append(Times)
      end}.

at_once(Count, Fun) ->
    Self = self(),
    Pids = [spawn_link(fun() ->
                Self ! ready,
                receive go -> ok end,
                Self ! {done, Fun()}
            end) || _ <- lists:seq(1, Count)],
    [receive ready -> ok end || _ <- Pids],
    Start = erlang:monotonic_time(nanosecond),
    [Pid ! go || Pid <- Pids],
    Results = [receive {done, Result} -> Result end || _ <- Pids],
    {erlang:monotonic_time(nanosecond) - Start, Results}.

%% Fun's value, from a VM of its own.
-spec in_peer(fun(() -> Value)) -> Value.
in_peer(Fun) ->
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 60000,
                                 args => ["-pa" | code:get_path()]}),
    try peer:call(Peer, erlang, apply, [Fun, []], 120000)
    after
        peer:stop(Peer)
    end.

%% Resident memory of the VM in bytes.
-spec rss() -> pos_integer().
rss() ->
    {ok, Statm} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:split(Statm, " ", all),
    binary_to_integer(Pages) * 4096.

%% Powers of ten from the first to the last.
-spec powers(pos_integer(), pos_integer()) -> [pos_integer()].
powers(First, Last) when First > Last -> [];
powers(First, Last) -> [First | powers(10 * First, Last)].
