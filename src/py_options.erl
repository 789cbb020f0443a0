-module(py_options).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("Makes requests of what users pass. Misuse is `badarg` with `error_info`.").

%% API
-export([call/6, eval/4, exec/3, timeout/2, name/2, misuse/1, misuse/2]).
-export([format_error/2]).

?DOC("The request of a call; `T` is a time-out in milliseconds, `infinity`, or options.").
-spec call(term(), term(), term(), term(), py:timeout_or_options() | default, timeout()) ->
    py_request:request().
call(Target, Function, Args, Kwargs, T, Default) when length(Args) >= 0 ->
    is_target(Target) orelse misuse("the module must be a name (atom, binary or string)"),
    is_name(Function) orelse misuse("the function must be a name (atom, binary or string)"),
    Request = #request{op = ?OP_CALL, target = Target, function = Function, args = Args,
                       kwargs = kwargs(Kwargs), timeout = py_request:default_timeout(Default),
                       flags = py_config:flags()},
    options(T, Request);
call(_Target, _Function, _Args, _Kwargs, _T, _Default) ->
    misuse("the arguments must be a proper list").

?DOC("The request of an evaluation; locals are a map.").
-spec eval(iodata(), map(), py:timeout_or_options() | default, timeout()) -> py_request:request().
eval(Code, Locals, T, Default) when is_map(Locals) ->
    options(T, #request{op = ?OP_EVAL, target = code(Code), args = Locals,
                        timeout = py_request:default_timeout(Default), flags = py_config:flags()});
eval(_Code, _Locals, _T, _Default) ->
    misuse("the locals must be a map").

?DOC("The request of an execution.").
-spec exec(iodata(), py:timeout_or_options() | default, timeout()) -> py_request:request().
exec(Code, T, Default) ->
    options(T, #request{op = ?OP_EXEC, target = code(Code),
                        timeout = py_request:default_timeout(Default), flags = py_config:flags()}).

?DOC("The time-out among options.").
-spec timeout(py:timeout_or_options() | default, timeout()) -> timeout().
timeout(T, Default) ->
    Request = #request{op = ?OP_EXEC, target = <<>>, timeout = py_request:default_timeout(Default)},
    (options(T, Request))#request.timeout.

options(default, Request) ->
    Request;
options(T, Request) when ?IS_TIMEOUT(T) ->
    Request#request{timeout = T};
options(#{} = Options, Request) ->
    options_in(maps:to_list(Options), Request);
options(_T, _Request) ->
    misuse("the last argument must be a time-out in milliseconds, infinity, or a map of options").

%% No fun of maps or lists: it would stand in the stack of a misuse.
options_in([{Key, Value} | Rest], Request) -> options_in(Rest, option(Key, Value, Request));
options_in([], Request) -> Request.

option(timeout, T, Request) when ?IS_TIMEOUT(T) ->
    Request#request{timeout = T};
option(kwargs, Kwargs, Request) when is_map(Kwargs); is_list(Kwargs) ->
    Request#request{kwargs = kwargs(Kwargs)};
option(traceback, true, Request) -> set(?FLAG_TRACEBACK, 0, Request);
option(traceback, false, Request) -> set(0, ?FLAG_TRACEBACK, Request);
option(return, handle, Request) -> set(?FLAG_AS_HANDLE, 0, Request);
option(return, value, Request) -> Request;
option(on_unknown, handle, Request) -> Request;
option(on_unknown, repr, Request) -> set(?FLAG_UNKNOWN_REPR, 0, Request);
option(on_unknown, error, Request) -> set(?FLAG_UNKNOWN_ERROR, 0, Request);
option(binary, auto, Request) -> set(0, ?FLAG_BINARY_BYTES bor ?FLAG_BINARY_STR, Request);
option(binary, bytes, Request) -> set(?FLAG_BINARY_BYTES, ?FLAG_BINARY_STR, Request);
option(binary, str, Request) -> set(?FLAG_BINARY_STR, ?FLAG_BINARY_BYTES, Request);
option(arrays, ndarray, Request) -> set(?FLAG_ARRAYS, 0, Request);
option(arrays, list, Request) -> Request;
option(overload, fail, Request) -> set(?FLAG_OVERLOAD_FAIL, 0, Request);
option(overload, wait, Request) -> Request;
option(inline, true, Request) -> set(?FLAG_MAY_INLINE, 0, Request);
option(inline, false, Request) -> Request;
option(Key, Value, _Request) ->
    misuse(io_lib:format("there is no option ~p => ~p; allowed are timeout, kwargs, traceback, return, "
                               "on_unknown, binary, arrays, overload and inline, with the values the "
                               "documentation of py lists", [Key, Value])).

set(On, Off, #request{flags = Flags} = Request) ->
    Request#request{flags = (Flags band (bnot Off)) bor On}.

kwargs(Kwargs) when is_map(Kwargs) -> Kwargs;
kwargs(Kwargs) when is_list(Kwargs) -> Kwargs;
kwargs(_) -> misuse("the keyword arguments must be a map or a list of pairs").

code(Code) when is_binary(Code) ->
    Code;
code(Code) ->
    try unicode:characters_to_binary(if is_atom(Code) -> atom_to_list(Code); true -> Code end) of
        Binary when is_binary(Binary) -> Binary;
        _ -> misuse("the source code must be iodata")
    catch
        error:badarg -> misuse("the source code must be iodata")
    end.

is_target(Target) ->
    is_reference(Target) orelse is_name(Target).

is_name(Name) ->
    is_atom(Name) orelse is_binary(Name) orelse (is_list(Name) andalso Name =/= []).

?DOC("A name as a binary; `What` is the sentence's subject.").
-spec name(term(), string()) -> binary().
name(Name, What) ->
    try unicode:characters_to_binary(py:to_binary(Name)) of
        Binary when is_binary(Binary), Binary =/= <<>> -> Binary;
        _ -> misuse([What, " must be a name (atom, binary or string)"])
    catch
        error:_ -> misuse([What, " must be a name (atom, binary or string)"])
    end.

?DOC("Raises `badarg` out of the function of this library that the user called, with a sentence. That\n"
     "function must be on the stack still: it may not have come here by tail calls alone.").
-spec misuse(io_lib:chars()) -> no_return().
misuse(Sentence) ->
    case user_stack() of
        [{Module, Function, Arity, Info} | Rest] ->
            raise({Module, Function, Arity}, Info, Rest, Sentence);
        [] ->
            error(badarg)
    end.

?DOC("The same out of a function that is known, whether it is on the stack or not.").
-spec misuse(mfa(), io_lib:chars()) -> no_return().
misuse(Caller, Sentence) ->
    raise(Caller, [], user_stack(), Sentence).

-spec raise(mfa(), list(), list(), io_lib:chars()) -> no_return().
raise({Module, Function, Arity}, Info, Rest, Sentence) ->
    Error = {error_info, #{module => ?MODULE, cause => lists:flatten(Sentence)}},
    erlang:raise(error, badarg, [{Module, Function, Arity, [Error | Info]} | Rest]).

user_stack() ->
    {current_stacktrace, Stack} = process_info(self(), current_stacktrace),
    lists:dropwhile(fun is_internal/1, Stack).

%% Users call what py, py_context, ... export, and nothing of these.
is_internal({Module, Function, Arity, _}) ->
    lists:member(Module, [erlang, ?MODULE, py_parallel, py_async, py_stream, py_request, py_callback,
                          py_log])
        orelse (lists:member(Module, [py, py_context, py_context_router]) andalso
                not erlang:function_exported(Module, Function, Arity)).

?HIDDEN.
-spec format_error(term(), [tuple()]) -> map().
format_error(_Reason, [{_M, _F, _Args, Info} | _]) ->
    #{cause := Sentence} = proplists:get_value(error_info, Info, #{}),
    #{general => Sentence}.
