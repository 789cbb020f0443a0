-module(py_callback).

-include("py_doc.hrl").
?MODULEDOC("Functions that Python may call, and the processes they run in.").

%% API
-export([register/2, register/3, unregister/1]).
-export([start/6, down/2]).

-type chain() :: {pid() | undefined, py_nif:context(), py_nif:namespace() | undefined,
                  non_neg_integer(), timeout(), boolean()}.

-define(TABLE, py_functions).
-define(TEXT_MAX, 2000).

?DOC("Makes a fun callable from Python under a name: arity 1 takes the list of positional\n"
     "arguments, arity 2 the keyword arguments (a map) too.").
-spec register(py:name(), fun(([term()]) -> term()) | fun(([term()], map()) -> term())) -> ok.
register(Name, Fun) when is_function(Fun, 1); is_function(Fun, 2) ->
    true = ets:insert(?TABLE, {py:to_binary(Name), Fun}),
    ok;
register(_Name, _Fun) ->
    py_options:misuse("a callback is a fun of arity 1 or 2").

-spec register(py:name(), module(), atom()) -> ok.
register(Name, Module, Function) when is_atom(Module), is_atom(Function) ->
    true = ets:insert(?TABLE, {py:to_binary(Name), {Module, Function}}),
    ok.

-spec unregister(py:name()) -> ok.
unregister(Name) ->
    true = ets:delete(?TABLE, py:to_binary(Name)),
    ok.

?DOC("Runs what Python asked for: at once, or in a fresh process that the caller monitors.").
-spec start(call | state | system, reference(), binary(), term(), map(), chain()) ->
    replied | {pid(), reference()}.
start(call, Callback, Name, Args, Kwargs, Chain) ->
    case ets:lookup(?TABLE, Name) of
        [{_, Function}] ->
            spawn_monitor(fun() -> run(Callback, Function, Args, Kwargs, Chain) end);
        [] ->
            reply_error(Callback, error, {not_registered, Name}, []),
            replied
    end;
start(state, Callback, Name, Args, _Kwargs, _Chain) ->
    try py_state:from_python(Name, tuple_to_list(Args)) of
        Result -> reply(Callback, Result)
    catch
        Class:Reason:Stack -> reply_error(Callback, Class, Reason, Stack)
    end,
    replied;
start(system, Callback, Name, Args, _Kwargs, _Chain) ->
    try system(Name, tuple_to_list(Args)) of
        Result -> reply(Callback, Result)
    catch
        Class:Reason:Stack -> reply_error(Callback, Class, Reason, Stack)
    end,
    replied.

system(<<"is_registered">>, [Name]) -> ets:member(?TABLE, Name);
system(<<"names">>, []) -> [Name || {Name, _} <- ets:tab2list(?TABLE)].

run(Callback, Function, Args, Kwargs, {Owner, _, _, _, _, _} = Chain) ->
    inherit(Owner),
    py_request:adopt(Chain),
    try apply_function(Function, tuple_to_list(Args), Kwargs) of
        Result -> reply(Callback, Result)
    catch
        Class:Reason:Stack -> reply_error(Callback, Class, Reason, Stack)
    end.

apply_function(Fun, Args, _Kwargs) when is_function(Fun, 1) -> Fun(Args);
apply_function(Fun, Args, Kwargs) when is_function(Fun, 2) -> Fun(Args, Kwargs);
apply_function({Module, Function}, Args, Kwargs) ->
    case erlang:function_exported(Module, Function, 2) andalso map_size(Kwargs) > 0 of
        true -> Module:Function(Args, Kwargs);
        false -> Module:Function(Args)
    end.

%% What a process started by the owner would have.
inherit(undefined) ->
    ok;
inherit(Owner) ->
    case process_info(Owner, [group_leader, dictionary]) of
        [{group_leader, Leader}, {dictionary, Dictionary}] ->
            group_leader(Leader, self()),
            put('$callers', [Owner | proplists:get_value('$callers', Dictionary, [])]),
            case proplists:get_value('$logger_metadata$', Dictionary) of
                undefined -> ok;
                Metadata -> logger:set_process_metadata(Metadata)
            end;
        undefined ->
            ok
    end.

reply(Callback, Result) ->
    py_nif:callback_reply(Callback, {ok, Result}).

%% Class, reason, stack, and all of it as text. The text is bounded: in a deep chain each level
%% quotes the one below.
reply_error(Callback, Class, Reason, Stack) ->
    Text = unicode:characters_to_binary(erl_error:format_exception(Class, Reason, Stack)),
    py_nif:callback_reply(Callback, {error, {Class, Reason, [frame(Frame) || Frame <- Stack],
                                             string:slice(Text, 0, ?TEXT_MAX)}}).

frame({Module, Function, Args, Info}) ->
    Arity = if is_list(Args) -> length(Args); true -> Args end,
    Where = case {proplists:get_value(file, Info), proplists:get_value(line, Info)} of
                {undefined, _} -> "";
                {File, Line} -> io_lib:format(" (~ts:~p)", [filename:basename(File), Line])
            end,
    unicode:characters_to_binary(io_lib:format("~tw:~tw/~p~ts", [Module, Function, Arity, Where])).

?DOC("The callback's process ended; if it had not answered, that is the answer.").
-spec down(reference(), term()) -> ok.
down(_Callback, normal) ->
    ok;
down(Callback, Reason) ->
    _ = reply_error(Callback, exit, Reason, []),
    ok.
