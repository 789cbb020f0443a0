-module(py_options).

-include("py_doc.hrl").
-include("py_request.hrl").
?MODULEDOC("Makes requests of what users pass. Misuse is `badarg` with `error_info`.").

%% API
-export([call/6, eval/4, exec/3, timeout/2, misuse/1]).
-export([format_error/2]).

%% What `receive' takes.
-define(IS_TIMEOUT(T), (T =:= infinity orelse (is_integer(T) andalso T >= 0 andalso T =< 16#FFFFFFFF))).

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
    maps:fold(fun option/3, Request, Options);
options(_T, _Request) ->
    misuse("the last argument must be a time-out in milliseconds, infinity, or a map of options").

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
option(overload, fail, Request) -> set(?FLAG_OVERLOAD_FAIL, 0, Request);
option(overload, wait, Request) -> Request;
option(inline, Inline, Request) when is_boolean(Inline) -> Request;
option(Key, Value, _Request) ->
    misuse(io_lib:format("there is no option ~p => ~p; allowed are timeout, kwargs, traceback, return, "
                               "on_unknown, binary, overload and inline, with the values the "
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

?DOC("Raises `badarg` out of the function of this library that the user called, with a sentence.").
-spec misuse(io_lib:chars()) -> no_return().
misuse(Sentence) ->
    {current_stacktrace, Stack} = process_info(self(), current_stacktrace),
    [{Module, Function, Arity, Info} | Rest] = lists:dropwhile(fun is_internal/1, Stack),
    Error = {error_info, #{module => ?MODULE, cause => lists:flatten(Sentence)}},
    erlang:raise(error, badarg, [{Module, Function, Arity, [Error | Info]} | Rest]).

is_internal({Module, _, _, _}) ->
    lists:member(Module, [erlang, ?MODULE, py_parallel, py_async, py_request, py_callback, py_log]).

?HIDDEN.
-spec format_error(term(), [tuple()]) -> map().
format_error(_Reason, [{_M, _F, _Args, Info} | _]) ->
    #{cause := Sentence} = proplists:get_value(error_info, Info, #{}),
    #{general => Sentence}.
