-module(erlang_python_app).
-behaviour(application).

-include("py_doc.hrl").
?MODULEDOC("The application: checks its settings, starts the engine, then the contexts.").

-export([start/2, prep_stop/1, stop/1]).

?HIDDEN.
start(_Type, _Args) ->
    case py_config:load() of
        ok ->
            %% ERTS ignores SIGCHLD; Python's subprocess would wait for its children for ever.
            ok = os:set_signal(sigchld, default),
            ok = py_context_router:forget_all(),
            erlang_python_sup:start_link();
        {error, Bad} ->
            Sentence = py_config:format_error(Bad),
            logger:error("~ts", [Sentence]),
            {error, Sentence}
    end.

?HIDDEN.
prep_stop(State) ->
    _ = py_context_router:stop(),
    State.

?HIDDEN.
stop(_State) ->
    ok.
