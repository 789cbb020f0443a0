-module(py_state).

-include("py_doc.hrl").
-include("py_misuse.hrl").
?MODULEDOC("State shared by Erlang and all Python contexts: an ETS table with atomic counters.").

-export([store/2, fetch/1, remove/1, keys/0, clear/0, incr/1, incr/2, decr/1, decr/2]).
-export([from_python/2]).

-define(TABLE, py_state).

?DOC("Stores a value. `{error, full}` when a new key would exceed `max_state_entries`; those who add\n"
     "keys at the same moment may exceed it by their number.").
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

?DOC("Removes a key; `ok` too if it is not there.").
-spec remove(term()) -> ok.
remove(Key) ->
    ets:delete(?TABLE, Key),
    ok.

?DOC("All keys, in no order.").
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
incr(Key, Amount) when is_integer(Amount) ->
    case has_room(Key) of
        true ->
            try ets:update_counter(?TABLE, Key, Amount, {Key, 0})
            catch error:badarg -> {error, not_a_counter}
            end;
        false ->
            {error, full}
    end;
incr(_Key, _Amount) ->
    ?MISUSE("a counter changes by an integer").

-spec decr(term()) -> integer() | {error, full | not_a_counter}.
decr(Key) ->
    incr(Key, -1).

?DOC("Subtracts; otherwise like `incr/2`.").
-spec decr(term(), integer()) -> integer() | {error, full | not_a_counter}.
decr(Key, Amount) when is_integer(Amount) ->
    incr(Key, -Amount);
decr(_Key, _Amount) ->
    ?MISUSE("a counter changes by an integer").

has_room(Key) ->
    case py_config:get(max_state_entries) of
        infinity -> true;
        Max -> ets:info(?TABLE, size) < Max orelse ets:member(?TABLE, Key)
    end.

?DOC("The operations of the Python package, whose _state.py makes exceptions of what fails.").
-spec from_python(binary(), [term()]) -> term().
from_python(<<"get">>, [Key]) -> [Value || {_, Value} <- ets:lookup(?TABLE, Key)];
from_python(<<"set">>, [Key, Value]) -> plain(store(Key, Value));
from_python(<<"delete">>, [Key]) -> remove(Key);
from_python(<<"keys">>, []) -> keys();
from_python(<<"clear">>, []) -> clear();
from_python(<<"incr">>, [Key, Amount]) -> plain(incr(Key, Amount)).

plain({error, Reason}) -> Reason;
plain(Result) -> Result.
