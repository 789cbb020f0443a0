-module(py_import).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("What every context starts with: logging, search paths, imports, preload code.").

-export([prepare/2]).

?DOC("Prepares a new context; what fails is logged, the context serves all the same.").
-spec prepare(py_request:place(), py_context:options()) -> ok.
prepare(Place, Opts) ->
    logging(Place, py_log:options()),
    switch_interval(Place, py_config:get(switch_interval)),
    lists:foreach(fun(Path) -> path(Place, py:to_binary(Path)) end,
                  lists:reverse(py_config:get(paths) ++ maps:get(paths, Opts, []))),
    lists:foreach(fun(Module) -> import(Place, py:to_binary(Module)) end,
                  py_config:get(imports) ++ maps:get(imports, Opts, [])),
    preload(Place, py_config:get(preload)),
    preload(Place, maps:get(preload, Opts, undefined)).

%% First, so that what imports log is heard.
logging(_Place, none) ->
    ok;
logging(Place, Options) ->
    report(logging, call(Place, <<"erlang._logging">>, <<"configure">>, Options)).

%% Of the interpreter's GIL.
switch_interval(_Place, undefined) ->
    ok;
switch_interval(Place, Microseconds) ->
    report(switch_interval, call(Place, <<"sys">>, <<"setswitchinterval">>, [Microseconds / 1.0e6])).

path(Place, Path) ->
    report({path, Path}, call(Place, <<"erlang._setup">>, <<"add_path">>, [Path])).

import(Place, Module) ->
    report({import, Module}, call(Place, <<"importlib">>, <<"import_module">>, [Module])).

preload(_Place, undefined) ->
    ok;
preload(Place, Code) ->
    report(preload, call(Place, <<"erlang._setup">>, <<"preload">>,
                         [unicode:characters_to_binary(Code)])).

call(Place, Module, Function, Args) ->
    py_request:in_context(Place, #request{op = ?OP_CALL, target = Module, function = Function,
                                          args = Args, timeout = infinity,
                                          flags = ?FLAG_TRACEBACK}).

report(_What, {ok, _}) ->
    ok;
report(What, {error, Reason}) ->
    logger:error("Python context ~p could not be prepared with ~tp:~n~ts",
                 [self(), What, py:format_error(Reason)]).
