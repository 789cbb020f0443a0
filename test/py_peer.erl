-module(py_peer).

%% @doc Cases that may end the VM, or that need one with another environment, run in a VM of their
%% own: its end is a failed case, not the end of the run.

-export([start/1, start/2, start/3, call/4, call/5, stop/1, in_peer/4]).

%% A VM in which the application runs in this mode, with these settings and environment variables.
start(Mode) ->
    start(Mode, []).

start(Mode, Settings) ->
    start(Mode, Settings, []).

start(Mode, Settings, Environment) ->
    {ok, Peer, _} = peer:start(#{connection => standard_io, wait_boot => 60000, env => Environment,
                                 args => ["-pa" | code:get_path()]}),
    ok = call(Peer, py_modes, start, [Mode, Settings]),
    Peer.

call(Peer, Module, Function, Args) ->
    call(Peer, Module, Function, Args, 120000).

%% The VM's end is an error here.
call(Peer, Module, Function, Args, Timeout) ->
    try peer:call(Peer, Module, Function, Args, Timeout)
    catch
        exit:Reason -> error({the_vm_ended, Module, Function, Reason})
    end.

%% It may have ended by itself.
stop(Peer) ->
    try peer:stop(Peer)
    catch exit:_ -> ok
    end.

%% One call in a VM of its own.
in_peer(Mode, Module, Function, Args) ->
    Peer = start(Mode),
    try call(Peer, Module, Function, Args)
    after
        stop(Peer)
    end.
