-module(py_state).

-include("py_doc.hrl").
?MODULEDOC("State shared by Erlang and all Python contexts: an ETS table with atomic counters.").

-export([store/2, fetch/1, remove/1, keys/0, clear/0, incr/1, incr/2, decr/1, decr/2]).
-export([from_python/2]).

-define(TABLE, py_state).

?DOC("Stores a value. `{error, full}` when a new key would exceed `max_state_entries`.").
-spec store(term(), term()) -> ok | {error, full}.
store(Key, Value) ->
    case has_room(Key) of
        true -> ets:insert(?TABLE, {Key, Value}), ok;
        false -> {error, full}
    end.

-spec fetch(term()) -> {ok, term()} | {error, not_found}.
fetch(Key) ->
    case ets:lookup(?TABLE, Key) of
        [{_, Value}] -> {ok, Value};
        [] -> {error, not_found}
    end.

-spec remove(term()) -> ok.
remove(Key) ->
    ets:delete(?TABLE, Key),
    ok.

-spec keys() -> [term()].
keys() ->
    ets:select(?TABLE, [{{'$1', '_'}, [], ['$1']}]).

-spec clear() -> ok.
clear() ->
    ets:delete_all_objects(?TABLE),
    ok.

-spec incr(term()) -> integer() | {error, full | not_a_counter}.
incr(Key) ->
    incr(Key, 1).

?DOC("Adds to a counter, atomically; a new key starts at 0. Returns the new value.").
-spec incr(term(), integer()) -> integer() | {error, full | not_a_counter}.
incr(Key, Amount) ->
    case has_room(Key) of
        true ->
            try ets:update_counter(?TABLE, Key, Amount, {Key, 0})
            catch error:badarg -> {error, not_a_counter}
            end;
        false ->
            {error, full}
    end.

-spec decr(term()) -> integer() | {error, full | not_a_counter}.
decr(Key) ->
    incr(Key, -1).

-spec decr(term(), integer()) -> integer() | {error, full | not_a_counter}.
decr(Key, Amount) ->
    incr(Key, -Amount).

has_room(Key) ->
    case py_config:get(max_state_entries) of
        infinity -> true;
        Max -> ets:info(?TABLE, size) < Max orelse ets:member(?TABLE, Key)
    end.

?DOC("The operations of the Python package; failures are exceptions there.").
-spec from_python(binary(), [term()]) -> term().
from_python(<<"get">>, [Key, Default]) ->
    case fetch(Key) of
        {ok, Value} -> Value;
        {error, not_found} -> Default
    end;
from_python(<<"set">>, [Key, Value]) -> checked(Key, store(Key, Value));
from_python(<<"delete">>, [Key]) -> remove(Key);
from_python(<<"keys">>, []) -> keys();
from_python(<<"clear">>, []) -> clear();
from_python(<<"incr">>, [Key, Amount]) -> checked(Key, incr(Key, Amount)).

checked(Key, {error, Reason}) -> error({Reason, Key});
checked(_Key, Result) -> Result.
