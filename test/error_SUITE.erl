-module(error_SUITE).

%% @doc What went wrong, and how it is told: the shapes of reasons, tracebacks, format_error/1.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        class_and_message, messages, classes, metaclass, failing_str, no_message,
        stop_iteration, stop_async_iteration, system_exit, keyboard_interrupt, interrupt_class,
        exception_group, syntax_errors, syntax_error_in_import,
        import_errors, name_errors, attribute_errors, call_errors,
        badarg, badarg_in_keywords, badarg_in_locals, unconvertible, conversion_raises,
        timeout, interrupted, overloaded, context_down, other_references,
        traceback_frames, traceback_of_files, traceback_setting, traceback_of_everything,
        long_traceback, odd_tracebacks,
        format_like_python, format_reasons, every_form, no_pending_exception, nothing_is_kept,
        many_class_names
    ]).

init_per_group(Mode, Config) ->
    Config1 = py_modes:init_per_group(Mode, Config),
    Dir = proplists:get_value(priv_dir, Config),
    ok = file:write_file(filename:join(Dir, "faulty.py"),
                         <<"\n\n"
                           "def outer(x):\n"
                           "    y = inner(x)\n"
                           "    return y\n"
                           "\n"
                           "def inner(x):\n"
                           "    raise ValueError('größe')  # why\n"/utf8>>),
    ok = file:write_file(filename:join(Dir, "unreadable.py"), "def f(:\n"),
    [{ok, _} = py:call(Ctx, 'erlang._setup', add_path, [unicode:characters_to_binary(Dir)])
     || Ctx <- py_context_router:contexts()],
    Config1.

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

init_per_testcase(_Case, Config) ->
    Config.

%% Whatever a case did: no message is left, no slot, and Python works.
end_per_testcase(_Case, Config) ->
    case {proplists:get_value(tc_status, Config), py_modes:messages()} of
        {ok, []} ->
            py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end),
            {ok, 4.0} = py:call(math, sqrt, [16]),
            ok;
        {ok, Messages} ->
            {fail, {left_behind, Messages}};
        _ ->
            ok
    end.

%% ------------------------------------------------------------------------------------------
%% Class and message
%% ------------------------------------------------------------------------------------------

class_and_message(_) ->
    ?assertEqual({error, {'ZeroDivisionError', "division by zero"}}, py:eval(<<"1 / 0">>)),
    ?assertEqual({error, {'ValueError', "no"}}, py:exec(<<"raise ValueError('no')">>)),
    ?assertEqual({error, {'KeyError', "'k'"}}, py:eval(<<"{}['k']">>)),
    ?assertEqual({error, {'ValueError', "('a', 1)"}}, py:exec(<<"raise ValueError('a', 1)">>)),
    ?assertEqual({error, {'AssertionError', ""}}, py:exec(<<"assert False">>)),
    ?assertEqual({error, {'JSONDecodeError', "Expecting value: line 1 column 1 (char 0)"}},
                 py:call(json, loads, [<<"x">>])),
    ?assertMatch({error, {'FileNotFoundError', "[Errno 2] No such file or directory: '/none/at/all'"}},
                 py:call(builtins, open, [<<"/none/at/all">>])),
    ?assertEqual({error, {'ArithmeticError', "second"}},
                 py:exec(<<"try:\n  1 / 0\nexcept ZeroDivisionError as e:\n"
                           "  raise ArithmeticError('second') from e">>)).

messages(_) ->
    ?assertEqual({error, {'ValueError', "größe €"}}, raising("ValueError('größe €')")),
    ?assertEqual({error, {'ValueError', [16#1F600]}}, raising("ValueError('\\U0001F600')")),
    ?assertEqual({error, {'ValueError', [$a, 0, $b]}}, raising("ValueError('a\\0b')")),
    %% Code points of which no UTF-8 can be made.
    ?assertEqual({error, {'ValueError', [16#D800, $x]}}, raising("ValueError('\\ud800x')")),
    ?assertEqual({error, {'ValueError', "a\nb"}}, raising("ValueError('a\\nb')")),
    {error, {'ValueError', Long}} = raising("ValueError('x' * 3000000)"),
    ?assert(length(Long) =< 1000003, length(Long)),
    {error, {'ValueError', Exact}} = raising("ValueError('x' * 100000)"),
    ?assertEqual(lists:duplicate(100000, $x), Exact),
    %% A str of a class of one's own, a message that is computed.
    ?assertEqual({error, {'E', "computed"}},
                 py:exec(<<"class S(str): pass\nclass E(Exception):\n"
                           "  def __str__(self): return S('computed')\nraise E">>)).

classes(_) ->
    ?assertEqual({error, {'Größe', "x"}}, py:exec(<<"class Größe(Exception): pass\nraise Größe('x')"/utf8>>)),
    ?assertEqual({error, {'Inner', "x"}},
                 py:exec(<<"class Outer:\n  class Inner(Exception): pass\nraise Outer.Inner('x')">>)),
    ?assertEqual({error, {'Inner', "x"}},
                 py:exec(<<"def f():\n  class Inner(Exception): pass\n  raise Inner('x')\nf()">>)),
    ?assertEqual({error, {'a.b c', "x"}}, raising("type('a.b c', (Exception,), {})('x')")),
    ?assertEqual({error, {'', "x"}}, raising("type('', (Exception,), {})('x')")),
    %% No atom can have that name.
    Long = binary:copy(<<"X">>, 300),
    ?assertEqual({error, {Long, "x"}}, raising("type('X' * 300, (Exception,), {})('x')")),
    %% Not exceptions.
    ?assertMatch({error, {'TypeError', "exceptions must derive from BaseException"}}, raising("1")),
    ?assertMatch({error, {'TypeError', _}}, raising("int")).

metaclass(_) ->
    ok = py:exec(<<"class M(type):\n"
                   "  @property\n"
                   "  def __name__(cls): raise RuntimeError('asked')\n"
                   "  def __getattribute__(cls, name): raise RuntimeError(name)\n"
                   "class E(Exception, metaclass=M): pass">>),
    ?assertEqual({error, {'E', "x"}}, raising("E('x')")),
    ?assertMatch({error, {'E', "x", [_]}}, py:exec(<<"raise E('x')">>, #{traceback => true})).

failing_str(_) ->
    [begin
         ok = py:exec(["class E(Exception):\n  def __str__(self): ", Body]),
         {error, {'E', Message}} = raising("E('x')"),
         ?assertEqual("<exception str() failed>", Message, Body),
         ?assertMatch({error, {'E', Message, [_]}}, py:exec(<<"raise E">>, #{traceback => true}))
     end || Body <- ["1 / 0", "return 1", "return None", "raise SystemExit", "raise self",
                     "raise KeyboardInterrupt", "return str(self)", "return b'x'"]].

no_message(_) ->
    [?assertEqual({error, {Class, ""}}, py:exec(["raise ", atom_to_list(Class)]))
     || Class <- ['ValueError', 'RuntimeError', 'GeneratorExit', 'BaseException', 'MemoryError',
                  'EOFError', 'RecursionError', 'Warning']].

%% ------------------------------------------------------------------------------------------
%% Classes that mean something to Python
%% ------------------------------------------------------------------------------------------

stop_iteration(_) ->
    ?assertEqual({error, {stop_iteration, none}}, py:eval(<<"next(iter([]))">>)),
    ?assertEqual({error, {stop_iteration, none}}, py:exec(<<"raise StopIteration">>)),
    ?assertEqual({error, {stop_iteration, [1, <<"a">>]}}, py:exec(<<"raise StopIteration([1, 'a'])">>)),
    ?assertEqual({error, {stop_iteration, 5}},
                 py:exec(<<"def g():\n  return 5\n  yield\nnext(g())">>)),
    ?assertEqual({error, {stop_iteration, 6}},
                 py:exec(<<"class S(StopIteration): pass\nraise S(6)">>)),
    ?assertEqual({error, {stop_iteration, 7}},
                 py:exec(<<"raise StopIteration(7)">>, #{traceback => true})),
    {error, {stop_iteration, Handle}} = py:exec(<<"raise StopIteration(object())">>),
    ?assert(py:is_ref(Handle)),
    %% Inside a generator Python makes something else of it.
    ?assertEqual({error, {'RuntimeError', "generator raised StopIteration"}},
                 py:exec(<<"def g():\n  yield 1\n  raise StopIteration\nlist(g())">>)).

stop_async_iteration(_) ->
    ?assertEqual({error, {'StopAsyncIteration', "1"}}, py:exec(<<"raise StopAsyncIteration(1)">>)).

%% Nothing exits but the code.
system_exit(_) ->
    ?assertEqual({error, {'SystemExit', "3"}}, py:call(sys, exit, [3])),
    ?assertEqual({error, {'SystemExit', ""}}, py:exec(<<"raise SystemExit">>)),
    ?assertEqual({error, {'SystemExit', ""}}, py:call(sys, exit, [none])),
    ?assertEqual({error, {'SystemExit', "bye"}}, py:call(sys, exit, [<<"bye">>])),
    ?assertMatch({error, {'SystemExit', _}}, py:eval(<<"exit()">>)),
    ?assertMatch({error, {'SystemExit', _, [_ | _]}},
                 py:exec(<<"import sys\nsys.exit(1)">>, #{traceback => true})),
    %% In a thread it ends the thread.
    ?assertEqual(ok, py:exec(<<"import threading, sys\n"
                               "t = threading.Thread(target=sys.exit, args=(9,))\n"
                               "t.start()\nt.join()">>)),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

keyboard_interrupt(_) ->
    ?assertEqual({error, {'KeyboardInterrupt', ""}}, py:exec(<<"raise KeyboardInterrupt">>)),
    ?assertEqual({error, {'KeyboardInterrupt', "x"}}, raising("KeyboardInterrupt('x')")),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

interrupt_class(_) ->
    ?assertEqual({error, interrupted}, py:exec(<<"import erlang\nraise erlang.Interrupt">>)),
    %% No `except Exception' catches it.
    ?assertEqual({error, interrupted},
                 py:exec(<<"import erlang\ntry:\n  raise erlang.Interrupt\nexcept Exception: pass">>)).

exception_group(_) ->
    case py:eval(<<"__import__('sys').version_info >= (3, 11)">>) of
        {ok, true} ->
            ?assertEqual({error, {'ExceptionGroup', "many (2 sub-exceptions)"}},
                         raising("ExceptionGroup('many', [ValueError(1), KeyError(2)])")),
            ?assertEqual({error, {'BaseExceptionGroup', "one (1 sub-exception)"}},
                         raising("BaseExceptionGroup('one', [KeyboardInterrupt()])")),
            %% A group with an interrupt in it is a group.
            ?assertMatch({error, {'BaseExceptionGroup', _}},
                         raising("BaseExceptionGroup('one', [__import__('erlang').Interrupt()])")),
            ok = py:exec(<<"def f():\n"
                           "  try: raise ExceptionGroup('g', [ValueError(1), TypeError(2)])\n"
                           "  except* ValueError: pass">>),
            ?assertEqual({error, {'ExceptionGroup', "g (1 sub-exception)"}}, py:call('__main__', f, [])),
            ?assertMatch({error, {'ExceptionGroup', _, [_ | _]}},
                         py:call('__main__', f, [], #{}, #{traceback => true}));
        {ok, false} ->
            ?assertMatch({error, {'NameError', _}}, py:eval(<<"ExceptionGroup">>))
    end.

syntax_errors(_) ->
    {error, {'SyntaxError', Message}} = py:exec(<<"a = 1\ndef">>),
    ?assertNotEqual(nomatch, string:find(Message, "<erlang>, line 2"), Message),
    ?assertMatch({error, {'SyntaxError', _}}, py:eval(<<"1 +">>)),
    ?assertMatch({error, {'SyntaxError', _}}, py:eval(<<"(">>)),
    ?assertMatch({error, {'SyntaxError', _}}, py:eval(<<"a; b">>)),
    ?assertMatch({error, {'IndentationError', _}}, py:exec(<<" a = 1">>)),
    ?assertMatch({error, {'TabError', _}}, py:exec(<<"if 1:\n\tx = 1\n        y = 2">>)),
    ?assertMatch({error, {'SyntaxError', _}}, py:exec(<<"return 1">>)),
    ?assertMatch({error, {'SyntaxError', _}}, py:exec(<<"x = 'ä"/utf8>>)),
    ?assertMatch({error, {'SyntaxError', _, []}}, py:exec(<<"def">>, #{traceback => true})),
    %% The one that Python code compiled.
    ?assertMatch({error, {'SyntaxError', _, [_ | _]}},
                 py:exec(<<"compile('def', 'there', 'exec')">>, #{traceback => true})).

syntax_error_in_import(_) ->
    {error, {'SyntaxError', Message}} = py:call(unreadable, f, []),
    ?assertNotEqual(nomatch, string:find(Message, "unreadable.py, line 1"), Message).

import_errors(_) ->
    ?assertEqual({error, {'ModuleNotFoundError', "No module named 'no_such_module'"}},
                 py:call(no_such_module, f, [])),
    ?assertEqual({error, {'ModuleNotFoundError', "No module named 'no_such_package'"}},
                 py:call('no_such_package.part', f, [])),
    ?assertMatch({error, {'ModuleNotFoundError', "No module named 'json.no_such_part'"}},
                 py:call('json.no_such_part', f, [])),
    ?assertMatch({error, {'ModuleNotFoundError', _}}, py:exec(<<"import no_such_module">>)),
    ?assertMatch({error, {'ImportError', "cannot import name 'nothing' from 'json'" ++ _}},
                 py:exec(<<"from json import nothing">>)),
    [?assertMatch({error, {_, _}}, py:call(Name, f, []), Name)
     || Name <- [<<>>, <<".">>, <<".json">>, <<"json.">>, <<"a b">>, <<"größe"/utf8>>, <<"a", 0>>]].

name_errors(_) ->
    ?assertEqual({error, {'NameError', "name 'nothing' is not defined"}}, py:eval(<<"nothing">>)),
    ?assertEqual({error, {'AttributeError', "'__main__' has no attribute 'nothing'"}},
                 py:call('__main__', nothing, [])).

attribute_errors(_) ->
    ?assertEqual({error, {'AttributeError', "module 'math' has no attribute 'nothing'"}},
                 py:call(math, nothing, [])),
    ?assertEqual({error, {'AttributeError', "module 'math' has no attribute ''"}},
                 py:call(math, <<>>, [])).

call_errors(_) ->
    ?assertEqual({error, {'TypeError', "'float' object is not callable"}}, py:call(math, pi, [])),
    ?assertMatch({error, {'TypeError', _}}, py:call(math, sqrt, [])),
    ?assertMatch({error, {'TypeError', _}}, py:call(math, sqrt, [1, 2])),
    ?assertMatch({error, {'TypeError', _}}, py:call(math, sqrt, [1], #{x => 1})),
    ?assertMatch({error, {'TypeError', _}}, py:call(math, sqrt, [<<"16">>])).

%% ------------------------------------------------------------------------------------------
%% Conversion
%% ------------------------------------------------------------------------------------------

badarg(_) ->
    [?assertMatch({error, {badarg, Path, _}}, py:call(builtins, repr, Args), Args)
     || {Path, Args} <- [{[1], [<<1:3>>]},
                         {[1, 2], [[1, <<1:3>>]]},
                         {[1, 2, k], [{1, #{k => <<1:3>>}}]},
                         {[2], [1, [2 | 3]]},
                         {[1, k], [#{k => [a | b]}]}]],
    %% Nothing was called.
    ok = py:exec(<<"seen = []">>),
    ?assertMatch({error, {badarg, [2], _}}, py:call('__main__', 'seen.append', [1, <<1:3>>])),
    ?assertEqual({ok, []}, py:eval(<<"seen">>)).

badarg_in_keywords(_) ->
    [?assertMatch({error, {badarg, [k | _], _}}, py:call(builtins, dict, [], Kwargs), Kwargs)
     || Kwargs <- [#{k => <<1:3>>}, [{k, <<1:3>>}], #{k => [1, <<1:3>>]}]],
    ?assertMatch({error, {badarg, _, _}}, py:call(builtins, dict, [], #{<<255>> => 1})),
    %% Nothing is dropped.
    [?assertEqual({error, {badarg, [<<"a">>], duplicate_key}}, py:call(builtins, dict, [], Kwargs))
     || Kwargs <- [[{a, 1}, {<<"a">>, 2}], #{a => 1, <<"a">> => 2}]].

badarg_in_locals(_) ->
    {error, {badarg, Path, _}} = py:eval(<<"x">>, #{x => [1, <<1:3>>]}),
    ?assertEqual([locals, x, 2], Path),
    ?assertMatch({error, {badarg, [locals, _], duplicate_key}},
                 py:eval(<<"x">>, #{x => 1, <<"x">> => 2})).

unconvertible(_) ->
    Options = #{on_unknown => error},
    ?assertEqual({error, {unconvertible, [], <<"object">>}}, py:eval(<<"object()">>, #{}, Options)),
    ?assertEqual({error, {unconvertible, [2], <<"object">>}}, py:eval(<<"[1, object()]">>, #{}, Options)),
    ?assertEqual({error, {unconvertible, [<<"k">>, 1], <<"object">>}},
                 py:eval(<<"{'k': (object(),)}">>, #{}, Options)),
    ok = py:exec(<<"class C: pass">>),
    ?assertMatch({error, {unconvertible, [], <<_/binary>>}}, py:eval(<<"C()">>, #{}, Options)),
    ?assertMatch({error, _}, py:eval(<<"{'a': 1, b'a': 2}">>)).

%% Code that runs while a result is converted.
conversion_raises(_) ->
    ok = py:exec(<<"from collections.abc import Mapping\n"
                   "class M(Mapping):\n"
                   "  def __init__(self, e): self.e = e\n"
                   "  def __len__(self): return 1\n"
                   "  def __iter__(self): return iter('a')\n"
                   "  def __getitem__(self, k): raise self.e">>),
    ?assertMatch({error, {'ValueError', "no"}}, py:eval(<<"[1, M(ValueError('no'))]">>)),
    ?assertMatch({error, {'SystemExit', "4"}}, py:eval(<<"M(SystemExit(4))">>)),
    ?assertMatch({error, {'StopIteration', _}}, py:eval(<<"M(StopIteration(4))">>)),
    ?assertMatch({error, interrupted}, py:eval(<<"M(__import__('erlang').Interrupt())">>)),
    ?assertEqual({ok, 1}, py:eval(<<"1">>)).

%% ------------------------------------------------------------------------------------------
%% The library's own reasons
%% ------------------------------------------------------------------------------------------

timeout(_) ->
    ?assertEqual({error, timeout}, py:exec(<<"while True: pass">>, 50)),
    ?assertEqual({error, timeout}, py:exec(<<"while True: pass">>, #{timeout => 50, traceback => true})).

interrupted(_) ->
    Ctx = py:context(1),
    Ref = py:spawn_call(Ctx, builtins, exec, [<<"while True: pass">>, #{}]),
    py_modes:wait_until(fun() -> py:interrupt(Ctx) =:= ok end),
    ?assertEqual({error, interrupted}, py:await(Ref)),
    ?assertEqual(not_running, py:interrupt(Ctx)).

overloaded(_) ->
    Max = py_semaphore:max_concurrent(),
    [ok = py_semaphore:acquire(1000) || _ <- lists:seq(1, Max)],
    ?assertEqual({error, {overloaded, Max, Max}}, py:eval(<<"1">>, #{}, #{overload => fail})),
    ?assertEqual({error, {overloaded, Max, Max}}, py:eval(<<"1">>, #{}, 20)),
    [ok = py_semaphore:release() || _ <- lists:seq(1, Max)].

context_down(Config) ->
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config)}),
    Refs = [py:spawn_call(Ctx, builtins, exec, [<<"while True: pass">>, #{}]) || _ <- [1, 2]],
    py_modes:wait_until(fun() -> maps:get(running_ms, py_context:info(Ctx)) =/= undefined end),
    ok = py_context:stop(Ctx),
    [?assertEqual({error, {context_down, normal}}, py:await(Ref)) || Ref <- Refs],
    ?assertMatch({error, {context_down, _}}, py:call(Ctx, math, sqrt, [16])),
    ?assertMatch({error, {context_down, _}}, py:eval(Ctx, <<"1">>)),
    ?assertMatch({error, {context_down, _}}, py:exec(Ctx, <<"1">>)),
    ?assertMatch({error, {context_down, _}}, py_context:create_local_env(Ctx)),
    ?assertMatch({error, {context_down, _}}, py_context:info(Ctx)).

other_references(_) ->
    [?assertError(badarg, py:call(Reference, f, [])) || Reference <- [make_ref(), py_nif:owner()]].

%% ------------------------------------------------------------------------------------------
%% Tracebacks
%% ------------------------------------------------------------------------------------------

traceback_frames(_) ->
    ok = py:exec(<<"def f(): return g()\n\ndef g():\n  raise ValueError('x')">>),
    ?assertMatch({error, {'ValueError', "x",
                          [#{file := <<"<erlang>">>, line := 1, function := <<"f">>, source := <<>>,
                             text := <<"Traceback (most ", _/binary>>},
                           #{file := <<"<erlang>">>, line := 4, function := <<"g">>, source := <<>>}]}},
                 py:call('__main__', f, [], #{}, #{traceback => true})),
    {error, {'ValueError', "x", Frames}} = py:exec(<<"\n\nf()">>, #{traceback => true}),
    ?assertMatch([#{line := 3, function := <<"<module>">>}, #{line := 1}, #{line := 4}], Frames),
    %% A C function has no frame.
    ?assertEqual({error, {'ValueError', "math domain error", []}},
                 case py:call(math, sqrt, [-1], #{}, #{traceback => true}) of
                     {error, {Class, "expected a nonnegative" ++ _, Frames1}} ->
                         {error, {Class, "math domain error", Frames1}};
                     Other ->
                         Other
                 end).

traceback_of_files(_) ->
    {error, {'ValueError', "größe", [Outer, Inner]}} =
        py:call(faulty, outer, [1], #{}, #{traceback => true}),
    ?assertMatch(#{line := 4, function := <<"outer">>, source := <<"y = inner(x)">>}, Outer),
    ?assertEqual(<<"raise ValueError('größe')  # why"/utf8>>, maps:get(source, Inner)),
    ?assertEqual(<<"faulty.py">>, filename:basename(maps:get(file, Inner))),
    ?assertEqual([file, function, line, source], lists:sort(maps:keys(Inner))).

traceback_setting(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{traceback, true}]),
    ?assertMatch({error, {'ZeroDivisionError', "division by zero", [#{line := 1}]}}, py:eval(<<"1 / 0">>)),
    ?assertMatch({error, {'ZeroDivisionError', "division by zero"}},
                 py:eval(<<"1 / 0">>, #{}, #{traceback => false})),
    ?assertMatch({error, {'ValueError', _, []}}, py:await(py:spawn_call(math, sqrt, [-1]))),
    ?assertMatch({ok, [{error, {'ValueError', _, []}}]}, py:parallel([{math, sqrt, [-1]}])),
    _ = init_per_group(Mode, Config).

%% Whatever the shape of an error, the option does no harm.
traceback_of_everything(_) ->
    Options = #{traceback => true, timeout => 100},
    ?assertEqual({error, timeout}, py:exec(<<"while True: pass">>, Options)),
    ?assertMatch({error, {badarg, _, _}}, py:eval(<<"x">>, #{x => <<1:1>>}, Options)),
    ?assertMatch({error, {stop_iteration, none}}, py:eval(<<"next(iter([]))">>, #{}, Options)),
    ?assertMatch({error, {'ModuleNotFoundError', _, _}}, py:call(no_such_module, f, [], #{}, Options)).

long_traceback(_) ->
    ok = py:exec(<<"def f(n): return f(n + 1)">>),
    {error, {'RecursionError', "maximum recursion depth exceeded" ++ _, Frames}} =
        py:call('__main__', f, [1], #{}, #{traceback => true}),
    ?assert(length(Frames) > 100 andalso length(Frames) =< 1000, length(Frames)).

odd_tracebacks(_) ->
    %% Of another exception, of a file that is gone or no file, from exec with a name of one's own.
    ok = py:exec(<<"def f():\n"
                   "  try: 1 / 0\n"
                   "  except ZeroDivisionError as e: t = e.__traceback__\n"
                   "  raise ValueError('x').with_traceback(t)\n"
                   "def g(name): exec(compile('1 / 0', name, 'exec'))">>),
    ?assertMatch({error, {'ValueError', "x", [_, _ | _]}},
                 py:call('__main__', f, [], #{}, #{traceback => true})),
    [?assertMatch({error, {'ZeroDivisionError', _, [_, #{line := 1, source := _}]}},
                  py:call('__main__', g, [Name], #{}, #{traceback => true}), Name)
     || Name <- [<<"/none/at/all.py">>, <<>>, <<"<">>, <<"größe"/utf8>>, <<"/">>, <<"/dev/null">>]].

%% ------------------------------------------------------------------------------------------
%% As text
%% ------------------------------------------------------------------------------------------

%% What Python prints: marks, causes, contexts, modules of classes.
format_like_python(_) ->
    ok = py:exec(<<"import traceback\n"
                   "def as_python(f, *args):\n"
                   "  try: f(*args)\n"
                   "  except BaseException as e:\n"
                   "    lines = traceback.format_exception(type(e), e, e.__traceback__.tb_next)\n"
                   "    return ''.join(lines).rstrip()\n"
                   "def f(): return g()\n"
                   "def g(): raise ValueError('größe')\n"
                   "class E(Exception): pass\n"
                   "class Failing(Exception):\n"
                   "  def __str__(self): return 1 / 0\n"
                   "def own(): raise E('own')\n"
                   "def empty(): raise E\n"
                   "def failing(): raise Failing\n"
                   "def leave(): raise SystemExit(3)\n"
                   "def lines(): raise E('a', 'b')\n"
                   "def key(): {}['k']\n"
                   "import math\n"
                   "def c(): math.sqrt(-1)\n"
                   "import faulty\n"
                   "def file(): faulty.outer(1)\n"
                   "import json\n"
                   "def qualified(): json.loads('[1,')\n"
                   "def cause():\n"
                   "  try: json.loads('{')\n"
                   "  except ValueError as e: raise E('told') from e\n"
                   "def context():\n"
                   "  try: f()\n"
                   "  except ValueError: file()\n"
                   "def hidden():\n"
                   "  try: f()\n"
                   "  except ValueError: raise E('alone') from None\n"
                   "def no_traceback(): raise E('x').with_traceback(None)\n"/utf8>>),
    [begin
         {error, Reason} = py:call('__main__', Function, [], #{}, #{traceback => true}),
         {ok, Expected} = py:eval([<<"as_python(">>, atom_to_list(Function), <<")">>]),
         ?assertEqual(Expected, text(Reason), Function)
     end || Function <- [f, own, empty, failing, leave, lines, key, c, file, qualified, cause, context,
                       hidden]],
    {error, Caused} = py:call('__main__', cause, [], #{}, #{traceback => true}),
    [?assertNotEqual(nomatch, string:find(text(Caused), Part))
     || Part <- [<<"json.decoder.JSONDecodeError: ">>, <<"The above exception was the direct cause">>]],
    %% Without frames Python prints none.
    {error, NoFrames} = py:call(math, sqrt, [<<"x">>], #{}, #{traceback => true}),
    ?assertEqual(<<"TypeError: must be real number, not str">>, text(NoFrames)),
    {error, Short} = py:call('__main__', own, []),
    ?assertEqual(<<"E: own">>, text(Short)),
    ?assertEqual(<<"E: own">>, text({error, Short})).

format_reasons(_) ->
    [begin
         Text = text(Reason),
         ?assert(byte_size(Text) > 0, Reason),
         ?assertEqual(Text, text({error, Reason}))
     end || Reason <- [timeout, interrupted, cancelled, {overloaded, 5, 5}, {context_down, normal},
                       {context_down, {some, reason}}, {badarg, [1, k], bitstring},
                       {unconvertible, [1], <<"object">>}, {stop_iteration, #{a => 1}},
                       {no_pool, p}, {unsupported_mode, m, <<"why">>}, {'ValueError', ""},
                       {<<"Größe"/utf8>>, "größe"}, {'ValueError', [16#1F600]},
                       {'ValueError', "x", []}, something, {1, 2, 3}, "text", <<"text">>, [], self(),
                       make_ref(), #{}, {error, {error, x}}]],
    %% The library's own reasons are sentences, not tuples.
    [begin
         Text = text(Reason),
         ?assertEqual([nomatch, nomatch], [string:find(Text, Tuple) || Tuple <- ["{", "_"]], Text),
         [?assertNotEqual(nomatch, string:find(Text, Part), Text) || Part <- Parts]
     end || {Reason, Parts} <- [{{no_pool, ml}, ["ml"]}, {{unsupported_mode, fast, <<"it is none">>}, ["fast", "it is none"]},
                                {{badarg, [9], {no_context, 4}}, ["9", "4"]}, {system_limit, ["memory"]},
                                {{gather_failed, [{2, timeout}, {3, {'ValueError', "x"}}]}, ["2: the deadline", "3: ValueError: x"]}]],
    ?assertEqual(<<"70 contexts are more than the setting max_contexts allows (64)">>, text({too_many_contexts, 70, 64})),
    %% A code point that is none.
    ?assert(is_list(lists:flatten([py:format_error({'ValueError', [16#D800, $x]})]))).

every_form(_) ->
    Ctx = py:context(1),
    Expected = {error, {'ValueError', "no"}},
    Code = <<"raise ValueError('no')">>,
    Call = [Code, #{}],
    [?assertEqual(Expected, Fun())
     || Fun <- [fun() -> py:exec(Code) end,
                fun() -> py:exec(Ctx, Code) end,
                fun() -> py_context:exec(Ctx, Code) end,
                fun() -> py:call(builtins, exec, Call) end,
                fun() -> py:call(Ctx, builtins, exec, Call) end,
                fun() -> py_context:call(Ctx, builtins, exec, Call) end,
                fun() -> py:call(default, builtins, exec, Call) end,
                fun() -> py:await(py:spawn_call(builtins, exec, Call)) end,
                fun() -> {ok, [Result]} = py:parallel([{builtins, exec, Call}]), Result end,
                fun() ->
                    Ref = py_context:get_nif_ref(Ctx),
                    {ok, Env} = py_context:create_local_env(Ctx),
                    py_nif:context_exec(Ref, Code, Env)
                end,
                fun() ->
                    Ref = py_context:get_nif_ref(Ctx),
                    {ok, Env} = py_context:create_local_env(Ctx),
                    py_nif:context_call(Ref, builtins, exec, Call, #{}, Env)
                end]].

%% ------------------------------------------------------------------------------------------
%% What stays
%% ------------------------------------------------------------------------------------------

%% After any error the next call on the same thread starts clean.
no_pending_exception(_) ->
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"import sys\nclass Bad(Exception):\n  def __str__(self): raise self">>),
    [begin
         {error, _} = Failing(),
         ?assertEqual({ok, {none, none, none}}, py:eval(Ctx, <<"sys.exc_info()">>))
     end || Failing <- [fun() -> py:exec(Ctx, <<"raise Bad">>) end,
                        fun() -> py:eval(Ctx, <<"'\\ud800'.encode()">>) end,
                        fun() -> py:eval(Ctx, <<"x">>, #{x => <<1:1>>}) end,
                        fun() -> py:eval(Ctx, <<"object()">>, #{}, #{on_unknown => error}) end,
                        fun() -> py:eval(Ctx, <<"{'a': 1, b'a': 2}">>) end,
                        fun() -> py:eval(Ctx, <<"next(iter([]))">>) end,
                        fun() -> py:call(Ctx, math, no_such, []) end,
                        fun() -> py:call(Ctx, no_such, f, []) end]].

%% The frames of an exception go with its reply, and what they held.
nothing_is_kept(_) ->
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"alive = 0\n"
                        "class Big:\n"
                        "  def __init__(self): global alive; alive += 1\n"
                        "  def __del__(self): global alive; alive -= 1\n"
                        "def f():\n"
                        "  big = Big()\n"
                        "  raise ValueError(big)\n"
                        "def g():\n"
                        "  big = Big()\n"
                        "  next(iter([]))\n">>),
    [{error, _} = py:call(Ctx, '__main__', Function, [], Options)
     || Function <- [f, g], Options <- [#{}, #{traceback => true}], _ <- lists:seq(1, 200)],
    ?assertEqual({ok, 0}, py:eval(Ctx, <<"alive">>)).

%% Names from data do not fill the atom table: beyond a bound they are binaries.
many_class_names(Config) ->
    {Atoms, Kinds} = py_peer:in_peer(py_modes:mode(Config), ?MODULE, raise_many, [20000]),
    ct:log("~b new atoms, ~p", [Atoms, Kinds]),
    ?assert(Atoms < 17500, Atoms),
    ?assertMatch([{atom, A}, {binary, B}] when A + B =:= 20000 andalso B > 3000, Kinds).

%% {New atoms, how many classes were which} after so many classes of different names.
raise_many(N) ->
    ok = py:exec(<<"def f(i): raise type(f'Dynamic{i}', (Exception,), {})(i)">>),
    Before = erlang:system_info(atom_count),
    Kinds = [begin
                 {error, {Class, Text}} = py:call('__main__', f, [I]),
                 Text = integer_to_list(I),
                 Name = iolist_to_binary(["Dynamic", Text]),
                 case Class of
                     Name -> binary;
                     _ when is_atom(Class) -> Name = atom_to_binary(Class), atom
                 end
             end || I <- lists:seq(1, N)],
    %% Names that are atoms already stay atoms.
    {error, {'ValueError', _}} = py:exec(<<"raise ValueError">>),
    After = erlang:system_info(atom_count),
    {After - Before, [{Kind, length([K || K <- Kinds, K =:= Kind])} || Kind <- [atom, binary]]}.

%% ------------------------------------------------------------------------------------------
%% Helpers
%% ------------------------------------------------------------------------------------------

raising(Expression) ->
    py:exec([<<"raise ">>, unicode:characters_to_binary(Expression)]).

text(Reason) ->
    Text = unicode:characters_to_binary([py:format_error(Reason)]),
    true = is_binary(Text),
    Text.
