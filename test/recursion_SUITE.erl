-module(recursion_SUITE).

%% @doc Python code that nests deeper than any C stack: an error, never a crash.
%%
%% Each case runs in a VM of its own, four times there: on a context's home thread, on a spare thread
%% (under a callback), on a thread that Python started, and where that is possible on a scheduler, which has
%% the least stack.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

suite() ->
    [{timetrap, {minutes, 3}}].

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([Name || {Name, _} <- codes()]).

%% One VM for all cases of a mode; a new one after it died.
init_per_group(Mode, Config) ->
    ok = py_modes:start(Mode),
    [{mode, Mode} | Config].

end_per_group(Mode, Config) ->
    case persistent_term:get(?MODULE, none) of
        none -> ok;
        Peer -> persistent_term:erase(?MODULE), py_peer:stop(Peer)
    end,
    py_modes:end_per_group(Mode, Config).

'$handle_undefined_function'(Case, [Config]) ->
    case lists:keyfind(Case, 1, codes()) of
        {Case, Code} -> survives(Code, Config);
        false -> error_handler:raise_undef_exception(?MODULE, Case, [Config])
    end;
'$handle_undefined_function'(Case, Args) ->
    case {Args, lists:keymember(Case, 1, codes())} of
        {[], true} -> [];
        _ -> error_handler:raise_undef_exception(?MODULE, Case, Args)
    end.

%% What is tried: statements that define f(). It raises, or returns (some Pythons cope with some).
codes() ->
    [{json_lists, "import json\ndef f(): return len(json.loads('[' * 100000))"},
     {json_closed, "import json\ndef f(): return len(json.loads('[' * 100000 + ']' * 100000))"},
     {json_objects, "import json\ndef f(): return len(json.loads('{\"a\":' * 100000 + '1' + '}' * 100000))"},
     {json_dump, nested() ++ "import json\ndef f(): return len(json.dumps(nested(100000)))"},
     {repr_of_lists, nested() ++ "def f(): return len(repr(nested(100000)))"},
     {repr_of_dicts, "def f():\n  d = {}\n  for i in range(100000): d = {1: d}\n  return len(repr(d))"},
     {repr_of_tuples, "def f():\n  d = ()\n  for i in range(100000): d = (d,)\n  return len(repr(d))"},
     {equality_of_lists, nested() ++ "def f(): return nested(100000) == nested(100000)"},
     {order_of_tuples, "def f():\n  a = b = ()\n  for i in range(100000): a = (a,); b = (b,)\n  return a < b"},
     {hash_of_tuples, "def f():\n  a = ()\n  for i in range(100000): a = (a,)\n  return hash(a)"},
     {getattr_chain,
      "class C:\n"
      "  def __init__(self, inner): self.inner = inner\n"
      "  def __getattr__(self, name): return getattr(self.inner, name)\n"
      "def f():\n"
      "  c = object()\n"
      "  for i in range(100000): c = C(c)\n"
      "  return c.nothing"},
     {getattr_itself, "class C:\n  def __getattr__(self, name): return getattr(self, name + 'x')\n"
                      "def f(): return C().x"},
     {repr_itself, "class C:\n  def __repr__(self): return repr(self)\ndef f(): return repr(C())"},
     {repr_through_c, "class C(list):\n  def __repr__(self): return list.__repr__(self)[:1]\n"
                      "def f():\n  c = C()\n  for i in range(100000): c = C([c])\n  return repr(c)"},
     {str_itself, "class C:\n  def __str__(self): return '%s' % self\ndef f(): return str(C())"},
     {eq_itself, "class C:\n  def __eq__(self, other): return [self] == [C()]\ndef f(): return C() == C()"},
     {hash_itself, "class C:\n  def __hash__(self): return hash((self,))\ndef f(): return hash(C())"},
     {call_itself, "class C: pass\ndef f():\n  C.__call__ = C()\n  return C()()"},
     {add_itself, "class C:\n  def __add__(self, other): return self + other\ndef f(): return C() + C()"},
     {regular_expression, "import re\ndef f(): return re.compile('(' * 100000 + 'a' + ')' * 100000)"},
     {regular_match, "import re\ndef f(): return bool(re.match('(?:a|b)*c', 'ab' * 300000))"},
     {pickle_deep, nested() ++ "import pickle\ndef f(): return len(pickle.dumps(nested(100000)))"},
     {pickle_in_python, nested() ++ "import pickle, io\n"
                        "def f(): pickle._Pickler(io.BytesIO()).dump(nested(100000))"},
     {deepcopy, nested() ++ "import copy\ndef f(): return copy.deepcopy(nested(100000))"},
     {compile_parentheses, "def f(): return compile('(' * 100000 + ')' * 100000, 'x', 'eval')"},
     {compile_sums, "def f(): return eval('+'.join(['1'] * 100000))"},
     {compile_unary, "def f(): return eval('-' * 100000 + '1')"},
     {compile_attributes, "def f(): return compile('a' + '.b' * 100000, 'x', 'eval')"},
     {compile_calls, "def f(): return compile('a' + '()' * 100000, 'x', 'eval')"},
     {compile_elif, "def f(): return compile('if a: pass\\n' + 'elif a: pass\\n' * 50000, 'x', 'exec')"},
     {literal_eval, "import ast\ndef f(): return ast.literal_eval('[' * 100000 + ']' * 100000)"},
     {literal_eval_sums, "import ast\ndef f(): return ast.literal_eval('1' + '+1j' * 50000)"},
     {ast_parse, "import ast\ndef f(): return ast.dump(ast.parse('-' * 5000 + '1'))"},
     {generators, "def f():\n  g = iter([1])\n  for i in range(10000): g = (x for x in g)\n  return next(g)"},
     {yield_from, "def g(n):\n  if n: yield from g(n - 1)\n  else: yield 1\ndef f(): return next(g(100000))"},
     {closures, "def f():\n  g = lambda: 1\n  for i in range(100000): g = (lambda h: lambda: h())(g)\n  return g()"},
     {partials, "import functools\ndef f():\n  g = int\n"
                "  for i in range(100000): g = functools.partial(functools.partial.__call__, g)\n"
                "  return g()"},
     {maps, "def f():\n  m = iter([1])\n  for i in range(100000): m = map(int, m)\n  return next(m)"},
     {zips, "def f():\n  m = iter([1])\n  for i in range(100000): m = zip(m)\n  return next(m)"},
     {chains, "import itertools\ndef f():\n  m = iter([1])\n"
              "  for i in range(100000): m = itertools.chain(m)\n  return next(m)"},
     {plain, "def f(): return f()"},
     {mutual, "def f(): return g()\ndef g(): return f()"},
     {through_sorted, "def f(*_): return sorted([2, 1], key=f)"},
     {through_map, "def f(*_): return list(map(f, [1]))"},
     {through_exec, "def f(): exec('f()', globals())"},
     {through_import, "def f(): return __import__('functools').reduce(lambda a, b: f(), [1, 2])"},
     {limit_raised, "import sys\n"
                    "def g(n): return 0 if n == 0 else 1 + g(n - 1)\n"
                    "def f():\n"
                    "  before = sys.getrecursionlimit()\n"
                    "  sys.setrecursionlimit(5000)\n"
                    "  try: return g(4000)\n"
                    "  finally: sys.setrecursionlimit(before)"},
     {limit_raised_through_c, "import sys\n"
                              "def g(n): return [0] if n == 0 else sorted([n], key=lambda n: g(n - 1))\n"
                              "def f():\n"
                              "  before = sys.getrecursionlimit()\n"
                              "  sys.setrecursionlimit(5000)\n"
                              "  try: return g(10000)\n"
                              "  finally: sys.setrecursionlimit(before)"},
     {isinstance_tuple, "def f():\n  t = (int,)\n  for i in range(100000): t = (t,)\n  return isinstance('', t)"},
     {issubclass_tuple, "def f():\n  t = (int,)\n  for i in range(100000): t = (t,)\n  return issubclass(str, t)"},
     {exception_tuple, "def f():\n  t = (TypeError,)\n  for i in range(100000): t = (t,)\n"
                       "  try: raise ValueError\n  except t: return 1"},
     {subclass_check, "class M(type):\n  def __instancecheck__(c, o): return isinstance(o, c)\n"
                      "class C(metaclass=M): pass\ndef f(): return isinstance(1, C)"},
     {exception_chain, "def f():\n  e = None\n"
                       "  for i in range(100000):\n"
                       "    n = ValueError(i); n.__context__ = e; n.__cause__ = e; e = n\n"
                       "  raise e"},
     {class_hierarchy, "def f():\n  c = object\n"
                       "  for i in range(1000): c = type('C', (c,), {})\n  return c().nothing"},
     {unions, "def f():\n  t = list[int]\n  for i in range(20000): t = list[t]\n  return len(repr(t))"},
     {destruction, nested() ++ "def f():\n  a = nested(300000)\n  del a\n"
                   "  g = iter([1])\n  for i in range(300000): g = map(int, g)\n  del g\n"
                   "  class C: pass\n  c = None\n"
                   "  for i in range(300000): n = C(); n.c = c; c = n\n"
                   "  del c, n"},
     {format_spec, "def f(): return format(1, '{' * 100000)"},
     {str_format, "def f(): return ('{0' + '[0]' * 100000 + '}').format(1)"},
     {element_tree, "import xml.etree.ElementTree as e\ndef f():\n"
                    "  return len(e.tostring(e.fromstring('<a>' * 100000 + '</a>' * 100000)))"}].

nested() ->
    "def nested(n):\n  a = []\n  for i in range(n): a = [a]\n  return a\n".

%% ------------------------------------------------------------------------------------------
%% Running one
%% ------------------------------------------------------------------------------------------

survives(Code, Config) ->
    Peer = peer(Config),
    Results = try py_peer:call(Peer, ?MODULE, everywhere, [Code])
              catch
                  error:Reason ->
                      persistent_term:erase(?MODULE),
                      error(Reason)
              end,
    ct:log("~tp", [Results]),
    [?assert(is_told(Result), {Where, Result}) || {Where, Result} <- Results].

peer(Config) ->
    case persistent_term:get(?MODULE, none) of
        none ->
            Peer = py_peer:start(py_modes:mode(Config)),
            persistent_term:put(?MODULE, Peer),
            Peer;
        Peer ->
            Peer
    end.

is_told({ok, _}) -> true;
is_told({error, {Class, _}}) ->
    lists:member(Class, ['RecursionError', 'MemoryError', 'ValueError', 'SyntaxError', 'TypeError',
                         'AttributeError', 'JSONDecodeError', 'IndexError', 'PatternError', error,
                         'OverflowError', 'ParseError',
                         'ImportError']); % 3.12 has no expat in a sub-interpreter
is_told(_) -> false.

%% In the other VM: three threads, each twice; then everything still works.
everywhere(Code) ->
    ok = py:register_function(nested_run, fun([]) -> py:call('__main__', told, [], #{}, 60000) end),
    ok = py:exec(unicode:characters_to_binary(Code)),
    ok = py:exec(<<"import erlang, threading\n"
                   "def told():\n"
                   "  f()\n" % the value itself may be too deep to convert
                   "def in_thread():\n"
                   "  seen = []\n"
                   "  def run():\n"
                   "    try: f(); seen.append(None)\n"
                   "    except Exception as e: seen.append(e)\n"
                   "  t = threading.Thread(target=run)\n"
                   "  t.start()\n"
                   "  t.join()\n"
                   "  if seen[0] is not None: raise seen[0]\n"
                   "def under_callback(): return erlang.call('nested_run')\n">>),
    Results = [{Where, run(Where)} || _ <- [1, 2], Where <- [told, under_callback, in_thread]] ++ [{inline, inline()}],
    {ok, 4.0} = py:call(math, sqrt, [16]),
    ok = py:exec(<<"del f">>),
    Results.

run(under_callback) ->
    %% The nested call's result comes converted: {ok, V} or {error, {Class, Message}}.
    case py:call('__main__', under_callback, [], #{}, 60000) of
        {ok, {<<"ok">>, _}} -> {ok, none};
        {ok, {<<"error">>, {Class, Message}}} when is_binary(Class) -> {error, {binary_to_atom(Class), Message}};
        Other -> Other
    end;
run(Function) ->
    py:call('__main__', Function, [], #{}, 60000).

%% On a scheduler, under a name that has not been called there and taken long yet.
inline() ->
    case inline_cases:is_possible() of
        true ->
            Name = list_to_atom("told" ++ integer_to_list(erlang:unique_integer([positive]))),
            ok = py:exec([atom_to_list(Name), " = told"]),
            inline(Name, 100);
        false ->
            {ok, not_possible}
    end.

inline(Name, Attempts) ->
    {ok, 4.0} = py:call(math, sqrt, [16], #{}, #{inline => true}),
    Before = inlined(),
    Result = py:call('__main__', Name, [], #{}, #{inline => true, timeout => 60000}),
    case inlined() of
        Before when Attempts > 1 -> timer:sleep(1), inline(Name, Attempts - 1);
        Before -> {error, never_inline};
        _ -> Result
    end.

inlined() ->
    lists:sum([maps:get(inlined, py_context:info(py:context(N)))
               || N <- lists:seq(1, py_context_router:num_contexts())]).
