-module(convert_SUITE).

%% @doc Terms to objects and back: every row of both tables of docs/type-conversion.md, the options, the
%% errors with their paths. Size, user code inside a conversion and properties: convert_limits_SUITE.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        atoms_in, integers_in, floats_in, binaries_in, bytes_tuple, buffer, buffer_is_not_copied, large_bytes_are_not_copied,
        bytes_outlive_their_context, ndarrays, bad_ndarrays, containers_in, identifiers_in,
        remote_identifiers, identifiers_in_python, option_binary, setting_binary, names_of_locals,
        refused_terms, keys_that_are_one, unhashable_keys, handles_in,
        scalars_out, text_out, lone_surrogates, bytes_out, sequences_out, maps_out, sets_out,
        times_out, numbers_as_text, enums_and_dataclasses, typed_buffers, array_interface, array_interface_alone,
        numpy_rows,
        atoms_out, subclasses_out, unknown_objects, handles_in_containers, other_interpreter,
        handles_are_freed, colliding_keys_out, paths_out
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

%% Whatever a conversion did: the interpreter is whole, no exception is pending (trap 19).
end_per_testcase(_Case, Config) ->
    case py:eval(<<"[1 / 2, str(2.5), __import__('sys').exc_info()[0], len(repr({}))]">>) of
        {ok, [0.5, <<"2.5">>, none, 2]} -> ok;
        Other -> {fail, {left_behind, proplists:get_value(tc_status, Config), Other}}
    end.

%% ------------------------------------------------------------------------------------------
%% Erlang to Python
%% ------------------------------------------------------------------------------------------

%% What Python makes of a term: the name of its type, and its repr or another view.
seen(Term) ->
    seen(Term, <<"repr(x)">>).

seen(Term, View) ->
    seen(Term, View, #{}).

seen(Term, View, Options) ->
    case py:eval(<<"(type(x).__name__, ", View/binary, ")">>, #{x => Term}, Options) of
        {ok, {Type, Value}} -> {binary_to_atom(Type), Value};
        Error -> Error
    end.

same(Term) ->
    py:eval(<<"x">>, #{x => Term}).

%% Whether a term comes back as it went; a failure prints little.
comes_back(Term) ->
    {ok, Back} = same(Term),
    Back =:= Term.

atoms_in(_) ->
    ?assertEqual({bool, <<"True">>}, seen(true)),
    ?assertEqual({bool, <<"False">>}, seen(false)),
    [?assertEqual({'NoneType', <<"None">>}, seen(Atom)) || Atom <- [none, nil, undefined]],
    ?assertEqual([{ok, A} || A <- [true, false, none, none, none]],
                 [same(A) || A <- [true, false, none, nil, undefined]]),
    [begin
         Text = atom_to_binary(Atom),
         ?assertEqual({str, Text}, seen(Atom, <<"x">>)),
         ?assertEqual({ok, true}, py:eval(<<"type(x) is str and x is __import__('sys').intern(x)">>,
                                          #{x => Atom}))
     end || Atom <- [ok, 'a b', '', 'größe', '日本語', '😀', 'None', 'True', list_to_atom([0]),
                     list_to_atom("a" ++ [0] ++ "b"), list_to_atom([255]),
                     list_to_atom(lists:duplicate(255, $a)), list_to_atom(lists:duplicate(255, 16#e9)),
                     list_to_atom(lists:duplicate(255, 16#1F600))]],
    %% More of them than are remembered, and again.
    Atoms = [list_to_atom("convert_" ++ integer_to_list(I)) || I <- lists:seq(1, 3000)],
    Texts = [atom_to_binary(Atom) || Atom <- Atoms],
    [?assertEqual({ok, Texts}, same(Atoms)) || _ <- [1, 2]].

integers() ->
    Edges = [1 bsl Bits || Bits <- [7, 8, 15, 16, 29, 30, 31, 32, 59, 60, 61, 62, 63, 64, 65, 127, 128,
                                    2039, 2040, 2041, 2048, 4096]],
    lists:usort([Sign * (N + D) || N <- [0 | Edges], D <- [-1, 0, 1], Sign <- [-1, 1]]).

integers_in(_) ->
    [begin
         ?assertEqual({int, hex(N)}, seen(N, <<"'%x' % x">>)),
         ?assertEqual({ok, N}, same(N))
     end || N <- integers()].

hex(N) ->
    string:lowercase(integer_to_binary(N, 16)).

floats_in(_) ->
    [begin
         {float, Hex} = seen(F, <<"__import__('struct').pack('>d', x)">>),
         ?assertEqual(<<F/float>>, Hex),
         {ok, Back} = same(F),
         ?assertEqual(<<F/float>>, <<Back/float>>)
     end || F <- [0.0, -0.0, 1.0, -1.5, 0.1, 5.0e-324, 2.2250738585072014e-308,
                  1.7976931348623157e308, -1.7976931348623157e308, 1.0e23, 123456789.0e-9]].

%% Valid UTF-8 is text, anything else bytes.
binaries_in(_) ->
    Text = [<<>>, <<"a">>, <<"text">>, <<"größe"/utf8>>, <<"日本語"/utf8>>, <<"😀"/utf8>>, <<0>>,
            <<"a", 0, "b">>, <<127>>, <<16#10FFFF/utf8>>, <<16#D7FF/utf8>>, <<16#E000/utf8>>,
            binary:copy(<<"x">>, 64), binary:copy(<<"x">>, 65), binary:copy(<<"äx"/utf8>>, 100)],
    Bytes = [<<255>>, <<128>>, <<16#C0, 16#80>>, <<16#C1, 16#BF>>, <<16#E0, 16#80, 16#80>>,
             <<16#ED, 16#A0, 16#80>>, <<16#ED, 16#BF, 16#BF>>, <<16#F0, 16#80, 16#80, 16#80>>,
             <<16#F4, 16#90, 16#80, 16#80>>, <<16#F5, 0, 0, 0>>, <<"ä"/utf8, 16#C3>>,
             <<(binary:copy(<<"x">>, 100))/binary, 16#E2, 16#82>>],
    [?assertEqual({{str, B}, {ok, B}}, {seen(B, <<"x">>), same(B)}) || B <- Text],
    [?assertEqual({{bytes, B}, {ok, B}}, {seen(B, <<"x">>), same(B)}) || B <- Bytes],
    %% A part of a larger binary, and one that starts in the middle of a byte.
    <<_:8, Sub:10/binary, _/binary>> = binary:copy(<<"part">>, 50),
    ?assertEqual({{str, Sub}, {ok, Sub}}, {seen(Sub, <<"x">>), same(Sub)}),
    <<_:3, Shifted:12/binary, _/bits>> = <<5:3, "twelve bytes", 0:5>>,
    ?assertEqual({{str, <<"twelve bytes">>}, {ok, Shifted}}, {seen(Shifted, <<"x">>), same(Shifted)}).

bytes_tuple(_) ->
    ?assertEqual({bytes, <<"b'text'">>}, seen({bytes, <<"text">>})),
    ?assertEqual({bytes, <<"b''">>}, seen({bytes, <<>>})),
    ?assertEqual({ok, [<<"a">>, <<"b">>]}, same([{bytes, <<"a">>}, <<"b">>])),
    %% Other tuples with that atom are tuples.
    ?assertEqual({tuple, <<"('bytes',)">>}, seen({bytes})),
    ?assertEqual({tuple, <<"('bytes', 'a', 1)">>}, seen({bytes, <<"a">>, 1})),
    ?assertEqual({tuple, <<"('bytes', 1)">>}, seen({bytes, 1})),
    ?assertEqual({dict, <<"{b'k': b'v'}">>}, seen(#{{bytes, <<"k">>} => {bytes, <<"v">>}})).

%% A binary whose bytes Python reads where they are.
buffer(_) ->
    Data = crypto:strong_rand_bytes(100000),
    <<_:3, Shifted:40000/binary, _/bits>> = Data,
    [begin
         Size = byte_size(Bin),
         ?assertEqual({ok, {<<"Buffer">>, Size, true, true, true}},
                      py:eval(<<"(type(x).__name__, len(x), bytes(x) == y, memoryview(x).readonly, memoryview(x) == y)">>,
                              #{x => {buffer, Bin}, y => {bytes, Bin}})),
         ?assertEqual({ok, Bin}, same({buffer, Bin})),
         ?assertEqual({ok, Bin}, py:eval(<<"memoryview(x)">>, #{x => {buffer, Bin}})),
         ?assertEqual({ok, crypto:hash(sha256, Bin)},
                      py:eval(<<"__import__('hashlib').sha256(x).digest()">>, #{x => {buffer, Bin}}))
     end || Bin <- [<<>>, <<"short">>, Data, Shifted]],
    ?assertEqual({ok, #{<<"a">> => [1]}},
                 py:eval(<<"__import__('json').loads(str(x, 'utf-8'))">>, #{x => {buffer, <<"{\"a\": [1]}">>}})),
    ?assertEqual({'Buffer', <<"<erlang.Buffer of 4 bytes>">>}, seen({buffer, <<"text">>})),
    %% It is a value like others.
    ?assertEqual({ok, {true, true, false, 2}},
                 py:eval(<<"(x == y, hash(x) == hash(y), x == z, len({x, y, z}))">>,
                         #{x => {buffer, Data}, y => {buffer, Data}, z => {buffer, Shifted}})),
    [?assertMatch({error, {Class, _}}, py:eval(Code, #{x => {buffer, Data}}))
     || {Class, Code} <- [{'TypeError', <<"memoryview(x).__setitem__(0, 1)">>},
                          {'TypeError', <<"type(x)()">>},
                          {'TypeError', <<"type(x)(b'')">>},
                          {'TypeError', <<"__import__('pickle').dumps(x)">>}]],
    ?assertEqual({tuple, <<"('buffer', 1)">>}, seen({buffer, 1})),
    ?assertEqual({error, {badarg, [1, 2], bitstring}}, py:call(builtins, len, [{buffer, <<1:1>>}])).

%% Thirty holders of 16 MB, there and back, take no more memory than one.
buffer_is_not_copied(_) ->
    Data = binary:copy(<<0>>, 16 * 1024 * 1024),
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"held = []\ndef hold(x):\n    held.append(x)\n    return x">>),
    Before = py_modes:rss(),
    Back = [begin {ok, Bin} = py:call(Ctx, '__main__', hold, [{buffer, Data}]), Bin end
            || _ <- lists:seq(1, 30)],
    ?assert(py_modes:rss() - Before < 16 * 1024 * 1024, py_modes:rss() - Before),
    ?assertEqual(lists:duplicate(30, byte_size(Data)), [byte_size(Bin) || Bin <- Back]),
    %% The bytes live as long as Python has them.
    ?assertEqual({ok, 30 * byte_size(Data)}, py:eval(Ctx, <<"sum(map(len, held))">>)),
    ok = py:exec(Ctx, <<"held.clear()">>).

%% Thirty results that are the same 16 MB take no more memory than one; and they stay what they are.
large_bytes_are_not_copied(_) ->
    Ctx = py:context(1),
    Size = 16 * 1024 * 1024,
    ok = py:exec(Ctx, <<"data = b'\\xff' * (16 << 20)\ntext = 'a' * (16 << 20)\nclass Own(bytes): pass\n"
                        "own = Own(b'\\xfe' * 300000)">>),
    Before = py_modes:rss(),
    Bytes = [begin {ok, Bin} = py:eval(Ctx, <<"data">>), Bin end || _ <- lists:seq(1, 30)],
    Texts = [begin {ok, Bin} = py:eval(Ctx, <<"text">>), Bin end || _ <- lists:seq(1, 30)],
    ?assert(py_modes:rss() - Before < Size, py_modes:rss() - Before),
    {ok, #{<<"own">> := Own, <<"some">> := Some}} = py:eval(Ctx, <<"{'own': own, 'some': [data[:262143], data[:262144]]}">>),
    ?assertEqual({binary:copy(<<254>>, 300000), [262143, 262144]}, {Own, [byte_size(B) || B <- Some]}),
    ok = py:exec(Ctx, <<"del data, text, own\nimport gc\ngc.collect()">>),
    [?assertEqual({Size, 255, 255}, {byte_size(B), binary:first(B), binary:last(B)}) || B <- Bytes],
    [?assertEqual({Size, $a, $a}, {byte_size(B), binary:first(B), binary:last(B)}) || B <- Texts],
    %% They are binaries like others.
    [First, Second | _] = Bytes,
    ?assertEqual(First, Second),
    ?assertEqual(erlang:phash2(First), erlang:phash2(binary:copy(First))),
    ?assertEqual({ok, Size}, py:call(Ctx, builtins, len, [{bytes, First}])),
    ?assertEqual(false, py:is_ref(First)).

%% What contexts gave out stays when they have ended, and is freed afterwards.
bytes_outlive_their_context(Config) ->
    Before = py_modes:rss(),
    N = 16,
    All = N * 16 * 1024 * 1024,
    Bins = [begin
                {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config)}),
                {ok, Bin} = py:eval(Ctx, <<"b'\\xff' * (16 << 20)">>, #{}, 60000),
                ok = py_context:stop(Ctx),
                Bin
            end || _ <- lists:seq(1, N)],
    timer:sleep(500), % the interpreters end
    ?assertEqual([], [wrong || B <- Bins, {byte_size(B), binary:first(B), binary:last(B)} =/= {All div N, 255, 255}]),
    case lists:member(free_threaded, py_modes:modes()) orelse os:getenv("ASAN_OPTIONS") =/= false of
        true -> {comment, "the allocator keeps what was freed, or what threads that ended had"};
        false ->
            %% CPython itself leaves some 5 MB of each own-GIL interpreter behind.
            py_modes:wait_until(fun() -> garbage_collect(), py_modes:rss() - Before < All * 2 div 3 end)
    end.

%% Arrays as one binary, there and back, with and without numpy.
ndarrays(_) ->
    As = fun(Code) -> py:eval(Code, #{}, #{arrays => ndarray}) end,
    [?assertEqual({ok, Expected}, As(Code), Code) || {Code, Expected} <- [
        {<<"__import__('array').array('i', [1, -2])">>, {ndarray, <<"<i4">>, [2], <<1:32/little, -2:32/little>>}},
        {<<"__import__('array').array('B', [1, 2])">>, {ndarray, <<"|u1">>, [2], <<1, 2>>}},
        {<<"__import__('array').array('d')">>, {ndarray, <<"<f8">>, [0], <<>>}},
        {<<"{'a': [memoryview(__import__('array').array('h', range(6)))[4::-2]]}">>,
         #{<<"a">> => [{ndarray, <<"<i2">>, [3], <<4:16/little, 2:16/little, 0:16>>}]}},
        {<<"memoryview(b'\\1\\0').cast('?')">>, {ndarray, <<"|b1">>, [2], <<1, 0>>}},
        %% Bytes are binaries still, and what is no buffer of numbers has its own image.
        {<<"[b'ab', bytearray(b'ab'), memoryview(b'ab'), memoryview(b'abcd')[::2]]">>, [<<"ab">>, <<"ab">>, <<"ab">>, <<"ac">>]},
        {<<"[1, 'a', (2.5,), range(2), None]">>, [1, <<"a">>, {2.5}, [0, 1], none]}
    ]],
    ?assertEqual({ok, [1, 2]}, py:eval(<<"__import__('array').array('i', [1, 2])">>, #{}, #{arrays => list})),
    %% An image is the same object when it comes back.
    Has = has_numpy(),
    [begin
         Array = {ndarray, Type, Shape, Items},
         ?assertEqual({ok, Array}, py:eval(<<"x">>, #{x => Array}, #{arrays => ndarray})),
         ?assertEqual({ok, List}, py:eval(<<"x.tolist()">>, #{x => Array}), Array),
         ?assertEqual({ok, case Has of true -> <<"ndarray">>; false -> <<"memoryview">> end},
                      py:eval(<<"type(x).__name__">>, #{x => Array}))
     end || {Type, Shape, Items, List} <- [
         {<<"<f8">>, [2], <<1.5/float-little, 2.5/float-little>>, [1.5, 2.5]},
         {<<"<i4">>, [2, 3], << <<N:32/little>> || N <- lists:seq(0, 5) >>, [[0, 1, 2], [3, 4, 5]]},
         {<<"|u1">>, [1, 2, 2], <<1, 2, 3, 4>>, [[[1, 2], [3, 4]]]},
         {<<"<u8">>, [0], <<>>, []}, {<<"|b1">>, [2], <<1, 0>>, [true, false]}]],
    {ok, {true, true}} = py:eval(<<"(memoryview(x).readonly, memoryview(x).obj is not None)">>,
                                 #{x => {ndarray, <<"<f8">>, [1], <<0.5/float-little>>}}),
    ?assertEqual({ok, 3}, py:eval(<<"len(x[0])">>, #{x => [{ndarray, <<"<i2">>, [3], <<0:48>>}]})),
    ?assertEqual({tuple, <<"('ndarray', 1, 2)">>}, seen({ndarray, 1, 2})),
    Big = {ndarray, <<">i2">>, [2], <<1:16, 2:16>>},
    ?assertEqual(case Has of true -> {ok, [1, 2]}; false -> {error, {badarg, [locals, x], needs_numpy}} end,
                 py:eval(<<"x.tolist()">>, #{x => Big})),
    case Has of
        true -> numpy_arrays();
        false -> ok
    end.

numpy_arrays() ->
    ok = py:exec(<<"import numpy as np">>),
    As = fun(Code) -> py:eval(Code, #{}, #{arrays => ndarray}) end,
    [?assertEqual({ok, Expected}, As(Code), Code) || {Code, Expected} <- [
        {<<"np.arange(3)">>, {ndarray, <<"<i8">>, [3], <<0:64, 1:64/little, 2:64/little>>}},
        {<<"np.arange(6, dtype='i2').reshape(2, 3).T">>,
         {ndarray, <<"<i2">>, [3, 2], << <<N:16/little>> || N <- [0, 3, 1, 4, 2, 5] >>}},
        {<<"np.array([1+2j], dtype='c16')">>, {ndarray, <<"<c16">>, [1], <<1.0/float-little, 2.0/float-little>>}},
        {<<"np.array([1], dtype='>i2')">>, {ndarray, <<">i2">>, [1], <<1:16>>}},
        {<<"np.array([0.5], dtype='f2')">>, {ndarray, <<"<f2">>, [1], <<0.5:16/float-little>>}},
        {<<"np.zeros((2, 0))">>, {ndarray, <<"<f8">>, [2, 0], <<>>}},
        {<<"[np.float64(1.5), np.int64(2), np.array(5)]">>, [1.5, 2, 5]},
        {<<"np.array(['2026-01-01'], dtype='M8[D]')">>, [{2026, 1, 1}]}]],
    ?assertEqual({ok, 3.0}, py:call(numpy, mean, [{ndarray, <<"<f8">>, [2], <<2.0/float-little, 4.0/float-little>>}])),
    ?assertEqual({ok, [[], []]}, py:eval(<<"x.tolist()">>, #{x => {ndarray, <<"<f8">>, [2, 0], <<>>}})).

%% Whether numpy is loaded where the calling process's code runs.
has_numpy() ->
    _ = py:exec(<<"try:\n  import numpy\nexcept ImportError: pass">>),
    {ok, Has} = py:eval(<<"'numpy' in __import__('sys').modules">>),
    Has.

bad_ndarrays(_) ->
    [?assertEqual({error, {badarg, [locals, x, 2], bad_ndarray}}, py:eval(<<"x">>, #{x => [1, Array]}), Array)
     || Array <- [{ndarray, <<"<f8">>, [2], <<0:64>>}, {ndarray, <<"<f8">>, [-1], <<>>}, {ndarray, <<"<f8">>, [a], <<>>},
                  {ndarray, <<"<f8">>, [1 | 2], <<0:64>>}, {ndarray, <<"<f8">>, 1, <<0:64>>}, {ndarray, <<"f8">>, [1], <<0:64>>},
                  {ndarray, <<"<x8">>, [1], <<0:64>>}, {ndarray, <<>>, [0], <<>>}, {ndarray, '<f8', [1], <<0:64>>},
                  {ndarray, <<"<f8<f8<f8">>, [1], <<0:64>>}, {ndarray, <<"<f8">>, [1 bsl 64], <<>>},
                  {ndarray, <<"<f8">>, [1 bsl 63, 1 bsl 63], <<>>}, {ndarray, <<"|O8">>, [1], <<0:64>>},
                  {ndarray, <<"<f8">>, lists:duplicate(65, 1), <<0:64>>}]],
    ?assertError(badarg, py:eval(<<"1">>, #{}, #{arrays => always})).

containers_in(_) ->
    ?assertEqual({list, <<"[]">>}, seen([])),
    ?assertEqual({list, <<"[1, [2.0, []], 'a']">>}, seen([1, [2.0, []], a])),
    ?assertEqual({list, <<"[97, 98]">>}, seen("ab")),
    ?assertEqual({tuple, <<"()">>}, seen({})),
    ?assertEqual({tuple, <<"(1, (2, ()), [])">>}, seen({1, {2, {}}, []})),
    ?assertEqual({dict, <<"{}">>}, seen(#{})),
    ?assertEqual({dict, [{<<"a">>, {1, #{<<"b">> => []}}}]},
                 seen(#{a => {1, #{b => []}}}, <<"sorted(x.items())">>)),
    Keys = #{none => 0, 1 => 1, 2.5 => 2, <<"t">> => 3, <<255>> => 4, {1, {2}} => 5, {} => 6},
    ?assertEqual({ok, Keys}, same(Keys)),
    Nested = [#{<<"k">> => {N, [#{<<"k">> => N, <<"l">> => <<"v">>} || _ <- lists:seq(1, N)]}}
              || N <- lists:seq(1, 40)],
    ?assert(comes_back(Nested)),
    %% Keys of the same length, told apart by their middle only.
    Similar = [#{<<"12345678", N, "12345678">> => N} || N <- lists:seq(1, 120)],
    ?assert(comes_back(Similar ++ Similar)).

identifiers() ->
    [{'Pid', self()}, {'Ref', make_ref()}, {'Port', hd(erlang:ports())}, {'Fun', fun lists:map/2},
     {'Fun', fun(X) -> {X, self()} end}, {'Fun', fun ?MODULE:all/0}, {'Pid', spawn(fun() -> ok end)}].

identifiers_in(_) ->
    [begin
         ?assertMatch({Type, <<"<erlang.", _/binary>>}, seen(Term)),
         ?assertEqual({ok, true}, py:eval(<<"type(x) is getattr(__import__('erlang'), t)">>,
                                          #{x => Term, t => Type})),
         ?assertEqual({ok, Term}, same(Term)),
         ?assertEqual({ok, [#{Term => {Term}}]}, same([#{Term => {Term}}]))
     end || {Type, Term} <- identifiers()],
    Made = fun(X) -> {X, big, 1 bsl 100} end,
    {ok, Back} = same(Made),
    ?assertEqual({1, big, 1 bsl 100}, Back(1)).

remote() ->
    Node = <<119, 11, "far@nowhere">>,
    Parts = binary:split(term_to_binary(fun() -> self() end), <<"convert_SUITE">>),
    Unloaded = iolist_to_binary(lists:join(<<"convert_SUITF">>, Parts)),
    [{'Pid', binary_to_term(<<131, 88, Node/binary, 77:32, 3:32, 5:32>>)},
     {'Port', binary_to_term(<<131, 89, Node/binary, 78:32, 5:32>>)},
     {'Ref', binary_to_term(<<131, 90, 3:16, Node/binary, 5:32, 1:32, 2:32, 3:32>>)},
     {'Fun', binary_to_term(Unloaded)},
     {'Fun', fun not_loaded_anywhere:run/7}].

remote_identifiers(_) ->
    [begin
         ?assertMatch({Type, <<"<erlang.", _/binary>>}, seen(Term)),
         ?assertEqual({ok, Term}, same(Term)),
         ?assertEqual({ok, {Term, [Term]}}, same({Term, [Term]}))
     end || {Type, Term} <- remote()],
    ?assertEqual('far@nowhere', node(proplists:get_value('Pid', remote()))).

%% Equal, ordered and hashed as in Erlang; kept in Python; pickled (a fun is not).
identifiers_in_python(_) ->
    Pid = self(),
    ?assertEqual({ok, {true, false, 1, true}},
                 py:eval(<<"(x == y, x != y, len({x, y}), {x: 1} == {y: 1})">>, #{x => Pid, y => Pid})),
    Terms = [Term || {_, Term} <- identifiers() ++ remote(), not is_function(Term)],
    ?assertEqual({ok, Terms}, py:eval(<<"__import__('pickle').loads(__import__('pickle').dumps(x))">>,
                                      #{x => Terms})),
    ?assertEqual({ok, Terms}, py:eval(<<"__import__('copy').deepcopy(x)">>, #{x => Terms})),
    ?assertMatch({error, {'TypeError', _}},
                 py:eval(<<"__import__('pickle').dumps(x)">>, #{x => fun() -> ok end})),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"x < 1">>, #{x => Pid})),
    ?assertMatch({error, {_, _}}, py:eval(<<"type(x)()">>, #{x => Pid})),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"type(x)(b'\\x83a\\x01')">>, #{x => Pid})),
    ?assertMatch({error, {'ValueError', _}},
                 py:eval(<<"type(x)(b)">>, #{x => Pid, b => {bytes, term_to_binary(make_ref())}})),
    Refs = lists:sort([make_ref() || _ <- lists:seq(1, 100)]),
    ?assertEqual({ok, Refs}, py:eval(<<"sorted(set(x))">>, #{x => lists:reverse(Refs)})),
    ok = py:exec(<<"kept = []">>),
    {ok, none} = py:eval(<<"kept.append(x)">>, #{x => Refs}),
    erlang:garbage_collect(),
    ?assertEqual({ok, Refs}, py:eval(<<"kept[0]">>)).

%% ------------------------------------------------------------------------------------------
%% The option `binary', and what it does not touch
%% ------------------------------------------------------------------------------------------

option_binary(_) ->
    Types = fun(Term, Options) -> seen(Term, <<"[type(a).__name__ for a in x]">>, Options) end,
    All = [<<"text">>, <<255>>, <<>>, {bytes, <<"b">>}, atom],
    ?assertEqual({list, [<<"str">>, <<"bytes">>, <<"str">>, <<"bytes">>, <<"str">>]}, Types(All, #{})),
    ?assertEqual(Types(All, #{}), Types(All, #{binary => auto})),
    ?assertEqual({list, [<<"bytes">>, <<"bytes">>, <<"bytes">>, <<"bytes">>, <<"str">>]},
                 Types(All, #{binary => bytes})),
    ?assertEqual({error, {badarg, [locals, x, 2], invalid_utf8}}, Types(All, #{binary => str})),
    ?assertEqual({list, [<<"str">>, <<"bytes">>]}, Types([<<"ä"/utf8>>, {bytes, <<255>>}], #{binary => str})),
    %% Keys of maps too.
    ?assertEqual({dict, <<"{b'k': b'v'}">>}, seen(#{<<"k">> => <<"v">>}, <<"repr(x)">>, #{binary => bytes})),
    ?assertEqual({error, {badarg, [locals, x, <<255>>], invalid_utf8}},
                 seen(#{<<255>> => 1}, <<"x">>, #{binary => str})),
    ?assertMatch({error, {badarg, [1, <<"k">>], invalid_utf8}},
                 py:call(builtins, len, [#{<<"k">> => <<255>>}], #{}, #{binary => str})),
    Maps = [#{<<"key">> => <<"value">>} || _ <- lists:seq(1, 20)],
    ?assertEqual({list, [<<"b'key'">>]},
                 seen(Maps, <<"sorted({repr(k) for m in x for k in m})">>, #{binary => bytes})).

setting_binary(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{binary, bytes}]),
    ?assertEqual({bytes, <<"b'text'">>}, seen(<<"text">>)),
    ?assertEqual({str, <<"'text'">>}, seen(<<"text">>, <<"repr(x)">>, #{binary => auto})),
    ?assertEqual({ok, <<"bytes">>}, py:eval(py:context(1), <<"type(x).__name__">>, #{x => <<"text">>})),
    ?assertEqual({ok, 4.0}, py:call(<<"math">>, <<"sqrt">>, [16])),
    ok = py_modes:start(Mode, [{binary, str}]),
    ?assertEqual({error, {badarg, [locals, x], invalid_utf8}}, seen(<<255>>)),
    ?assertEqual({bytes, <<255>>}, seen(<<255>>, <<"x">>, #{binary => auto})),
    ok = py_modes:start(Mode).

%% Names are names, whatever binaries become.
names_of_locals(_) ->
    [?assertEqual({ok, {1, 2, 3}}, py:eval(<<"(größe, b, c)"/utf8>>,
                                           #{'größe' => 1, <<"b">> => 2, "c" => 3}, #{binary => Policy}))
     || Policy <- [auto, bytes, str]],
    ?assertEqual({ok, #{<<"k">> => <<"v">>}},
                 py:call(builtins, dict, [], #{<<"k">> => <<"v">>}, #{binary => bytes})),
    {error, {badarg, [locals, Twice], duplicate_key}} = py:eval(<<"x">>, #{"x" => 1, x => 2}),
    ?assert(Twice =:= x orelse Twice =:= "x"),
    ?assertEqual({error, {badarg, [locals, 1], bad_name}}, py:eval(<<"1">>, #{1 => 1})),
    ?assertEqual({error, {badarg, [locals, <<255>>], bad_name}}, py:eval(<<"1">>, #{<<255>> => 1})),
    ?assertEqual({error, {badarg, [locals, [16#D800]], bad_name}}, py:eval(<<"1">>, #{[16#D800] => 1})),
    ?assertEqual({error, {badarg, [1], bad_name}}, py:call(builtins, dict, [], #{1 => 1})).

%% ------------------------------------------------------------------------------------------
%% What Python cannot have
%% ------------------------------------------------------------------------------------------

refused_terms(_) ->
    [?assertEqual({error, {badarg, [1 | Path], Why}}, py:call(builtins, repr, [Term]), Term)
     || {Term, Path, Why} <-
            [{<<1:1>>, [], bitstring}, {[<<1:7>>], [1], bitstring}, {{a, [b, <<0:9>>]}, [2, 2], bitstring},
             {[1 | 2], [], improper_list}, {{[1, 2 | 3]}, [1], improper_list},
             {#{key => [a | b]}, [key], improper_list},
             {#{[a | b] => 1}, [[a | b]], improper_list},
             {#{{x, <<1:1>>} => 1}, [{x, <<1:1>>}, 2], bitstring},
             {[[], #{<<"k">> => {0, <<1:1>>}}], [2, <<"k">>, 2], bitstring},
             {[#{1 => #{2 => #{3 => <<1:1>>}}}], [1, 1, 2, 3], bitstring},
             {{bytes, <<1:1>>}, [2], bitstring}]],
    ?assertEqual({error, {badarg, [2, 1], bitstring}}, py:call(builtins, repr, [ok, [<<1:1>>]])),
    ?assertEqual({error, {badarg, [k, 1], bitstring}}, py:call(builtins, dict, [], #{k => [<<1:1>>]})),
    ?assertEqual({error, {badarg, [<<"k">>], bitstring}},
                 py:call(builtins, dict, [], [{<<"k">>, <<1:1>>}])),
    ?assertEqual({error, {badarg, [locals, x, 1], bitstring}}, py:eval(<<"x">>, #{x => [<<1:1>>]})),
    ?assertMatch({error, {badarg, [1], bitstring}}, py:await(py:spawn_call(builtins, repr, [<<1:1>>]))),
    ?assertMatch({error, {badarg, [1], bitstring}},
                 py_context:call(py:context(1), builtins, repr, [<<1:1>>])),
    {ok, List} = py:eval(<<"[]">>, #{}, #{return => handle}),
    ?assertEqual({error, {badarg, [1], bitstring}}, py:call(List, append, [<<1:1>>])),
    ?assertEqual({ok, []}, py:to_term(List)).

%% Nothing is dropped.
keys_that_are_one(_) ->
    [begin
         {error, {badarg, [1 | Path], duplicate_key}} = py:call(builtins, len, [Map]),
         Inner = lists:droplast(Path),
         ?assert(maps:is_key(lists:last(Path), lists:foldl(fun step/2, Map, Inner)), {Map, Path})
     end || Map <- [#{a => 1, <<"a">> => 2}, #{1 => a, 1.0 => b}, #{true => a, 1 => b}, #{false => a, 0.0 => b},
                    #{none => 1, undefined => 2}, #{nil => 1, none => 2}, #{{a, 1} => 1, {<<"a">>, 1.0} => 2},
                    #{{bytes, <<255>>} => 1, <<255>> => 2}, #{k => #{a => 1, <<"a">> => 2}},
                    maps:from_list([{<<"twice">>, 1}, {twice, 2} | [{I, I} || I <- lists:seq(1, 1000)]])]],
    %% 'a' and b'a' are two in Python, but one in Erlang.
    ?assertEqual({ok, 2}, py:call(builtins, len, [#{<<"a">> => 1, {bytes, <<"a">>} => 2}])),
    ?assertEqual({error, {unconvertible, [<<"a">>], <<"dict">>}}, same(#{<<"a">> => 1, {bytes, <<"a">>} => 2})).

step(N, List) when is_list(List) -> lists:nth(N, List);
step(N, Tuple) when is_tuple(Tuple) -> element(N, Tuple);
step(Key, #{} = Map) -> maps:get(Key, Map).

unhashable_keys(_) ->
    [?assertEqual({error, {badarg, [1 | Path], unhashable_key}}, py:call(builtins, len, [Map]), Map)
     || {Map, Path} <- [{#{[1] => x}, [[1]]}, {#{"" => x}, [""]}, {#{#{} => x}, [#{}]},
                        {#{{1, [2]} => x}, [{1, [2]}]}, {#{k => [#{#{a => b} => c}]}, [k, 1, #{a => b}]}]],
    {ok, Handle} = py:eval(<<"bytearray()">>, #{}, #{return => handle}),
    ?assertEqual({error, {badarg, [locals, x, Handle], unhashable_key}}, same(#{Handle => 1})),
    %% Python hashes nested tuples recursively: keys are kept shallow.
    Deep = lists:foldl(fun(_, T) -> {T} end, {}, lists:seq(1, 100000)),
    {error, {badarg, [1, Deep | _], too_deep}} = py:call(builtins, len, [#{Deep => 1}]),
    Shallow = lists:foldl(fun(_, T) -> {T} end, {}, lists:seq(1, 900)),
    ?assertEqual({ok, 1}, py:call(builtins, len, [#{Shallow => 1}])),
    ?assert(comes_back(#{Shallow => 1})).

handles_in(_) ->
    ok = py:exec(<<"class O: pass\no = O()\n"
                   "class H:\n  def __init__(self, error): self.error = error\n"
                   "  def __hash__(self): raise self.error\n"
                   "class E:\n  def __hash__(self): return 1\n"
                   "  def __eq__(self, other): raise ValueError('eq')\n">>),
    {ok, O} = py:eval(<<"o">>),
    ?assertEqual({ok, [true, true, true]},
                 py:eval(<<"[x is o, y[0][1] is o, list(z)[0] is o and list(z.values())[0] is o]">>,
                         #{x => O, y => [{1, O}], z => #{O => O}})),
    {ok, Raises} = py:eval(<<"H(ValueError('no hash'))">>),
    ?assertEqual({error, {'ValueError', "no hash"}}, same([#{Raises => 1}])),
    {ok, Unhashable} = py:eval(<<"H(TypeError('unhashable'))">>),
    ?assertEqual({error, {badarg, [locals, x, 1, Unhashable], unhashable_key}}, same([#{Unhashable => 1}])),
    {ok, E1} = py:eval(<<"E()">>),
    {ok, E2} = py:eval(<<"E()">>),
    ?assertEqual({error, {'ValueError', "eq"}}, same(#{E1 => 1, E2 => 2})),
    %% Two handles of one object are one key.
    {ok, O2} = py:eval(<<"o">>),
    ?assertMatch({error, {badarg, [locals, x, _], duplicate_key}}, same(#{O => 1, O2 => 2})).

%% ------------------------------------------------------------------------------------------
%% Python to Erlang
%% ------------------------------------------------------------------------------------------

%% Each a line of Python and the term it becomes; alone, in a list, and as a value of a dict.
check(Rows) ->
    check(Rows, #{}).

check(Rows, Locals) ->
    [begin
         ?assertEqual({ok, Term}, py:eval(Code, Locals), Code),
         ?assertEqual({ok, [Term, {Term, #{1 => Term}}]},
                      py:eval(<<"(lambda v: [v, (v, {1: v})])(", Code/binary, ")">>, Locals), Code)
     end || {Code, Term} <- Rows],
    ok.

scalars_out(_) ->
    check([{<<"None">>, none}, {<<"True">>, true}, {<<"False">>, false},
           {<<"0">>, 0}, {<<"-1">>, -1}, {<<"1.5">>, 1.5}, {<<"-0.0">>, -0.0}, {<<"1e308">>, 1.0e308},
           {<<"float('nan')">>, nan}, {<<"-float('nan')">>, nan}, {<<"float('inf')">>, infinity},
           {<<"-float('inf')">>, neg_infinity}, {<<"5e-324">>, 5.0e-324},
           {<<"complex(1, -2.5)">>, {1.0, -2.5}}, {<<"complex('nan+infj')">>, {nan, infinity}}]),
    [?assertEqual({ok, N}, py:eval(<<"int(x, 16)">>, #{x => hex(N)})) || N <- integers()],
    ?assertEqual({ok, [true, false, 0]}, py:eval(<<"[x.keys() == {1}, x is None, 0]">>, #{x => #{1 => 1}})).

text_out(_) ->
    check([{<<"''">>, <<>>}, {<<"'text'">>, <<"text">>}, {<<"'größe'"/utf8>>, <<"größe"/utf8>>},
           {<<"'日本語'"/utf8>>, <<"日本語"/utf8>>}, {<<"'a' * 64">>, binary:copy(<<"a">>, 64)},
           {<<"'a' * 65">>, binary:copy(<<"a">>, 65)}, {<<"'\\xe9' * 33">>, binary:copy(<<"é"/utf8>>, 33)},
           {<<"'\\0'">>, <<0>>}, {<<"'a\\0b'">>, <<"a", 0, "b">>},
           {<<"'😀' * 1000"/utf8>>, binary:copy(<<"😀"/utf8>>, 1000)},
           {<<"'\\x80\\u07ff\\u0800\\uffff\\U00010000\\U0010ffff'">>,
            <<16#80/utf8, 16#7ff/utf8, 16#800/utf8, 16#ffff/utf8, 16#10000/utf8, 16#10ffff/utf8>>}]).

%% Undecodable bytes that became a str come back as they were; other surrogates lose nothing.
lone_surrogates(_) ->
    check([{<<"'\\ud800'">>, <<237, 160, 128>>}, {<<"'a\\udfffb'">>, <<"a", 237, 191, 191, "b">>},
           {<<"b'a\\xff\\xc3'.decode('utf-8', 'surrogateescape')">>, <<"a", 255, 16#C3>>},
           {<<"'\\udc80\\ud800'">>, <<237, 178, 128, 237, 160, 128>>},
           {<<"'\\ud83d\\ude00'">>, <<237, 160, 189, 237, 184, 128>>},
           {<<"'x' * 100 + '\\udcff'">>, <<(binary:copy(<<"x">>, 100))/binary, 255>>}]),
    ?assertEqual({ok, #{<<255>> => 1}}, py:eval(<<"{'\\udcff': 1}">>)),
    ?assertEqual({error, {unconvertible, [<<255>>], <<"dict">>}}, py:eval(<<"{'\\udcff': 1, b'\\xff': 2}">>)),
    {error, {'ValueError', [16#D800]}} = py:exec(<<"raise ValueError('\\ud800')">>),
    ?assertMatch({error, {_, _}}, py:eval(<<"__import__('erlang').Atom('\\ud800')">>)),
    ?assertMatch({error, {_, _}}, py:eval(<<"__import__('erlang').atom('\\ud800')">>)),
    ?assertMatch({error, {_, _}}, py:eval(<<"getattr(1, '\\ud800')">>)).

bytes_out(_) ->
    check([{<<"b''">>, <<>>}, {<<"b'\\xff\\x00'">>, <<255, 0>>}, {<<"bytearray(b'abc')">>, <<"abc">>},
           {<<"bytearray(100)">>, <<0:800>>}, {<<"memoryview(b'abc')">>, <<"abc">>},
           {<<"memoryview(b'abcdef')[::2]">>, <<"ace">>}, {<<"memoryview(b'abc')[::-1]">>, <<"cba">>},
           {<<"memoryview(b'abc').cast('c')">>, <<"abc">>}, {<<"memoryview(b'')">>, <<>>},
           {<<"__import__('io').BytesIO(b'abc').getbuffer()">>, <<"abc">>},
           {<<"b'x' * 1000">>, binary:copy(<<"x">>, 1000)}]),
    ok = py:exec(<<"import mmap\nm = mmap.mmap(-1, 4096)\nm[:3] = b'map'">>),
    ?assertMatch({ok, <<"map", 0:(4093 * 8)>>}, py:eval(<<"m">>)),
    ok = py:exec(<<"m.close()\nr = memoryview(b'abc')\nr.release()">>),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"m">>)),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"[r]">>)).

sequences_out(_) ->
    Import = <<"__import__('collections').">>,
    check([{<<"[]">>, []}, {<<"[1, [2, ()]]">>, [1, [2, {}]]}, {<<"()">>, {}}, {<<"(1, (2,))">>, {1, {2}}},
           {<<"range(3)">>, [0, 1, 2]}, {<<"range(0)">>, []}, {<<"range(5, 0, -2)">>, [5, 3, 1]},
           {<<"range(2**70, 2**70 + 2)">>, [1 bsl 70, (1 bsl 70) + 1]},
           {<<"range(2**63 - 2, 2**63)">>, [(1 bsl 63) - 2, (1 bsl 63) - 1]},
           {<<"range(-2**63, -2**63 + 1)">>, [-(1 bsl 63)]},
           {<<Import/binary, "deque([1, 'a'], 5)">>, [1, <<"a">>]},
           {<<Import/binary, "namedtuple('P', 'x y')(1, [2])">>, {1, [2]}},
           {<<"__import__('time').struct_time(range(9))">>, {0, 1, 2, 3, 4, 5, 6, 7, 8}}]),
    ?assertEqual({error, {unconvertible, [], <<"range">>}}, py:eval(<<"range(10**18)">>)),
    ?assertEqual({error, {unconvertible, [1], <<"range">>}}, py:eval(<<"[range(2**200)]">>)).

maps_out(_) ->
    Import = <<"__import__('collections').">>,
    ok = py:exec(<<"from collections.abc import Mapping\n"
                   "class M(Mapping):\n"
                   "  def __init__(self, *keys): self.keys_ = keys\n"
                   "  def __getitem__(self, key): return [key]\n"
                   "  def __iter__(self): return iter(self.keys_)\n"
                   "  def __len__(self): return 10**9\n"
                   "class D(dict):\n  def __iter__(self): return iter(())\n  def keys(self): return []\n">>),
    check([{<<"{}">>, #{}}, {<<"{'a': 1, 2: {'b': None}}">>, #{<<"a">> => 1, 2 => #{<<"b">> => none}}},
           {<<"{(1, 'a'): 1, None: 2, True: 3, 2.5: 4, b'x': 5, frozenset([1]): 6}">>,
            #{{1, <<"a">>} => 1, none => 2, true => 3, 2.5 => 4, <<"x">> => 5, [1] => 6}},
           {<<Import/binary, "OrderedDict(b=1, a=2)">>, #{<<"b">> => 1, <<"a">> => 2}},
           {<<Import/binary, "defaultdict(list, a=[1])">>, #{<<"a">> => [1]}},
           {<<Import/binary, "Counter('aab')">>, #{<<"a">> => 2, <<"b">> => 1}},
           {<<Import/binary, "ChainMap({'a': 1}, {'b': 2})">>, #{<<"a">> => 1, <<"b">> => 2}},
           {<<Import/binary, "UserDict(a=1)">>, #{<<"a">> => 1}},
           {<<"__import__('types').MappingProxyType({'a': 1})">>, #{<<"a">> => 1}},
           {<<"M('a', 1)">>, #{<<"a">> => [<<"a">>], 1 => [1]}}, {<<"M()">>, #{}},
           {<<"D(a=1)">>, #{<<"a">> => 1}}]),
    [?assertEqual({ok, maps:from_list([{I, integer_to_binary(I)} || I <- lists:seq(1, N)])},
                  py:eval(<<"{i: str(i) for i in range(1, n + 1)}">>, #{n => N}))
     || N <- [31, 32, 33, 128, 129, 1000]],
    %% The same keys in many dicts, as the same objects and as others.
    ?assertEqual({ok, lists:duplicate(50, #{<<"key">> => 1, <<"größe"/utf8>> => 2})},
                 py:eval(<<"[{'key': 1, 'größe': 2} for _ in range(50)]"/utf8>>)),
    ?assertEqual({ok, [#{<<"key", (integer_to_binary(I rem 7))/binary>> => I} || I <- lists:seq(0, 99)]},
                 py:eval(<<"[{'key' + str(i % 7): i} for i in range(100)]">>)).

sets_out(_) ->
    check([{<<"set()">>, []}, {<<"{1}">>, [1]}, {<<"frozenset([(1, 'a')])">>, [{1, <<"a">>}]}]),
    {ok, Items} = py:eval(<<"set(range(1000))">>),
    ?assertEqual(lists:seq(0, 999), lists:sort(Items)).

times_out(_) ->
    ok = py:exec(<<"from datetime import *\nz = timezone(timedelta(hours=-3, minutes=-30))">>),
    check([{<<"datetime(2024, 1, 2, 3, 4, 5, 6)">>, <<"2024-01-02T03:04:05.000006">>},
           {<<"datetime(2024, 1, 2)">>, <<"2024-01-02T00:00:00">>},
           {<<"datetime(2024, 1, 2, 3, 4, 5, 600, timezone.utc)">>, <<"2024-01-02T03:04:05.000600+00:00">>},
           {<<"datetime(2024, 1, 2, 3, 4, 5, 0, z)">>, <<"2024-01-02T03:04:05-03:30">>},
           {<<"datetime.min">>, <<"0001-01-01T00:00:00">>}, {<<"date(2024, 2, 29)">>, {2024, 2, 29}},
           {<<"time(1, 2, 3)">>, <<"01:02:03">>}, {<<"time(1, 2, 3, 4)">>, <<"01:02:03.000004">>},
           {<<"timedelta(days=1, microseconds=5)">>, {timedelta, 86400000005}},
           {<<"timedelta(seconds=-1)">>, {timedelta, -1000000}},
           {<<"timedelta.max">>, {timedelta, 86399999999999999999}},
           {<<"type('T', (datetime,), {})(2024, 1, 2)">>, <<"2024-01-02T00:00:00">>}]).

numbers_as_text(_) ->
    check([{<<"__import__('decimal').Decimal('1.10')">>, <<"1.10">>},
           {<<"__import__('decimal').Decimal('-Infinity')">>, <<"-Infinity">>},
           {<<"__import__('fractions').Fraction(1, 3)">>, <<"1/3">>},
           {<<"__import__('uuid').UUID(int=1)">>, <<"00000000-0000-0000-0000-000000000001">>},
           {<<"__import__('pathlib').Path('/a/b')">>, <<"/a/b">>},
           {<<"__import__('pathlib').PureWindowsPath('C:/a')">>, <<"C:\\a">>},
           {<<"__import__('pathlib').Path(b'/a\\xff'.decode('utf-8', 'surrogateescape'))">>, <<"/a", 255>>}]).

enums_and_dataclasses(_) ->
    ok = py:exec(<<"from enum import *\nfrom dataclasses import dataclass, field\nimport abc\n"
                   "class E(Enum):\n  A = 1\n  B = 'b'\n  C = (1, [2])\n  D = None\n"
                   "class I(IntEnum):\n  A = 7\n"
                   "class F(Flag):\n  A = 1\n  B = 2\n"
                   "class T(str, Enum):\n  A = 'text'\n"
                   "class N(Enum):\n  INNER = E.B\n"
                   "@dataclass\nclass P:\n  x: int\n  y: object = field(default_factory=list)\n"
                   "@dataclass\nclass Q(P):\n  z: str = 'z'\n"
                   "@dataclass(frozen=True)\nclass R:\n  __slots__ = 'a', 'b'\n  a: int\n  b: int\n"
                   "class Meta(abc.ABCMeta): pass\n"
                   "class L(list, metaclass=Meta): pass\n"
                   "class S(int, metaclass=Meta): pass\n">>),
    check([{<<"E.A">>, 1}, {<<"E.B">>, <<"b">>}, {<<"E.C">>, {1, [2]}}, {<<"E.D">>, none}, {<<"I.A">>, 7},
           {<<"F.A | F.B">>, 3}, {<<"T.A">>, <<"text">>}, {<<"N.INNER">>, <<"b">>},
           {<<"[E.A, {E.B: I.A}]">>, [1, #{<<"b">> => 7}]},
           {<<"P(1)">>, #{<<"x">> => 1, <<"y">> => []}}, {<<"P(P(1), P(2, E.A))">>,
            #{<<"x">> => #{<<"x">> => 1, <<"y">> => []}, <<"y">> => #{<<"x">> => 2, <<"y">> => 1}}},
           {<<"Q(1, 2)">>, #{<<"x">> => 1, <<"y">> => 2, <<"z">> => <<"z">>}},
           {<<"R(1, 2)">>, #{<<"a">> => 1, <<"b">> => 2}},
           {<<"L([1, L()])">>, [1, []]}, {<<"S(5)">>, 5}]),
    %% A class of dataclasses is no dataclass; a field that is not there is an error of Python.
    {ok, Class} = py:eval(<<"P">>),
    ?assert(py:is_ref(Class)),
    ?assertMatch({error, {'AttributeError', _}}, py:eval(<<"[P.__new__(P)]">>)).

typed_buffers(Config) ->
    check([{<<"__import__('array').array('i', [1, -2])">>, [1, -2]},
           {<<"__import__('array').array('d', [1.5])">>, [1.5]},
           {<<"__import__('array').array('B', [1, 2])">>, [1, 2]},
           {<<"memoryview(__import__('array').array('h', [1, -2]))">>, [1, -2]},
           {<<"memoryview(__import__('array').array('d', [1.5, float('nan')]))">>, [1.5, nan]},
           {<<"memoryview(bytes(range(6))).cast('B', [2, 3])">>, [[0, 1, 2], [3, 4, 5]]},
           {<<"memoryview(b'\\x01\\x00').cast('?')">>, [true, false]},
           {<<"memoryview(b'\\xff').cast('b')">>, [-1]},
           {<<"memoryview(__import__('array').array('q', range(6)))[::2]">>, [0, 2, 4]}]),
    case py:exec(<<"import ctypes\nclass S(ctypes.Structure):\n  _fields_ = [('x', ctypes.c_int)]">>) of
        ok ->
            check([{<<"(ctypes.c_int * 3)(1, 2, 3)">>, [1, 2, 3]},
                   {<<"((ctypes.c_double * 2) * 2)((1, 2), (3, 4))">>, [[1.0, 2.0], [3.0, 4.0]]},
                   {<<"(ctypes.c_char * 2)(b'a', b'b')">>, [<<"a">>, <<"b">>]}]),
            {ok, Structure} = py:eval(<<"S(5)">>),
            ?assert(py:is_ref(Structure)),
            ?assertEqual({ok, 5}, py:getattr(Structure, x));
        {error, {'ImportError', _}} ->
            {comment, "no ctypes in mode " ++ atom_to_list(py_modes:mode(Config))}
    end.

%% An array of which nothing is known but the interface: type, shape, strides and memory.
array_interface_alone(_) ->
    ok = py:exec(<<"import array, struct\n"
                   "class D:\n"
                   "  def __init__(self, typestr, shape, data, **more):\n"
                   "    self.keep = data\n"
                   "    if not isinstance(data, bytes):\n"
                   "      data = (data.buffer_info()[0], False)\n"
                   "    self.interface = dict(version=3, typestr=typestr, shape=shape, data=data, **more)\n"
                   "  @property\n"
                   "  def __array_interface__(self): return self.interface\n"
                   "six = array.array('i', range(6))\n"
                   "class P:\n"
                   "  def __init__(self): self.keep = array.array('d', [1.5, 2.5])\n"
                   "  @property\n"
                   "  def __array_interface__(self):\n"
                   "    address = self.keep.buffer_info()[0] + 8\n"
                   "    return dict(version=3, typestr='<f8', shape=(2,), strides=(-8,), data=(address, True))\n">>),
    check([{<<"D('<i4', (6,), six)">>, [0, 1, 2, 3, 4, 5]}, {<<"D('<i4', (2, 3), six)">>, [[0, 1, 2], [3, 4, 5]]},
           {<<"D('<i4', (3, 2), six, strides=(4, 12))">>, [[0, 3], [1, 4], [2, 5]]},
           {<<"D('<i4', (2, 2), six, strides=(0, 4))">>, [[0, 1], [0, 1]]},
           {<<"D('<i4', (), six)">>, 0}, {<<"D('<i4', (2, 0), six)">>, [[], []]}, {<<"D('<i4', (0, 2), six)">>, []},
           {<<"P()">>, [2.5, 1.5]}, {<<"D('>u2', (2,), bytes([1, 2, 3, 4]))">>, [258, 772]},
           {<<"D('|u1', (2,), bytes([1, 2, 3, 4]), offset=1)">>, [2, 3]},
           {<<"D('|b1', (2,), bytes([1, 0]))">>, [true, false]},
           {<<"D('<c8', (1,), struct.pack('<2f', 1, 2))">>, [{1.0, 2.0}]},
           {<<"[D('<i4', (1,), six), 7]">>, [[0], 7]}]),
    %% What is no number is a handle; memory that is too short an error of Python.
    {ok, Handle} = py:eval(<<"D('|V4', (1,), six)">>),
    ?assert(py:is_ref(Handle)),
    ?assertMatch({error, {_, [_ | _]}}, py:eval(<<"D('<i8', (5,), b'abc')">>)).

%% What numpy looks like, without numpy.
array_interface(_) ->
    ok = py:exec(<<"class A:\n"
                   "  def __init__(self, value): self.value = value\n"
                   "  @property\n"
                   "  def __array_interface__(self): return {}\n"
                   "  def tolist(self): return self.value\n"
                   "class B(A): pass\n"
                   "class C:\n  __array_interface__ = {}\n"
                   "class I:\n"
                   "  def __getattr__(self, name): return 'everything'\n">>),
    check([{<<"A([[1, 2], [3, 4]])">>, [[1, 2], [3, 4]]}, {<<"A(1.5)">>, 1.5}, {<<"B([A(1), A([2])])">>, [1, [2]]}]),
    [begin
         {ok, Handle} = py:eval(Code),
         ?assert(py:is_ref(Handle))
     end || Code <- [<<"C()">>, <<"I()">>, <<"A">>]], % C's interface is empty
    ?assertMatch({error, {unconvertible, [], _}}, py:eval(<<"(lambda a: [setattr(a, 'value', a)] and a)(A(0))">>,
                                                          #{}, #{on_unknown => error})).

numpy_rows(_) ->
    case py:exec(<<"import numpy as np">>) of
        ok ->
            check([{<<"np.int8(-1)">>, -1}, {<<"np.uint64(2**64 - 1)">>, (1 bsl 64) - 1},
                   {<<"np.float32(0.5)">>, 0.5}, {<<"np.float64('nan')">>, nan}, {<<"np.bool_(True)">>, true},
                   {<<"np.longdouble(0.5)">>, 0.5}, {<<"np.complex64(1+2j)">>, {1.0, 2.0}},
                   {<<"np.clongdouble(1+2j)">>, {1.0, 2.0}}, {<<"np.str_('a')">>, <<"a">>},
                   {<<"np.bytes_(b'a')">>, <<"a">>}, {<<"np.arange(3)">>, [0, 1, 2]},
                   {<<"np.zeros((2, 0))">>, [[], []]}, {<<"np.array(5)">>, 5},
                   {<<"np.arange(6).reshape(2, 3).T[::-1]">>, [[2, 5], [1, 4], [0, 3]]},
                   {<<"np.array([1.5, np.inf])">>, [1.5, infinity]},
                   {<<"np.array(['a', 1], dtype=object)">>, [<<"a">>, 1]},
                   {<<"np.array([(1, 2.0)], dtype=[('x', int), ('y', float)])">>, [{1, 2.0}]},
                   {<<"memoryview(np.arange(3.0))">>, [0.0, 1.0, 2.0]},
                   {<<"np.ma.array([1, 2], mask=[0, 1])">>, [1, none]}]);
        {error, {_, _}} ->
            {skip, "this Python has no numpy: array_interface and typed_buffers stand for it"}
    end.

atoms_out(_) ->
    check([{<<"__import__('erlang').Atom('ok')">>, ok}, {<<"__import__('erlang').atom('größe')"/utf8>>, 'größe'},
           {<<"__import__('erlang').atom('😀')"/utf8>>, '😀'}, {<<"__import__('erlang').atom('')">>, ''},
           {<<"__import__('erlang').atom('a\\0b')">>, list_to_atom("a" ++ [0, $b])},
           {<<"__import__('erlang').atom('None')">>, 'None'},
           {<<"__import__('erlang').Atom('\\xe9' * 255)">>, list_to_atom(lists:duplicate(255, 16#e9))}]),
    ?assertEqual({ok, {true, <<"erlang.Atom('ok')">>, true, true}},
                 py:eval(<<"(lambda a: (a == 'ok', repr(a), hash(a) == hash('ok'), isinstance(a, str)))"
                           "(__import__('erlang').atom('ok'))">>)),
    ?assertMatch({error, {'ValueError', _}}, py:eval(<<"__import__('erlang').atom('x' * 256)">>)),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"__import__('erlang').atom(1)">>)),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"__import__('erlang').Atom(b'x')">>)),
    ?assertEqual({error, {unconvertible, [none], <<"dict">>}},
                 py:eval(<<"{None: 1, __import__('erlang').Atom('none'): 2}">>)).

subclasses_out(_) ->
    ok = py:exec(<<"def sub(base): return type('Sub', (base,), {'__str__': lambda s: 'no', '__iter__': None,\n"
                   "  '__len__': None, '__int__': None, '__index__': None, '__float__': None})">>),
    check([{<<"sub(int)(5)">>, 5}, {<<"sub(int)(2**70)">>, 1 bsl 70}, {<<"sub(float)(1.5)">>, 1.5},
           {<<"sub(str)('ä')"/utf8>>, <<"ä"/utf8>>}, {<<"sub(bytes)(b'a')">>, <<"a">>},
           {<<"sub(bytearray)(b'a')">>, <<"a">>}, {<<"sub(list)([1, 2])">>, [1, 2]},
           {<<"sub(tuple)((1, 2))">>, {1, 2}}, {<<"sub(dict)(a=1)">>, #{<<"a">> => 1}}]).

unknown_objects(_) ->
    Import = <<"__import__('itertools').">>,
    Codes = [<<"object()">>, <<"lambda: 1">>, <<"len">>, <<"int">>, <<"__import__('sys')">>, <<"iter([1])">>,
             <<"(i for i in [1])">>, <<"Ellipsis">>, <<"NotImplemented">>, <<Import/binary, "count()">>,
             <<"{}.keys()">>, <<"ValueError('x')">>, <<"__import__('threading').Lock()">>, <<"slice(1)">>],
    [begin
         {ok, Handle} = py:eval(Code),
         ?assert(is_reference(Handle) andalso py:is_ref(Handle), Code),
         {ok, [_, {Inner}]} = py:eval(<<"[1, (", Code/binary, ",)]">>),
         ?assert(py:is_ref(Inner), Code),
         {ok, Repr} = py:eval(Code, #{}, #{on_unknown => repr}),
         ?assert(is_binary(Repr), Code),
         ?assertMatch({error, {unconvertible, [], Type}} when is_binary(Type),
                      py:eval(Code, #{}, #{on_unknown => error}))
     end || Code <- Codes],
    ok = py:exec(<<"class Outer:\n  class Inner:\n    def __repr__(self): return 'ä\\ud800'"/utf8>>),
    ?assertEqual({error, {unconvertible, [2, <<"k">>], <<"__main__.Outer.Inner">>}},
                 py:eval(<<"[1, {'k': Outer.Inner()}]">>, #{}, #{on_unknown => error})),
    ?assertEqual({ok, [<<"ä"/utf8, 237, 160, 128>>]},
                 py:eval(<<"[Outer.Inner()]">>, #{}, #{on_unknown => repr})),
    ?assertEqual({ok, <<"<class 'int'>">>}, py:eval(<<"int">>, #{}, #{on_unknown => repr})).

%% ------------------------------------------------------------------------------------------
%% Handles
%% ------------------------------------------------------------------------------------------

handles_in_containers(_) ->
    ok = py:exec(<<"class O:\n  def __init__(self, n): self.n = n\na, b = O(1), O(2)">>),
    {ok, {[A], #{<<"b">> := B}}} = py:eval(<<"([a], {'b': b})">>),
    ?assert(py:is_ref(A) andalso py:is_ref(B)),
    ?assertEqual({ok, [1, 2]}, py:eval(<<"[x[0].n, x[1]['o'].n]">>, #{x => {A, #{o => B}}})),
    ?assertEqual({ok, true}, py:eval(<<"(x, y) == (a, b)">>, #{x => A, y => B})),
    {ok, Key} = py:eval(<<"{a: 1}">>),
    ?assertMatch([{_, 1}], maps:to_list(Key)),
    ?assertEqual({ok, true}, py:eval(<<"list(x)[0] is a">>, #{x => Key})),
    %% return => handle keeps what could be converted.
    {ok, List} = py:eval(<<"[1, a]">>, #{}, #{return => handle}),
    ?assertMatch({ok, [1, _]}, py:to_term(List)),
    ?assertEqual({ok, 2}, py:eval(<<"len(x)">>, #{x => List})),
    {ok, None} = py:eval(<<"None">>, #{}, #{return => handle}),
    ?assert(py:is_ref(None)),
    ?assertEqual({ok, none}, py:to_term(None)),
    ?assertNot(py:is_ref(make_ref())),
    %% Another process, another node's text format: still the object.
    [{ok, 1}] = py_modes:at_once([fun() -> py:getattr(A, n) end]).

other_interpreter(Config) ->
    [C1, C2] = [py:context(N) || N <- [1, 2]],
    {ok, Handle} = py:eval(C1, <<"object()">>),
    Nested = #{k => [0, {Handle}]},
    case py_modes:is_main(py_modes:mode(Config)) of
        true ->
            ?assertMatch({ok, <<"object">>}, py:eval(C2, <<"type(x['k'][1][0]).__name__">>, #{x => Nested}));
        false ->
            ?assertEqual({error, {badarg, [1], other_interpreter}}, py:call(C2, builtins, repr, [Handle])),
            ?assertEqual({error, {badarg, [2, k, 2, 1], other_interpreter}},
                         py:call(C2, builtins, repr, [0, Nested])),
            ?assertEqual({error, {badarg, [locals, x, Handle], other_interpreter}},
                         py:eval(C2, <<"x">>, #{x => #{Handle => 1}}))
    end,
    %% Without a context the call goes where its argument lives.
    ?assertEqual({ok, true}, py:call(builtins, isinstance,
                                     [Handle, element(2, py:eval(C1, <<"object">>))])),
    ?assertMatch({ok, <<"<object", _/binary>>}, py:call(builtins, repr, [Handle])).

handles_are_freed(_) ->
    ok = py:exec(<<"import weakref\nclass O: pass\no = O()\nw = weakref.ref(o)">>),
    {ok, Handle} = py:eval(<<"[o, {'k': o}]">>),
    ok = py:exec(<<"del o">>),
    ?assertEqual({ok, false}, py:eval(<<"w() is None">>)),
    ?assertMatch([_, #{}], Handle),
    gone(),
    py_modes:wait_until(fun() ->
        erlang:garbage_collect(),
        py:eval(<<"w() is None">>) =:= {ok, true}
    end),
    %% A failed conversion frees the handles it had made.
    ok = py:exec(<<"o = O()\nw = weakref.ref(o)">>),
    ?assertMatch({error, {unconvertible, [2], _}}, py:eval(<<"[o, range(10**12)]">>)),
    ok = py:exec(<<"del o">>),
    py_modes:wait_until(fun() ->
        erlang:garbage_collect(),
        py:eval(<<"w() is None">>) =:= {ok, true}
    end).

%% Not inlined: the caller's registers are free of what it held.
gone() ->
    ok.

%% ------------------------------------------------------------------------------------------
%% Errors on the way out
%% ------------------------------------------------------------------------------------------

colliding_keys_out(_) ->
    [?assertEqual({error, {unconvertible, Path, Type}}, py:eval(Code), Code)
     || {Code, Path, Type} <-
            [{<<"{'a': 1, b'a': 2}">>, [<<"a">>], <<"dict">>}, {<<"{b'': 1, '': 2}">>, [<<>>], <<"dict">>},
             {<<"[0, {'k': {'a': 1, b'a': 2}}]">>, [2, <<"k">>, <<"a">>], <<"dict">>},
             {<<"{frozenset([1]): 1, range(1, 2): 2}">>, [[1]], <<"dict">>},
             {<<"__import__('collections').OrderedDict([('a', 1), (b'a', 2)])">>, [<<"a">>],
              <<"collections.OrderedDict">>},
             {<<"{**{i: i for i in range(1000)}, 'a': 1, b'a': 2}">>, [<<"a">>], <<"dict">>},
             {<<"{**{i: i for i in range(30)}, 'a': 1, b'a': 2}">>, [<<"a">>], <<"dict">>},
             {<<"{float('nan'): 1, float('nan') * -1: 2}">>, [nan], <<"dict">>}]],
    %% Every place two keys can have among 40.
    Colliding = <<"{(b'a' if i == j else 'a' if i == k else i): i for i in range(40)}">>,
    [?assertEqual({error, {unconvertible, [<<"a">>], <<"dict">>}}, py:eval(Colliding, #{j => J, k => K}))
     || J <- [0, 1, 30, 31, 32, 33, 39], K <- [0, 1, 31, 32, 39], J =/= K].

paths_out(_) ->
    ok = py:exec(<<"class O: pass\no = O()\nfrom dataclasses import dataclass\n"
                   "@dataclass\nclass P:\n  x: object">>),
    [?assertEqual({error, {unconvertible, Path, <<"__main__.O">>}},
                  py:eval(Code, #{}, #{on_unknown => error}), Code)
     || {Code, Path} <- [{<<"o">>, []}, {<<"[o]">>, [1]}, {<<"(1, o)">>, [2]}, {<<"{'k': o}">>, [<<"k">>]},
                         {<<"[[], {1: (0, [o])}]">>, [2, 1, 2, 1]}, {<<"P(o)">>, [<<"x">>]},
                         {<<"[P({'a': o})]">>, [1, <<"x">>, <<"a">>]}, {<<"{(1, 2): o}">>, [{1, 2}]},
                         {<<"__import__('collections').deque([1, o])">>, [2]}, {<<"{o}">>, [1]},
                         %% In a key the path ends at its map: the key has no term.
                         {<<"[{o: 1}]">>, [1]}, {<<"[{(1, o): 1}]">>, [1]},
                         {<<"[1] * 50 + [o]">>, [51]}]],
    ?assertEqual({error, {unconvertible, [], <<"__main__.O">>}},
                 py:call('__main__', 'O', [], #{}, #{on_unknown => error})).
