-module(py_semaphore).

-include("py_doc.hrl").
-include("py_misuse.hrl").
-include("py_request.hrl").
?MODULEDOC("The rate limit of Python calls. The count and the line of waiting requests live in the library.").

-export([max_concurrent/0, current/0, set_max_concurrent/1, acquire/1, release/0]).

?DOC("How many requests may run at once.").
-spec max_concurrent() -> pos_integer().
max_concurrent() ->
    {_, Max, _} = py_nif:slots(),
    Max.

?DOC("How many are admitted and not waiting for Erlang.").
-spec current() -> non_neg_integer().
current() ->
    {Current, _, _} = py_nif:slots(),
    max(0, Current).

?DOC("Changes the limit; upwards starts those in line at once.").
-spec set_max_concurrent(pos_integer()) -> ok.
set_max_concurrent(Max) when is_integer(Max), Max > 0, Max =< 16#7FFFFFFF ->
    py_nif:slots_set_max(Max);
set_max_concurrent(_Max) ->
    ?MISUSE("the limit must be an integer from 1 to 2147483647").

?DOC("Takes a slot for the calling process, which loses it when it dies.").
-spec acquire(timeout()) -> ok | {error, max_concurrent}.
acquire(Timeout) when not ?IS_TIMEOUT(Timeout) ->
    ?MISUSE("the time-out must be milliseconds or infinity");
acquire(Timeout) ->
    Ref = make_ref(),
    case py_nif:slot_acquire(py_request:owner(), self(), Ref, Timeout) of
        Token when is_integer(Token) ->
            receive
                {Ref, ok} -> ok;
                {Ref, {error, _}} -> {error, max_concurrent}
            end;
        {error, _} ->
            {error, max_concurrent}
    end.

?DOC("Gives a slot of the calling process back; `badarg` if it has none.").
-spec release() -> ok.
release() ->
    try py_nif:slot_release(py_request:owner())
    catch error:badarg -> ?MISUSE("this process has no slot to give back")
    end.
