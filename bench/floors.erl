-module(floors).

%% @doc What the benchmarks compare with: see floors.c, which bin/bench builds beside this module.

-export([empty/0, dirty/0, hand_off/1]).
-export([empty_nif/1, dirty_hop/1, message/1, thread/1, messages/1, terms/2]).

-on_load(init/0).

-define(WINDOW, 1000).

init() ->
    erlang:load_nif(filename:rootname(code:which(?MODULE)), 0).

%% A NIF that does nothing.
-spec empty() -> ok.
empty() -> erlang:nif_error(not_loaded).

%% The same on a dirty scheduler.
-spec dirty() -> ok.
dirty() -> erlang:nif_error(not_loaded).

%% A thread sends the reference to the caller.
-spec hand_off(reference()) -> ok.
hand_off(_Ref) -> erlang:nif_error(not_loaded).

%% ------------------------------------------------------------------------------------------
%% Each of them N times
%% ------------------------------------------------------------------------------------------

%% N calls of the empty NIF.
-spec empty_nif(non_neg_integer()) -> ok.
empty_nif(0) -> ok;
empty_nif(N) -> ok = empty(), empty_nif(N - 1).

%% N calls of the empty dirty NIF.
-spec dirty_hop(non_neg_integer()) -> ok.
dirty_hop(0) -> ok;
dirty_hop(N) -> ok = dirty(), dirty_hop(N - 1).

%% N times a message to a process and its answer, with a monitor, as gen_server:call/2 does it.
-spec message(non_neg_integer()) -> ok.
message(N) ->
    Echo = spawn_link(fun echo/0),
    ask(Echo, N),
    unlink(Echo),
    exit(Echo, kill),
    ok.

ask(_Echo, 0) -> ok;
ask(Echo, N) ->
    Monitor = monitor(process, Echo),
    Echo ! {self(), Monitor},
    receive Monitor -> demonitor(Monitor, [flush]) end,
    ask(Echo, N - 1).

echo() ->
    receive {From, What} -> From ! What end,
    echo().

%% N times to a thread and back.
-spec thread(non_neg_integer()) -> ok.
thread(0) -> ok;
thread(N) ->
    Ref = make_ref(),
    ok = hand_off(Ref),
    receive Ref -> thread(N - 1) end.

%% N messages from another process, of which at most a thousand are unread, as with a stream.
-spec messages(non_neg_integer()) -> ok.
messages(N) ->
    Self = self(),
    Ref = make_ref(),
    Pid = spawn_link(fun() -> send(Self, Ref, N) end),
    take(Pid, Ref, N),
    unlink(Pid),
    ok.

send(_To, _Ref, 0) -> ok;
send(To, Ref, N) ->
    To ! {py_stream, Ref, {data, N}},
    case N rem (?WINDOW div 2) of
        0 -> receive more -> send(To, Ref, N - 1) end;
        _ -> send(To, Ref, N - 1)
    end.

take(_Pid, _Ref, 0) -> ok;
take(Pid, Ref, N) ->
    receive {py_stream, Ref, {data, N}} -> ok end,
    N rem (?WINDOW div 2) =:= 0 andalso (Pid ! more),
    take(Pid, Ref, N - 1).

%% N times to a thread and back, and the term to its external format and back.
-spec terms(term(), non_neg_integer()) -> ok.
terms(_Term, 0) -> ok;
terms(Term, N) ->
    Ref = make_ref(),
    ok = hand_off(Ref),
    receive Ref -> ok end,
    _ = binary_to_term(term_to_binary(Term)),
    terms(Term, N - 1).
