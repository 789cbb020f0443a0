-module(guard_SUITE).

%% @doc What Python code could do to the process it shares with the VM: stopped or harmless.
%%
%% Every case runs in a VM of its own (a peer, one for each mode, started anew when it died), so that
%% a crash is a failed case and not the end of the tests.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-define(VM, {?MODULE, vm}).
-define(UNDER_MAIN, [worker, multi_executor, free_threaded]).

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        sys_exit, process_exit, fork, exec, signals_to_the_vm, signals_to_others, timers,
        signal_handlers, faulthandler, descriptors, descriptors_stay_here, own_descriptors,
        resource_limits, recursion_limit, memory,
        threads_left_running, daemon_threads, atexit, atexit_endless, endless_del_at_the_end,
        finalizers, finalizers_at_the_end, exceptions_without_text, stubborn_generators,
        subprocess, subprocess_in_threads, subprocess_ends, asyncio_subprocess, posix_spawn,
        multiprocessing, process_pool, process_pool_left_open,
        replaced_functions_look_like_the_originals, switched_off
    ]).

init_per_group(Mode, Config) ->
    ok = py_modes:stop(),
    [{mode, Mode} | Config].

end_per_group(_Mode, _Config) ->
    stop_vm().

init_per_testcase(switched_off, Config) ->
    stop_vm(),
    start_vm(py_modes:mode(Config), [{guard, false}]),
    Config;
init_per_testcase(_Case, Config) ->
    is_running() orelse start_vm(py_modes:mode(Config), []),
    Config.

end_per_testcase(switched_off, _Config) ->
    stop_vm();
end_per_testcase(_Case, _Config) ->
    ok.

%% ------------------------------------------------------------------------------------------
%% The VM under test
%% ------------------------------------------------------------------------------------------

start_vm(Mode, Settings) ->
    {ok, Peer, _} = peer:start(#{connection => 0, wait_boot => 60000, args => ["-pa" | code:get_path()]}),
    unlink(Peer),
    persistent_term:put(?VM, Peer),
    ok = peer:call(Peer, py_modes, start, [Mode, Settings], 60000).

stop_vm() ->
    case persistent_term:get(?VM, none) of
        none -> ok;
        Peer -> py_peer:stop(Peer)
    end,
    _ = persistent_term:erase(?VM),
    ok.

is_running() ->
    case persistent_term:get(?VM, none) of
        none -> false;
        Peer -> is_process_alive(Peer)
    end.

%% Runs Fun in the VM under test; it has to be in good health afterwards.
in_vm(Fun) ->
    Peer = persistent_term:get(?VM),
    Result = peer:call(Peer, erlang, apply, [Fun, []], 120000),
    ok = peer:call(Peer, ?MODULE, healthy, [], 30000),
    Result.

healthy() ->
    {ok, 4.0} = py:call(math, sqrt, [16]),
    {ok, _} = file:read_file(code:which(?MODULE)),
    "well\n" = os:cmd("echo well"),
    ok.

%% Evaluates in a new process, hence in a namespace of its own.
python(Lines) ->
    Parent = self(),
    {Pid, Monitor} = spawn_monitor(fun() -> Parent ! {self(), py:exec(Lines)} end),
    receive
        {Pid, Result} -> demonitor(Monitor, [flush]), Result;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end.

%% What the expressions are refused with.
refused(Imports, Expressions, Sentence) ->
    [begin
         {Class, Text} = refusal(["import ", Imports, "\n", Expression]),
         ?assertEqual({'ProcessError', Expression}, {Class, Expression}),
         ?assertNotEqual(nomatch, string:find(Text, Sentence), {Expression, Text})
     end || Expression <- Expressions],
    ok.

refusal(Code) ->
    {error, {Class, Text}} = python(Code),
    {Class, Text}.

%% Those of the functions that this Python has.
existing(Module, Calls) ->
    [Call || Call <- Calls, begin
         [Name | _] = string:lexemes(Call, "("),
         {ok, Has} = py:eval(["hasattr(__import__('", Module, "'), '",
                              lists:last(string:lexemes(Name, ".")), "')"]),
         Has
     end].

new_context(Config) ->
    Mode = py_modes:mode(Config),
    fun() -> {ok, Ctx} = py_context:new(#{mode => Mode}), Ctx end.

is_main(Config) ->
    lists:member(py_modes:mode(Config), ?UNDER_MAIN).

scratch(Config, Name) ->
    unicode:characters_to_binary(filename:join(proplists:get_value(priv_dir, Config),
                                 [atom_to_list(py_modes:mode(Config)), "_", Name])).

%% ------------------------------------------------------------------------------------------
%% Ends of the process
%% ------------------------------------------------------------------------------------------

sys_exit(_) ->
    in_vm(fun() ->
        [?assertEqual({error, {'SystemExit', Text}}, python(Code), Code)
         || {Code, Text} <- [{"import sys; sys.exit()", ""}, {"import sys; sys.exit(3)", "3"},
                             {"import sys; sys.exit('why')", "why"}, {"exit(1)", "1"},
                             {"quit()", "None"}, {"raise SystemExit", ""}]],
        ok = python("import threading, sys\n"
                    "t = threading.Thread(target=sys.exit, args=(1,))\n"
                    "t.start()\n"
                    "t.join()\n"),
        ok = python("import concurrent.futures as c, sys\n"
                    "with c.ThreadPoolExecutor() as pool:\n"
                    "    assert isinstance(pool.submit(sys.exit, 1).exception(), SystemExit)\n")
    end).

process_exit(_) ->
    in_vm(fun() ->
        refused("os, posix", ["os._exit(0)", "os._exit(status=1)", "posix._exit(1)", "os.abort()",
                              "posix.abort()"], "init:stop()")
    end).

fork(_) ->
    in_vm(fun() ->
        refused("os, posix, pty", ["os.fork()", "posix.fork()", "os.forkpty()", "pty.fork()",
                                   "os.spawnlp(os.P_WAIT, 'true', 'true')"], "subprocess"),
        refused("multiprocessing as m, time",
                ["m.get_context('fork').Process(target=time.sleep, args=(0,)).start()"], "spawn")
    end).

exec(_) ->
    in_vm(fun() ->
        refused("os, posix", ["os.execv('/bin/true', ['true'])", "os.execl('/bin/true', 'true')",
                              "os.execvp('true', ['true'])", "os.execlp('true', 'true')",
                              "os.execve('/bin/true', ['true'], {})",
                              "posix.execv('/bin/true', ['true'])"], "subprocess")
    end).

%% ------------------------------------------------------------------------------------------
%% Signals
%% ------------------------------------------------------------------------------------------

%% To a whole group only signals that would do no harm: it is this test's group too.
signals_to_the_vm(_) ->
    in_vm(fun() ->
        refused("os, signal, threading",
                ["os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)",
                 "os.kill(os.getpid(), signal.SIGUSR1)", "os.kill(0, signal.SIGCONT)",
                 "os.kill(-os.getpgrp(), signal.SIGCONT)", "os.killpg(0, signal.SIGCONT)",
                 "os.killpg(os.getpgrp(), signal.SIGCONT)",
                 "signal.raise_signal(signal.SIGKILL)", "signal.raise_signal(signal.SIGABRT)",
                 "signal.pthread_kill(threading.get_ident(), signal.SIGKILL)",
                 "signal.siginterrupt(signal.SIGTERM, False)"], ""),
        ok = python("import os, signal\n"
                    "os.kill(os.getpid(), 0)\n"
                    "os.killpg(os.getpgrp(), 0)\n"),
        refused("os, signal, glob",
                ["[os.kill(int(child), signal.SIGTERM)"
                 " for tasks in glob.glob('/proc/self/task/*/children')"
                 " for child in open(tasks).read().split()]"], "")
    end),
    case in_vm(fun() -> py:eval("hasattr(__import__('signal'), 'pidfd_send_signal')") end) of
        {ok, true} ->
            in_vm(fun() ->
                refused("os, signal",
                        ["signal.pidfd_send_signal(os.pidfd_open(os.getpid()), signal.SIGKILL)"], "")
            end);
        {ok, false} ->
            {comment, "without pidfd"}
    end.

signals_to_others(_) ->
    in_vm(fun() ->
        ok = python("import os, signal, subprocess\n"
                    "for send in (lambda pid: os.kill(pid, signal.SIGTERM),\n"
                    "             lambda pid: os.killpg(pid, signal.SIGTERM)):\n"
                    "    p = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
                    "    send(p.pid)\n"
                    "    assert p.wait(20) == -signal.SIGTERM\n")
    end).

timers(_) ->
    in_vm(fun() ->
        refused("signal", ["signal.alarm(1)", "signal.setitimer(signal.ITIMER_REAL, 0.01)",
                           "signal.setitimer(signal.ITIMER_PROF, 0.01, 0.01)"], "time-out"),
        ok = python("import signal\n"
                    "assert signal.alarm(0) == 0\n"
                    "assert signal.setitimer(signal.ITIMER_REAL, 0) == (0.0, 0.0)\n"
                    "assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)\n")
    end).

%% Python's threads are none of those that may set handlers, and it takes the VM's in no other way.
signal_handlers(_) ->
    in_vm(fun() ->
        Before = handled_signals(),
        [?assertMatch({error, {'ValueError', "signal only works in main thread" ++ _}},
                      python(["import signal\n", Call]))
         || Call <- ["signal.signal(signal.SIGINT, lambda *_: None)",
                     "signal.signal(signal.SIGTERM, signal.SIG_IGN)"]],
        {error, {'ValueError', _}} = python("import signal, os\n"
                                            "r, w = os.pipe()\n"
                                            "os.set_blocking(w, False)\n"
                                            "signal.set_wakeup_fd(w)"),
        ok = python("import signal, asyncio, multiprocessing, subprocess\n"
                    "import _thread; _thread.interrupt_main()\n"
                    "for _ in range(100000): pass\n"),
        ?assertEqual(Before, handled_signals())
    end).

handled_signals() ->
    {ok, File} = file:open("/proc/self/status", [read, raw]),
    {ok, Status} = file:read(File, 10000),
    ok = file:close(File),
    [Line || Line <- string:lexemes(Status, "\n"),
             lists:prefix("SigCgt", Line) orelse lists:prefix("SigIgn", Line)].

faulthandler(Config) ->
    case py_modes:mode(Config) of
        owngil -> % CPython says so
            in_vm(fun() -> {error, {'ImportError', _}} = python("import faulthandler") end),
            {comment, "cannot be imported"};
        _ -> faulthandler_checks(Config)
    end.

faulthandler_checks(Config) ->
    IsMain = is_main(Config),
    in_vm(fun() ->
        refused("faulthandler",
                existing("faulthandler",
                         ["faulthandler._sigsegv()", "faulthandler._read_null()",
                          "faulthandler._sigabrt()", "faulthandler._sigfpe()",
                          "faulthandler._stack_overflow()", "faulthandler._fatal_error(b'x')",
                          "faulthandler._fatal_error_c_thread()"]), "crash"),
        refused("faulthandler, signal", ["faulthandler.register(signal.SIGUSR1)"], "signals belong"),
        refused("faulthandler", ["faulthandler.dump_traceback_later(0.01, exit=True)"
                                 | ["faulthandler.dump_traceback_later(60)" || not IsMain]],
                "dump_traceback_later"),
        IsMain andalso begin
            ok = python("import faulthandler\n"
                        "faulthandler.dump_traceback_later(60)\n"
                        "faulthandler.cancel_dump_traceback_later()\n")
        end,
        Before = handled_signals(),
        ok = python("import faulthandler, tempfile\n"
                    "with tempfile.TemporaryFile('w+') as file:\n"
                    "    faulthandler.dump_traceback(file)\n"
                    "    file.seek(0)\n"
                    "    assert 'most recent call first' in file.read()\n"
                    "faulthandler.enable()\n"
                    "assert faulthandler.is_enabled()\n"
                    "faulthandler.enable(all_threads=False)\n"
                    "faulthandler.disable()\n"),
        ?assertEqual(Before, handled_signals()),
        ok
    end),
    %% The interpreter in which it was enabled may be gone when it is enabled or disabled again.
    New = new_context(Config),
    in_vm(fun() ->
        [begin
             Ctx = New(),
             ok = py:exec(Ctx, "import faulthandler\nfaulthandler.enable()"),
             ok = py_context:stop(Ctx)
         end || _ <- [1, 2, 3]],
        timer:sleep(100),
        ok = python("import faulthandler\nfaulthandler.disable()")
    end).

%% ------------------------------------------------------------------------------------------
%% Descriptors, limits
%% ------------------------------------------------------------------------------------------

descriptors(_) ->
    in_vm(fun() ->
        {ok, Port} = {ok, open_port({spawn, "cat"}, [binary])},
        refused("os, posix, io",
                ["os.close(0)", "os.close(1)", "os.close(fd=2)", "posix.close(1)",
                 "os.closerange(0, 3)", "os.closerange(3, 100000)",
                 "os.dup2(os.open('/dev/null', 0), 1)", "os.dup2(os.open('/dev/null', 0), 2, False)",
                 "open(1, 'w')", "io.open(0)", "os.fdopen(1, 'w')", "open(file=2, mode='w')"],
                "belongs to the Erlang VM"),
        refused("os, _erlang",
                ["[os.close(int(fd)) for fd in os.listdir('/proc/self/fd')"
                 " if int(fd) > 2 and _erlang.owns(int(fd))]"], "belongs to the Erlang VM"),
        {ok, Owned} = py:eval("sum(__import__('_erlang').owns(fd) for fd in range(3, 1024))"),
        ?assert(Owned > 5),
        ok = python("with open(1, 'w', closefd=False) as file: file.write('')\n"
                    "import os, sys\n"
                    "os.close(os.dup(1))\n"
                    "os.fdopen(os.dup(1), 'w').close()\n"
                    "sys.stdout.write('')\n"
                    "sys.stdout.close()\n"
                    "os.fstat(1)\n"
                    "sys.stdout = sys.__stdout__ = open(1, 'w', closefd=False)\n"),
        true = port_command(Port, <<"well">>),
        receive {Port, {data, <<"well">>}} -> ok end,
        true = port_close(Port)
    end).

%% No program that Python starts sees them.
descriptors_stay_here(_) ->
    in_vm(fun() ->
        ok = python("import subprocess\n"
                    "seen = subprocess.run(['ls', '/proc/self/fd'], close_fds=False,\n"
                    "                      capture_output=True, text=True).stdout.split()\n"
                    "assert len(seen) <= 4, seen\n")
    end).

%% What Python opened it may close, whatever number it got.
own_descriptors(_) ->
    in_vm(fun() ->
        ok = python("import os, socket, tempfile\n"
                    "for _ in range(50):\n"
                    "    many = [fd for _ in range(20) for fd in os.pipe()]\n"
                    "    os.dup2(many[0], many[1])\n"
                    "    assert os.dup2(many[0], many[0]) == many[0]\n"
                    "    for fd in many: os.close(fd)\n"
                    "fd = os.open('/dev/null', 0)\n"
                    "os.closerange(fd, fd + 1)\n"
                    "socket.socket().close()\n"
                    "tempfile.TemporaryFile().close()\n"),
        [?assertMatch({error, {Class, _}}, python(Code), Code)
         || {Class, Code} <- [{'OSError', "import os; os.close(1000)"},
                              {'OSError', "import os; os.close(100000)"},
                              {'TypeError', "import os; os.close()"},
                              {'TypeError', "import os; os.close('x')"},
                              {'TypeError', "open()"},
                              {'FileNotFoundError', "open('/no/such/file')"}]],
        ok
    end).

resource_limits(_) ->
    in_vm(fun() ->
        refused("resource as r",
                ["r.setrlimit(r.RLIMIT_NOFILE, (16, r.getrlimit(r.RLIMIT_NOFILE)[1]))",
                 "r.setrlimit(r.RLIMIT_CPU, [1, -1])", "r.setrlimit(r.RLIMIT_AS, (1 << 20, -1))",
                 "r.prlimit(0, r.RLIMIT_AS, (1 << 20, -1))"], "resource limit"),
        ok = python("import resource as r\n"
                    "for name in (r.RLIMIT_NOFILE, r.RLIMIT_AS):\n"
                    "    r.setrlimit(name, r.getrlimit(name))\n"
                    "r.setrlimit(r.RLIMIT_CORE, (0, r.getrlimit(r.RLIMIT_CORE)[1]))\n"
                    "assert r.prlimit(0, r.RLIMIT_AS) == r.getrlimit(r.RLIMIT_AS)\n")
    end).

%% ------------------------------------------------------------------------------------------
%% Bombs
%% ------------------------------------------------------------------------------------------

%% What recurses without end is recursion_SUITE's; here: that nobody lifts the limit beyond the stack,
%% in Pythons that do not watch the stack themselves.
recursion_limit(_) ->
    in_vm(fun() ->
        ok = python("import sys\n"
                    "before = sys.getrecursionlimit()\n"
                    "sys.setrecursionlimit(5000)\n"
                    "assert sys.getrecursionlimit() == 5000\n"
                    "sys.setrecursionlimit(before)\n"),
        case py:eval("__import__('sys').version_info >= (3, 12)") of
            {ok, true} -> ok;
            {ok, false} -> refused("sys", ["sys.setrecursionlimit(1000000)"], "overflow the stack")
        end
    end).

memory(_) ->
    in_vm(fun() ->
        [?assertMatch({error, {'MemoryError', _}}, python(Bomb), Bomb)
         || Bomb <- ["bytearray(1 << 60)", "[0] * (1 << 58)", "'x' * (1 << 61)",
                     "x = bytes(1 << 55)"]],
        ?assertMatch({error, {'OverflowError', _}}, python("'x' * (1 << 70)")),
        ok
    end).

%% ------------------------------------------------------------------------------------------
%% Threads, ends of interpreters
%% ------------------------------------------------------------------------------------------

threads_left_running(Config) ->
    New = new_context(Config),
    in_vm(fun() ->
        [begin
             Ctx = New(),
             ok = py:exec(Ctx, ["import threading, _thread, time\n", Start]),
             ok = py_context:stop(Ctx),
             {error, {context_down, _}} = py:eval(Ctx, <<"1">>),
             ok = healthy()
         end || Start <- ["threading.Thread(target=time.sleep, args=(1,)).start()",
                          "threading.Thread(target=threading.Event().wait, args=(1,)).start()",
                          "_thread.start_new_thread(time.sleep, (1,))",
                          "import concurrent.futures as c\n"
                          "c.ThreadPoolExecutor().submit(time.sleep, 1)",
                          "t = threading.Timer(0.3, print)\nt.start()"]],
        timer:sleep(1200), % they end meanwhile, in interpreters without a context
        ok = healthy()
    end).

daemon_threads(Config) ->
    New = new_context(Config),
    in_vm(fun() ->
        Ctx = New(),
        Result = py:exec(Ctx, "import threading, time\n"
                              "def body():\n"
                              "    end = time.monotonic() + 1\n"
                              "    while time.monotonic() < end: pass\n"
                              "threading.Thread(target=body, daemon=True).start()"),
        ?assertEqual(ok, Result),
        ok = py_context:stop(Ctx),
        ok = healthy(),
        timer:sleep(1200)
    end).

%% Handlers run when the sub-interpreter ends; those of the main one never, as it does not end.
atexit(Config) ->
    New = new_context(Config),
    IsMain = is_main(Config),
    File = scratch(Config, "atexit"),
    in_vm(fun() ->
        Ctx = New(),
        ok = py:exec(Ctx, ["import atexit, threading, erlang\n"
                           "def tell(text):\n"
                           "    with open('", File, "', 'a') as file: file.write(text)\n"
                           "def call():\n"
                           "    try: erlang.call('nobody')\n"
                           "    except erlang.Error as error: tell('no call,')\n"
                           "def start():\n"
                           "    t = threading.Thread(target=tell, args=('thread,',))\n"
                           "    try: t.start(); t.join()\n"
                           "    except RuntimeError: tell('thread,')\n"
                           "atexit.register(tell, 'last')\n"
                           "atexit.register(call)\n"
                           "atexit.register(lambda: 1 / 0)\n"
                           "atexit.register(exit)\n"
                           "atexit.register(start)\n"
                           "atexit.register(tell, 'first,')\n"]),
        ok = py_context:stop(Ctx),
        case IsMain of
            true ->
                timer:sleep(300),
                ?assertEqual({error, enoent}, file:read_file(File));
            false ->
                py_modes:wait_until(fun() -> ended_with(File, <<"last">>) end),
                {ok, <<"first,", Rest/binary>>} = file:read_file(File),
                ?assertNotEqual(nomatch, binary:match(Rest, <<"no call,">>)),
                ?assertNotEqual(nomatch, binary:match(Rest, <<"thread,">>))
        end,
        ok
    end).

ended_with(File, End) ->
    case file:read_file(File) of
        {ok, Text} -> binary:longest_common_suffix([Text, End]) =:= byte_size(End);
        _ -> false
    end.

%% A handler without end holds nobody up and is interrupted.
atexit_endless(Config) ->
    New = new_context(Config),
    IsMain = is_main(Config),
    File = scratch(Config, "endless"),
    in_vm(fun() ->
        Ctx = New(),
        ok = py:exec(Ctx, ["import atexit\n"
                           "def endless():\n"
                           "    try:\n"
                           "        n = 0\n" % 3.12 does not count a loop's first line to the try
                           "        while True: n += 1\n"
                           "    finally:\n"
                           "        open('", File, "', 'w').close()\n"
                           "atexit.register(endless)\n"]),
        ok = py_context:stop(Ctx),
        {Took, Other} = py_modes:elapsed(New),
        ?assert(Took < 3000 orelse may_wait(), Took),
        {ok, 2} = py:eval(Other, <<"1 + 1">>),
        ok = py_context:stop(Other),
        IsMain orelse py_modes:wait_until(fun() -> filelib:is_regular(File) end, 20000),
        ok
    end).

%% What runs while CPython takes an interpreter apart cannot be interrupted, but it keeps nobody from
%% starting and stopping others for long.
endless_del_at_the_end(Config) ->
    New = new_context(Config),
    in_vm(fun() ->
        Ctx = New(),
        ok = py:exec(Ctx, "import json\n"
                          "class Endless:\n"
                          "    def __del__(self, until=__import__('time').monotonic() + 12,\n"
                          "                now=__import__('time').monotonic):\n"
                          "        while now() < until: pass\n"
                          "json.endless = Endless()\n"),
        ok = py_context:stop(Ctx),
        timer:sleep(200),
        {Took, Other} = py_modes:elapsed(New),
        ?assert(Took < 10000 orelse may_wait(), Took),
        {ok, 2} = py:eval(Other, <<"1 + 1">>),
        ok = py_context:stop(Other)
    end).

%% Without a GIL, 3.13 sometimes makes no interpreter while another one loops as it ends.
may_wait() ->
    py:free_threaded().

%% ------------------------------------------------------------------------------------------
%% Objects with a life of their own
%% ------------------------------------------------------------------------------------------

finalizers(_) ->
    in_vm(fun() ->
        ok = py:register_function(hear, fun([Text]) -> Text end),
        ok = python("class A:\n"
                    "    def __del__(self): raise ValueError('not heard')\n"
                    "A()\n"),
        ok = python("class A:\n"
                    "    def __del__(self): raise SystemExit(1)\n"
                    "A()\n"),
        %% While a request runs, a finaliser calls Erlang like any code of it.
        ok = python("import erlang\n"
                    "heard = []\n"
                    "class A:\n"
                    "    def __del__(self): heard.append(erlang.call('hear', 'well'))\n"
                    "A()\n"
                    "assert heard == ['well']\n"
                    "a = A()\n"
                    "a.cycle = a\n"
                    "del a\n"
                    "import gc; gc.collect()\n"
                    "assert heard == ['well', 'well']\n"),
        %% Between requests there is nobody on whose behalf.
        {ok, Ctx} = py_context:new(#{mode => py_config:get(context_mode)}),
        ok = py:exec(Ctx, "import erlang, builtins\n"
                          "builtins.heard = []\n"
                          "class A:\n"
                          "    def __del__(self):\n"
                          "        try: heard.append(erlang.call('hear', 'well'))\n"
                          "        except erlang.Error as error: heard.append(str(error))\n"
                          "builtins.A = A\n"),
        {Pid, Monitor} = spawn_monitor(fun() -> ok = py:exec(Ctx, "kept = A()") end),
        receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
        py_modes:wait_until(fun() -> py:eval(Ctx, "len(heard)") =:= {ok, 1} end),
        {ok, [Heard]} = py:eval(Ctx, "heard"),
        case py:free_threaded() of
            false -> ?assertEqual(<<"this thread runs on behalf of no Erlang process">>, Heard);
            true -> ok % it may have been put off until the thread ran something
        end,
        ok = py:exec(Ctx, "del builtins.heard, builtins.A"),
        ok = py_context:stop(Ctx),
        ok = py:unregister_function(hear)
    end).

finalizers_at_the_end(Config) ->
    New = new_context(Config),
    in_vm(fun() ->
        [begin
             Ctx = New(),
             ok = py:exec(Ctx, ["import json, erlang\n"
                                "class A:\n"
                                "    def __del__(self, erlang=erlang): ", Body, "\n"
                                "json.kept = A()\n"
                                "kept = A()\n"]),
             ok = py_context:stop(Ctx)
         end || Body <- ["raise ValueError", "erlang.call('nobody')", "exit()",
                         "__import__('threading').Thread(target=print).start()",
                         "__import__('os')._exit(1)", "json.again = self"]],
        timer:sleep(300),
        ok = healthy()
    end).

exceptions_without_text(_) ->
    in_vm(fun() ->
        [begin
             {error, {'Odd', Text}} = python(["class Odd(Exception):\n"
                                              "    def __str__(self): ", Body, "\n"
                                              "raise Odd\n"]),
             ?assertNotEqual(nomatch, string:find(Text, "failed"), Body)
         end || Body <- ["raise ValueError", "return 1", "raise SystemExit", "return str(self)",
                         "raise KeyboardInterrupt", "raise self"]],
        {error, {'TypeError', _}} = python("raise 'text'"),
        {error, {'GeneratorExit', _}} = python("raise GeneratorExit"),
        {error, {'KeyboardInterrupt', _}} = python("raise KeyboardInterrupt"),
        ok
    end).

stubborn_generators(_) ->
    in_vm(fun() ->
        Stubborn = "def stubborn():\n"
                   "    while True:\n"
                   "        try: yield 1\n"
                   "        except GeneratorExit: pass\n",
        ?assertEqual({error, {'RuntimeError', "generator ignored GeneratorExit"}},
                     python([Stubborn, "g = stubborn()\nnext(g)\ng.close()"])),
        ok = python([Stubborn, "g = stubborn()\nnext(g)\ndel g"]),
        %% As a handle, and in a namespace that goes.
        ok = py:exec([Stubborn, "g = stubborn()\nnext(g)"]),
        {ok, _} = py:eval(<<"g">>),
        ok = py:exec(<<"del g">>),
        true = erlang:garbage_collect(),
        ok = python([Stubborn, "g = stubborn()\nnext(g)"])
    end).

%% ------------------------------------------------------------------------------------------
%% Other programs
%% ------------------------------------------------------------------------------------------

subprocess(_) ->
    in_vm(fun() ->
        ok = python("import subprocess, os, sys\n"
                    "assert subprocess.run(['echo', 'well'], capture_output=True).stdout == b'well\\n'\n"
                    "assert subprocess.run('exit 3', shell=True).returncode == 3\n"
                    "assert subprocess.check_output(['cat'], input=b'in') == b'in'\n"
                    "assert os.system('exit 3') == 3 << 8\n"
                    "assert os.popen('echo well').read() == 'well\\n'\n"
                    "p = subprocess.run([sys.executable, '-c', 'print(1 + 1)'], capture_output=True)\n"
                    "assert p.stdout == b'2\\n', p\n"
                    "try: subprocess.run(['sleep', '60'], timeout=0.1)\n"
                    "except subprocess.TimeoutExpired: pass\n"
                    "else: assert False\n"),
        {error, {'FileNotFoundError', _}} = python("import subprocess\n"
                                                   "subprocess.run(['/no/such/program'])"),
        ok
    end).

subprocess_in_threads(_) ->
    in_vm(fun() ->
        ok = python("import subprocess\n"
                    "from concurrent.futures import ThreadPoolExecutor\n"
                    "def run(n):\n"
                    "    p = subprocess.Popen(['sh', '-c', f'exit {n}'])\n"
                    "    return p.wait(60)\n"
                    "with ThreadPoolExecutor(4) as pool:\n"
                    "    assert list(pool.map(run, range(16))) == list(range(16))\n")
    end).

%% A program starts with no signal blocked, though our threads block them all.
subprocess_ends(_) ->
    in_vm(fun() ->
        ok = python("import subprocess, signal\n"
                    "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):\n"
                    "    p = subprocess.Popen(['sleep', '60'])\n"
                    "    p.send_signal(number)\n"
                    "    assert p.wait(20) == -number\n"
                    "blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
                    "assert signal.SIGTERM in blocked, blocked\n")
    end).

asyncio_subprocess(_) ->
    in_vm(fun() ->
        ok = python("import asyncio\n"
                    "async def run():\n"
                    "    p = await asyncio.create_subprocess_exec('echo', 'well', stdout=-1)\n"
                    "    return (await p.communicate())[0]\n"
                    "assert asyncio.run(run()) == b'well\\n'\n")
    end).

posix_spawn(_) ->
    in_vm(fun() ->
        ok = python("import os, signal\n"
                    "for spawn, path in ((os.posix_spawn, '/bin/sleep'), (os.posix_spawnp, 'sleep')):\n"
                    "    pid = spawn(path, ['sleep', '60'], os.environ)\n"
                    "    os.kill(pid, signal.SIGTERM)\n"
                    "    assert os.waitpid(pid, 0) == (pid, signal.SIGTERM)\n")
    end).

%% multiprocessing is not loaded before somebody asks for it; then it spawns.
multiprocessing(Config) ->
    Data = unicode:characters_to_binary(proplists:get_value(priv_dir, Config)),
    ok = file:write_file(filename:join(Data, "guard_work.py"),
                         "import os\n"
                         "def square(x): return x * x\n"
                         "def put(queue, x): queue.put((x, os.getpid()))\n"),
    in_vm(fun() ->
        ok = python(["import sys\n"
                     "sys.path.insert(0, '", Data, "')\n"
                     "import multiprocessing as m, os, signal, time, guard_work\n"
                     "assert m.get_start_method() == 'spawn'\n"
                     "queue = m.Queue()\n"
                     "p = m.Process(target=guard_work.put, args=(queue, 7))\n"
                     "p.start()\n"
                     "x, pid = queue.get(timeout=60)\n"
                     "assert x == 7 and pid == p.pid != os.getpid()\n"
                     "p.join(60)\n"
                     "assert p.exitcode == 0\n"
                     "p = m.Process(target=time.sleep, args=(60,))\n"
                     "p.start()\n"
                     "p.terminate()\n"
                     "p.join(60)\n"
                     "assert p.exitcode == -signal.SIGTERM\n"
                     "with m.Pool(2) as pool:\n"
                     "    assert pool.map(guard_work.square, range(5)) == [0, 1, 4, 9, 16]\n"
                     "sys.path.remove('", Data, "')\n"])
    end).

process_pool(_) ->
    in_vm(fun() ->
        ok = python("import math\n"
                    "from concurrent.futures import ProcessPoolExecutor\n"
                    "with ProcessPoolExecutor(2) as pool:\n"
                    "    assert list(pool.map(math.factorial, range(5))) == [1, 1, 2, 6, 24]\n"),
        %% What exec defined is not importable in another process.
        ?assertMatch({error, {_, _}},
                     python("from concurrent.futures import ProcessPoolExecutor\n"
                            "def f(x): return x\n"
                            "with ProcessPoolExecutor(1) as pool:\n"
                            "    pool.submit(f, 1).result(60)\n")),
        ok
    end).

process_pool_left_open(Config) ->
    New = new_context(Config),
    in_vm(fun() ->
        Ctx = New(),
        ok = py:exec(Ctx, "import math\n"
                          "from concurrent.futures import ProcessPoolExecutor\n"
                          "pool = ProcessPoolExecutor(1)\n"
                          "assert pool.submit(math.sqrt, 16).result(60) == 4\n"),
        ok = py_context:stop(Ctx),
        ok = healthy()
    end).

%% ------------------------------------------------------------------------------------------
%% The guard itself
%% ------------------------------------------------------------------------------------------

replaced_functions_look_like_the_originals(_) ->
    in_vm(fun() ->
        ok = python("import os, io, pickle, types, inspect, signal\n"
                    "for f in (open, os.close, os._exit, os.fork, signal.alarm):\n"
                    "    assert isinstance(f, types.BuiltinFunctionType), f\n"
                    "    assert pickle.loads(pickle.dumps(f)) is f, f\n"
                    "    assert str(inspect.signature(f)), f\n"
                    "assert open is io.open and repr(open) == '<built-in function open>'\n"
                    "assert os.close.__doc__ and os.close.__module__ == 'posix'\n"
                    "class A: f = open\n"
                    "A().f('/dev/null').close()\n")
    end).

%% Without the guard Python does to the VM what it is told to.
switched_off(_) ->
    Peer = persistent_term:get(?VM),
    true = is_process_alive(Peer),
    ok = peer:call(Peer, ?MODULE, python,
                   ["import os, signal\n"
                    "signal.siginterrupt(signal.SIGUSR2, False)\n"
                    "os.kill(os.getpid(), signal.SIGCONT)\n"
                    "os.close(os.open('/dev/null', 0))\n"]),
    Monitor = monitor(process, Peer),
    try peer:call(Peer, ?MODULE, python, ["import os; os._exit(0)"], 30000)
    catch exit:_ -> ok
    end,
    receive {'DOWN', Monitor, process, Peer, _} -> ok end.
