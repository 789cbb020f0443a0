"""State shared by Erlang and all contexts: a table in Erlang, see py_state.erl.

Keys and values are converted like arguments and results; what state_get returns is a copy. Each
function waits for one round trip to Erlang, without holding the GIL or the context.
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import _erlang

from ._errors import StateFull

__all__ = [
    "state_clear", "state_decr", "state_delete", "state_get", "state_incr", "state_keys",
    "state_set",
]


def _state(operation: str, *args: object) -> Any:
    return _erlang.call("state", operation, args, {})


def _full(key: object) -> StateFull:
    return StateFull(f"no room for the key {key!r}: application setting max_state_entries")


def state_get(key: object, default: Any = None) -> Any:
    """The value stored under key, or default."""
    found = _state("get", key)
    return found[0] if found else default


def state_set(key: object, value: object) -> None:
    """Stores value under key, for Erlang and all contexts. Raises StateFull if there is no room."""
    if _state("set", key, value) == "full":
        raise _full(key)


def state_delete(key: object) -> None:
    """Removes key; nothing happens if it is not there."""
    _state("delete", key)


def state_keys() -> list[Any]:
    """All keys, in no order."""
    keys: list[Any] = _state("keys")
    return keys


def state_clear() -> None:
    """Removes everything."""
    _state("clear")


def state_incr(key: object, amount: SupportsIndex = 1) -> int:
    """Adds to the counter under key, in one atomic step; returns the new value.

    A new counter starts at 0. Raises TypeError if the value under key, or amount, is no integer,
    StateFull if there is no room for a new key.
    """
    value = _state("incr", key, int(operator.index(amount)))
    if isinstance(value, int):
        return value
    if value == "full":
        raise _full(key)
    raise TypeError(f"the value under the key {key!r} is no integer")


def state_decr(key: object, amount: SupportsIndex = 1) -> int:
    """Subtracts from the counter under key; otherwise like state_incr."""
    return state_incr(key, -operator.index(amount))
