-module(erlang_python_sup).
-behaviour(supervisor).

-include("py_doc.hrl").
?MODULEDOC("Tables first, then the engine, then the contexts, then who hands them out.").

-export([start_link/0]).
-export([init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

?HIDDEN.
init([]) ->
    {ok, {#{strategy => rest_for_one, intensity => 5, period => 10},
          [worker(py_tables), worker(py_engine),
           #{id => py_context_sup, start => {py_context_sup, start_link, []}, type => supervisor},
           worker(py_context_router)]}}.

worker(Module) ->
    #{id => Module, start => {Module, start_link, []}, shutdown => 30000}.
