-module(prop_convert).

%% @doc Properties of the conversion, against a model in Erlang of both tables. Each runs in the mode
%% the application was started in; convert_SUITE runs them in all.

-export([failed/1, failed/2, properties/0]).
-export([prop_round_trip/0, prop_keys/0, prop_binaries/0, prop_policies/0, prop_code_points/0,
         prop_integers/0, prop_floats/0, prop_python_values/0, prop_paths_in/0, prop_paths_out/0,
         prop_python_collisions/0, prop_deep/0, prop_wide/0]).

-include("prop.hrl").

-import(proper_types, [integer/2, float/0, binary/0, binary/1, list/1, vector/2, oneof/1, frequency/1,
                       resize/2]).

%% The properties that do not hold in so many tests, with counterexamples.
failed(Tests) ->
    failed(Tests, properties()).

failed(Tests, Properties) ->
    [{Name, Counterexample} || {Name, Property} <- Properties,
                               Counterexample <- [counterexample(Property(), Tests)],
                               Counterexample =/= true].

counterexample(Property, Tests) ->
    case proper:quickcheck(Property, [quiet, {numtests, Tests}, {max_size, 30}]) of
        true -> true;
        {error, Reason} -> Reason;
        false -> proper:counterexample()
    end.

properties() ->
    [{Name, fun ?MODULE:Name/0} || {Name, 0} <- ?MODULE:module_info(exports),
                                   lists:prefix("prop_", atom_to_list(Name))].

%% ------------------------------------------------------------------------------------------
%% Properties
%% ------------------------------------------------------------------------------------------

%% What comes back is the image, or the error says where what is wrong.
prop_round_trip() ->
    ?FORALL(Term, any_term(), returned(Term, same(Term))).

returned(Term, {ok, Back}) ->
    image(Term) =:= {ok, Back};
returned(Term, {error, {badarg, [locals, x | Path], Why}}) ->
    is_refused(Why, Term, Path);
returned(Term, {error, {unconvertible, _, <<"dict">>}}) ->
    image(Term) =:= colliding;
returned(_, _) ->
    false.

%% Maps whose keys are likely to be equal in Python, in Erlang, or nearly.
prop_keys() ->
    Map = ?LET(Pairs, list({near_key(), small_integer()}), maps:from_list(Pairs)),
    ?FORALL(Term, oneof([Map, [Map], {ok, #{k => Map}}]), returned(Term, same(Term))).

%% Any bytes: text if they are UTF-8, and never anything else than themselves.
prop_binaries() ->
    ?FORALL(Binary, some_bytes(),
            py:eval(<<"(type(x).__name__, x)">>, #{x => Binary}) =:= {ok, {type_of(Binary), Binary}}).

type_of(Binary) ->
    case is_text(Binary) of
        true -> <<"str">>;
        false -> <<"bytes">>
    end.

%% The option decides, whatever the bytes are.
prop_policies() ->
    ?FORALL({Binary, Policy}, {some_bytes(), oneof([bytes, str])},
            py:eval(<<"[type(x).__name__, x]">>, #{x => Binary}, #{binary => Policy}) =:=
                case {Policy, is_text(Binary)} of
                    {str, false} -> {error, {badarg, [locals, x], invalid_utf8}};
                    {Policy, _} -> {ok, [atom_to_binary(Policy), Binary]}
                end).

%% Any str, surrogates too: nothing is lost.
prop_code_points() ->
    ?FORALL(Points, list(code_point()),
            py:eval(<<"''.join(map(chr, x))">>, #{x => Points}) =:= {ok, encoded(Points)}).

encoded(Points) ->
    Surrogates = [P || P <- Points, is_surrogate(P)],
    IsEscape = Surrogates =/= [] andalso lists:all(fun(P) -> P >= 16#DC80 andalso P =< 16#DCFF end, Surrogates),
    << <<(case is_surrogate(P) of
              false -> <<P/utf8>>;
              true when IsEscape -> <<(P - 16#DC00)>>;
              true -> <<2#1110:4, (P bsr 12):4, 2#10:2, (P bsr 6):6, 2#10:2, P:6>>
          end)/binary>> || P <- Points >>.

is_surrogate(P) ->
    P >= 16#D800 andalso P < 16#E000.

%% Of any size, in both directions and as Python sees them.
prop_integers() ->
    ?FORALL(N, any_integer(),
            py:eval(<<"('%x' % x, x, int(y, 16))">>, #{x => N, y => integer_to_binary(N, 16)})
                =:= {ok, {string:lowercase(integer_to_binary(N, 16)), N, N}}).

%% Any 64 bits.
prop_floats() ->
    Code = <<"(lambda f: [f, __import__('struct').pack('>d', f)])(__import__('struct').unpack('>d', x)[0])">>,
    ?FORALL(Bits, bits_of_float(),
            case {<<Bits:64>>, py:eval(Code, #{x => {bytes, <<Bits:64>>}})} of
                {<<F/float>>, {ok, [Back, Same]}} -> {<<Back/float>>, Same} =:= {<<F/float>>, <<Bits:64>>}
                                                         andalso same_float(F);
                {<<0:1, 2047:11, 0:52>>, {ok, [infinity, _]}} -> true;
                {<<1:1, 2047:11, 0:52>>, {ok, [neg_infinity, _]}} -> true;
                {<<_:1, 2047:11, _:52>>, {ok, [nan, _]}} -> true;
                _ -> false
            end).

same_float(F) ->
    {ok, Back} = same(F),
    <<F/float>> =:= <<Back/float>>.

%% Source text of Python values, of every row of the table, nested.
prop_python_values() ->
    ?FORALL({Code, Term}, python_value(),
            py:eval(<<"(lambda dt, co, de, fr, uu, pa, ar, ty, er: ", Code/binary, ")"
                      "(*map(__import__, ('datetime', 'collections', 'decimal', 'fractions', 'uuid', "
                      "'pathlib', 'array', 'types', 'erlang')))">>) =:= {ok, Term}).

%% One thing that Python cannot have, somewhere.
prop_paths_in() ->
    ?FORALL({Term, Path, Why}, ?SIZED(Size, bad_term(Size)),
            py:call(builtins, len, [[], Term]) =:= {error, {badarg, [2 | Path], Why}}).

%% One object without a term, somewhere.
prop_paths_out() ->
    ?FORALL({Code, Path}, ?SIZED(Size, bad_value(Size)),
            py:eval(Code, #{}, #{on_unknown => error}) =:= {error, {unconvertible, Path, <<"object">>}}).

%% Two keys that become the same term, among others.
prop_python_collisions() ->
    ?FORALL({N, A, B}, {integer(0, 300), integer(0, 300), integer(0, 300)},
            py:eval(<<"dict([(i, i) for i in range(n)][:a] + [('k', 1)] + [(-i - 1, i) for i in range(b)]"
                      " + [(b'k', 2)] + [(i, i) for i in range(n)][a:])">>, #{n => N, a => A, b => B})
                =:= {error, {unconvertible, [<<"k">>], <<"dict">>}}).

%% Chains of containers of all kinds.
prop_deep() ->
    Kinds = vector(6, integer(0, 5)),
    ?FORALL({Kind, Depth}, {Kinds, integer(1, 20000)},
            begin
                Term = nest(Depth, Kind, <<"end">>),
                {ok, Back} = same(Term),
                Back =:= Term
            end).

nest(0, _, Inner) -> Inner;
nest(Depth, [Kind | Kinds], Inner) -> nest(Depth - 1, Kinds ++ [Kind], wrap(Kind, Inner)).

wrap(0, Inner) -> [Inner];
wrap(1, Inner) -> {Inner};
wrap(2, Inner) -> #{1 => Inner};
wrap(3, Inner) -> [1, Inner, <<"b">>];
wrap(4, Inner) -> {none, Inner, 2.5};
wrap(5, Inner) -> #{<<"a">> => 1, <<"b">> => Inner, <<"c">> => []}.

prop_wide() ->
    ?FORALL({Item, N, Kind}, {plain_scalar(), integer(0, 30000), integer(0, 2)},
            begin
                Term = case Kind of
                           0 -> lists:duplicate(N, Item);
                           1 -> list_to_tuple(lists:duplicate(N, Item));
                           2 -> maps:from_list([{I, Item} || I <- lists:seq(1, N)])
                       end,
                {ok, Back} = same(Term),
                Back =:= Term
            end).

same(Term) ->
    py:eval(<<"x">>, #{x => Term}).

%% ------------------------------------------------------------------------------------------
%% The model
%% ------------------------------------------------------------------------------------------

%% What comes back of a term: {ok, Image}, refused, or colliding when two keys become one.
image(Term) ->
    try
        {ok, back(Term)}
    catch
        throw:Reason -> Reason
    end.

back(Atom) when Atom =:= true; Atom =:= false -> Atom;
back(Atom) when Atom =:= nil; Atom =:= undefined; Atom =:= none -> none;
back(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
back({bytes, Bytes}) when is_binary(Bytes) -> Bytes;
back(Tuple) when is_tuple(Tuple) -> list_to_tuple(back(tuple_to_list(Tuple)));
back([]) -> [];
back([Head | Tail]) when is_list(Tail) -> [back(Head) | back(Tail)];
back([_ | _]) -> throw(refused);
back(#{} = Map) ->
    Pairs = [{back(Key), back(Value)} || {Key, Value} <- maps:to_list(Map)],
    Python = [python_key(Key) || Key <- maps:keys(Map)],
    length(lists:usort(Python)) =:= length(Python) orelse throw(refused),
    Back = maps:from_list(Pairs),
    map_size(Back) =:= map_size(Map) orelse throw(colliding),
    Back;
back(Bits) when is_bitstring(Bits), not is_binary(Bits) -> throw(refused);
back(Term) -> Term.

%% Equal for keys that are equal in Python.
python_key(true) -> {number, 1};
python_key(false) -> {number, 0};
python_key(Number) when is_integer(Number) -> {number, Number};
python_key(Number) when is_float(Number), trunc(Number) == Number -> {number, trunc(Number)};
python_key(Number) when is_float(Number) -> {number, Number};
python_key(Atom) when Atom =:= nil; Atom =:= undefined; Atom =:= none -> none;
python_key(Atom) when is_atom(Atom) -> {str, atom_to_binary(Atom)};
python_key(Binary) when is_binary(Binary) ->
    case is_text(Binary) of
        true -> {str, Binary};
        false -> {bytes, Binary}
    end;
python_key({bytes, Bytes}) when is_binary(Bytes) -> {bytes, Bytes};
python_key(Tuple) when is_tuple(Tuple) -> {tuple, [python_key(Item) || Item <- tuple_to_list(Tuple)]};
python_key(Container) when is_list(Container); is_map(Container) -> throw(refused);
python_key(Term) -> Term.

%% Whether there is a reason for the error at the end of the path.
is_refused(Why, [Head | _], [1 | Path]) ->
    is_refused(Why, Head, Path);
is_refused(Why, [_ | Tail], [Step | Path]) when is_integer(Step), Step > 1 ->
    is_refused(Why, Tail, [Step - 1 | Path]);
is_refused(Why, Tuple, [Step | Path]) when is_tuple(Tuple), Step >= 1, Step =< tuple_size(Tuple) ->
    is_refused(Why, element(Step, Tuple), Path);
is_refused(Why, Map, [Key]) when is_map_key(Key, Map),
                                 (Why =:= duplicate_key orelse Why =:= unhashable_key) ->
    try [python_key(K) || K <- maps:keys(Map)] of
        Keys -> Why =:= duplicate_key andalso length(lists:usort(Keys)) < length(Keys)
    catch
        throw:refused -> true
    end;
is_refused(Why, Map, [Key | Path]) when is_map_key(Key, Map) ->
    %% In the value or in the key itself.
    is_refused(Why, maps:get(Key, Map), Path) orelse is_refused(Why, Key, Path);
is_refused(bitstring, Term, []) ->
    is_bitstring(Term) andalso not is_binary(Term);
is_refused(improper_list, Term, []) ->
    is_list(Term) andalso not is_proper(Term);
is_refused(_, _, _) ->
    false.

is_proper([_ | Tail]) -> is_proper(Tail);
is_proper(Tail) -> Tail =:= [].

is_text(Binary) ->
    is_binary(unicode:characters_to_binary(Binary)).

%% ------------------------------------------------------------------------------------------
%% Terms
%% ------------------------------------------------------------------------------------------

any_term() ->
    ?SIZED(Size, any_term(Size)).

any_term(0) ->
    scalar_or_refused();
any_term(Size) ->
    Inner = ?LAZY(any_term(Size div 3)),
    frequency(
        [{3, scalar()}, {3, resize(Size, list(Inner))},
         {2, ?LET(Items, resize(Size, list(Inner)), list_to_tuple(Items))},
         {3, ?LET(Pairs, resize(Size, list({key(Size div 3), Inner})),
                  maps:from_list(Pairs))},
         {1, ?LET({N, Item}, {integer(0, 50), Inner}, lists:duplicate(N, Item))}]).

key(Size) ->
    frequency([{10, hashable(Size)}, {2, near_key()}, {1, any_term(Size div 3)}]).

hashable(0) -> scalar();
hashable(Size) ->
    oneof([scalar(), ?LET(Items, vector(2, ?LAZY(hashable(Size div 3))),
                                       list_to_tuple(Items))]).

near_key() ->
    oneof([a, <<"a">>, {bytes, <<"a">>}, 1, 1.0, true, 0, 0.0, false, none, nil, undefined,
                        <<"none">>, <<255>>, {bytes, <<255>>}, {1, a}, {1.0, <<"a">>}, {true, {bytes, <<"a">>}},
                        1 bsl 70, (1 bsl 70) * 1.0, [], {}, {bytes, 1}, small_integer()]).

scalar() ->
    frequency(
        [{4, plain_scalar()}, {2, any_atom()}, {2, some_bytes()}, {1, {bytes, some_bytes()}},
         {1, identifier()}]).

%% With this a large term is mostly refused.
scalar_or_refused() ->
    frequency([{50, scalar()}, {1, <<5:3>>}, {1, [1 | 2]}]).

plain_scalar() ->
    oneof([small_integer(), any_integer(), float(), some_float(), some_text(), true,
                        false, none]).

small_integer() ->
    integer(-20, 20).

any_integer() ->
    ?LET({Bits, Offset, Sign, Mantissa},
         {oneof([0, 7, 8, 31, 32, 59, 60, 62, 63, 64, 65, 128, 2040,
                              integer(0, 4000), integer(0, 40000)]),
          integer(-2, 2), oneof([1, -1]),
          oneof([1, integer(1, 1 bsl 70)])},
         Sign * ((Mantissa bsl Bits) + Offset)).

some_float() ->
    ?SUCHTHAT(F, ?LET(Bits, bits_of_float(),
                      case <<Bits:64>> of <<Float/float>> -> Float; _ -> 0.5 end), is_float(F)).

bits_of_float() ->
    oneof([integer(0, (1 bsl 64) - 1), 0, 1 bsl 63, 2047 bsl 52, 4095 bsl 52,
                        (2047 bsl 52) + 1, (4095 bsl 52) + (1 bsl 51), (2047 bsl 52) - 1, 1]).

any_atom() ->
    oneof([ok, true, false, none, nil, undefined, nan, '', 'größe', '日本語', '😀', 'a b', bytes,
                        error, infinity]).

some_text() ->
    ?LET(Points, list(?SUCHTHAT(P, code_point(), not is_surrogate(P))),
         unicode:characters_to_binary(Points)).

code_point() ->
    oneof([integer(0, 127), integer($a, $z), integer(128, 16#7ff),
                        integer(16#d7f0, 16#e010), integer(16#dc70, 16#dd10),
                        integer(16#fff0, 16#10010), integer(16#10fff0, 16#10ffff)]).

%% Text, bytes, text with a byte too much or too little, runs about the lengths that matter.
some_bytes() ->
    oneof(
        [binary(), some_text(), <<>>,
         ?LET({Text, Byte}, {some_text(), binary(1)}, <<Text/binary, Byte/binary>>),
         ?LET({A, Byte, B}, {some_text(), binary(1), some_text()}, <<A/binary, Byte/binary, B/binary>>),
         ?LET({Text, N}, {some_text(), integer(0, 5)},
              binary:part(Text, 0, max(0, byte_size(Text) - N))),
         ?LET({N, Text}, {integer(0, 300), some_text()}, <<(binary:copy(<<"x">>, N))/binary, Text/binary>>),
         ?LET(Bytes, list(oneof([16#7f, 16#80, 16#bf, 16#c0, 16#c2, 16#e0, 16#9f, 16#a0,
                                                           16#ed, 16#ef, 16#f0, 16#8f, 16#90, 16#f4, 16#f5, 16#ff])),
              list_to_binary(Bytes))]).

identifier() ->
    ?LAZY(oneof([self(), make_ref(), hd(erlang:ports()), fun lists:map/2, fun ?MODULE:failed/1,
                              binary_to_term(<<131, 88, 119, 3, "x@y", 7:32, 8:32, 9:32>>)])).

%% {Term, Path, Why} of a term with one thing in it that is refused.
bad_term(0) ->
    oneof([{<<5:3>>, [], bitstring}, {[1 | 2], [], improper_list}, {[[], 2 | x], [], improper_list},
                        {#{{[1]} => 1}, [{[1]}], unhashable_key}]);
bad_term(Size) ->
    Inner = ?LAZY(bad_term(Size div 2)),
    Good = list(plain_scalar()),
    frequency(
        [{1, bad_term(0)},
         {3, ?LET({A, {T, P, W}, B}, {Good, Inner, Good}, {A ++ [T | B], [length(A) + 1 | P], W})},
         {3, ?LET({A, {T, P, W}, B}, {Good, Inner, Good}, {list_to_tuple(A ++ [T | B]), [length(A) + 1 | P], W})},
         {3, ?LET({N, K, {T, P, W}}, {integer(0, 50), oneof([k, <<"k">>, {k, 1}, -1]), Inner},
                  {maps:put(K, T, maps:from_list([{I, I} || I <- lists:seq(1, N)])), [K | P], W})}]).

%% ------------------------------------------------------------------------------------------
%% Python values
%% ------------------------------------------------------------------------------------------

python_value() ->
    ?SIZED(Size, python_value(Size)).

python_value(0) ->
    oneof([python_number(), python_text(), python_time(), python_known(), python_buffer()]);
python_value(Size) ->
    Items = resize(max(1, Size div 4), list(?LAZY(python_value(Size div 3)))),
    frequency(
        [{2, python_value(0)},
         {2, wrapped(Items, "[", "]", fun(Terms) -> Terms end)},
         {1, wrapped(Items, "co.deque([", "])", fun(Terms) -> Terms end)},
         {2, wrapped(Items, "tuple([", "])", fun list_to_tuple/1)},
         {1, ?LET(Values, Items, {named_tuple([Code || {Code, _} <- Values]),
                                  list_to_tuple([Term || {_, Term} <- Values])})},
         {2, dict(Items, "dict([", "])")}, {1, dict(Items, "co.OrderedDict([", "])")},
         {1, dict(Items, "ty.MappingProxyType(dict([", "]))")},
         {1, dict(Items, "co.UserDict([", "])")}]).

named_tuple(Codes) ->
    Names = [io_lib:format("'f~b'", [I]) || {I, _} <- lists:enumerate(Codes)],
    iolist_to_binary(["co.namedtuple('N', [", lists:join(",", Names), "])(", lists:join(",", Codes), ")"]).

wrapped(Items, Before, After, Make) ->
    ?LET(Values, Items,
         {iolist_to_binary([Before, lists:join(",", [Code || {Code, _} <- Values]), After]),
          Make([Term || {_, Term} <- Values])}).

dict(Items, Before, After) ->
    ?LET(Values, Items,
         {iolist_to_binary([Before, lists:join(",", [["('", integer_to_list(I), "',", Code, ")"]
                                                     || {I, {Code, _}} <- lists:enumerate(Values)]), After]),
          maps:from_list([{integer_to_binary(I), Term} || {I, {_, Term}} <- lists:enumerate(Values)])}).

python_number() ->
    oneof(
        [?LET(N, any_integer(), {<<"int('", (integer_to_binary(N, 16))/binary, "', 16)">>, N}),
         ?LET(N, small_integer(), {integer_to_binary(N), N}),
         ?LET(F, some_float(), {float_to_binary(F, [{scientific, 20}]), F}),
         {<<"True">>, true}, {<<"False">>, false}, {<<"None">>, none},
         {<<"float('nan')">>, nan}, {<<"float('inf')">>, infinity}, {<<"-float('inf')">>, neg_infinity},
         ?LET(N, small_integer(), {<<"complex(", (integer_to_binary(N))/binary, ", -1)">>, {float(N), -1.0}}),
         ?LET(N, any_integer(), {<<"de.Decimal(", (small(N))/binary, ")">>, small(N)}),
         ?LET(N, small_integer(), {<<"fr.Fraction(", (integer_to_binary(N * 7 + 1))/binary, ", 7)">>,
                                   <<(integer_to_binary(N * 7 + 1))/binary, "/7">>}),
         ?LET({A, N}, {small_integer(), integer(0, 50)},
              {iolist_to_binary(io_lib:format("range(~b, ~b)", [A, A + N])), lists:seq(A, A + N - 1)})]).

small(N) ->
    integer_to_binary(N rem 1000000000000000000000).

python_text() ->
    oneof(
        [?LET(Points, list(code_point()), {literal(Points), encoded(Points)}),
         ?LET(Bytes, binary(), {bytes_literal(Bytes), Bytes}),
         ?LET(Bytes, binary(), {<<"bytearray(", (bytes_literal(Bytes))/binary, ")">>, Bytes}),
         ?LET(Bytes, binary(), {<<"memoryview(", (bytes_literal(Bytes))/binary, ")">>, Bytes}),
         ?LET(Atom, any_atom(), {<<"er.Atom(", (literal(atom_to_list(Atom)))/binary, ")">>, Atom}),
         {<<"pa.PurePosixPath('/a')">>, <<"/a">>},
         ?LET(N, integer(0, 16#ffff),
              {<<"uu.UUID(int=", (integer_to_binary(N))/binary, ")">>,
               iolist_to_binary(io_lib:format("00000000-0000-0000-0000-~12.16.0b", [N]))})]).

literal(Points) ->
    iolist_to_binary([$', [io_lib:format("\\U~8.16.0b", [P]) || P <- Points], $']).

bytes_literal(Bytes) ->
    iolist_to_binary(["b'", [io_lib:format("\\x~2.16.0b", [B]) || <<B>> <= Bytes], $']).

python_time() ->
    oneof(
        [?LET({Y, M, D}, {integer(1, 9999), integer(1, 12), integer(1, 28)},
              {iolist_to_binary(io_lib:format("dt.date(~b, ~b, ~b)", [Y, M, D])), {Y, M, D}}),
         ?LET({Y, S, U}, {integer(1, 9999), integer(0, 59), integer(1, 999999)},
              {iolist_to_binary(io_lib:format("dt.datetime(~b, 1, 2, 3, 4, ~b, ~b, dt.timezone.utc)", [Y, S, U])),
               iolist_to_binary(io_lib:format("~4..0b-01-02T03:04:~2..0b.~6..0b+00:00", [Y, S, U]))}),
         ?LET(U, integer(-(1 bsl 60), 1 bsl 60),
              {iolist_to_binary(io_lib:format("dt.timedelta(microseconds=~b)", [U])), {timedelta, U}})]).

python_known() ->
    ?LET(N, small_integer(), {<<"ty.SimpleNamespace(x=", (integer_to_binary(N))/binary, ").x">>, N}).

python_buffer() ->
    ?LET(Numbers, list(integer(-32768, 32767)),
         begin
             Array = iolist_to_binary(io_lib:format("ar.array('h', ~w)", [Numbers])),
             oneof([{Array, Numbers}, {<<"memoryview(", Array/binary, ")">>, Numbers},
                                 {<<"memoryview(", Array/binary, ")[::-1]">>, lists:reverse(Numbers)}])
         end).

%% {Code, Path} of a value with one object in it that has no term.
bad_value(0) ->
    {<<"object()">>, []};
bad_value(Size) ->
    Inner = ?LAZY(bad_value(Size div 2)),
    N = integer(0, 100),
    Format = fun(F, Arguments) -> iolist_to_binary(io_lib:format(F, Arguments)) end,
    frequency(
        [{1, bad_value(0)},
         {3, ?LET({A, {C, P}, B}, {N, Inner, N}, {Format("[0] * ~b + [~s] + [''] * ~b", [A, C, B]), [A + 1 | P]})},
         {3, ?LET({A, {C, P}, B}, {N, Inner, N}, {Format("(*([[1]] * ~b), ~s, *([1] * ~b))", [A, C, B]), [A + 1 | P]})},
         {3, ?LET({A, {C, P}, B}, {N, Inner, N},
                  {Format("{**{i: i for i in range(~b)}, 'k': ~s, **{-i - 1: [] for i in range(~b)}}", [A, C, B]),
                   [<<"k">> | P]})}]).
