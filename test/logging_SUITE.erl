-module(logging_SUITE).

%% @doc Python's logging in Erlang's logger, and spans.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        levels, metadata, exceptions, format, disabled_levels, level_follows_erlang, set_up_once, options,
        from_python_alone, threads, thread_of_an_import, thread_of_nobody, coroutines,
        never_raises, never_recurses, callbacks_while_formatting, every_context, later_contexts,
        storm, survives_its_process,
        no_traces, spans, values, statuses, nested, nested_in_coroutines, spans_of_threads, spans_of_processes,
        decorated, generators, every_context_traces, bounded, cleared, storm_of_spans, cost_when_disabled,
        traces_survive_the_process
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

init_per_testcase(_Case, Config) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, debug),
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => self()}),
    [{level, Level} | Config].

end_per_testcase(_Case, Config) ->
    ok = logger:remove_handler(?MODULE),
    ok = logger:set_primary_config(level, proplists:get_value(level, Config)),
    ok = py:disable_tracing(),
    ok = py:clear_traces(),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end).

%% The handler: what Python logged goes to the case. A case may make it wait.
log(#{level := Level, msg := {string, Text}, meta := #{python_logger := _} = Meta}, #{config := Pid}) ->
    Pid ! {record, Level, unicode:characters_to_binary(Text), Meta},
    case persistent_term:get(?MODULE, open) of
        open -> ok;
        closed -> py_modes:wait_until(fun() -> persistent_term:get(?MODULE, open) =:= open end, 60000)
    end;
log(#{level := warning, meta := #{pid := Sender}} = Event, #{config := Pid}) ->
    Sender =:= whereis(py_log) andalso
        (Pid ! {warning, unicode:characters_to_binary(logger_formatter:format(Event, #{template => [msg]}))});
log(_Event, _Handler) ->
    ok.

next() ->
    receive {record, Level, Text, Meta} -> {Level, Text, Meta}
    after 10000 -> error(no_record)
    end.

%% Level and text of all records there are, once all that were sent arrived.
records() ->
    ok = gen_server:call(py_log, sync, infinity),
    taken().

taken() ->
    receive {record, Level, Text, _} -> [{Level, Text} | taken()]
    after 0 -> []
    end.

spans() ->
    {ok, Spans} = py:get_traces(),
    Spans.

find(Name) ->
    [Span] = [S || #{name := N} = S <- spans(), N =:= Name],
    Span.

%% ------------------------------------------------------------------------------------------
%% Records
%% ------------------------------------------------------------------------------------------

levels(_) ->
    ok = py:configure_logging(#{level => all}),
    ok = py:exec(<<"import logging\n"
                   "for n in (5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 70, 99): logging.log(n, 'level %d', n)">>),
    Expected = [{debug, 5}, {debug, 10}, {debug, 15}, {info, 20}, {notice, 25}, {warning, 30},
                {warning, 35}, {error, 40}, {critical, 50}, {alert, 60}, {emergency, 70}, {emergency, 99}],
    ?assertEqual([{Level, <<"level ", (integer_to_binary(N))/binary>>} || {Level, N} <- Expected, N >= 10],
                 records()).

metadata(_) ->
    ok = py:configure_logging(),
    Before = os:system_time(microsecond),
    ok = py:exec(<<"import logging\n\ndef f():\n    logging.getLogger('app.größe').warning('ä %s', 'ö')\nf()"/utf8>>),
    {warning, Text, Meta} = next(),
    ?assertEqual(<<"ä ö"/utf8>>, Text),
    Self = self(),
    #{pid := Self, time := Time, python_logger := Logger, python_module := Module, python_function := Function,
      python_thread := Thread, file := File, line := Line} = Meta,
    ?assertEqual({<<"app.größe"/utf8>>, <<"f">>, 4}, {Logger, Function, Line}),
    ?assert(is_list(File) andalso is_binary(Module) andalso is_binary(Thread)),
    ?assert(abs(Time - Before) < 10000000),
    ?assertNot(is_map_key(python_exception, Meta)),
    %% Whoever else asks is somebody else.
    Pid = spawn_link(fun() -> ok = py:exec(<<"import logging\nlogging.error('x')">>) end),
    ?assertMatch({error, <<"x">>, #{pid := Pid}}, next()).

exceptions(_) ->
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging\ndef f(): return 1 / 0\n"
                   "try: f()\nexcept Exception: logging.exception('it %s', 'failed')">>),
    {error, Text, #{python_exception := Exception}} = next(),
    ?assertMatch(<<"it failed\nTraceback", _/binary>>, Text),
    ?assertMatch(<<"Traceback", _/binary>>, Exception),
    ?assertNotEqual(nomatch, binary:match(Exception, <<"ZeroDivisionError">>)),
    ?assertNotEqual(nomatch, binary:match(Exception, <<"in f">>)).

format(_) ->
    ok = py:configure_logging(#{level => info, format => "%(levelname)s %(name)s: %(message)s"}),
    ok = py:exec(<<"import logging\nlogging.getLogger('a.b').info('c')">>),
    ?assertMatch({info, <<"INFO a.b: c">>, _}, next()),
    {error, {'ValueError', _}} = py:configure_logging(#{format => <<"nothing of a record">>}),
    ok = py:exec(<<"logging.getLogger('a.b').info('d')">>),
    ?assertMatch({info, <<"INFO a.b: d">>, _}, next()),
    ok = py:configure_logging().

%% What Erlang does not want is not even formatted, even if a logger of Python's does.
disabled_levels(_) ->
    ok = logger:set_primary_config(level, warning),
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging\n"
                   "class Shy:\n    def __str__(self): raise SystemExit('formatted')\n"
                   "own = logging.getLogger('talkative')\nown.setLevel(logging.DEBUG)\n"
                   "logging.info('%s', Shy()); own.info('%s', Shy()); own.debug('x'); own.warning('heard')\n"
                   "enabled = [logging.getLogger().isEnabledFor(n) for n in (10, 20, 30)]">>),
    ?assertEqual({ok, [false, false, true]}, py:eval(<<"enabled">>)),
    ?assertEqual([{warning, <<"heard">>}], records()),
    ok = logger:set_primary_config(level, none),
    ok = py:configure_logging(#{level => debug}),
    ok = py:exec(<<"own.critical('not heard')">>),
    ?assertEqual([], records()).

%% No new set-up is needed for a level that was asked for.
level_follows_erlang(_) ->
    ok = logger:set_primary_config(level, error),
    ok = py:configure_logging(#{level => debug}),
    ok = py:exec(<<"import logging, _erlang\nlogging.info('not heard')">>),
    ?assertEqual([], records()),
    ok = logger:set_primary_config(level, info),
    py_modes:wait_until(fun() -> py:eval(<<"_erlang.log_level()">>) =:= {ok, 20} end),
    ok = py:exec(<<"logging.info('heard')">>),
    ?assertEqual([{info, <<"heard">>}], records()).

set_up_once(_) ->
    [ok = py:configure_logging() || _ <- lists:seq(1, 3)],
    ok = py:exec(<<"import erlang, logging\n"
                   "hs = [erlang.setup_logging('info') for _ in range(3)]\n"
                   "n = len([h for h in logging.getLogger().handlers if isinstance(h, erlang.ErlangHandler)])\n"
                   "one = len(set(map(id, hs)))\nlogging.info('once')">>),
    ?assertEqual({ok, {1, 1}}, py:eval(<<"(n, one)">>)),
    ?assertEqual([{info, <<"once">>}], records()).

options(_) ->
    [?assertMatch(<<_/binary>>, py_modes:misuse(fun() -> py:configure_logging(Options) end))
     || Options <- [[], #{level => loud}, #{level => 10}, #{format => 1}, #{format => [{}]}, #{colour => red}]],
    ok = py:exec(<<"import erlang">>),
    [?assertMatch({error, {'ValueError', _}}, py:eval(Code))
     || Code <- [<<"erlang.setup_logging('loud')">>, <<"erlang.setup_logging(10, 'x')">>]],
    [?assertEqual({ok, Level},
                  py:eval(<<"erlang.setup_logging(l) and __import__('logging').getLogger().level">>, #{l => Name}))
     || {Name, Level} <- [{<<"DEBUG">>, 10}, {<<"info">>, 20}, {<<"notice">>, 25}, {<<"critical">>, 50}, {33, 33}]],
    ok = py:configure_logging().

%% A logger of its own, without the root's handler.
from_python_alone(Config) ->
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config)}),
    ok = py_context:exec(Ctx, <<"import erlang, logging\nalone = logging.getLogger('alone')\n"
                                "alone.propagate = False\nalone.setLevel(10)\nalone.handlers[:] = [erlang.ErlangHandler()]\n"
                                "alone.warning('a %d', 1)\n"
                                "alone.handlers[0].setFormatter(logging.Formatter('[%(message)s]'))\n"
                                "alone.handlers[0].addFilter(lambda r: r.args != (3,))\n"
                                "alone.warning('a %d', 2); alone.warning('a %d', 3)">>),
    ?assertEqual([{warning, <<"a 1">>}, {warning, <<"[a 2]">>}], records()),
    ok = py_context:stop(Ctx).

threads(_) ->
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging, threading, concurrent.futures as cf\n"
                   "def work(i):\n    for j in range(50): logging.warning('%d %d', i, j)\n"
                   "ts = [threading.Thread(target=work, args=(i,), name=f't{i}') for i in range(8)]\n"
                   "for t in ts: t.start()\nfor t in ts: t.join()\n"
                   "with cf.ThreadPoolExecutor(2) as pool: list(pool.map(work, (8, 9)))">>),
    Records = [next() || _ <- lists:seq(1, 500)],
    ?assertEqual(lists:sort([{I, J} || I <- lists:seq(0, 9), J <- lists:seq(0, 49)]),
                 lists:sort([begin [I, J] = binary:split(Text, <<" ">>),
                                   {binary_to_integer(I), binary_to_integer(J)} end || {_, Text, _} <- Records])),
    ?assertEqual([self()], lists:usort([Pid || {_, _, #{pid := Pid}} <- Records])),
    ?assert(lists:member(<<"t3">>, [Thread || {_, _, #{python_thread := Thread}} <- Records])).

%% It logs while the module is imported, and goes on afterwards.
thread_of_an_import(Config) ->
    Folder = proplists:get_value(priv_dir, Config),
    ok = file:write_file(filename:join(Folder, "logs_at_import.py"),
                         <<"import logging, threading\nlogging.warning('imported')\ngo = threading.Event()\n"
                           "def run():\n    logging.warning('started')\n    go.wait(10)\n"
                           "    logging.warning('later')\n"
                           "thread = threading.Thread(target=run, daemon=True)\nthread.start()\n">>),
    ok = py:configure_logging(),
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config), paths => [Folder], imports => [logs_at_import]}),
    [?assertMatch({warning, Text, #{pid := Ctx, python_module := <<"logs_at_import">>}}, next())
     || Text <- [<<"imported">>, <<"started">>]],
    ok = py:exec(Ctx, <<"import sys, logs_at_import as m\nm.go.set(); m.thread.join(10)\n"
                        "del sys.modules['logs_at_import']">>),
    ?assertMatch({warning, <<"later">>, _}, next()),
    ok = py_context:stop(Ctx).

thread_of_nobody(_) ->
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging, _thread, threading, erlang\ndone = threading.Event()\nwho = []\n"
                   "def run():\n    who.append(erlang.self())\n    logging.warning('from nobody')\n    done.set()\n"
                   "_ = _thread.start_new_thread(run, ())\n_ = done.wait(10)">>),
    ?assertEqual({ok, [none]}, py:eval(<<"who">>)),
    Sink = whereis(py_log),
    ?assertMatch({warning, <<"from nobody">>, #{pid := Sink}}, next()).

coroutines(_) ->
    ok = py:configure_logging(),
    ok = py:exec(<<"import asyncio, logging\nasync def f(n):\n    await asyncio.sleep(0.01)\n    logging.warning('%d', n)">>),
    Self = self(),
    {ok, _} = py:async_gather([{'__main__', f, [N]} || N <- lists:seq(1, 5)]),
    ?assertEqual([Self], lists:usort([begin {_, _, #{pid := Pid}} = next(), Pid end || _ <- lists:seq(1, 5)])).

never_raises(_) ->
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging\n"
                   "class Bad:\n    def __str__(self): raise ValueError('bad')\n    __repr__ = __str__\n"
                   "logging.warning('%d', 'x')\nlogging.warning('%s', Bad())\nlogging.warning(Bad())\n"
                   "logging.warning('too few %s %s', 1)\nlogging.warning('\\ud800 %s', b'\\xff')\n"
                   "logging.log(10**30, 'x')\nlogging.warning('last')">>),
    Texts = [Text || {warning, Text} <- records()],
    [?assertNotEqual(nomatch, binary:match(lists:nth(I, Texts), Part), {I, Part, Texts})
     || {I, Part} <- [{1, <<"'%d' could not be formatted: TypeError">>},
                      {2, <<"'%s' could not be formatted: ValueError('bad')">>},
                      {3, <<"too few">>}, {4, <<"\\ud800 b'\\xff'">>}, {5, <<"last">>}]],
    ?assertEqual(5, length(Texts)).

never_recurses(_) ->
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging\n"
                   "class Loud:\n    def __str__(self):\n        logging.warning('%s', self)\n        return 'loud'\n"
                   "logging.warning('%s', Loud()); logging.warning('after')">>),
    ?assertEqual([{warning, <<"loud">>}, {warning, <<"after">>}], records()).

%% A message that asks Erlang, which asks Python in the same context, which logs; and others log meanwhile.
callbacks_while_formatting(_) ->
    ok = py:configure_logging(),
    Ctx = py:context(1),
    Log = <<"__import__('logging').warning('inner')">>,
    ok = py:register_function(inner, fun([]) -> {ok, none} = py:eval(Ctx, Log), <<"name">> end),
    ok = py:exec(Ctx, <<"import logging, threading, erlang\n"
                        "class Asks:\n    def __str__(self): return erlang.call('inner')\n"
                        "ts = [threading.Thread(target=lambda: [logging.warning('%s', Asks()) for _ in range(5)])\n"
                        "      for _ in range(4)]\n"
                        "for t in ts: t.start()\n"
                        "logging.warning('%s', Asks())\nfor t in ts: t.join()">>, 30000),
    Texts = [Text || {warning, Text} <- records()],
    ok = py:unregister_function(inner),
    ?assertEqual({21, 21}, {length([T || <<"name">> = T <- Texts]), length([T || <<"inner">> = T <- Texts])}).

every_context(_) ->
    ok = py:configure_logging(),
    Contexts = py_context_router:contexts(),
    [ok = py:exec(Ctx, <<"import logging\nlogging.warning('here')">>) || Ctx <- Contexts],
    ?assertEqual([{warning, <<"here">>} || _ <- Contexts], records()),
    %% One that is busy hears of it later, and the others do not wait for it.
    Busy = py:spawn_call(hd(Contexts), time, sleep, [0.3]),
    ok = py:configure_logging(#{level => error}),
    {ok, none} = py:await(Busy),
    [ok = py:exec(Ctx, <<"logging.warning('not here')">>) || Ctx <- Contexts],
    ?assertEqual([], records()).

later_contexts(Config) ->
    ok = py:configure_logging(#{format => <<"<%(message)s>">>}),
    Code = <<"import logging\nlogging.warning('late')">>,
    %% The same text would run only once per interpreter.
    Preload = ["import logging; logging.error('pre') # ", atom_to_list(py_modes:mode(Config))],
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config), preload => Preload}),
    ok = py_context:exec(Ctx, Code),
    ?assertEqual([{error, <<"<pre>">>}, {warning, <<"<late>">>}], records()),
    ok = py_context:stop(Ctx),
    Old = py:context(1),
    exit(Old, kill),
    py_modes:wait_until(fun() -> is_pid(py:context(1)) andalso py:context(1) =/= Old end),
    py_modes:wait_until(fun() -> ok =:= py:exec(py:context(1), Code) end),
    ?assertEqual([{warning, <<"<late>">>}], records()),
    %% A context that starts does not undo what code of the interpreter changed since.
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging\nlogging.getLogger().setLevel(35)">>),
    {ok, Other} = py_context:new(#{mode => py_modes:mode(Config)}),
    ?assertEqual({ok, 35}, py:eval(<<"logging.getLogger().level">>)),
    ok = py_context:stop(Other),
    ok = py:exec(<<"logging.getLogger().setLevel(10)">>).

%% Erlang does not take anything while Python logs 50 000 records: Python does not wait, the mailbox is
%% bounded, what was dropped is told once.
storm(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{max_log_queue, 2000}]),
    ok = py:configure_logging(),
    ok = py:exec(<<"import logging\ndef storm():\n"
                   "    for i in range(20000): logging.warning('%d %s', i, 'x' * 500)\n    return True">>),
    Before = py_modes:rss(),
    persistent_term:put(?MODULE, closed),
    {Ms, {ok, true}} = py_modes:elapsed(fun() -> py:call('__main__', storm, [], [], 60000) end),
    {message_queue_len, Waiting} = process_info(whereis(py_log), message_queue_len),
    Grown = py_modes:rss() - Before,
    ct:pal("~p: 20 000 records in ~b ms, ~b waiting, ~b KiB more memory", [Mode, round(Ms), Waiting, Grown div 1024]),
    ?assert(Waiting =< 2010),
    ?assert(Grown < 50000000),
    persistent_term:put(?MODULE, open),
    %% The first ones came, in order.
    Heard = length(records()),
    ?assertEqual(2000, Heard),
    receive {warning, Text} -> ?assertMatch(<<"18000 log records of Python code were dropped", _/binary>>, Text)
    after 10000 -> error(no_warning)
    end,
    receive {warning, Again} -> error(Again)
    after 2500 -> ok
    end,
    %% And it goes on.
    ok = py:exec(<<"logging.warning('after')">>),
    ?assertEqual([{warning, <<"after">>}], records()),
    %% Many small records count as much as a few large ones.
    persistent_term:put(?MODULE, closed),
    ok = py:exec(<<"for i in range(300): logging.warning('x' * 100000)">>),
    persistent_term:put(?MODULE, open),
    Large = length(records()),
    ?assert(Large =< 21),
    ok = py_modes:start(Mode).

survives_its_process(_) ->
    ok = py:configure_logging(),
    Context = py:context(1),
    Sink = whereis(py_log),
    exit(Sink, kill),
    ok = py:exec(<<"import logging\nfor _ in range(1000): logging.warning('lost, or not')">>),
    py_modes:wait_until(fun() -> is_pid(whereis(py_log)) andalso whereis(py_log) =/= Sink end),
    _ = records(),
    ok = py:exec(<<"logging.warning('heard')">>),
    ?assertEqual([{warning, <<"heard">>}], records()),
    ?assertEqual(Context, py:context(1)).

%% ------------------------------------------------------------------------------------------
%% Spans
%% ------------------------------------------------------------------------------------------

no_traces(_) ->
    ok = py:exec(<<"import erlang\n"
                   "with erlang.Span('a', b=1) as s:\n    s.event('e'); s.set_attribute('c', 2); s.set_status('ok')\n"
                   "    recording = s.is_recording">>),
    ?assertEqual({ok, false}, py:eval(<<"recording">>)),
    ?assertEqual({ok, []}, py:get_traces()),
    %% It counts when a span begins, and when it ends.
    ok = py:exec(<<"s = erlang.Span('b'); _ = s.__enter__()">>),
    ok = py:enable_tracing(),
    ok = py:exec(<<"s.__exit__(None, None, None)\nt = erlang.Span('c'); _ = t.__enter__()">>),
    ok = py:disable_tracing(),
    ok = py:exec(<<"t.__exit__(None, None, None)">>),
    ?assertEqual({ok, []}, py:get_traces()).

spans(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import erlang, time\n"
                   "before = time.monotonic_ns()\n"
                   "with erlang.Span('größe', a=1, name='n') as span:\n"
                   "    time.sleep(0.01)\n    span.event('half', done=0.5)\n    span.set_attribute('b', [1, 'x'])\n"
                   "after = time.monotonic_ns()"/utf8>>),
    {ok, {Before, After}} = py:eval(<<"(before, after)">>),
    Self = self(),
    [#{name := <<"größe"/utf8>>, trace_id := Trace, span_id := Id, parent_id := undefined, pid := Self,
       start_time := Start, end_time := End, duration_us := Duration, system_time := System, status := ok,
       attributes := #{<<"a">> := 1, <<"name">> := <<"n">>, <<"b">> := [1, <<"x">>]},
       events := [#{name := <<"half">>, time := At, attributes := #{<<"done">> := 0.5}}]} = Span] = spans(),
    ?assertEqual(12, map_size(Span)),
    ?assertEqual({32, 16}, {byte_size(Trace), byte_size(Id)}),
    ?assert(Before =< Start andalso Start + 10000000 =< At andalso At =< End andalso End =< After),
    ?assertEqual((End - Start) div 1000, Duration),
    ?assert(abs(os:system_time(nanosecond) - System) < 10000000000),
    ok = py:disable_tracing(),
    ?assertEqual([Span], spans()).

values(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import erlang\n"
                   "class Bad:\n    def __repr__(self): raise ValueError\n"
                   "class Thing:\n    def __repr__(self): return 'thing'\n"
                   "with erlang.Span('v', a=None, b=True, c=1.5, d=b'\\xff', e=(1, Thing(), [2]), f=Bad(), g=Thing(),\n"
                   "                 h=erlang.atom('ok'), i=erlang.self(), j='x' * 5000, k=1 << 5000, l={'a': 1},\n"
                   "                 m=list(range(1000)), n='\\ud800'): pass">>),
    #{attributes := Values} = find(<<"v">>),
    Self = self(),
    #{<<"a">> := none, <<"b">> := true, <<"c">> := 1.5, <<"d">> := <<255>>, <<"e">> := [1, <<"thing">>, <<"[2]">>],
      <<"f">> := <<"Bad (ValueError)">>, <<"g">> := <<"thing">>, <<"h">> := ok, <<"i">> := Self, <<"j">> := Long,
      <<"k">> := Big, <<"l">> := <<"{'a': 1}">>, <<"m">> := List, <<"n">> := <<"\\ud800">>} = Values,
    ?assertEqual(4099, byte_size(Long)),
    ?assert(is_binary(Big)),
    ?assertEqual(lists:seq(0, 127), List).

statuses(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import erlang\n"
                   "def fails():\n    with erlang.Span('raised'): raise ValueError('no ä')\n"
                   "try: fails()\nexcept ValueError: caught = True\n"
                   "with erlang.Span('said') as s: s.set_status('error', 'half of it')\n"
                   "with erlang.Span('good') as s: s.set_status('ok')\n"
                   "with erlang.Span('wrong') as s:\n"
                   "    try: s.set_status('so so')\n    except ValueError: s.event('refused')"/utf8>>),
    ?assertEqual({ok, true}, py:eval(<<"caught">>)),
    #{status := error, exception := #{class := <<"ValueError">>, message := <<"no ä"/utf8>>, traceback := Trace}} =
        find(<<"raised">>),
    ?assertNotEqual(nomatch, binary:match(Trace, <<"in fails">>)),
    Said = find(<<"said">>),
    ?assertMatch(#{status := error, message := <<"half of it">>}, Said),
    ?assertNot(is_map_key(exception, Said)),
    ?assertMatch(#{status := ok}, find(<<"good">>)),
    ?assertMatch(#{status := ok, events := [#{name := <<"refused">>}]}, find(<<"wrong">>)).

nested(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"from erlang import Span\n"
                   "with Span('a'):\n    with Span('b'):\n        with Span('c'): pass\n    with Span('d'): pass\n"
                   "with Span('e'): pass">>),
    ?assertEqual([<<"c">>, <<"b">>, <<"d">>, <<"a">>, <<"e">>], [Name || #{name := Name} <- spans()]),
    [#{span_id := A, trace_id := Trace}, #{span_id := B}, #{span_id := E, trace_id := Other}] =
        [find(Name) || Name <- [<<"a">>, <<"b">>, <<"e">>]],
    ?assertMatch([#{parent_id := undefined}, #{parent_id := A, trace_id := Trace}, #{parent_id := B, trace_id := Trace},
                  #{parent_id := A, trace_id := Trace}, #{parent_id := undefined}],
                 [find(Name) || Name <- [<<"a">>, <<"b">>, <<"c">>, <<"d">>, <<"e">>]]),
    ?assertEqual(3, length(lists:usort([A, B, E]))),
    ?assertNotEqual(Trace, Other).

%% Coroutines take turns on one thread, each with its own open spans.
nested_in_coroutines(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import asyncio, erlang\n"
                   "async def child(n):\n"
                   "    with erlang.Span(f'child {n}'):\n        await asyncio.sleep(0.01 * (5 - n))\n"
                   "async def f(n):\n"
                   "    with erlang.Span(f'outer {n}'):\n        await asyncio.sleep(0.005 * n)\n"
                   "        await asyncio.gather(child(n), child(n + 5))">>),
    {ok, _} = py:async_gather([{'__main__', f, [N]} || N <- lists:seq(0, 4)]),
    Self = self(),
    [begin
         #{span_id := Id, trace_id := Trace, parent_id := undefined, pid := Self} =
             find(<<"outer ", (integer_to_binary(N))/binary>>),
         [?assertMatch(#{parent_id := Id, trace_id := Trace, pid := Self},
                       find(<<"child ", (integer_to_binary(C))/binary>>)) || C <- [N, N + 5]]
     end || N <- lists:seq(0, 4)].

spans_of_threads(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import contextvars, erlang, threading\n"
                   "def work(name):\n    with erlang.Span(name): pass\n"
                   "with erlang.Span('outer'):\n"
                   "    run = contextvars.copy_context().run\n"
                   "    ts = [threading.Thread(target=run, args=(work, 'handed down'))]\n"
                   "    ts += [threading.Thread(target=work, args=(f't{i}',)) for i in range(20)]\n"
                   "    for t in ts: t.start()\n    for t in ts: t.join()">>),
    ?assertEqual(22, length(spans())),
    ?assertEqual([self()], lists:usort([Pid || #{pid := Pid} <- spans()])),
    #{span_id := Outer} = find(<<"outer">>),
    ?assertMatch(#{parent_id := Outer}, find(<<"handed down">>)).

%% A span that one process left open on the context's thread is no parent of another's.
spans_of_processes(_) ->
    ok = py:enable_tracing(),
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"import erlang\nopen = erlang.Span('open'); _ = open.__enter__()">>),
    [Pid] = py_modes:at_once([fun() ->
        ok = py:exec(Ctx, <<"import erlang\nwith erlang.Span('other'): pass">>),
        self()
    end]),
    ?assertMatch(#{pid := Pid, parent_id := undefined}, find(<<"other">>)),
    ok = py:exec(Ctx, <<"open.__exit__(None, None, None)">>),
    Self = self(),
    ?assertMatch(#{pid := Self}, find(<<"open">>)).

decorated(_) ->
    ok = py:exec(<<"import erlang\n"
                   "@erlang.trace\ndef a(x): return x + 1\n"
                   "@erlang.trace()\ndef b(x, *, y): return a(x) + y\n"
                   "@erlang.trace('named')\ndef c(): raise KeyError('k')\n"
                   "@erlang.trace(name='coroutine')\nasync def d(x):\n    'Doc.'\n    return a(x)\n"
                   "class C:\n    @erlang.trace\n    def m(self): return 7\n"
                   "@erlang.trace\ndef g(n):\n    got = yield n\n    return got\n">>),
    ?assertEqual({ok, {2, 12, 7}}, py:eval(<<"(a(1), b(1, y=10), C().m())">>)),
    ?assertEqual({ok, []}, py:get_traces()),
    ok = py:enable_tracing(),
    ?assertEqual({ok, {12, 7}}, py:eval(<<"(b(1, y=10), C().m())">>)),
    ?assertMatch({error, {'KeyError', _}}, py:call('__main__', c, [])),
    ?assertEqual({ok, 3}, py:async_await(py:async_call('__main__', d, [2]))),
    ?assertEqual({ok, {<<"d">>, <<"Doc.">>, true}},
                 py:eval(<<"(d.__name__, d.__doc__, __import__('inspect').iscoroutinefunction(d))">>)),
    ?assertEqual([<<"__main__.a">>, <<"__main__.b">>, <<"__main__.C.m">>, <<"named">>, <<"__main__.a">>, <<"coroutine">>],
                 [Name || #{name := Name} <- spans()]),
    #{span_id := B} = find(<<"__main__.b">>),
    #{span_id := D} = find(<<"coroutine">>),
    ?assertEqual([B, D], [Parent || #{name := <<"__main__.a">>, parent_id := Parent} <- spans()]),
    ?assertMatch(#{status := error, exception := #{class := <<"KeyError">>}}, find(<<"named">>)),
    ?assertMatch({error, {'TypeError', _}},
                 py:exec(<<"@erlang.trace\nasync def h():\n    yield 1">>)).

generators(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import erlang\n"
                   "@erlang.trace('whole')\ndef g(n):\n    for i in range(n): yield i\n"
                   "@erlang.trace('closed')\ndef endless():\n    while True: yield 1\n"
                   "e = endless(); _ = next(e); e.close()">>),
    ?assertEqual({ok, lists:seq(0, 199)}, py:stream('__main__', g, [200])),
    ?assertMatch(#{status := ok}, find(<<"whole">>)),
    ?assertMatch(#{status := ok}, find(<<"closed">>)).

every_context_traces(Config) ->
    ok = py:enable_tracing(),
    {ok, Late} = py_context:new(#{mode => py_modes:mode(Config)}),
    Contexts = [Late | py_context_router:contexts()],
    [ok = py:exec(Ctx, <<"import erlang\nwith erlang.Span('x'): pass">>) || Ctx <- Contexts],
    ?assertEqual(length(Contexts), length(spans())),
    ?assertEqual(length(Contexts), length(lists:usort([Id || #{span_id := Id} <- spans()]))),
    ok = py_context:stop(Late).

bounded(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{max_traces, 100}]),
    ok = py:enable_tracing(),
    ok = py:exec(<<"import erlang\nfor i in range(1000):\n    with erlang.Span(str(i)): pass">>),
    ?assertEqual([integer_to_binary(I) || I <- lists:seq(900, 999)], [Name || #{name := Name} <- spans()]),
    ok = py_modes:start(Mode),
    ?assertEqual({ok, []}, py:get_traces()),
    ?assertEqual({ok, false}, py:eval(<<"__import__('_erlang').is_tracing()">>)).

cleared(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import erlang\nwith erlang.Span('a'): pass">>),
    ?assertMatch([_], spans()),
    ?assertEqual(ok, py:clear_traces()),
    ?assertEqual([], spans()),
    ok = py:exec(<<"with erlang.Span('b'): pass">>),
    ?assertMatch([#{name := <<"b">>}], spans()).

%% Spans have the same bound as records.
storm_of_spans(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{max_log_queue, 1000}]),
    ok = py:enable_tracing(),
    ok = sys:suspend(py_log),
    ok = py:exec(<<"import erlang\nfor i in range(8000):\n    with erlang.Span('s', text='x' * 100): pass">>),
    {message_queue_len, Waiting} = process_info(whereis(py_log), message_queue_len),
    ok = sys:resume(py_log),
    ?assert(Waiting =< 1010),
    ?assertEqual(1000, length(spans())),
    receive {warning, Text} -> ?assertMatch(<<"7000 spans of Python code were dropped", _/binary>>, Text)
    after 10000 -> error(no_warning)
    end,
    ok = py_modes:start(Mode).

%% Less than 2 µs of a thread's time for a span with an attribute; the best of five.
cost_when_disabled(Config) ->
    ok = py:exec(<<"import erlang\nfrom time import thread_time\n"
                   "def cost(n):\n    best = 1e9\n    for _ in range(5):\n"
                   "        start = thread_time()\n"
                   "        for i in range(n):\n            with erlang.Span('a', i=i): pass\n"
                   "        best = min(best, (thread_time() - start) / n)\n    return best * 1e6">>),
    {ok, Off} = py:call('__main__', cost, [5000]),
    ok = py:enable_tracing(),
    {ok, On} = py:call('__main__', cost, [1000]),
    ct:pal("~p: a span costs ~.2f us disabled, ~.2f us enabled", [py_modes:mode(Config), Off, On]),
    ?assert(Off < 2.0).

traces_survive_the_process(_) ->
    ok = py:enable_tracing(),
    ok = py:exec(<<"import erlang\nwith erlang.Span('a'): pass">>),
    ?assertMatch([_], spans()),
    Sink = whereis(py_log),
    exit(Sink, kill),
    py_modes:wait_until(fun() -> is_pid(whereis(py_log)) andalso whereis(py_log) =/= Sink end),
    ok = gen_server:call(py_log, sync),
    ok = py:exec(<<"with erlang.Span('b'): pass">>),
    ?assertEqual([<<"a">>, <<"b">>], [Name || #{name := Name} <- spans()]).
