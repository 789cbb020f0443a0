-module(state_SUITE).

%% @doc State that Erlang and all contexts share.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        from_erlang, from_py_state, from_python, both_sides, keys_and_values, none_and_missing,
        counters, counters_from_python, big_counters, not_a_counter, misuse,
        exact_from_processes, exact_from_threads, exact_from_both, across_contexts,
        max_state_entries, max_state_entries_from_python, lives_as_long_as_the_application,
        of_a_dead_process, unconvertible
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

init_per_testcase(_Case, Config) ->
    ok = py:state_clear(),
    Config.

end_per_testcase(_Case, _Config) ->
    [] = py_modes:messages(),
    py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end).

%% ------------------------------------------------------------------------------------------
%% Values
%% ------------------------------------------------------------------------------------------

from_erlang(_) ->
    ?assertEqual({error, not_found}, py:state_fetch(a)),
    ?assertEqual(ok, py:state_store(a, #{b => [1, 2]})),
    ?assertEqual({ok, #{b => [1, 2]}}, py:state_fetch(a)),
    ?assertEqual(ok, py:state_store(a, 2)),
    ?assertEqual({ok, 2}, py:state_fetch(a)),
    ?assertEqual(ok, py:state_store(<<"a">>, 3)),
    ?assertEqual([<<"a">>, a], lists:reverse(lists:sort(py:state_keys()))),
    ?assertEqual(ok, py:state_remove(a)),
    ?assertEqual(ok, py:state_remove(a)),
    ?assertEqual({error, not_found}, py:state_fetch(a)),
    ?assertEqual(ok, py:state_clear()),
    ?assertEqual([], py:state_keys()).

from_py_state(_) ->
    ?assertEqual(ok, py_state:store(a, 1)),
    ?assertEqual({ok, 1}, py:state_fetch(a)),
    ?assertEqual({ok, 1}, py_state:fetch(a)),
    ?assertEqual([a], py_state:keys()),
    ?assertEqual(2, py_state:incr(a)),
    ?assertEqual(5, py_state:incr(a, 3)),
    ?assertEqual(4, py_state:decr(a)),
    ?assertEqual(1, py_state:decr(a, 3)),
    ?assertEqual(ok, py_state:remove(a)),
    ?assertEqual(ok, py_state:clear()),
    ?assertEqual({error, not_found}, py_state:fetch(a)).

from_python(_) ->
    ok = py:exec(<<"from erlang import (state_get, state_set, state_delete, state_keys, state_clear,\n"
                   "                    state_incr, state_decr)">>),
    [?assertEqual({ok, Value}, py:eval(Code), Code)
     || {Code, Value} <- [
            {<<"state_get('a')">>, none},
            {<<"state_get('a', [1])">>, [1]},
            {<<"state_set('a', {'b': (1, 2.5, None, [b'\\xff'])})">>, none},
            {<<"state_get('a')">>, #{<<"b">> => {1, 2.5, none, [<<255>>]}}},
            {<<"state_get('a', 7)">>, #{<<"b">> => {1, 2.5, none, [<<255>>]}}},
            {<<"state_set('b', 1)">>, none},
            {<<"sorted(state_keys())">>, [<<"a">>, <<"b">>]},
            {<<"state_delete('a')">>, none},
            {<<"state_delete('a')">>, none},
            {<<"state_keys()">>, [<<"b">>]},
            {<<"state_clear()">>, none},
            {<<"state_keys()">>, []}]],
    %% What is not there comes back as it is: nothing of it goes to Erlang.
    ?assertEqual({ok, true}, py:eval(<<"(lambda o: state_get('a', o) is o)({1, (2,)})">>)).

both_sides(_) ->
    ok = py:exec(<<"import erlang">>),
    ok = py:state_store(<<"app_config">>, #{model => <<"gpt-4">>, timeout => 30000}),
    ?assertEqual({ok, {<<"gpt-4">>, 30000}},
                 py:eval(<<"(lambda c: (c['model'], c['timeout']))(erlang.state_get('app_config'))">>)),
    {ok, none} = py:eval(<<"erlang.state_set('weights', {'a': [0.5]})">>),
    ?assertEqual({ok, #{<<"a">> => [0.5]}}, py:state_fetch(<<"weights">>)),
    {ok, 1} = py:eval(<<"erlang.state_incr('requests_total')">>),
    ?assertEqual({ok, 1}, py:state_fetch(<<"requests_total">>)),
    ok = py:register_function(fetch, fun([Key]) -> {ok, V} = py:state_fetch(Key), V end),
    ?assertEqual({ok, 1}, py:eval(<<"erlang.fetch('requests_total')">>)),
    ok = py:unregister_function(fetch).

%% A str is a binary, an Atom an atom; 1 and 1.0 are two keys.
keys_and_values(_) ->
    ok = py:exec(<<"import erlang\nfrom erlang import state_get, state_set, atom, Atom">>),
    ok = py:state_store(name, 1),
    ok = py:state_store(<<"name">>, 2),
    ok = py:state_store({a, [1]}, 3),
    ok = py:state_store(1, 4),
    ok = py:state_store(1.0, 5),
    ok = py:state_store(self(), self()),
    [?assertEqual({ok, Value}, py:eval(Code), Code)
     || {Code, Value} <- [{<<"state_get(atom('name'))">>, 1}, {<<"state_get('name')">>, 2},
                          {<<"state_get(b'name')">>, 2}, {<<"state_get((atom('a'), [1]))">>, 3},
                          {<<"state_get(1)">>, 4}, {<<"state_get(1.0)">>, 5},
                          {<<"state_get(erlang.self()) == erlang.self()">>, true}]],
    Big = binary:copy(<<"x">>, 1000000),
    ok = py:state_store(big, Big),
    ?assertEqual({ok, Big}, py:eval(<<"state_get(atom('big'))">>)),
    {ok, none} = py:eval(<<"state_set('deep', [[[[[{'a': {'b': (1,)}}]]]]])">>),
    ?assertEqual({ok, [[[[[#{<<"a">> => #{<<"b">> => {1}}}]]]]]}, py:state_fetch(<<"deep">>)).

none_and_missing(_) ->
    ok = py:exec(<<"import erlang\nerlang.state_set('a', None)\nerlang.state_set('b', [])">>),
    ?assertEqual({ok, [none, 7, []]},
                 py:eval(<<"[erlang.state_get('a', 7), erlang.state_get('c', 7), "
                           "erlang.state_get('b', 7)]">>)).

unconvertible(_) ->
    ok = py:exec(<<"import erlang\ncyclic = []\ncyclic.append(cyclic)">>),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.state_set('a', cyclic)">>)),
    ?assertEqual([], py:state_keys()),
    ok = py:state_store(<<"bits">>, <<1:3>>),
    ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.state_get('bits')">>)),
    %% An object without an image is kept as a handle, and is the same when it comes back.
    ok = py:exec(<<"thing = object()\nerlang.state_set('thing', thing)">>),
    ?assertEqual({ok, true}, py:eval(<<"erlang.state_get('thing') is thing">>)).

%% ------------------------------------------------------------------------------------------
%% Counters
%% ------------------------------------------------------------------------------------------

counters(_) ->
    ?assertEqual(1, py:state_incr(a)),
    ?assertEqual(11, py:state_incr(a, 10)),
    ?assertEqual(10, py:state_decr(a)),
    ?assertEqual(-10, py:state_decr(a, 20)),
    ?assertEqual(-15, py:state_incr(a, -5)),
    ?assertEqual({ok, -15}, py:state_fetch(a)),
    ?assertEqual(-1, py:state_decr(b)),
    ?assertEqual(0, py:state_incr(c, 0)),
    ok = py:state_store(d, 41),
    ?assertEqual(42, py:state_incr(d)).

counters_from_python(_) ->
    ok = py:exec(<<"from erlang import state_incr, state_decr\n"
                   "class Five:\n    def __index__(self): return 5">>),
    [?assertEqual({ok, Value}, py:eval(Code), Code)
     || {Code, Value} <- [{<<"state_incr('a')">>, 1}, {<<"state_incr('a', 10)">>, 11},
                          {<<"state_decr('a')">>, 10}, {<<"state_decr('a', 20)">>, -10},
                          {<<"state_incr('a', -5)">>, -15}, {<<"state_decr('b')">>, -1},
                          {<<"state_incr('c', amount=3)">>, 3}, {<<"state_incr('c', True)">>, 4},
                          {<<"state_incr('c', Five())">>, 9}, {<<"state_decr('c', Five())">>, 4}]].

big_counters(_) ->
    Big = 1 bsl 64 - 1,
    ok = py:state_store(<<"big">>, Big),
    ?assertEqual(Big + 1, py:state_incr(<<"big">>)),
    ?assertEqual({ok, Big + 2}, py:eval(<<"__import__('erlang').state_incr('big')">>)),
    ?assertEqual({ok, Big + 2 - (1 bsl 100)},
                 py:eval(<<"__import__('erlang').state_decr('big', 1 << 100)">>)).

not_a_counter(_) ->
    ok = py:exec(<<"import erlang">>),
    [begin
         ok = py:state_store(<<"a">>, Value),
         ?assertEqual({error, not_a_counter}, py:state_incr(<<"a">>)),
         ?assertEqual({error, not_a_counter}, py:state_decr(<<"a">>, 2)),
         {error, {'TypeError', Text}} = py:eval(<<"erlang.state_incr('a')">>),
         ?assertNotEqual(nomatch, string:find(Text, "'a'")),
         ?assertMatch({error, {'TypeError', _}}, py:eval(<<"erlang.state_decr('a', 2)">>)),
         ?assertEqual({ok, Value}, py:state_fetch(<<"a">>))
     end || Value <- [<<"text">>, 1.5, [1], none, true, full, #{}]],
    [?assertMatch({error, {'TypeError', _}}, py:eval(Code), Code)
     || Code <- [<<"erlang.state_incr('b', 1.5)">>, <<"erlang.state_incr('b', '1')">>,
                 <<"erlang.state_decr('b', None)">>]],
    ?assertEqual({error, not_found}, py:state_fetch(<<"b">>)).

misuse(_) ->
    ?assertMatch(<<_/binary>>, py_modes:misuse(fun() -> py:state_incr(a, 1.5) end)),
    ?assertMatch(<<_/binary>>, py_modes:misuse(fun() -> py:state_decr(a, <<"1">>) end)),
    ?assertEqual([], py:state_keys()).

exact_from_processes(_) ->
    ok = each(50, fun(I) ->
        [py:state_incr(a) || _ <- lists:seq(1, 1000)],
        [py:state_incr(b, I) || _ <- lists:seq(1, 100)],
        [py:state_decr(c, 2) || _ <- lists:seq(1, 100)]
    end),
    ?assertEqual({ok, 50000}, py:state_fetch(a)),
    ?assertEqual({ok, 100 * 50 * 51 div 2}, py:state_fetch(b)),
    ?assertEqual({ok, -10000}, py:state_fetch(c)).

%% 50 Python threads of one request.
exact_from_threads(_) ->
    ok = py:exec(threads_code()),
    {ok, Values} = py:call('__main__', run, [50, 100]),
    ?assertEqual({ok, 5000}, py:state_fetch(<<"a">>)),
    ?assertEqual({ok, -5000}, py:state_fetch(<<"b">>)),
    %% Each saw a value of its own.
    ?assertEqual(lists:seq(1, 5000), lists:sort(Values)).

threads_code() ->
    <<"import erlang, threading\n"
      "def run(threads, times):\n"
      "    seen = []\n"
      "    def work():\n"
      "        for _ in range(times):\n"
      "            seen.append(erlang.state_incr('a'))\n"
      "            erlang.state_decr('b')\n"
      "    started = [threading.Thread(target=work) for _ in range(threads)]\n"
      "    for t in started: t.start()\n"
      "    for t in started: t.join()\n"
      "    return seen\n">>.

%% 50 processes, each with a request that counts; Erlang counts too.
exact_from_both(_) ->
    ok = each(50, fun(_) ->
        ok = py:exec(<<"import erlang\ndef f():\n    for _ in range(50): erlang.state_incr('a')">>),
        {ok, none} = py:call('__main__', f, []),
        [py:state_incr(<<"a">>) || _ <- lists:seq(1, 50)]
    end),
    ?assertEqual({ok, 5000}, py:state_fetch(<<"a">>)).

across_contexts(_) ->
    Contexts = [py:context(I) || I <- lists:seq(1, py_context_router:num_contexts())],
    [begin
         ok = py:exec(Ctx, <<"import erlang">>),
         ?assertEqual({ok, I}, py:eval(Ctx, <<"erlang.state_incr('a')">>)),
         ?assertEqual({ok, I - 1}, py:eval(Ctx, <<"erlang.state_get('last', 0)">>)),
         ?assertEqual({ok, none}, py:eval(Ctx, <<"erlang.state_set('last', i)">>, #{i => I}))
     end || {I, Ctx} <- lists:enumerate(Contexts)].

%% ------------------------------------------------------------------------------------------
%% Limits
%% ------------------------------------------------------------------------------------------

max_state_entries(Config) ->
    with_entries(3, Config, fun() ->
        [ok = py:state_store(Key, 1) || Key <- [a, b]],
        ?assertEqual(1, py:state_incr(c)),
        ?assertEqual({error, full}, py:state_store(d, 1)),
        ?assertEqual({error, full}, py:state_incr(d)),
        ?assertEqual({error, full}, py:state_decr(d, 2)),
        ?assertEqual({error, not_found}, py:state_fetch(d)),
        %% What is there can change.
        ?assertEqual(ok, py:state_store(a, 2)),
        ?assertEqual(2, py:state_incr(c)),
        ok = py:state_remove(b),
        ?assertEqual(ok, py:state_store(d, 1)),
        ?assertEqual({error, full}, py:state_store(b, 1)),
        ok = py:state_clear(),
        ?assertEqual(ok, py:state_store(b, 1))
    end).

max_state_entries_from_python(Config) ->
    with_entries(2, Config, fun() ->
        ok = py:exec(<<"import erlang\nfrom erlang import state_set, state_incr, StateFull\n"
                       "state_set('a', 1)\nstate_incr('b')">>),
        [begin
             {error, {'StateFull', Text}} = py:eval(Code),
             ?assertNotEqual(nomatch, string:find(Text, "max_state_entries")),
             ?assertNotEqual(nomatch, string:find(Text, "'c'"))
         end || Code <- [<<"state_set('c', 1)">>, <<"state_incr('c')">>, <<"erlang.state_decr('c')">>]],
        ok = py:exec(<<"try:\n    state_set('c', 1)\n"
                       "except erlang.Error as e:\n    caught = isinstance(e, StateFull)">>),
        ?assertEqual({ok, true}, py:eval(<<"caught">>)),
        ?assertEqual({ok, 2}, py:eval(<<"state_incr('b')">>)),
        %% A value that looks like a failure is none.
        ?assertEqual({ok, none}, py:eval(<<"state_set('a', 'full')">>)),
        ?assertEqual({ok, <<"full">>}, py:eval(<<"erlang.state_get('a')">>))
    end).

with_entries(Max, Config, Fun) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{max_state_entries, Max}]),
    try [_] = py_modes:at_once([Fun])
    after ok = py_modes:start(Mode)
    end.

lives_as_long_as_the_application(Config) ->
    ok = py:state_store(a, 1),
    ok = py_modes:start(py_modes:mode(Config)),
    ?assertEqual({error, not_found}, py:state_fetch(a)).

%% Nothing hangs on the process that stored it.
of_a_dead_process(_) ->
    [ok] = py_modes:at_once([fun() ->
        ok = py:state_store(a, 1),
        ok = py:exec(<<"import erlang\nerlang.state_set('b', [1, 2])">>)
    end]),
    ?assertEqual({ok, 1}, py:state_fetch(a)),
    ?assertEqual({ok, [1, 2]}, py:state_fetch(<<"b">>)).

%% ------------------------------------------------------------------------------------------
%% Helpers
%% ------------------------------------------------------------------------------------------

each(N, Fun) ->
    _ = py_modes:at_once([fun() -> Fun(I) end || I <- lists:seq(1, N)]),
    ok.
