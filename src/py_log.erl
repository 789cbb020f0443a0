-module(py_log).
-behaviour(gen_server).

-include("py_doc.hrl").
?MODULEDOC("Takes what Python reports without waiting (c_src/sink.h): log records, which go to\n"
           "`logger`, and finished spans, of which the last ones are kept in a table.").

%% API
-export([start_link/0, configure/1, options/0, set_tracing/1, traces/0, clear_traces/0]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([options/0, span/0, event/0]).

-type options() :: #{level => logger:level() | all | none, format => unicode:chardata()}.
-type span() :: #{name := binary(), trace_id := binary(), span_id := binary(),
                  parent_id := binary() | undefined, pid := pid() | undefined,
                  start_time := integer(), end_time := integer(), duration_us := integer(),
                  system_time := integer(), status := ok | error,
                  attributes := #{binary() => term()}, events := [event()],
                  message => binary(),
                  exception => #{class := binary(), message := binary(), traceback := binary()}}.
-type event() :: #{name := binary(), time := integer(), attributes := #{binary() => term()}}.

-define(SETTINGS, py_logging).
-define(TRACES, py_traces).
-define(TIMEOUT, 30000).
%% How often the logger's level is looked up, and whether something was dropped.
-define(TICK, 1000).
%% Of ticks: what is dropped without end is told once in that many.
-define(PATIENCE, 10).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [],
                          [{spawn_opt, [{message_queue_data, off_heap}, {fullsweep_after, 20}]}]).

?DOC("See `py:configure_logging/1`.").
-spec configure(options()) -> ok | {error, term()}.
configure(Options) when is_map(Options) ->
    maps:foreach(fun check/2, Options),
    Format = case Options of
                 #{format := Chardata} -> unicode:characters_to_binary(Chardata);
                 #{} -> none
             end,
    Level = case Options of
                #{level := Name} -> number(Name);
                #{} -> none
            end,
    case check_format(Format) of
        ok ->
            ok = gen_server:call(?MODULE, refresh, infinity),
            %% The latest wins, whatever the order in which contexts hear of it.
            Arguments = [Level, Format, erlang:unique_integer([monotonic, positive])],
            true = ets:insert(?SETTINGS, {options, Arguments}),
            everywhere(Arguments);
        Error ->
            Error
    end;
configure(_Options) ->
    misuse("logging takes a map of options").

check(level, Level) when Level =:= all; Level =:= none ->
    ok;
check(level, Level) ->
    lists:member(Level, [debug, info, notice, warning, error, critical, alert, emergency])
        orelse misuse("the level must be one of logger's (debug, info, ...)");
check(format, Format) ->
    try unicode:characters_to_binary(Format) of
        Binary when is_binary(Binary) -> ok;
        _ -> misuse("the format must be a string or a binary")
    catch
        error:badarg -> misuse("the format must be a string or a binary")
    end;
check(Key, _Value) ->
    misuse(io_lib:format("there is no option ~p; allowed are level and format", [Key])).

-spec misuse(io_lib:chars()) -> no_return().
misuse(Sentence) ->
    py_options:misuse({py, configure_logging, 1}, Sentence).

check_format(none) ->
    ok;
check_format(Format) ->
    case py:call(<<"erlang._logging">>, <<"check_format">>, [Format]) of
        {ok, _} -> ok;
        {error, {context_down, _}} -> ok; % contexts to come will say so
        {error, _} = Error -> Error
    end.

%% Contexts that start meanwhile either stand in the table already or find the options.
everywhere(Arguments) ->
    Calls = [{Ctx, py:spawn_call(Ctx, <<"erlang._logging">>, <<"configure">>, Arguments)}
             || {Ctx, _} <- py_context:all()],
    case [{Ctx, Reason} || {Ctx, Ref} <- Calls, {error, Reason} <- [py:await(Ref, ?TIMEOUT)],
                           not is_down(Reason)] of
        [] -> ok;
        Errors -> {error, Errors}
    end.

is_down({context_down, _}) -> true;
is_down(_) -> false.

?DOC("What a new context calls `erlang._logging.configure` with; none: nothing was configured.").
-spec options() -> [term()] | none.
options() ->
    case ets:lookup(?SETTINGS, options) of
        [{_, Arguments}] -> Arguments;
        [] -> none
    end.

-spec set_tracing(boolean()) -> ok.
set_tracing(Tracing) ->
    true = ets:insert(?SETTINGS, {tracing, Tracing}),
    gen_server:call(?MODULE, refresh, infinity).

?DOC("The spans that are kept, the oldest first; all that ended before are among them.").
-spec traces() -> {ok, [span()]}.
traces() ->
    ok = gen_server:call(?MODULE, sync, infinity),
    {ok, [Span || {_, Span} <- ets:tab2list(?TRACES)]}.

-spec clear_traces() -> ok.
clear_traces() ->
    gen_server:call(?MODULE, clear, infinity).

%% ------------------------------------------------------------------------------------------
%% gen_server
%% ------------------------------------------------------------------------------------------

%% Of what was dropped: told, how much was logged; seen, how much there was at the last look. age: of
%% ticks since the first that was not told.
?HIDDEN.
init([]) ->
    ok = py_nif:sink_open(py_config:get(max_log_queue)),
    refresh(),
    tick(),
    Dropped = py_nif:sink_dropped(),
    {ok, #{told => Dropped, seen => Dropped, age => 0, max_traces => py_config:get(max_traces)}}.

?HIDDEN.
handle_call(sync, _From, State) ->
    {reply, ok, State};
handle_call(refresh, _From, State) ->
    refresh(),
    {reply, ok, State};
handle_call(clear, _From, State) ->
    true = ets:delete_all_objects(?TRACES),
    {reply, ok, State};
handle_call(Call, _From, State) ->
    {reply, {error, {badarg, Call}}, State}.

?HIDDEN.
handle_cast(_Cast, State) ->
    {noreply, State}.

?HIDDEN.
handle_info({py_report, Kind, Units, Report}, State) ->
    take(Kind, Report, State),
    ok = py_nif:sink_taken(Units),
    {noreply, State};
handle_info(tick, State) ->
    tick(),
    refresh(),
    {noreply, tell_dropped(py_nif:sink_dropped(), State)};
handle_info(_Info, State) ->
    {noreply, State}.

tick() ->
    _ = erlang:send_after(?TICK, self(), tick),
    ok.

%% Python looks at these before it makes a record or a span.
refresh() ->
    #{level := Level} = logger:get_primary_config(),
    Tracing = case ets:lookup(?SETTINGS, tracing) of
                  [{_, true}] -> 1;
                  _ -> 0
              end,
    py_nif:sink_set(number(Level), Tracing).

take(log, Record, _State) -> log(Record);
take(span, Span, #{max_traces := Max}) -> keep(span(Span), Max).

%% ------------------------------------------------------------------------------------------
%% Records
%% ------------------------------------------------------------------------------------------

%% Without a domain: the default handler shows only records that have none, or OTP's.
log({Level, Text, Time, Pid, Logger, Module, Function, File, Line, Thread, Exception}) ->
    Metadata = #{time => Time, file => unicode:characters_to_list(File), line => Line,
                 python_logger => Logger, python_module => Module, python_function => Function,
                 python_thread => Thread},
    logger:log(level(Level), Text,
               with(pid, Pid, with(python_exception, Exception, Metadata))).

with(_Key, none, Map) -> Map;
with(Key, Value, Map) -> Map#{Key => Value}.

%% Python's numbers; between its own levels there is room for notice.
level(Number) when Number < 20 -> debug;
level(Number) when Number < 25 -> info;
level(Number) when Number < 30 -> notice;
level(Number) when Number < 40 -> warning;
level(Number) when Number < 50 -> error;
level(Number) when Number < 60 -> critical;
level(Number) when Number < 70 -> alert;
level(_) -> emergency.

number(all) -> 1;
number(debug) -> 10;
number(info) -> 20;
number(notice) -> 25;
number(warning) -> 30;
number(error) -> 40;
number(critical) -> 50;
number(alert) -> 60;
number(emergency) -> 70;
number(none) -> 1000000.

%% One warning when it is over, or from time to time.
tell_dropped(Told, #{told := Told} = State) ->
    State#{seen := Told, age := 0};
tell_dropped(Dropped, #{seen := Seen, age := Age} = State) when Dropped =/= Seen, Age < ?PATIENCE ->
    State#{seen := Dropped, age := Age + 1};
tell_dropped({Records, Spans} = Dropped, #{told := {ToldRecords, ToldSpans}} = State) ->
    warn("log records", Records - ToldRecords),
    warn("spans", Spans - ToldSpans),
    State#{told := Dropped, seen := Dropped, age := 0}.

warn(_What, 0) ->
    ok;
warn(What, Count) ->
    logger:warning("~b ~s of Python code were dropped, because Erlang did not keep up with them "
                   "(application setting max_log_queue)", [Count, What]).

%% ------------------------------------------------------------------------------------------
%% Spans
%% ------------------------------------------------------------------------------------------

%% Only this process adds.
keep(Span, Max) ->
    true = ets:insert(?TRACES, {erlang:unique_integer([monotonic]), Span}),
    case ets:info(?TRACES, size) > Max of
        true -> ets:delete(?TRACES, ets:first(?TRACES));
        false -> true
    end.

span({Name, {TraceId, SpanId, ParentId}, Pid, {System, Start, End}, {Ok, Message}, Exception,
      Attributes, Events}) ->
    Span = #{name => Name, trace_id => TraceId, span_id => SpanId,
             parent_id => or_undefined(ParentId), pid => or_undefined(Pid), system_time => System, start_time => Start, end_time => End,
             duration_us => (End - Start) div 1000,
             status => case Ok of true -> ok; false -> error end, attributes => Attributes,
             events => [#{name => Event, time => Time, attributes => Of}
                        || {Event, Time, Of} <- Events]},
    with(message, Message, with(exception, exception(Exception), Span)).

exception(none) -> none;
exception({Class, Message, Traceback}) ->
    #{class => Class, message => Message, traceback => Traceback}.

or_undefined(none) -> undefined;
or_undefined(Term) -> Term.
