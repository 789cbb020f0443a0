-module(convert_limits_SUITE).

%% @doc What converters elsewhere died of: depth, width, size, cycles, user code that runs in the midst of
%% a conversion, atoms without end; and the properties of prop_convert.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-import(convert_SUITE, [seen/2, same/1, comes_back/1, hex/1]).

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        cycles, changed_while_read, changed_by_threads, errors_of_user_code,
        changeling_classes, endless_image,
        deep, too_deep, deep_paths, wide, big_maps, huge_integers, big_binaries, exact_size_limits,
        no_atoms_from_data, bounded_atoms, properties
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

end_per_testcase(Case, Config) ->
    convert_SUITE:end_per_testcase(Case, Config).

%% ------------------------------------------------------------------------------------------
%% Cycles and user code
%% ------------------------------------------------------------------------------------------

cycles(_) ->
    ok = py:exec(<<"l = []\nl.append(l)\nd = {}\nd['d'] = d\nt = ([],)\nt[0].append(t)\n"
                   "a = [1]\nb = [0, {'k': a}]\na.append(b)\n"
                   "from dataclasses import dataclass\n@dataclass\nclass P:\n  x: object\n"
                   "p = P(0)\np.x = [p]\n"
                   "from collections import UserDict, deque\nu = UserDict()\nu['u'] = u\n"
                   "q = deque()\nq.append(q)\n"
                   "shared = [1]\n">>),
    [?assertMatch({error, {unconvertible, _, Type}}, py:eval(Code), Code)
     || {Code, Type} <- [{<<"l">>, <<"list">>}, {<<"[1, l]">>, <<"list">>}, {<<"d">>, <<"dict">>},
                         {<<"t">>, <<"tuple">>}, {<<"p">>, <<"__main__.P">>},
                         {<<"u">>, <<"collections.UserDict">>}, {<<"q">>, <<"collections.deque">>}]],
    ?assertMatch({error, {unconvertible, [_ | _], _}}, py:eval(<<"[0, a]">>)),
    %% Met twice is no cycle.
    ?assertEqual({ok, [[1], {[1], [[1]]}]}, py:eval(<<"[shared, (shared, [shared])]">>)),
    ok = py:exec(<<"x = [1]\nfor _ in range(16): x = [x, x]">>),
    {ok, Tree} = py:eval(<<"x">>),
    ?assertEqual(1 bsl 16, length(lists:flatten(Tree))).

%% Trap 6 and 100: objects whose methods change the container that is being read.
changed_while_read(_) ->
    ok = py:exec(<<"class X:\n"
                   "  def __init__(self, act): self.act = act\n"
                   "  def __repr__(self): self.act(); return 'x'\n"
                   "l = [1, 2, 3]\nl[1] = X(l.clear)\n"
                   "g = [0]\ng.append(X(lambda: g.extend(range(100000))))\n"
                   "d = {'a': 1, 'b': 2}\nd['x'] = X(d.clear)\nd['z'] = 26\n"
                   "e = {'x': X(lambda: e.update({i: i for i in range(1000)})), 'y': 1}\n"
                   "s = [[X(lambda: s.clear()), 1], 2]\n"
                   "k = {X(lambda: k.clear()): 1, 2: 3}\n"
                   "v = bytearray(b'abc')\n">>),
    Repr = fun(Code) -> py:eval(Code, #{}, #{on_unknown => repr}) end,
    ?assertEqual({ok, [1, <<"x">>, 3]}, Repr(<<"l">>)),
    ?assertEqual({ok, []}, Repr(<<"l">>)),
    ?assertEqual({ok, [0, <<"x">>]}, Repr(<<"g">>)),
    ?assertEqual({ok, #{<<"a">> => 1, <<"b">> => 2, <<"x">> => <<"x">>, <<"z">> => 26}}, Repr(<<"d">>)),
    ?assertEqual({ok, #{<<"x">> => <<"x">>, <<"y">> => 1}}, Repr(<<"e">>)),
    ?assertEqual({ok, [[<<"x">>, 1], 2]}, Repr(<<"s">>)),
    ?assertEqual({ok, #{<<"x">> => 1, 2 => 3}}, Repr(<<"k">>)),
    %% And through an image: the fields of a dataclass are properties.
    ok = py:exec(<<"from dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\n"
                   "P.x = property(lambda self: [outer.clear(), 7][1], lambda self, v: None)\n"
                   "outer = [P(1), P(2), 3]">>),
    ?assertEqual({ok, [#{<<"x">> => 7}, #{<<"x">> => 7}, 3]}, py:eval(<<"outer">>)).

%% Other threads change what is read: some state of it, never a crash.
changed_by_threads(_) ->
    ok = py:exec(<<"import threading, time\n"
                   "l, d, e, stop = [], {}, {}, []\n"
                   "def change():\n"
                   "  while not stop:\n"
                   "    for i in range(300): l.append([i]); d[i] = str(i); e[str(i)] = (i,)\n"
                   "    l.clear(); d.clear(); e.clear(); time.sleep(0)\n"
                   "t = [threading.Thread(target=change) for _ in range(2)]\n"
                   "[x.start() for x in t]">>),
    [begin
         {ok, [L, D, E]} = py:eval(<<"[l, d, e]">>),
         ?assert(is_list(L) andalso is_map(D) andalso is_map(E))
     end || _ <- lists:seq(1, 300)],
    ok = py:exec(<<"stop.append(1)\n[x.join() for x in t]">>).

errors_of_user_code(_) ->
    ok = py:exec(<<"from collections.abc import Mapping\n"
                   "class M(Mapping):\n"
                   "  def __init__(self, error): self.error = error\n"
                   "  def __getitem__(self, key): raise self.error\n"
                   "  def __iter__(self): return iter('a')\n  def __len__(self): return 1\n"
                   "class S(set):\n  def __iter__(self): raise KeyError('iter')\n"
                   "class R:\n  def __repr__(self): raise ValueError('repr')\n"
                   "class N:\n  def __repr__(self): return 1\n"
                   "class L:\n  __array_interface__ = {}\n  def tolist(self): return 1 / 0\n">>),
    ?assertEqual({error, {'ValueError', "no"}}, py:eval(<<"[1, M(ValueError('no'))]">>)),
    ?assertEqual({error, {'StopIteration', "5"}}, py:eval(<<"M(StopIteration(5))">>)),
    ?assertMatch({error, {'KeyboardInterrupt', _}}, py:eval(<<"M(KeyboardInterrupt())">>)),
    ?assertMatch({error, {'SystemExit', _}}, py:eval(<<"M(SystemExit(1))">>)),
    ?assertMatch({error, {'RecursionError', _}}, py:eval(<<"M(RecursionError('deep'))">>)),
    ?assertMatch({error, {'MemoryError', _}}, py:eval(<<"M(MemoryError())">>)),
    ?assertEqual({error, interrupted}, py:eval(<<"M(__import__('erlang').Interrupt())">>)),
    ?assertMatch({error, {'KeyError', _}}, py:eval(<<"{1: S([1])}">>)),
    ?assertMatch({error, {'ZeroDivisionError', _}}, py:eval(<<"(L(),)">>)),
    ?assertEqual({error, {'ValueError', "repr"}}, py:eval(<<"[R()]">>, #{}, #{on_unknown => repr})),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"[N()]">>, #{}, #{on_unknown => repr})),
    %% No traceback of a conversion: that is not the user's line.
    ?assertEqual({error, {'ValueError', "no"}}, py:eval(<<"M(ValueError('no'))">>, #{}, #{traceback => true})),
    %% Before 3.12 a traceback may be None: it killed the VM.
    ok = py:exec(<<"e = ValueError('bare')\ne.__traceback__ = None">>),
    {ok, Bare} = py:eval(<<"e">>, #{}, #{return => handle}),
    ?assertEqual({error, {'ValueError', "bare", []}},
                 py:call(codecs, strict_errors, [Bare], #{}, #{traceback => true})).

%% Classes that their metaclass makes unequal to themselves: what is remembered of each must not pile up.
changeling_classes(_) ->
    ok = py:exec(<<"class Meta(type):\n"
                   "  def __eq__(cls, other): return False\n  def __hash__(cls): return 1\n"
                   "class C(list, metaclass=Meta): pass\n"
                   "from erlang import _image\nbefore = len(_image._rules)">>),
    ?assertEqual({ok, [[], [], []]}, py:eval(<<"[C(), C(), C()]">>)),
    ?assertEqual({ok, true}, py:eval(<<"len(_image._rules) <= before">>)).

%% User code inside a conversion obeys the deadline; images of images end.
endless_image(_) ->
    ok = py:exec(<<"from collections.abc import Mapping\n"
                   "class M(Mapping):\n"
                   "  def __getitem__(self, key):\n    while True: pass\n"
                   "  def __iter__(self): return iter('a')\n  def __len__(self): return 1\n"
                   "class A:\n  __array_interface__ = {}\n  def tolist(self): return A()\n"
                   "class B:\n  __array_interface__ = {}\n  def tolist(self): return [B()]\n">>),
    {Ms, {error, timeout}} = py_modes:elapsed(fun() -> py:eval(<<"[M()]">>, #{}, 100) end),
    ?assert(Ms < 1000, Ms),
    ?assertMatch({error, {unconvertible, [1], <<"__main__.A">>}}, py:eval(<<"[A()]">>)),
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"class B:\n  __array_interface__ = {}\n  def tolist(self): return [B()]">>),
    ?assertEqual({error, timeout}, py:eval(Ctx, <<"B()">>, #{}, 50)),
    ?assertEqual({ok, 1}, py:eval(Ctx, <<"1">>)).

%% ------------------------------------------------------------------------------------------
%% Size
%% ------------------------------------------------------------------------------------------

nest(Depth, Wrap) ->
    lists:foldl(fun(_, Inner) -> Wrap(Inner) end, [], lists:seq(1, Depth)).

deep(_) ->
    Depth = 100000,
    [begin
         Term = nest(Depth, Wrap),
         ?assert(comes_back(Term)),
         ok = py:exec(<<"x = []\nfor _ in range(100000): x = ", Python/binary>>),
         {ok, Made} = py:eval(<<"x">>),
         ?assert(Made =:= Term),
         ok = py:exec(<<"del x">>)
     end || {Wrap, Python} <- [{fun(T) -> [T] end, <<"[x]">>}, {fun(T) -> {T} end, <<"(x,)">>},
                               {fun(T) -> #{1 => T} end, <<"{1: x}">>},
                               {fun(T) -> [1, {T, #{<<"a">> => none}}] end, <<"[1, (x, {'a': None})]">>}]],
    %% Deep and not what Erlang can have: no cut, no atom `error' (trap 101).
    ok = py:exec(<<"x = o = object()\nfor _ in range(100000): x = [x]">>),
    ?assertMatch({error, {unconvertible, [1, 1, 1 | _], <<"object">>}},
                 py:eval(<<"x">>, #{}, #{on_unknown => error})),
    ok = py:exec(<<"del x">>),
    ?assertMatch({error, {badarg, [1, 1, 1, 1 | _], bitstring}},
                 py:call(builtins, len, [lists:foldl(fun(_, T) -> [T] end, <<1:1>>, lists:seq(1, 100000))])).

too_deep(_) ->
    Million = nest(1000000, fun(T) -> [T] end),
    ?assertMatch({error, {badarg, [1, 1 | _], too_deep}}, py:call(builtins, len, [[Million]])),
    ok = py:exec(<<"x = []\nfor _ in range(1000001): x = [x]">>),
    ?assertMatch({error, {unconvertible, [1, 1 | _], <<"list">>}}, py:eval(<<"x">>)),
    ok = py:exec(<<"while x: x = x[0]">>).

deep_paths(_) ->
    Deep = lists:foldl(fun(_, T) -> [0, T] end, <<1:1>>, lists:seq(1, 1200)),
    {error, {badarg, [1 | Path], bitstring}} = py:call(builtins, len, [Deep]),
    ?assertEqual(lists:duplicate(1000, 2), Path),
    ok = py:exec(<<"x = object()\nfor _ in range(1200): x = [0, x]">>),
    ?assertEqual({error, {unconvertible, lists:duplicate(1000, 2), <<"object">>}},
                 py:eval(<<"x">>, #{}, #{on_unknown => error})),
    ok = py:exec(<<"del x">>).

wide(_) ->
    N = 1000000,
    Integers = lists:seq(1, N),
    ?assert(comes_back(Integers)),
    ?assertEqual({ok, N}, py:call(builtins, len, [Integers])),
    {ok, Tuple} = py:eval(<<"tuple(range(1, 1000001))">>),
    ?assert(Tuple =:= list_to_tuple(Integers)),
    ?assert(comes_back([{I, I * 0.5, <<I:32>>, [I]} || I <- lists:seq(1, 100000)])),
    {ok, Texts} = py:eval(<<"[str(i) for i in range(100000)]">>),
    ?assert(Texts =:= [integer_to_binary(I) || I <- lists:seq(0, 99999)]).

%% Facts 1: of more than 128 pairs, on our threads, in a message of no process.
big_maps(_) ->
    Map = maps:from_list([{I, <<I:32>>} || I <- lists:seq(1, 100000)]),
    ?assert(comes_back(Map)),
    Atoms = maps:from_list([{integer_to_binary(I), none} || I <- lists:seq(1, 100000)]),
    {ok, Made} = py:eval(<<"{str(i): None for i in range(1, 100001)}">>),
    ?assert(Made =:= Atoms),
    ?assertEqual({ok, 100000}, py:call(builtins, len, [Map])),
    {ok, Inner} = py:eval(<<"[{i: {i: i} for i in range(n)} for n in (127, 128, 129, 130, 5000)]">>),
    ?assertEqual([127, 128, 129, 130, 5000], [map_size(M) || M <- Inner]),
    %% Values that are no scalars, so that the dict is copied first.
    {ok, Lists} = py:eval(<<"{i: [i] for i in range(20000)}">>),
    ?assertEqual({20000, [19999]}, {map_size(Lists), maps:get(19999, Lists)}),
    %% Keys that collide in Erlang's hash do no harm to their number.
    Floats = maps:from_list([{I * 1.0, I} || I <- lists:seq(1, 20000)]),
    ?assert(comes_back(Floats)).

huge_integers(_) ->
    Big = binary_to_integer(binary:copy(<<"1234567890">>, 1000)),
    [begin
         ?assert(comes_back(N)),
         ?assertEqual({ok, {0, true}}, py:eval(<<"(x - y, x == int(h, 16))">>,
                                               #{x => N, y => N, h => integer_to_binary(N, 16)}))
     end || N <- [Big, -Big, Big + 1, 1 bsl 100000, -(1 bsl 100000) + 1]],
    ?assertEqual({int, hex(Big)}, seen(Big, <<"'%x' % x">>)),
    %% Digits that only exist in Python, then only in Erlang.
    {ok, Power} = py:eval(<<"7**12000">>),
    ?assert(Power =:= pow(7, 12000)),
    ?assertEqual({ok, [pow(7, 12000), -pow(3, 20000)]}, py:eval(<<"[7**12000, -3**20000]">>)),
    %% Beyond what some releases of the VM have: all of it or a clean error.
    case py:eval(<<"2**5000000">>) of
        {ok, Number} -> ?assert(Number =:= pow(2, 5000000)); % a bsl so far is no code for those
        {error, Reason} -> ?assertEqual({unconvertible, [], <<"int">>}, Reason)
    end.

pow(_, 0) -> 1;
pow(Base, N) when N rem 2 =:= 0 -> pow(Base * Base, N div 2);
pow(Base, N) -> Base * pow(Base, N - 1).

big_binaries(_) ->
    [begin
         Text = binary:copy(<<"text">>, Size div 4),
         Bytes = binary:copy(<<1, 2, 3, 255>>, Size div 4),
         Unicode = binary:copy(<<"ä"/utf8>>, Size div 2),
         [?assert(comes_back(B)) || B <- [Text, Bytes, Unicode]],
         ?assertEqual({ok, {<<"str">>, Size}}, py:eval(<<"(type(x).__name__, len(x))">>, #{x => Text})),
         ?assertEqual({ok, {<<"bytes">>, Size}}, py:eval(<<"(type(x).__name__, len(x))">>, #{x => Bytes})),
         {ok, Many} = py:eval(<<"[x, x, bytearray(x), memoryview(x)]">>, #{x => Bytes}),
         ?assert(lists:all(fun(B) -> B =:= Bytes end, Many))
     end || Size <- [1 bsl 20, (1 bsl 20) + 4]],
    Huge = binary:copy(<<"0123456789">>, 10 * 1024 * 1024),
    ?assert(comes_back(Huge)),
    ?assert(comes_back({bytes, Huge}) =:= false), % the tuple is a way to say bytes
    {ok, Made} = py:eval(<<"b'0123456789' * (10 * 1024 * 1024)">>),
    ?assert(Made =:= Huge),
    %% Released with the last reference, on either side.
    erlang:garbage_collect().

%% Around what is kept on the heap, in frames and in caches.
exact_size_limits(_) ->
    [begin
         Items = lists:seq(1, N),
         ?assertEqual({ok, Items}, same(Items)),
         ?assertEqual({ok, list_to_tuple(Items)}, same(list_to_tuple(Items))),
         ?assert(comes_back([[I] || I <- Items])),
         ?assert(comes_back(maps:from_list([{<<I:64>>, I} || I <- Items]))),
         ?assert(comes_back(binary:copy(<<200>>, N))),
         ?assert(comes_back(binary:copy(<<"x">>, N))),
         ?assert(comes_back(nest(N, fun(T) -> [N, T] end)))
     end || N <- lists:seq(0, 20) ++ [31, 32, 33, 34, 63, 64, 65, 66, 127, 128, 129, 255, 256, 257]].

%% ------------------------------------------------------------------------------------------
%% Atoms
%% ------------------------------------------------------------------------------------------

%% Trap 45: texts and keys never become atoms.
no_atoms_from_data(_) ->
    {ok, _} = py:eval(<<"[str(i) for i in range(10)]">>),
    Before = erlang:system_info(atom_count),
    {ok, _} = py:eval(<<"['text_out_%d' % i for i in range(10000)]">>),
    {ok, _} = py:eval(<<"{'key_out_%d' % i: ('v_%d' % i) for i in range(10000)}">>),
    {ok, _} = py:eval(<<"len([__import__('erlang').Atom('unsent_%d' % i) for i in range(10000)])">>),
    [{error, _} = py:eval(<<"undefined_", (integer_to_binary(I))/binary>>) || I <- lists:seq(1, 100)],
    ?assert(erlang:system_info(atom_count) - Before < 20).

%% The table of new atoms is full at 16 384, for atoms and for names of classes: tried in another VM.
bounded_atoms(Config) ->
    {ok, Peer, _} = peer:start_link(#{connection => standard_io,
                                      args => ["-pa" | code:get_path()]}),
    peer:call(Peer, ?MODULE, fill_atoms, [py_modes:mode(Config)], 60000),
    peer:stop(Peer).

fill_atoms(Mode) ->
    ok = py_modes:start(Mode),
    Atoms = <<"[__import__('erlang').atom('new_%d' % i) for i in range(n, n + 1000)]">>,
    [begin
         {ok, Made} = py:eval(Atoms, #{n => N}),
         true = lists:all(fun is_atom/1, Made)
     end || N <- lists:seq(0, 15000, 1000)],
    {error, {'Error', Sentence}} = py:eval(Atoms, #{n => 20000}),
    true = string:find(Sentence, "16384") =/= nomatch,
    {error, {unconvertible, [2], <<"erlang.Atom">>}} =
        py:eval(<<"[1, __import__('erlang').Atom('not_there')]">>),
    {ok, new_1} = py:eval(<<"__import__('erlang').Atom('new_1')">>),
    {ok, ok} = py:eval(<<"__import__('erlang').atom('ok')">>),
    %% Classes that no atom is left for are binaries.
    ok = py:exec(<<"class NewClassOfErrors(Exception): pass">>),
    {error, {<<"NewClassOfErrors">>, "x"}} = py:exec(<<"raise NewClassOfErrors('x')">>),
    {error, {'ValueError', "x"}} = py:exec(<<"raise ValueError('x')">>),
    true = erlang:system_info(atom_count) < 60000,
    py_modes:stop().

%% ------------------------------------------------------------------------------------------
%% Properties
%% ------------------------------------------------------------------------------------------

properties(_) ->
    ?assertEqual([], prop_convert:failed(200)).
