-module(python_SUITE).

%% @doc The Python package `erlang': its unittest modules (test/python) inside contexts, messages to
%% Erlang processes here and on another node, the terms that Python only hands on, the bounded table
%% of atoms, and what it says outside the VM.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-define(MODULES, [test_package, test_terms, test_calls, test_state]).

all() ->
    py_modes:all() ++ [outside_the_vm, types, exports_of_the_library].

groups() ->
    py_modes:groups([
        unittests, messages_in_order, message_of_any_term, sends_from_threads, other_node,
        atom_table, pool_does_not_keep_its_maker, thread_keeps_its_maker_while_it_runs
    ]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

init_per_testcase(_Case, Config) ->
    Config.

end_per_testcase(_Case, Config) ->
    case proplists:get_value(tc_status, Config) of
        ok -> ?assertEqual([], py_modes:messages());
        _ -> ok
    end.

%% ------------------------------------------------------------------------------------------
%% The package's own tests
%% ------------------------------------------------------------------------------------------

unittests(_) ->
    Receivers = start_receivers(),
    [ok = py:register_function(Name, Fun) || {Name, Fun} <- helpers()],
    Ctx = py:context(1),
    {ok, _} = py:call(Ctx, 'erlang._setup', add_path, [unicode:characters_to_binary(folder())]),
    [begin
         {ok, Result} = py:call(Ctx, runner, run, [Module]),
         #{<<"run">> := Run, <<"failed">> := Failed, <<"text">> := Text} = Result,
         ct:log("~ts", [Text]),
         Failed =:= 0 orelse ct:print("~ts", [Text]),
         ?assertEqual({Module, 0}, {Module, Failed}),
         ?assert(Run > 0)
     end || Module <- ?MODULES],
    [ok = py:unregister_function(Name) || {Name, _} <- helpers()],
    stop_receivers(Receivers).

folder() ->
    filename:join(filename:dirname(code:which(?MODULE)), "python").

helpers() ->
    [{test_same, fun([X]) -> X end},
     {test_kwargs, fun(Args, Kwargs) -> [Args, Kwargs] end},
     {test_fail, fun([<<"error">>, Reason]) -> error(Reason);
                    ([<<"throw">>, Reason]) -> throw(Reason);
                    ([<<"exit">>, Reason]) -> exit(Reason)
                 end},
     {test_eval, fun([Code]) -> {ok, Value} = py:eval(Code), Value end},
     {test_caller, fun([]) -> hd(get('$callers')) end},
     {test_dead, fun([]) -> dead() end},
     {test_received, fun([Name]) -> received(whereis(binary_to_atom(Name))) end},
     {test_is_atom, fun([X]) -> is_atom(X) end},
     {test_is_existing, fun([Text]) ->
         try binary_to_existing_atom(Text) of _ -> true catch error:badarg -> false end
      end},
     {test_sort, fun([Terms]) -> lists:sort(Terms) end},
     {test_terms, fun([]) -> terms() end},
     {test_are_terms, fun([Terms]) -> Terms =:= terms_as_keys() end}].

%% Of each kind two that are here and one of another node; the same at each call.
terms() ->
    case persistent_term:get(?MODULE, undefined) of
        undefined ->
            Terms = #{'Pid' => [self(), dead(), remote(pid)],
                      'Ref' => [make_ref(), make_ref(), remote(ref)],
                      'Port' => [closed_port(), closed_port(), remote(port)],
                      'Fun' => [fun lists:map/2, fun terms/0, local_fun(self())]},
            persistent_term:put(?MODULE, Terms),
            Terms;
        Terms ->
            Terms
    end.

%% As they come back: the keys went through Python's str.
terms_as_keys() ->
    maps:fold(fun(Key, Value, Map) -> Map#{atom_to_binary(Key) => Value} end, #{}, terms()).

local_fun(X) ->
    fun() -> X end.

closed_port() ->
    Port = open_port({spawn, "cat"}, []),
    true = port_close(Port),
    Port.

dead() ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, _, _, _} -> Pid end.

%% Terms of a node that never was.
remote(pid) -> binary_to_term(<<131, 88, (node_name())/binary, 5:32, 0:32, 1:32>>);
remote(ref) -> binary_to_term(<<131, 90, 3:16, (node_name())/binary, 1:32, 1:32, 2:32, 3:32>>);
remote(port) -> binary_to_term(<<131, 89, (node_name())/binary, 7:32, 1:32>>).

node_name() ->
    Name = <<"elsewhere@nowhere">>,
    <<119, (byte_size(Name)), Name/binary>>.

%% Processes that keep what they get, except from received/1.
start_receivers() ->
    [begin
         Pid = spawn_link(fun() -> receive_all([]) end),
         true = register(Name, Pid),
         Pid
     end || Name <- [test_receiver, 'größe', '日本']].

stop_receivers(Receivers) ->
    [begin unlink(Pid), exit(Pid, kill) end || Pid <- Receivers].

receive_all(Terms) ->
    receive
        {?MODULE, received, From, Ref} -> From ! {Ref, lists:reverse(Terms)}, receive_all([]);
        Term -> receive_all([Term | Terms])
    end.

received(Pid) ->
    Ref = make_ref(),
    Pid ! {?MODULE, received, self(), Ref},
    receive {Ref, Terms} -> Terms after 5000 -> error(no_answer) end.

%% ------------------------------------------------------------------------------------------
%% Messages
%% ------------------------------------------------------------------------------------------

messages_in_order(_) ->
    ok = py:exec(<<"import erlang\ndef f(to, n):\n    for i in range(n): erlang.send(to, i)">>),
    {ok, none} = py:call('__main__', f, [self(), 10000]),
    ?assertEqual(lists:seq(0, 9999), [receive I -> I after 5000 -> late end || _ <- lists:seq(1, 10000)]),
    %% The reply comes after what was sent before it.
    Ref = py:spawn_call('__main__', f, [self(), 10]),
    ?assertMatch({ok, none}, py:await(Ref)),
    ?assertEqual(10, length(py_modes:messages())),
    [receive _ -> ok end || _ <- lists:seq(1, 10)].

message_of_any_term(_) ->
    ok = py:exec(<<"import erlang">>),
    [begin
         {ok, none} = py:eval(<<"erlang.send(to, x)">>, #{to => self(), x => Term}),
         receive Got -> ?assertEqual(Term, Got) after 5000 -> error({lost, Term}) end
     end || Term <- [1, 1 bsl 100, 2.5, <<"text">>, <<255>>, [], [1, [2]], {}, {1, {2}}, true, none,
                     #{<<"a">> => #{1 => 2}}, self(), make_ref(), fun lists:map/2, remote(pid),
                     binary:copy(<<"x">>, 1000000), lists:seq(1, 10000),
                     maps:from_list([{I, I} || I <- lists:seq(1, 1000)])]],
    {ok, none} = py:eval(<<"erlang.send(to, erlang.atom('hello'))">>, #{to => self()}),
    receive hello -> ok after 5000 -> error(no_atom) end.

%% From threads, those without a request of theirs too, the order of each is kept.
sends_from_threads(_) ->
    ok = py:exec(<<"import erlang, _thread, threading\n"
                   "def f(to, threads, n):\n"
                   "    left = threading.Semaphore(0)\n"
                   "    def work(t):\n"
                   "        for i in range(n): erlang.send(to, (t, i))\n"
                   "        left.release()\n"
                   "    for t in range(threads): _thread.start_new_thread(work, (t,))\n"
                   "    for t in range(threads): left.acquire()">>),
    {ok, none} = py:call('__main__', f, [self(), 8, 500]),
    Got = [receive {T, I} -> {T, I} after 5000 -> late end || _ <- lists:seq(1, 8 * 500)],
    [?assertEqual(lists:seq(0, 499), [I || {T, I} <- Got, T =:= Thread])
     || Thread <- lists:seq(0, 7)].

other_node(_) ->
    Started = start_distribution(),
    {ok, Peer, Node} = peer:start(#{name => peer:random_name(),
                                    args => ["-pa" | code:get_path()]}),
    try
        Pid = erpc:call(Node, erlang, spawn, [?MODULE, receive_all, [[]]]),
        true = erpc:call(Node, erlang, register, [collector, Pid]),
        [Ref, Port | _] = [erpc:call(Node, erlang, make_ref, []) | erpc:call(Node, erlang, ports, [])],
        Fun = erpc:call(Node, ?MODULE, local_fun, [Pid]),
        ok = py:exec(<<"import erlang\ndef f(to, n):\n    for i in range(n): erlang.send(to, i)\n"
                       "def same(*terms): return terms">>),
        Terms = [Pid, Ref, Port, Fun, [Pid], #{Pid => Ref}],
        ?assertEqual({ok, list_to_tuple(Terms)}, py:call('__main__', same, Terms)),
        {ok, none} = py:call('__main__', f, [Pid, 1000]),
        {ok, none} = py:call(erlang, send, [Pid, {Pid, Ref, Port}]),
        Expected = lists:seq(0, 999) ++ [{Pid, Ref, Port}],
        py_modes:wait_until(fun() ->
            erpc:call(Node, erlang, process_info, [Pid, message_queue_len]) =:= {message_queue_len, 0}
                andalso is_complete(Pid, length(Expected))
        end),
        ?assertEqual(Expected, received(Pid)),
        {ok, Text} = py:eval(<<"repr(x)">>, #{x => Pid}),
        ?assertNotEqual(nomatch, string:find(Text, "erlang.Pid")),
        peer:stop(Peer),
        ?assertEqual({ok, none}, py:call(erlang, send, [Pid, lost]))
    after
        py_peer:stop(Peer),
        [net_kernel:stop() || Started]
    end.

is_complete(Pid, Length) ->
    Terms = received(Pid),
    case length(Terms) of
        Length -> [Pid ! Term || Term <- Terms], true;
        _ -> [Pid ! Term || Term <- Terms], false
    end.

start_distribution() ->
    case is_alive() of
        true ->
            false;
        false ->
            _ = os:cmd("epmd -daemon"),
            {ok, _} = net_kernel:start(list_to_atom(peer:random_name() ++ "@localhost"),
                                       #{name_domain => shortnames}),
            true
    end.

%% ------------------------------------------------------------------------------------------
%% Atoms
%% ------------------------------------------------------------------------------------------

atom_table(Config) ->
    py_peer:in_peer(py_modes:mode(Config), ?MODULE, fill_atom_table, []).

fill_atom_table() ->
    ok = py:exec(<<"import erlang\n"
                   "def fill():\n"
                   "    for i in range(100000):\n"
                   "        try:\n"
                   "            erlang.atom('of_the_test_%d' % i)\n"
                   "        except erlang.Error as e:\n"
                   "            return (i, str(e))">>),
    Before = erlang:system_info(atom_count),
    {ok, {Made, Text}} = py:call('__main__', fill, []),
    ?assert(Made > 15000 andalso Made =< 16384 + 1, Made),
    ?assertNotEqual(nomatch, string:find(Text, "16384")),
    ?assert(erlang:system_info(atom_count) - Before =< Made + 500),
    %% One of them is written below: it was there. Those that exist still are; new ones are errors or, as names of exceptions, binaries.
    ?assertEqual({ok, ok}, py:eval(<<"erlang.atom('ok')">>)),
    ?assertEqual({ok, of_the_test_7}, py:eval(<<"erlang.Atom('of_the_test_7')">>)),
    ?assertMatch({error, {'Error', _}}, py:eval(<<"erlang.atom('one_more_of_the_test')">>)),
    ?assertMatch({error, {unconvertible, _, _}}, py:eval(<<"[erlang.Atom('one_more_of_the_test')]">>)),
    ?assertMatch({error, {'TypeError', _}},
                 py:eval(<<"erlang.call('f', erlang.Atom('one_more_of_the_test'))">>)),
    ok = py:exec(<<"class OneMoreOfTheTest(Exception): pass">>),
    ?assertEqual({error, {<<"OneMoreOfTheTest">>, "x"}},
                 py:exec(<<"raise OneMoreOfTheTest('x')">>)),
    ?assertEqual({ok, 2}, py:eval(<<"1 + 1">>)).

%% ------------------------------------------------------------------------------------------
%% Threads and the process they work for
%% ------------------------------------------------------------------------------------------

%% A pool in a namespace, used once, must not outlive the process whose namespace that is.
pool_does_not_keep_its_maker(_) ->
    Ctx = py:context(1),
    {Before, _, _} = py_nif:counters(),
    Threads = py_modes:threads(),
    [_, _] = py_modes:at_once([fun() ->
        ok = py:exec(Ctx, <<"import erlang\nfrom concurrent.futures import ThreadPoolExecutor\n"
                            "pool = ThreadPoolExecutor(8, initializer=erlang.self)\n"
                            "pids = [f.result() for f in [pool.submit(erlang.self) for _ in range(50)]]">>),
        Self = self(),
        ?assertEqual({ok, [Self]}, py:eval(Ctx, <<"list(set(pids))">>))
    end || _ <- [1, 2]]),
    py_modes:wait_until(fun() ->
        {ok, _} = py:call(Ctx, gc, collect, []),
        {Now, _, _} = py_nif:counters(),
        Now =< Before andalso py_modes:threads() =< Threads + 4
    end).

thread_keeps_its_maker_while_it_runs(_) ->
    Ctx = py:context(1),
    Self = self(),
    {Before, _, _} = py_nif:counters(),
    [Maker] = py_modes:at_once([fun() ->
        ok = py:exec(Ctx, <<"import erlang, threading\nvalue = 7\n"
                            "def work(to):\n"
                            "    threading.Event().wait(0.2)\n"
                            "    erlang.send(to, (erlang.self(), value))\n"
                            "def f(to): threading.Thread(target=work, args=(to,)).start()">>),
        {ok, none} = py:call(Ctx, '__main__', f, [Self]),
        self()
    end]),
    receive {Maker, 7} -> ok after 5000 -> error(no_message) end,
    py_modes:wait_until(fun() ->
        {ok, _} = py:call(Ctx, gc, collect, []),
        {Now, _, _} = py_nif:counters(),
        Now =< Before
    end).

%% ------------------------------------------------------------------------------------------
%% Without a context
%% ------------------------------------------------------------------------------------------

%% A plain interpreter gets a sentence that says where the package works.
outside_the_vm(_) ->
    ok = py_modes:start(worker),
    {ok, Python} = py:eval(<<"__import__('sys').executable">>),
    ok = py_modes:stop(),
    Package = filename:join(code:priv_dir(erlang_python), "python"),
    Port = open_port({spawn_executable, Python},
                     [{args, ["-I", "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import erlang",
                              Package]},
                      exit_status, stderr_to_stdout, binary]),
    {Status, Text} = output(Port, <<>>),
    ?assertEqual(1, Status),
    [?assertNotEqual(nomatch, string:find(Text, Part), {Part, Text})
     || Part <- ["ImportError", "inside an Erlang VM", "erlang_python"]].

output(Port, Text) ->
    receive
        {Port, {data, More}} -> output(Port, <<Text/binary, More/binary>>);
        {Port, {exit_status, Status}} -> {Status, Text}
    after 60000 ->
        error({no_end, Text})
    end.

%% The package is typed strictly, for whoever has a checker.
%% The VM looks for nif_init; whatever else the library exported could meet another's name.
exports_of_the_library(_) ->
    Library = filename:join(code:priv_dir(erlang_python), "erlang_python.so"),
    case os:find_executable("nm") of
        false ->
            {skip, "nm is not installed"};
        _ ->
            Lines = string:lexemes(os:cmd("nm -D --defined-only '" ++ Library ++ "'"), "\n"),
            ?assertEqual(["nif_init"], [lists:last(string:lexemes(Line, " ")) || Line <- Lines])
    end.

types(_) ->
    case os:find_executable("mypy") of
        false ->
            {skip, "mypy is not installed"};
        Mypy ->
            Port = open_port({spawn_executable, Mypy},
                             [{args, ["--strict", "--python-version", "3.9", "--cache-dir=/dev/null",
                                      "--ignore-missing-imports", "erlang"]},
                              {cd, filename:join(code:priv_dir(erlang_python), "python")},
                              exit_status, stderr_to_stdout, binary]),
            {Status, Text} = output(Port, <<>>),
            ?assertEqual({0, Text}, {Status, Text})
    end.
