%% Options of a request as the library reads them (c_src/request.h).
-define(FLAG_TRACEBACK, 1).
-define(FLAG_AS_HANDLE, 2).
-define(FLAG_UNKNOWN_REPR, 4).
-define(FLAG_UNKNOWN_ERROR, 8).
-define(FLAG_BINARY_BYTES, 16).
-define(FLAG_BINARY_STR, 32).
-define(FLAG_OVERLOAD_FAIL, 64).
-define(FLAG_ERRORS_ONLY, 128).
-define(FLAG_RESPONSE, 256).
-define(FLAG_IMPLICIT, 512).
-define(FLAG_PLACING, 1024).
-define(FLAG_ERRAND, 2048).
-define(FLAG_ANY_EXECUTOR, 4096).
-define(FLAG_ASYNC, 8192).
-define(FLAG_ARRAYS, 16384).
-define(FLAG_MAY_INLINE, 32768).

%% What `receive' takes.
-define(IS_TIMEOUT(T), (T =:= infinity orelse (is_integer(T) andalso T >= 0 andalso T =< 16#FFFFFFFF))).

-define(OP_CALL, 0).
-define(OP_EVAL, 1).
-define(OP_EXEC, 2).

%% What one request asks for. `function`, `args` and `kwargs` are the call's; for eval `args` holds
%% the locals.
-record(request, {
    op :: 0..2,
    target :: term(),
    function = [] :: term(),
    args = [] :: term(),
    kwargs = [] :: term(),
    timeout :: timeout(),
    flags = 0 :: non_neg_integer()
}).
