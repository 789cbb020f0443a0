-module(handle_SUITE).

%% @doc Handles: Python objects that Erlang holds; what can be done with them, where, and that they
%% are freed.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([
        what_becomes_a_handle, is_ref, call_method, call_forms, binary_setting, dotted_method, callable_object,
        getattr, to_term, repr, misuse, errors, equality,
        return_handle, return_handle_everywhere, as_argument, as_argument_deep, as_keyword, as_local,
        other_context_explicit, other_context_implicit, other_context_spawned, handles_of_two_contexts,
        of_main_from_elsewhere, sent_to_another_process, in_callbacks, in_parallel, in_pools,
        freed, freed_on_idle_contexts, freed_on_its_thread, failing_finaliser, finaliser_calls_python,
        freed_while_busy, many_come_and_go, many_held, not_freed_while_used,
        context_stopped, outlives_its_context, outlives_the_application, external_term
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

init_per_testcase(_Case, Config) ->
    Config.

end_per_testcase(_Case, Config) ->
    case {proplists:get_value(tc_status, Config), py_modes:messages()} of
        {ok, []} -> py_modes:wait_until(fun() -> py_semaphore:current() =:= 0 end), ok;
        {ok, Messages} -> {fail, {left_behind, Messages}};
        _ -> ok
    end.

%% ------------------------------------------------------------------------------------------
%% What they are
%% ------------------------------------------------------------------------------------------

what_becomes_a_handle(_) ->
    ok = py:exec(<<"import json\nclass C: pass\ndef f(): yield 1">>),
    [begin
         {ok, Handle} = py:eval(Code),
         ?assert(py:is_ref(Handle), Code)
     end || Code <- [<<"object()">>, <<"C()">>, <<"C">>, <<"json">>, <<"len">>, <<"lambda: 1">>,
                     <<"f()">>, <<"iter([])">>, <<"open('/dev/null')">>, <<"int">>, <<"...">>,
                     <<"NotImplemented">>, <<"ValueError('x')">>]],
    {ok, [1, In, #{<<"k">> := {Deep}}]} = py:eval(<<"[1, object(), {'k': (C(),)}]">>),
    ?assert(py:is_ref(In) andalso py:is_ref(Deep)).

is_ref(_) ->
    {ok, Handle} = object(),
    ?assert(py:is_ref(Handle)),
    ?assert(is_reference(Handle)),
    [?assertNot(py:is_ref(Other), Other)
     || Other <- [make_ref(), self(), 1, <<>>, [], #{}, py_nif:owner(), py_nif:ticket(),
                  py_context:get_nif_ref(py:context(1)), {Handle}]].

call_method(_) ->
    {ok, List} = py:call(builtins, list, [[3, 1, 2]], #{}, #{return => handle}),
    ?assertEqual({ok, none}, py:call_method(List, append, [4])),
    ?assertEqual({ok, none}, py:call_method(List, <<"sort">>, [])),
    ?assertEqual({ok, 4}, py:call_method(List, "pop", [])),
    ?assertEqual({ok, [1, 2, 3]}, py:to_term(List)).

binary_setting(Config) ->
    Mode = py_modes:mode(Config),
    ok = py_modes:start(Mode, [{binary, bytes}]),
    {ok, List} = py:eval(<<"[1, 'a']">>, #{}, #{return => handle}),
    ?assertMatch({ok, <<"Built-in mutable sequence", _/binary>>}, py:getattr(List, <<"__doc__">>)),
    ?assertEqual({ok, 1}, py:call(List, <<"__getitem__">>, [0])),
    ?assertEqual({ok, <<"[1, 'a']">>}, py:repr(List)),
    ok = py_modes:start(Mode).

call_forms(_) ->
    {ok, Dict} = py:call(builtins, dict, [], #{a => 1}, #{return => handle}),
    ?assertEqual({ok, none}, py:call(Dict, update, [], #{b => 2})),
    ?assertEqual({ok, none}, py:call(Dict, update, [], #{c => 3}, 1000)),
    ?assertEqual({ok, none}, py:call(Dict, update, [#{}], [{d, 4}], #{timeout => 1000})),
    ?assertEqual({ok, none}, py:call(Dict, update, [], #{}, #{kwargs => #{e => 5}})),
    ?assertEqual({ok, #{<<"a">> => 1, <<"b">> => 2, <<"c">> => 3, <<"d">> => 4, <<"e">> => 5}},
                 py:to_term(Dict)),
    ?assertEqual({ok, 1}, py:await(py:spawn_call(Dict, get, [<<"a">>]))),
    ok = py:cast(Dict, clear, []),
    py_modes:wait_until(fun() -> py:to_term(Dict) =:= {ok, #{}} end),
    {ok, Event} = py:eval(<<"__import__('threading').Event()">>),
    ?assertEqual({error, timeout}, py:call(Event, wait, [10], #{}, 50)).

dotted_method(_) ->
    {ok, Json} = py:eval(<<"__import__('json')">>),
    ?assertEqual({ok, <<"JSONDecoder">>}, py:call(Json, "decoder.JSONDecoder.__name__.strip", [])),
    ?assertMatch({error, {'AttributeError', _}}, py:call(Json, "decoder.nothing.strip", [])).

callable_object(_) ->
    {ok, Function} = py:eval(<<"lambda x, y=1: x + y">>),
    ?assertEqual({ok, 3}, py:call(Function, '__call__', [2])),
    ?assertEqual({ok, 5}, py:call(Function, '__call__', [2], #{y => 3})),
    {ok, Class} = py:eval(<<"dict">>),
    ?assertEqual({ok, #{<<"a">> => 1}}, py:call(Class, '__call__', [], #{a => 1})).

getattr(_) ->
    ok = py:exec(<<"class C:\n  x = 1\n  größe = 2\n  def m(self): return self.x\n"
                   "  @property\n  def bad(self): raise ValueError('bad')"/utf8>>),
    {ok, C} = py:eval(<<"C()">>),
    [?assertEqual({ok, 1}, py:getattr(C, Name)) || Name <- [x, <<"x">>, "x"]],
    ?assertEqual({ok, 2}, py:getattr(C, 'größe')),
    ?assertEqual({error, {'AttributeError', "'C' object has no attribute 'nothing'"}}, py:getattr(C, nothing)),
    ?assertEqual({error, {'ValueError', "bad"}}, py:getattr(C, bad)),
    {ok, Method} = py:getattr(C, m),
    ?assert(py:is_ref(Method)),
    ?assertEqual({ok, 1}, py:call(Method, '__call__', [])).

to_term(_) ->
    Terms = [1, 1.5, <<"text">>, [1, [2]], {1, {2}}, #{<<"a">> => [1]}, true, none],
    [begin
         {ok, Handle} = py:eval(<<"x">>, #{x => Term}, #{return => handle}),
         ?assert(py:is_ref(Handle)),
         ?assertEqual({ok, Term}, py:to_term(Handle))
     end || Term <- Terms],
    %% What has no image stays a handle, deep inside too.
    {ok, Object} = object(),
    {ok, Same} = py:to_term(Object),
    ?assert(py:is_ref(Same)),
    {ok, List} = py:eval(<<"[1, object()]">>, #{}, #{return => handle}),
    {ok, [1, Inner]} = py:to_term(List),
    ?assert(py:is_ref(Inner)).

repr(_) ->
    {ok, List} = py:eval(<<"[1, 'a']">>, #{}, #{return => handle}),
    ?assertEqual({ok, <<"[1, 'a']">>}, py:repr(List)),
    ok = py:exec(<<"class C:\n  def __repr__(self): raise ValueError('no')">>),
    {ok, Bad} = py:eval(<<"C()">>),
    ?assertEqual({error, {'ValueError', "no"}}, py:repr(Bad)).

misuse(_) ->
    [begin
         ?assertError(badarg, py:call(Wrong, f, [])),
         ?assertError(badarg, py:call(Wrong, f, [], #{})),
         ?assertError(badarg, py:call(Wrong, f, [], #{}, 100)),
         ?assertError(badarg, py:call_method(Wrong, f, [])),
         ?assertError(badarg, py:spawn_call(Wrong, f, [])),
         ?assertError(badarg, py:cast(Wrong, f, []))
     end || Wrong <- [make_ref(), py_nif:owner(), py_context:get_nif_ref(py:context(1))]],
    [begin
         ?assertError(badarg, py:getattr(Wrong, x)),
         ?assertError(badarg, py:to_term(Wrong)),
         ?assertError(badarg, py:repr(Wrong))
     end || Wrong <- [make_ref(), py_nif:ticket(), math, <<"math">>, self(), 1]],
    {ok, Handle} = object(),
    [?assertError(badarg, Fun())
     || Fun <- [fun() -> py:call(Handle, {f}, []) end,
                fun() -> py:call(Handle, f, x) end,
                fun() -> py:call(Handle, f, [], x) end,
                fun() -> py:call(Handle, f, [], #{}, soon) end,
                fun() -> py:getattr(Handle, {x}) end,
                fun() -> py:getattr(Handle, 17) end]].

errors(_) ->
    {ok, List} = py:eval(<<"[1]">>, #{}, #{return => handle}),
    ?assertEqual({error, {'AttributeError', "'list' object has no attribute 'nothing'"}},
                 py:call(List, nothing, [])),
    ?assertMatch({error, {'IndexError', "pop index out of range"}}, py:call(List, pop, [7])),
    ?assertMatch({error, {'IndexError', _, []}}, py:call(List, pop, [7], #{}, #{traceback => true})),
    ?assertMatch({error, {badarg, [1], _}}, py:call(List, append, [<<1:1>>])),
    ?assertEqual({ok, [1]}, py:to_term(List)).

%% The same object twice is two handles; a handle compares like any reference.
equality(_) ->
    ok = py:exec(<<"x = object()">>),
    {ok, A} = py:eval(<<"x">>),
    {ok, B} = py:eval(<<"x">>),
    ?assertEqual({ok, true}, py:eval(<<"a is b is x">>, #{a => A, b => B})),
    ?assertEqual(A, A),
    ?assertEqual(1, maps:get(A, #{A => 1})).

%% ------------------------------------------------------------------------------------------
%% return => handle
%% ------------------------------------------------------------------------------------------

return_handle(_) ->
    ok = py:exec(<<"def f(): return [1]">>),
    {ok, List} = py:call('__main__', f, [], #{}, #{return => handle}),
    ?assert(py:is_ref(List)),
    ?assertEqual({ok, none}, py:call(List, append, [2])),
    ?assertEqual({ok, [1, 2]}, py:to_term(List)),
    %% Of a method, too; and None.
    {ok, Copy} = py:call(List, copy, [], #{}, #{return => handle}),
    ?assertEqual({ok, [1, 2]}, py:to_term(Copy)),
    {ok, None} = py:call(List, clear, [], #{}, #{return => handle}),
    ?assertEqual({ok, none}, py:to_term(None)).

return_handle_everywhere(_) ->
    Ctx = py:context(1),
    Options = #{return => handle},
    [begin
         {ok, Handle} = Fun(),
         ?assertEqual({ok, [1]}, py:to_term(Handle))
     end || Fun <- [fun() -> py:call(builtins, list, [[1]], #{}, Options) end,
                    fun() -> py:call(Ctx, builtins, list, [[1]], Options) end,
                    fun() -> py_context:call(Ctx, builtins, list, [[1]], #{}, Options) end,
                    fun() -> py:call(default, builtins, list, [[1]], #{}, Options) end,
                    fun() -> py:eval(<<"[1]">>, #{}, Options) end,
                    fun() -> py:eval(Ctx, <<"[1]">>, #{}, Options) end,
                    fun() -> py_context:eval(Ctx, <<"[1]">>, #{}, Options) end,
                    fun() -> py:await(py:spawn_call(builtins, list, [[1]], #{}, Options)) end,
                    fun() -> py:await(py:spawn_call(Ctx, builtins, list, [[1]], Options)) end]].

%% ------------------------------------------------------------------------------------------
%% As arguments
%% ------------------------------------------------------------------------------------------

as_argument(_) ->
    {ok, List} = py:eval(<<"[1, 2]">>, #{}, #{return => handle}),
    ?assertEqual({ok, 3}, py:call(builtins, sum, [List])),
    ?assertEqual({ok, true}, py:eval(<<"a is b">>, #{a => List, b => List})),
    ok = py:exec(<<"def add(l): l.append(3)">>),
    ?assertEqual({ok, none}, py:call('__main__', add, [List])),
    ?assertEqual({ok, [1, 2, 3]}, py:to_term(List)).

as_argument_deep(_) ->
    {ok, List} = py:eval(<<"[1]">>, #{}, #{return => handle}),
    ?assertEqual({ok, [1, 2]}, py:call(builtins, sum, [[List, [2]], []])),
    [?assertEqual({ok, <<"[1]">>}, py:eval(<<"str(", Path/binary, ")">>, #{x => Term}))
     || {Path, Term} <- [{<<"x[0]">>, [List]}, {<<"x[1][0]">>, {1, {List}}},
                         {<<"x['k'][0]">>, #{k => [List]}}]].

as_keyword(_) ->
    {ok, List} = py:eval(<<"[1]">>, #{}, #{return => handle}),
    [?assertEqual({ok, #{<<"a">> => [1]}}, py:call(builtins, dict, [], Kwargs))
     || Kwargs <- [#{a => List}, [{a, List}], [{<<"a">>, List}]]].

as_local(_) ->
    {ok, List} = py:eval(<<"[1]">>, #{}, #{return => handle}),
    ?assertEqual({ok, 1}, py:eval(<<"x[0]">>, #{x => List})),
    ?assertEqual({ok, [1]}, py:eval(<<"(y := x)">>, #{x => List})),
    ?assertEqual({ok, none}, py:eval(<<"y.append(2)">>)),
    ?assertEqual({ok, [1, 2]}, py:to_term(List)).

%% ------------------------------------------------------------------------------------------
%% In other contexts
%% ------------------------------------------------------------------------------------------

%% An explicit context is meant: an object of another interpreter cannot go there.
other_context_explicit(Config) ->
    {Here, There} = {py:context(1), py:context(2)},
    {ok, List} = py:call(Here, builtins, list, [[1]], #{return => handle}),
    [begin
         Result = Fun(),
         case is_shared(Config) of
             true -> ?assertMatch({ok, _}, Result);
             false -> ?assertEqual({error, {badarg, Path, other_interpreter}}, Result)
         end
     end || {Path, Fun} <- [{[1], fun() -> py:call(There, builtins, len, [List]) end},
                            {[1, 1], fun() -> py:call(There, builtins, len, [[List]]) end},
                            {[k], fun() -> py:call(There, builtins, dict, [], #{kwargs => #{k => List}}) end},
                            {[locals, x], fun() -> py:eval(There, <<"x">>, #{x => List}) end},
                            {[1], fun() -> py_context:call(There, builtins, len, [List]) end},
                            {[1], fun() -> py:await(py:spawn_call(There, builtins, len, [List])) end}]],
    ?assertEqual({ok, 1}, py:call(Here, builtins, len, [List])),
    %% Methods go to the object, wherever the process is.
    ok = py_context_router:bind_context(2),
    ?assertEqual({ok, 1}, py:call(List, '__len__', [])),
    ?assertEqual({ok, [1]}, py:to_term(List)),
    ok = py_context_router:unbind_context().

%% Without a context the call goes to the object.
other_context_implicit(_) ->
    Here = py:context(1),
    {ok, List} = py:call(Here, builtins, list, [[1]], #{return => handle}),
    [begin
         ok = py_context_router:bind_context(N),
         ?assertEqual({ok, 1}, py:call(builtins, len, [List])),
         ?assertEqual({ok, 1}, py:call(builtins, len, [[List]])),
         ?assertEqual({ok, 1}, py:call(builtins, len, [{List}])),
         ?assertEqual({ok, 1}, py:call(builtins, len, [#{k => List}])),
         ?assertEqual({ok, #{<<"k">> => [1]}}, py:call(builtins, dict, [], #{k => List})),
         ?assertEqual({ok, #{<<"k">> => [1]}}, py:call(builtins, dict, [], [{<<"k">>, List}])),
         ?assertEqual({ok, #{<<"k">> => [1]}}, py:call(builtins, dict, [], #{"k" => List})),
         ok = py_context_router:unbind_context()
     end || N <- [1, 2]],
    ?assertEqual(lists:duplicate(10, {ok, 1}),
                 py_modes:at_once(lists:duplicate(10, fun() -> py:call(builtins, len, [List]) end))).

other_context_spawned(_) ->
    {ok, List} = py:call(py:context(1), builtins, list, [[1]], #{return => handle}),
    [begin
         ok = py_context_router:bind_context(N),
         ?assertEqual({ok, 1}, py:await(py:spawn_call(builtins, len, [List]))),
         ?assertEqual({ok, 1}, py:await(py:spawn_call(builtins, len, [[List]]))),
         ?assertEqual({ok, #{<<"k">> => [1]}}, py:await(py:spawn_call(builtins, dict, [], #{k => List}))),
         ?assertEqual({ok, 1}, py:await(py:spawn_call(List, '__len__', []))),
         ok = py_context_router:unbind_context()
     end || N <- [1, 2]],
    [begin
         ok = py_context_router:bind_context(N),
         ok = py:cast(builtins, 'list.append', [List, N]),
         ok = py_context_router:unbind_context()
     end || N <- [1, 2]],
    py_modes:wait_until(fun() ->
        {ok, Now} = py:to_term(List),
        lists:sort(Now) =:= [1, 1, 2]
    end).

handles_of_two_contexts(Config) ->
    {ok, One} = py:call(py:context(1), builtins, list, [[1]], #{return => handle}),
    {ok, Two} = py:call(py:context(2), builtins, list, [[2]], #{return => handle}),
    [case is_shared(Config) of
         true -> ?assertMatch({ok, _}, Fun());
         false -> ?assertMatch({error, {badarg, [_ | _], other_interpreter}}, Fun())
     end || Fun <- [fun() -> py:call(operator, add, [One, Two]) end,
                    fun() -> py:call(operator, add, [Two, One]) end,
                    fun() -> py:call(One, extend, [Two]) end,
                    fun() -> py:call(builtins, dict, [], #{a => One, b => Two}) end]],
    %% Nothing was run.
    is_shared(Config) orelse ?assertEqual({ok, [1]}, py:to_term(One)).

of_main_from_elsewhere(_) ->
    {ok, Main} = py_context:new(#{mode => worker}),
    {ok, List} = py:call(Main, builtins, list, [[1]], #{return => handle}),
    ?assertEqual({ok, 1}, py:call(builtins, len, [List])),
    ?assertEqual({ok, none}, py:call(List, append, [2])),
    ?assertEqual({ok, [1, 2]}, py:to_term(List)),
    ?assertEqual({ok, 2}, py:await(py:spawn_call(List, '__len__', []))),
    ok = py_context:stop(Main),
    %% The main interpreter never ends, nor does its object.
    ?assertEqual({ok, [1, 2]}, py:to_term(List)).

sent_to_another_process(_) ->
    {ok, List} = py:eval(<<"[1]">>, #{}, #{return => handle}),
    ?assertEqual(lists:duplicate(8, {ok, none}),
                 py_modes:at_once(lists:duplicate(8, fun() -> py:call(List, append, [1]) end))),
    ?assertEqual({ok, lists:duplicate(9, 1)}, py:to_term(List)).

in_callbacks(_) ->
    ok = py:register_function(grow, fun([Handle]) ->
        true = py:is_ref(Handle),
        {ok, none} = py:call(Handle, add, [2]),
        Handle
    end),
    ok = py:exec(<<"import erlang\n"
                   "class C:\n"
                   "  def __init__(self): self.l = [1]\n"
                   "  def add(self, x): self.l.append(x)\n"
                   "def f():\n"
                   "  c = C()\n"
                   "  return erlang.call('grow', c) is c, c.l">>),
    ?assertEqual({ok, {true, [1, 2]}}, py:call('__main__', f, [])),
    ok = py:unregister_function(grow).

in_parallel(_) ->
    {ok, List} = py:call(py:context(1), builtins, list, [[1]], #{return => handle}),
    ?assertEqual({ok, lists:duplicate(6, {ok, 1})},
                 py:parallel(lists:duplicate(6, {builtins, len, [List]}))).

in_pools(Config) ->
    {ok, [_]} = py_context_router:start_pool(some, 1, py_modes:mode(Config)),
    {ok, List} = py:call(some, builtins, list, [[1]], #{}, #{return => handle}),
    ?assertEqual({ok, 1}, py:call(some, builtins, len, [List])),
    ?assertEqual({ok, 1}, py:call(builtins, len, [List])),
    ?assertEqual({ok, none}, py:call(List, append, [2])),
    ok = py_context_router:stop_pool(some).

%% ------------------------------------------------------------------------------------------
%% Freed
%% ------------------------------------------------------------------------------------------

freed(_) ->
    Ctx = py:context(1),
    count_objects(Ctx),
    [hold(fun() -> {ok, Handle} = Make(), ?assertEqual({ok, 1}, alive(Ctx)), Handle end, Ctx)
     || Make <- [fun() -> py:eval(Ctx, <<"__main__.Counted()">>) end,
                 fun() -> py:call(Ctx, '__main__', 'Counted', []) end,
                 fun() -> {ok, [Handle]} = py:eval(Ctx, <<"[__main__.Counted()]">>), {ok, Handle} end,
                 fun() -> py:eval(Ctx, <<"[__main__.Counted()]">>, #{}, #{return => handle}) end]].

%% Nobody calls: the garbage collector's word is enough.
freed_on_idle_contexts(Config) ->
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config)}),
    File = filename:join(proplists:get_value(priv_dir, Config),
                         "freed_" ++ atom_to_list(py_modes:mode(Config))),
    ok = py:exec(Ctx, <<"import __main__\n"
                        "class Telling:\n"
                        "  def __init__(self, path): self.path = path\n"
                        "  def __del__(self, open=open):\n"
                        "    with open(self.path, 'w') as file: file.write('freed')\n"
                        "__main__.Telling = Telling">>),
    [begin
         _ = file:delete(File),
         in_process(fun() ->
             {ok, _} = py:call(Ctx, '__main__', 'Telling', [unicode:characters_to_binary(File)])
         end),
         py_modes:wait_until(fun() -> file:read_file(File) =:= {ok, <<"freed">>} end)
     end || _ <- [1, 2, 3]],
    ok = py_context:stop(Ctx).

%% A finaliser runs where its object was made: thread-bound objects rely on it.
freed_on_its_thread(Config) ->
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"import __main__, threading\n"
                        "__main__.threads = []\n"
                        "class Here:\n"
                        "  def __init__(self): __main__.threads.append(threading.get_ident())\n"
                        "  def __del__(self): __main__.threads.append(threading.get_ident())\n"
                        "__main__.Here = Here">>),
    in_process(fun() -> {ok, _} = py:call(Ctx, '__main__', 'Here', []) end),
    py_modes:wait_until(fun() -> {ok, N} = py:eval(Ctx, <<"len(__main__.threads)">>), N =:= 2 end),
    {ok, Same} = py:eval(Ctx, <<"__main__.threads[0] == __main__.threads[1]">>),
    %% The main interpreter has a thread per context: any of them will do there.
    ?assert(Same orelse is_shared(Config)).

failing_finaliser(_) ->
    Ctx = py:context(1),
    ok = py:exec(Ctx, <<"import __main__, sys\n"
                        "__main__.seen = []\n"
                        "sys.unraisablehook = lambda u: __main__.seen.append(u.exc_type.__name__)\n"
                        "class Bad:\n"
                        "  def __del__(self): raise ValueError('no')">>),
    ok = py:exec(Ctx, <<"__main__.Bad = Bad">>),
    in_process(fun() -> {ok, _} = py:call(Ctx, '__main__', 'Bad', []) end),
    py_modes:wait_until(fun() -> py:eval(Ctx, <<"__main__.seen">>) =:= {ok, [<<"ValueError">>]} end),
    ok = py:exec(Ctx, <<"sys.unraisablehook = sys.__unraisablehook__">>).

%% A finaliser that computes, imports and frees more.
finaliser_calls_python(_) ->
    Ctx = py:context(1),
    count_objects(Ctx),
    ok = py:exec(Ctx, <<"import __main__\n"
                        "class Chain:\n"
                        "  def __init__(self, n): self.next = Chain(n - 1) if n else __main__.Counted()\n"
                        "  def __del__(self):\n"
                        "    import json\n"
                        "    json.loads('[1]')\n"
                        "__main__.Chain = Chain">>),
    hold(fun() -> {ok, Handle} = py:eval(Ctx, <<"__main__.Chain(100)">>), Handle end, Ctx).

%% Handles that go while their context computes are freed soon after, at the latest.
freed_while_busy(_) ->
    Ctx = py:context(1),
    count_objects(Ctx),
    Busy = in_process(fun() ->
        [{ok, _} = py:call(Ctx, '__main__', 'Counted', []) || _ <- lists:seq(1, 100)],
        py:spawn_call(Ctx, time, sleep, [0.1])
    end),
    ?assert(is_reference(Busy)),
    py_modes:wait_until(fun() -> alive(Ctx) =:= {ok, 0} end).

%% 100 000 of them, from four processes; in the end nothing is left of them.
many_come_and_go(_) ->
    Ctx = py:context(1),
    count_objects(Ctx),
    Round = fun() ->
                [begin
                     {ok, Handles} = py:call(Ctx, '__main__', 'Counted.many', [500]),
                     500 = length(Handles)
                 end || _ <- lists:seq(1, 50)],
                ok
            end,
    ?assertEqual([ok, ok, ok, ok], py_modes:at_once(lists:duplicate(4, Round))),
    py_modes:wait_until(fun() -> alive(Ctx) =:= {ok, 0} end),
    ?assertEqual({ok, 100000}, py:eval(Ctx, <<"__main__.Counted.made">>)).

%% All at once.
many_held(_) ->
    Ctx = py:context(1),
    count_objects(Ctx),
    in_process(fun() ->
        {ok, Handles} = py:call(Ctx, '__main__', 'Counted.many', [100000]),
        ?assertEqual(100000, length(Handles)),
        ?assertEqual({ok, 100000}, alive(Ctx)),
        %% All of them as arguments.
        ?assertEqual({ok, 100000}, py:call(Ctx, builtins, len, [Handles])),
        ?assertEqual({ok, 100000}, py:call(Ctx, builtins, len, [[{H} || H <- Handles]]))
    end),
    py_modes:wait_until(fun() -> alive(Ctx) =:= {ok, 0} end).

%% The request that was sent holds its arguments, whatever the sender does.
not_freed_while_used(_) ->
    Ctx = py:context(1),
    count_objects(Ctx),
    in_process(fun() ->
        Busy = py:spawn_call(Ctx, time, sleep, [0.1]),
        {ok, Counted} = py:call(Ctx, '__main__', 'Counted', []),
        ok = py:cast(Ctx, '__main__', 'Counted.keep', [Counted]),
        {ok, none} = py:await(Busy)
    end),
    py_modes:wait_until(fun() -> py:eval(Ctx, <<"len(__main__.Counted.kept)">>) =:= {ok, 1} end),
    ?assertEqual({ok, 1}, alive(Ctx)),
    ok = py:exec(Ctx, <<"__main__.Counted.kept.clear()">>),
    py_modes:wait_until(fun() -> alive(Ctx) =:= {ok, 0} end).

%% ------------------------------------------------------------------------------------------
%% Longer than their context
%% ------------------------------------------------------------------------------------------

context_stopped(Config) ->
    {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config)}),
    {ok, Handle} = py:eval(Ctx, <<"object()">>),
    {ok, List} = py:eval(Ctx, <<"[1]">>, #{}, #{return => handle}),
    ok = py_context:stop(Ctx),
    ?assert(py:is_ref(Handle)),
    [case is_shared(Config) of
         true -> ?assertMatch({ok, _}, Fun());
         false -> ?assertMatch({error, {context_down, _}}, Fun())
     end || Fun <- [fun() -> py:call(List, '__len__', []) end,
                    fun() -> py:getattr(Handle, '__class__') end,
                    fun() -> py:to_term(List) end,
                    fun() -> py:repr(Handle) end,
                    fun() -> py:await(py:spawn_call(List, '__len__', [])) end]],
    case is_shared(Config) of
        true -> ?assertEqual({ok, 1}, py:call(builtins, len, [List]));
        false -> ?assertMatch({error, _}, py:call(builtins, len, [List]))
    end,
    ok = py:cast(List, clear, []),
    ?assertMatch({error, _}, py:call(Ctx, builtins, len, [List])).

%% Freed after the interpreter that had the objects: no harm, again and again.
outlives_its_context(Config) ->
    [in_process(fun() ->
         {ok, Ctx} = py_context:new(#{mode => py_modes:mode(Config)}),
         {ok, Handles} = py:eval(Ctx, <<"[object() for _ in range(1000)]">>),
         ok = py_context:stop(Ctx),
         1000 = length(Handles)
     end) || _ <- lists:seq(1, 5)],
    erlang:garbage_collect(),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

outlives_the_application(Config) ->
    {ok, Handles} = py:eval(<<"[object() for _ in range(1000)]">>),
    {ok, List} = py:eval(<<"[1]">>, #{}, #{return => handle}),
    ok = py_modes:start(py_modes:mode(Config)),
    case is_shared(Config) of
        true -> ?assertEqual({ok, [1]}, py:to_term(List));
        false -> ?assertMatch({error, {context_down, _}}, py:to_term(List))
    end,
    drop(Handles),
    erlang:garbage_collect(),
    ?assertEqual({ok, 4.0}, py:call(math, sqrt, [16])).

%% Through the external format and back on the same node it is still one.
external_term(_) ->
    {ok, Handle} = object(),
    Again = binary_to_term(term_to_binary(Handle)),
    ?assert(py:is_ref(Again)),
    ?assertMatch({ok, <<"<object object at ", _/binary>>}, py:repr(Again)),
    Binary = in_process(fun() -> {ok, Gone} = object(), term_to_binary(Gone) end),
    erlang:garbage_collect(),
    py_modes:wait_until(fun() -> not py:is_ref(binary_to_term(Binary)) end).

%% ------------------------------------------------------------------------------------------
%% Helpers
%% ------------------------------------------------------------------------------------------

%% Whether all contexts share one interpreter.
is_shared(Config) ->
    py_modes:is_main(py_modes:mode(Config)).

object() ->
    py:eval(<<"object()">>).

%% What Fun returns in a process that then ends.
in_process(Fun) ->
    [Result] = py_modes:at_once([Fun]),
    Result.

drop(_) ->
    ok.

%% A class in the context's interpreter that counts its living objects.
count_objects(Ctx) ->
    ok = py:exec(Ctx, <<"import __main__, threading\n"
                        "class Counted:\n"
                        "  alive = 0\n"
                        "  made = 0\n"
                        "  kept = []\n"
                        "  lock = threading.Lock()\n"
                        "  def __init__(self):\n"
                        "    with Counted.lock: Counted.alive += 1; Counted.made += 1\n"
                        "  def __del__(self):\n"
                        "    with Counted.lock: Counted.alive -= 1\n"
                        "  @staticmethod\n"
                        "  def many(n): return [Counted() for _ in range(n)]\n"
                        "  @staticmethod\n"
                        "  def keep(it): Counted.kept.append(it)\n"
                        "__main__.Counted = Counted\n">>).

alive(Ctx) ->
    py:eval(Ctx, <<"__import__('__main__').Counted.alive">>).

%% What Fun returns lives as long as its process, and no longer.
hold(Fun, Ctx) ->
    in_process(fun() ->
        ok = py:exec(Ctx, <<"import __main__">>),
        Handle = Fun(),
        ?assert(py:is_ref(Handle)),
        erlang:garbage_collect(),
        ?assertNotEqual({ok, 0}, alive(Ctx)),
        drop(Handle),
        ok
    end),
    py_modes:wait_until(fun() -> alive(Ctx) =:= {ok, 0} end).
