-module(owngil_SUITE).

%% @doc Interpreters with their own GIL come and go, many at once, with the parts of the standard library
%% in use that share state between interpreters: where CPython itself aborts without precautions.

-compile([export_all, nowarn_export_all]).
-include_lib("stdlib/include/assert.hrl").

-define(PROCESSES, 8).
-define(CYCLES, 20).

suite() ->
    [{timetrap, {minutes, 60}}].

all() ->
    py_modes:all([owngil]).

groups() ->
    py_modes:groups([come_and_go], [owngil]).

init_per_group(Mode, Config) ->
    py_modes:init_per_group(Mode, Config).

end_per_group(Mode, Config) ->
    py_modes:end_per_group(Mode, Config).

%% In a VM of its own, OWNGIL_RUNS times (1), each time in a new one.
come_and_go(_) ->
    Runs = list_to_integer(os:getenv("OWNGIL_RUNS", "1")),
    Times = [begin
                 {Ms, ok} = py_modes:elapsed(fun in_peer/0),
                 round(Ms)
             end || _ <- lists:seq(1, Runs)],
    {comment, lists:flatten(io_lib:format("~w ms", [Times]))}.

in_peer() ->
    Peer = py_peer:start(owngil, [{num_contexts, 1}]),
    try py_peer:call(Peer, ?MODULE, cycles, [], 1800000)
    after
        py_peer:stop(Peer)
    end.

cycles() ->
    Each = fun() -> [cycle() || _ <- lists:seq(1, ?CYCLES)] end,
    Results = py_modes:at_once(lists:duplicate(?PROCESSES, Each)),
    ?assertEqual([expected()], lists:usort(lists:append(Results))),
    ok.

cycle() ->
    {ok, Ctx} = py_context:new(#{mode => owngil}),
    ok = py:exec(Ctx, code()),
    {ok, Result} = py:call(Ctx, '__main__', use, []),
    ok = py_context:stop(Ctx),
    Result.

expected() ->
    {<<"2024-02-29T00:00:00">>, <<"0.3333333333333333333333333333">>, [[1, <<"one">>], [2, <<"two">>]], <<"wants to read">>,
     [0, 1, 4], 0.0, string:lowercase(binary:encode_hex(crypto:hash(sha256, <<"x">>))),
     #{<<"k">> => [1, 2.5, none]}}.

code() ->
    <<"import asyncio, datetime, decimal, hashlib, json, sqlite3, ssl, zoneinfo\n"
      "\n"
      "async def square(i):\n"
      "    await asyncio.sleep(0.001)\n"
      "    return i * i\n"
      "\n"
      "async def squares():\n"
      "    return list(await asyncio.gather(*[square(i) for i in range(3)]))\n"
      "\n"
      "def shake():\n"
      "    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
      "    tls = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname='localhost')\n"
      "    try:\n"
      "        tls.do_handshake()\n"
      "    except ssl.SSLWantReadError:\n"
      "        return 'wants to read'\n"
      "\n"
      "def rows():\n"
      "    db = sqlite3.connect(':memory:')\n"
      "    db.execute('create table t (n integer, name text)')\n"
      "    db.executemany('insert into t values (?, ?)', [(1, 'one'), (2, 'two')])\n"
      "    found = [list(row) for row in db.execute('select n, name from t order by n')]\n"
      "    db.close()\n"
      "    return found\n"
      "\n"
      "def offset():\n"
      "    try:\n"
      "        zone = zoneinfo.ZoneInfo('UTC')\n"
      "    except zoneinfo.ZoneInfoNotFoundError:  # no time zones on this machine\n"
      "        return 0.0\n"
      "    return datetime.datetime(2024, 2, 29, tzinfo=zone).utcoffset().total_seconds()\n"
      "\n"
      "def use():\n"
      "    day = datetime.datetime(2024, 2, 28) + datetime.timedelta(days=1)\n"
      "    third = decimal.Decimal(1) / decimal.Decimal(3)\n"
      "    return (day.isoformat(), str(third), rows(), shake(), asyncio.run(squares()), offset(),\n"
      "            hashlib.sha256(b'x').hexdigest(), json.loads(json.dumps({'k': [1, 2.5, None]})))\n">>.
