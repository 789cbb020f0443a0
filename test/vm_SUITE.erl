-module(vm_SUITE).

%% @doc The VM's end under load, and another version of the code: each in a VM of its own.
%%
%% VM_ENDS is how often each kind of end is tried (3).

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

suite() ->
    [{timetrap, {hours, 1}}].

all() ->
    py_modes:all().

groups() ->
    py_modes:groups([stop, halt, upgrade_to_the_same, upgrade_to_another, upgrade_to_a_copy]).

init_per_group(Mode, Config) ->
    [{mode, Mode} | Config].

end_per_group(_Mode, _Config) ->
    ok.

%% ------------------------------------------------------------------------------------------
%% However it ends: status 0, no crash, no hang
%% ------------------------------------------------------------------------------------------

stop(Config) -> ends(Config, "init:stop()").

halt(Config) -> ends(Config, "halt(0)").

ends(Config, End) ->
    [?assertEqual({0, <<>>}, vm_end(vm(py_modes:mode(Config), End), []), N) || N <- lists:seq(1, times())].

times() ->
    list_to_integer(os:getenv("VM_ENDS", "3")).

vm(Mode, End) ->
    Eval = lists:flatten(io_lib:format("vm_SUITE:load_and_end(~p, fun() -> ~s end).", [Mode, End])),
    Paths = lists:append([["-pa", Path] || Path <- code:get_path()]),
    open_port({spawn_executable, os:find_executable("erl")},
              [{args, ["-noshell", "-boot", "start_clean" | Paths] ++ ["-eval", Eval]},
               exit_status, stderr_to_stdout, binary]).

%% The status, and what is told if it is not 0.
vm_end(Port, Output) ->
    receive
        {Port, {data, Data}} -> vm_end(Port, [Output, Data]);
        {Port, {exit_status, 0}} -> {0, <<>>};
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Output)}
    after 60000 ->
        port_close(Port),
        {hangs, iolist_to_binary(Output)}
    end.

load_and_end(Mode, End) ->
    ok = py_modes:start(Mode),
    Busy = <<"import hashlib, json, zlib, sqlite3, threading, time\n"
             "try: import ssl\n"
             "except ImportError: ssl = None\n"
             "try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
             "except RuntimeError: threading.Thread(target=time.sleep, args=(60,)).start()\n"
             "def shake_hands():\n"
             "  context = ssl.create_default_context()\n"
             "  try: context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='x').do_handshake()\n"
             "  except ssl.SSLWantReadError: pass\n"
             "def work():\n"
             "  db = sqlite3.connect(':memory:')\n"
             "  while True:\n"
             "    hashlib.sha256(b'x' * 10000).hexdigest()\n"
             "    zlib.compress(json.dumps(list(range(100))).encode())\n"
             "    db.execute('select 1').fetchall()\n"
             "    if ssl: shake_hands()\n">>,
    Self = self(),
    [spawn(fun() ->
         ok = py:exec(Ctx, Busy),
         Self ! busy,
         py:call(Ctx, '__main__', work, [], infinity)
     end) || Ctx <- py_context_router:contexts()],
    [receive busy -> ok end || _ <- py_context_router:contexts()],
    [spawn(fun Call() -> py:call(math, sqrt, [16], #{}, 50), Call() end) || _ <- lists:seq(1, 20)],
    timer:sleep(100 + rand:uniform(100)),
    End().

%% ------------------------------------------------------------------------------------------
%% Another version of the code
%% ------------------------------------------------------------------------------------------

upgrade_to_the_same(Config) ->
    ok = py_peer:in_peer(py_modes:mode(Config), ?MODULE, upgrade, [same]).

%% One byte of the build's name is another.
upgrade_to_another(Config) ->
    Folder = copy(Config, fun(Library) ->
        [_, Line] = string:split(build_id(), "EP_BUILD_ID \""),
        Id = binary:part(Line, 0, 16),
        Other = <<"another", (binary:part(Id, 7, 9))/binary>>,
        New = binary:replace(Library, Id, Other, [global]),
        ?assertNotEqual(Library, New),
        New
    end),
    ok = py_peer:in_peer(py_modes:mode(Config), ?MODULE, upgrade, [{refused, Folder}]).

%% The same file elsewhere is another library, with a state of its own.
upgrade_to_a_copy(Config) ->
    Folder = copy(Config, fun(Library) -> Library end),
    ok = py_peer:in_peer(py_modes:mode(Config), ?MODULE, upgrade, [{refused, Folder}]).

build_id() ->
    [File] = [File || Up <- [code:lib_dir(erlang_python)],
                      File <- filelib:wildcard(filename:join([Up, "..", "..", "..", "cmake", "build_id.h"]))],
    {ok, Text} = file:read_file(File),
    Text.

%% A version of the application with another library.
copy(Config, Change) ->
    Folder = filename:join([proplists:get_value(priv_dir, Config), atom_to_list(py_modes:mode(Config)),
                            "erlang_python-99"]),
    Beam = code:which(py_nif),
    To = filename:join([Folder, "ebin", "py_nif.beam"]),
    ok = filelib:ensure_dir(To),
    {ok, _} = file:copy(Beam, To),
    Library = filename:join([Folder, "priv", "erlang_python.so"]),
    ok = filelib:ensure_dir(Library),
    {ok, Content} = file:read_file(filename:join(code:priv_dir(erlang_python), "erlang_python.so")),
    ok = file:write_file(Library, Change(Content)),
    Folder.

%% In the peer: contexts live, a call runs and another one waits for a callback meanwhile.
upgrade(How) ->
    Self = self(),
    ok = py:register_function(wait, fun([]) -> Self ! {waits, self()}, receive go -> went end end),
    ok = py:exec(<<"import erlang, time\nx = 1\ndef wait(): return erlang.call('wait')">>),
    {ok, Handle} = py:call(builtins, list, [[1]], #{}, #{return => handle}),
    Waits = py:spawn_call('__main__', wait, []),
    Callback = receive {waits, Pid} -> Pid end,
    Sleeps = py:spawn_call(py:context(2), time, sleep, [0.5]),
    load(How),
    Callback ! go,
    ?assertEqual({ok, <<"went">>}, py:await(Waits)),
    ?assertEqual({ok, none}, py:await(Sleeps)),
    ?assertEqual({ok, 1}, py:eval(<<"x">>)),
    ?assertEqual({ok, 1}, py:call(Handle, count, [1])),
    [?assertEqual({ok, 2}, py:eval(Ctx, <<"1 + 1">>)) || Ctx <- py_context_router:contexts()],
    {ok, Ctx} = py_context:new(#{mode => py:execution_mode()}),
    ?assertEqual({error, timeout}, py:exec(Ctx, <<"while True: pass">>, 50)),
    ok = py_context:stop(Ctx),
    ok = application:stop(erlang_python),
    ok = application:start(erlang_python),
    ?assertEqual({ok, 2}, py:eval(<<"1 + 1">>)),
    ok.

%% Twice, as the code server keeps one old version.
load(same) ->
    [begin
         true = code:soft_purge(py_nif),
         {module, py_nif} = code:load_file(py_nif)
     end || _ <- [1, 2]],
    true = code:soft_purge(py_nif);
load({refused, Folder}) ->
    ok = py_modes:hear_log(self()),
    true = code:add_patha(filename:join(Folder, "ebin")),
    Folder = filename:dirname(code:priv_dir(erlang_python)),
    ?assertEqual({error, on_load_failure}, code:load_file(py_nif)),
    receive
        {log, warning, Text} -> ?assertNotEqual(nomatch, string:find(Text, <<"another build">>))
    after 5000 -> error(not_logged)
    end,
    true = code:del_path(filename:join(Folder, "ebin")),
    ok = py_modes:unhear_log().
