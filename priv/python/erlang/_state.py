"""State shared by Erlang and all contexts; see py_state.erl.

Each function blocks for one round trip to Erlang and releases the GIL meanwhile.
A full table or a value that is no counter raises CallbackError.
"""

from __future__ import annotations

from typing import Any

import _erlang

__all__ = [
    "state_clear", "state_decr", "state_delete", "state_get", "state_incr", "state_keys",
    "state_set",
]


def _state(operation: str, *args: object) -> Any:
    return _erlang.call("state", operation, args, {})


def state_get(key: object, default: object = None) -> Any:
    """The value stored under key, or default."""
    return _state("get", key, default)


def state_set(key: object, value: object) -> None:
    """Stores value under key, for Erlang and all contexts."""
    _state("set", key, value)


def state_delete(key: object) -> None:
    """Removes key; nothing happens if it is not there."""
    _state("delete", key)


def state_keys() -> list[Any]:
    """All keys, in no order."""
    return list(_state("keys"))


def state_clear() -> None:
    """Removes everything."""
    _state("clear")


def state_incr(key: object, amount: int = 1) -> int:
    """Adds to the counter under key, atomically; returns the new value. Starts at 0."""
    return int(_state("incr", key, amount))


def state_decr(key: object, amount: int = 1) -> int:
    """Subtracts from the counter under key, atomically; returns the new value."""
    return int(_state("incr", key, -amount))
