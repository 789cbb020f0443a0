"""The Erlang VM this Python runs in: call its functions, send to its processes, share state.

A function registered with py:register_function(name, ...) is also an attribute of this
module: erlang.name(...), from erlang import name.
"""

from __future__ import annotations

import importlib
from typing import Any

try:
    import _erlang
except ImportError as error:
    raise ImportError(
        "the module 'erlang' works only in Python that runs inside an Erlang VM "
        "(application erlang_python)"
    ) from error

from _erlang import Atom, Buffer, Error, Fun, Interrupt, Pid, Port, ProcessError, Ref, self

from ._calls import atom, call, function, is_registered, send, whereis
from ._errors import CallbackError, StateFull
from ._state import (
    state_clear,
    state_decr,
    state_delete,
    state_get,
    state_incr,
    state_keys,
    state_set,
)

__all__ = [
    "Atom", "Buffer", "CallbackError", "ErlangHandler", "Error", "Fun", "Interrupt", "Pid", "Port",
    "ProcessError", "Ref", "Span", "StateFull", "async_call", "atom", "call", "run", "self", "send",
    "setup_logging", "sleep", "state_clear", "state_decr", "state_delete", "state_get", "state_incr",
    "state_keys", "state_set", "trace", "whereis",
]

# Loaded when somebody wants them: what they need (asyncio, logging) is not small.
_LAZY = {
    "async_call": "_async", "run": "_async", "sleep": "_async",
    "ErlangHandler": "_logging", "setup_logging": "_logging",
    "Span": "_tracing", "trace": "_tracing",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"erlang.{_LAZY[name]}"), name)
        globals()[name] = value  # the next one is found without us
        return value
    # Registered names only: introspection must not find everything here.
    if not name.startswith("_") and _erlang.origin() is not None and is_registered(name):
        return function(name)
    raise AttributeError(f"module 'erlang' has no attribute {name!r}, and no Erlang function is "
                         "registered under that name")
