-module(py_tables).
-behaviour(gen_server).

-include("py_doc.hrl").
?MODULEDOC("Owns the ETS tables and does nothing else, so they live as long as the application.").

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

?HIDDEN.
init([]) ->
    Read = [named_table, public, {read_concurrency, true}],
    _ = ets:new(py_contexts, Read),
    _ = ets:new(py_functions, Read),
    _ = ets:new(py_imports, [ordered_set | Read]),
    _ = ets:new(py_state, [{write_concurrency, true} | Read]),
    _ = ets:new(py_logging, Read),
    _ = ets:new(py_traces, [ordered_set | Read]),
    {ok, none}.

?HIDDEN.
handle_call(_Call, _From, State) ->
    {reply, ok, State}.

?HIDDEN.
handle_cast(_Cast, State) ->
    {noreply, State}.
