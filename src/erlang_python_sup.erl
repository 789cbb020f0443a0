-module(erlang_python_sup).
-behaviour(supervisor).

-include("py_doc.hrl").
?MODULEDOC("Tables first, then the engine, then the contexts, then who hands them out. What contexts can\n"
           "do without for a moment has a supervisor of its own, so that they survive it.").

-export([start_link/0]).
-export([init/1]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, contexts).

?HIDDEN.
init(services) ->
    {ok, {#{strategy => one_for_one, intensity => 5, period => 10}, [worker(py_log)]}};
init(contexts) ->
    {ok, {#{strategy => rest_for_one, intensity => 5, period => 10},
          [worker(py_tables), worker(py_engine),
           #{id => services, start => {supervisor, start_link, [?MODULE, services]},
             type => supervisor},
           #{id => py_context_sup, start => {py_context_sup, start_link, []}, type => supervisor},
           worker(py_context_router)]}}.

worker(Module) ->
    #{id => Module, start => {Module, start_link, []}, shutdown => 30000}.
