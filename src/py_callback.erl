-module(py_callback).

-include("py_doc.hrl").
?MODULEDOC("Functions that Python may call, and the processes they run in.").

%% API
-export([register/2, register/3, unregister/1]).
-export([start/6, down/2]).

-type chain() :: {pid() | undefined, py_nif:context(), py_nif:namespace() | undefined,
                  non_neg_integer(), timeout(), boolean()}.
-type callback() :: fun(([term()]) -> term()) | fun(([term()], map()) -> term()).

-define(TABLE, py_functions).
%% Of an error's text: in a deep chain each level quotes the one below.
-define(TEXT_MAX, 2000).
-define(TERM_DEPTH, 500).

?DOC("Makes a fun callable from Python under a name: arity 1 takes the list of positional\n"
     "arguments and no others, arity 2 the keyword arguments (a map) too.").
-spec register(py:name(), callback()) -> ok.
register(Name, Fun) when is_function(Fun, 1); is_function(Fun, 2) ->
    true = ets:insert(?TABLE, {name(Name), Fun}),
    ok;
register(_Name, _Fun) ->
    py_options:misuse("a callback is a fun of arity 1 or 2").

?DOC("The same with an exported function of arity 1 or 2, looked up at each call. If a module has\n"
     "both, keyword arguments decide.").
-spec register(py:name(), module(), atom()) -> ok.
register(Name, Module, Function) when is_atom(Module), is_atom(Function) ->
    true = ets:insert(?TABLE, {name(Name), {Module, Function}}),
    ok;
register(_Name, _Module, _Function) ->
    py_options:misuse("a callback is named by two atoms, module and function").

?DOC("Python cannot call the function any more; what runs goes on.").
-spec unregister(py:name()) -> ok.
unregister(Name) ->
    true = ets:delete(?TABLE, name(Name)),
    ok.

name(Name) ->
    try unicode:characters_to_binary(py:to_binary(Name)) of
        Binary when is_binary(Binary) -> Binary;
        _ -> misnamed()
    catch
        error:_ -> misnamed()
    end.

-spec misnamed() -> no_return().
misnamed() ->
    py_options:misuse("a callback's name is an atom, a binary or a string").

%% ------------------------------------------------------------------------------------------
%% In the context's process
%% ------------------------------------------------------------------------------------------

?DOC("Runs what Python asked for: at once, or in a fresh process linked to the caller.").
-spec start(call | state | system, reference(), term(), tuple(), map(), chain()) ->
    replied | pid().
start(call, Callback, Name, Args, Kwargs, Chain) ->
    case ets:lookup(?TABLE, py:to_binary(Name)) of % an Atom is a str too
        [{_, Function}] ->
            Context = self(),
            spawn_link(fun() -> run(Callback, Function, Args, Kwargs, Context, Chain) end);
        [] ->
            _ = reply_error(Callback, error, {not_registered, Name}, []),
            replied
    end;
start(Kind, Callback, Name, Args, _Kwargs, _Chain) ->
    _ = try at_once(Kind, Name, tuple_to_list(Args)) of
            Result -> reply(Callback, Result)
        catch
            Class:Reason:Stack -> reply_error(Callback, Class, Reason, Stack)
        end,
    replied.

%% What takes no time and runs no code of users.
at_once(state, Operation, Args) -> py_state:from_python(Operation, Args);
at_once(system, <<"is_registered">>, [Name]) -> ets:member(?TABLE, Name).

?DOC("The callback's process ended; if it had not answered, that is the answer.").
-spec down(reference(), term()) -> ok.
down(_Callback, normal) ->
    ok;
down(Callback, Reason) ->
    _ = reply_error(Callback, exit, Reason, []),
    ok.

%% ------------------------------------------------------------------------------------------
%% In the callback's process
%% ------------------------------------------------------------------------------------------

run(Callback, Function, Args, Kwargs, Context, {Owner, _, _, _, _, _} = Chain) ->
    inherit(Owner),
    py_request:adopt(Context, Chain),
    try apply_function(Function, tuple_to_list(Args), Kwargs) of
        Result -> reply(Callback, Result)
    catch
        Class:Reason:Stack -> reply_error(Callback, Class, Reason, Stack)
    end.

%% Keyword arguments are never dropped: a fun that takes none fails with badarity.
apply_function(Fun, Args, Kwargs) when is_function(Fun, 1), map_size(Kwargs) =:= 0 -> Fun(Args);
apply_function(Fun, Args, Kwargs) when is_function(Fun) -> Fun(Args, Kwargs);
apply_function({Module, Function}, Args, Kwargs) when map_size(Kwargs) =:= 0 ->
    case is_exported(Module, Function, 1) orelse not is_exported(Module, Function, 2) of
        true -> Module:Function(Args);
        false -> Module:Function(Args, Kwargs)
    end;
apply_function({Module, Function}, Args, Kwargs) ->
    Module:Function(Args, Kwargs).

is_exported(Module, Function, Arity) ->
    erlang:function_exported(Module, Function, Arity) orelse
        (code:ensure_loaded(Module) =:= {module, Module} andalso
         erlang:function_exported(Module, Function, Arity)).

%% What a process started by the owner would have.
inherit(undefined) ->
    ok;
inherit(Owner) ->
    case process_info(Owner, [group_leader, dictionary]) of
        [{group_leader, Leader}, {dictionary, Dictionary}] ->
            group_leader(Leader, self()),
            put('$callers', [Owner | proplists:get_value('$callers', Dictionary, [])]),
            case lists:keyfind('$logger_metadata$', 1, Dictionary) of
                {_, Metadata} -> logger:set_process_metadata(Metadata);
                false -> ok
            end;
        undefined ->
            ok
    end.

%% ------------------------------------------------------------------------------------------
%% Answers
%% ------------------------------------------------------------------------------------------

reply(Callback, Result) ->
    py_nif:callback_reply(Callback, {ok, Result}).

%% Class, reason, stack, and all of it as text.
reply_error(Callback, Class, Reason, Stack) ->
    Format = fun(Term, Indent) -> io_lib:format("~.*tP", [Indent, Term, ?TERM_DEPTH]) end,
    Text = erl_error:format_exception(Class, Reason, Stack, #{format_fun => Format}),
    Error = {Class, Reason, [frame(Frame) || Frame <- Stack],
             string:slice(unicode:characters_to_binary(Text), 0, ?TEXT_MAX)},
    py_nif:callback_reply(Callback, {error, Error}).

%% A stack that somebody made by hand may hold anything.
-dialyzer({no_match, frame/1}).
frame({Module, Function, Args, Info}) ->
    Arity = if is_list(Args) -> length(Args); true -> Args end,
    Where = case {proplists:get_value(file, Info), proplists:get_value(line, Info)} of
                {undefined, _} -> "";
                {File, Line} -> io_lib:format(" (~ts:~p)", [filename:basename(File), Line])
            end,
    unicode:characters_to_binary(io_lib:format("~tw:~tw/~p~ts", [Module, Function, Arity, Where]));
frame(Other) ->
    unicode:characters_to_binary(io_lib:format("~tP", [Other, ?TERM_DEPTH])).
