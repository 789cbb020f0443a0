-module(py_context_sup).
-behaviour(supervisor).

-include("py_doc.hrl").
?MODULEDOC("The router's contexts. They are temporary: the router replaces a dead one at its index.").

-export([start_link/0, start_context/3]).
-export([init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec start_context(integer(), py_context:mode(), py_context:options()) ->
    {ok, pid()} | {error, term()}.
start_context(Id, Mode, Opts) ->
    case supervisor:start_child(?MODULE, [Id, Mode, Opts]) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    end.

?HIDDEN.
init([]) ->
    {ok, {#{strategy => simple_one_for_one, intensity => 0, period => 1},
          [#{id => context, start => {py_context, start_link, []}, restart => temporary,
             shutdown => 15000}]}}.
