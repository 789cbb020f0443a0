-module(convert).

%% @doc What does it cost to hand a term to Python and get it back? The floor does what any way to another thread does:
%% a hand-off, and the term to its external format and back.

-export([about/0, rows/2]).

-spec about() -> string().
about() -> "what does it cost to hand a term to Python and get it back".

-spec rows(atom(), bench:options()) -> [bench:row()].
rows(_Mode, Options) ->
    Buffer = {buffer, binary:copy(<<255>>, 1000000)},
    [row(Name, Term) || {Name, Term} <- terms()]
    ++ [#{name => "length of a {buffer, _} of 1 MB", floor => bench:thread(),
          run => fun(N) -> bench:repeat(fun() -> {ok, 1000000} = py:call(builtins, len, [Buffer]) end, N) end}]
    ++ [(row("bytes over size", binary:copy(<<255>>, Size)))#{axis => "bytes", x => Size}
        || Size <- bench:powers(10, largest(Options))].

largest(#{short := true}) -> 10000000;
largest(#{short := false}) -> 100000000.

row(Name, Term) ->
    #{name => Name, run => fun(N) -> identity(Term, N) end,
      floor => {"hand-off, external format", fun(N) -> floors:terms(Term, N) end}}.

terms() ->
    Numbers = lists:seq(1, 100000),
    Few = lists:seq(1, 10000),
    [{"1 integer", 1},
     {"100 000 integers", Numbers},
     {"100 000 floats", [I * 1.1 || I <- Numbers]},
     {"100 000 short binaries", [integer_to_binary(I) || I <- Numbers]},
     {"100 000 atoms", [case I rem 3 of 0 -> ok; 1 -> true; 2 -> error end || I <- Numbers]},
     {"10 000 maps, 5 atom keys", [#{id => I, name => <<"name">>, value => 0.5, ok => true, tag => none}
                                   || I <- Few]},
     {"10 000 maps, 5 binary keys", [#{<<"id">> => I, <<"name">> => <<"name">>, <<"value">> => 0.5,
                                       <<"ok">> => true, <<"tag">> => none} || I <- Few]},
     {"10 000 tuples of 5", [{I, 0.5, <<"name">>, ok, []} || I <- Few]},
     {"map of 100 000 pairs", maps:from_list([{I, I} || I <- Numbers])},
     {"text of 1 kB", binary:copy(<<"x">>, 1000)},
     {"text of 1 MB", binary:copy(<<"x">>, 1000000)},
     {"integer of 10 000 digits", binary_to_integer(binary:copy(<<"7">>, 10000))}].

identity(_Term, 0) -> ok;
identity(Term, N) ->
    {ok, _} = py:call('erlang._setup', same, [Term], [], infinity),
    identity(Term, N - 1).
