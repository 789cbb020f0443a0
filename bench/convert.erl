%% What does it cost to hand a term to Python and get it back?
%%
%%     rebar3 compile && escript bench/convert.erl [Mode]
%%
%% Each row: the identity function called through py:call, and in the same run the floor,
%% term_to_binary and binary_to_term of the same term. Median and minimum of five rounds that
%% alternate between both; each in a process of its own, so that no round pays for another's garbage.
-module(convert).
-mode(compile).
-export([main/1]).

-define(ROUNDS, 5).

main(Arguments) ->
    Root = filename:dirname(filename:dirname(filename:absname(escript:script_name()))),
    true = code:add_patha(filename:join(Root, "_build/default/lib/erlang_python/ebin")),
    ok = application:load(erlang_python),
    [ok = application:set_env(erlang_python, context_mode, list_to_atom(Mode)) || Mode <- Arguments],
    {ok, _} = application:ensure_all_started(erlang_python),
    {ok, Version} = py:version(),
    io:format("OTP ~s, CPython ~s, ~p, ~b schedulers~n~n",
              [erlang:system_info(otp_release), Version, py:execution_mode(),
               erlang:system_info(schedulers_online)]),
    io:format("~-28s ~11s ~11s ~11s ~11s ~7s~n",
              ["identity of", "median", "min", "floor med.", "floor min", "ratio"]),
    [row(Name, Term, Times) || {Name, Term, Times} <- rows()],
    halt().

rows() ->
    Numbers = lists:seq(1, 100000),
    [{"1 integer", 1, 2000},
     {"100 000 integers", Numbers, 4},
     {"100 000 floats", [I * 1.1 || I <- Numbers], 4},
     {"100 000 short binaries", [integer_to_binary(I) || I <- Numbers], 4},
     {"100 000 atoms", [case I rem 3 of 0 -> ok; 1 -> true; 2 -> error end || I <- Numbers], 4},
     {"10 000 maps, 5 atom keys", [#{id => I, name => <<"name">>, value => 0.5, ok => true, tag => none}
                                   || I <- lists:seq(1, 10000)], 4},
     {"10 000 maps, 5 binary keys", [#{<<"id">> => I, <<"name">> => <<"name">>, <<"value">> => 0.5,
                                       <<"ok">> => true, <<"tag">> => none} || I <- lists:seq(1, 10000)], 4},
     {"10 000 tuples of 5", [{I, 0.5, <<"name">>, ok, []} || I <- lists:seq(1, 10000)], 4},
     {"map of 100 000 pairs", maps:from_list([{I, I} || I <- Numbers]), 2},
     {"text of 1 kB", binary:copy(<<"x">>, 1000), 1000},
     {"text of 1 MB", binary:copy(<<"x">>, 1000000), 50},
     {"bytes of 1 MB", binary:copy(<<255>>, 1000000), 50},
     {"bytes of 10 MB", binary:copy(<<255>>, 10000000), 5},
     {"integer of 10 000 digits", binary_to_integer(binary:copy(<<"7">>, 10000)), 500}].

row(Name, Term, Times) ->
    _ = sample(fun identity/1, Term, Times), % warm
    {Ours, Floors} = lists:unzip([{sample(fun identity/1, Term, Times), sample(fun floor/1, Term, Times)}
                                  || _ <- lists:seq(1, ?ROUNDS)]),
    io:format("~-28s ~s ~s ~s ~s ~7.2f~n",
              [Name, time(median(Ours)), time(lists:min(Ours)), time(median(Floors)),
               time(lists:min(Floors)), median(Ours) / median(Floors)]).

identity(Term) ->
    {ok, Back} = py:call('erlang._setup', same, [Term], [], infinity),
    Back.

floor(Term) ->
    binary_to_term(term_to_binary(Term)).

%% Nanoseconds per run.
sample(Fun, Term, Times) ->
    Self = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        Start = erlang:monotonic_time(nanosecond),
        repeat(Fun, Term, Times),
        Self ! {self(), (erlang:monotonic_time(nanosecond) - Start) / Times}
    end),
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    receive {Pid, Time} -> Time end.

repeat(_, _, 0) -> ok;
repeat(Fun, Term, Times) -> _ = Fun(Term), repeat(Fun, Term, Times - 1).

median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

time(Nanoseconds) when Nanoseconds >= 1.0e6 -> io_lib:format("~8.2f ms", [Nanoseconds / 1.0e6]);
time(Nanoseconds) -> io_lib:format("~8.2f us", [Nanoseconds / 1.0e3]).
