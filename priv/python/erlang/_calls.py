"""Calling Erlang functions, sending to Erlang processes."""

from __future__ import annotations

from typing import Any, Callable

import _erlang

__all__ = ["atom", "call", "function", "is_registered", "send", "whereis"]


def call(name: str, /, *args: object, **kwargs: object) -> Any:
    """Calls the function registered in Erlang under name and returns its result.

    Waits without holding the GIL, the context or its slot. Raises CallbackError if the
    function fails or there is none, Interrupt when the request's deadline passes.
    """
    return _erlang.call("call", name, args, kwargs)


def is_registered(name: str) -> bool:
    """Whether Erlang registered a function under name. Blocks for one round trip."""
    return bool(_erlang.call("system", "is_registered", (name,), {}))


def function(name: str) -> Callable[..., Any]:
    """The registered function as a Python function: function(name)(x) is call(name, x)."""

    def registered(*args: object, **kwargs: object) -> Any:
        return _erlang.call("call", name, args, kwargs)

    registered.__name__ = registered.__qualname__ = name
    registered.__doc__ = f"Calls the Erlang function registered as {name!r}."
    return registered


def send(receiver: _erlang.Pid | str | _erlang.Atom, term: object) -> None:
    """Sends term to a Pid, or to the process registered under a name. Does not block.

    Raises ProcessError if no process is registered under the name; a process that has
    ended loses the message silently, as in Erlang. Pids of other nodes are reached
    through one process, in order.
    """
    if isinstance(receiver, str):
        pid = _erlang.whereis(receiver)
        if pid is None:
            raise _erlang.ProcessError(f"no process is registered as {str(receiver)!r}")
        receiver = pid
    try:
        _erlang.send(receiver, term)
    except LookupError:
        forwarder = _erlang.whereis("py_engine")
        if forwarder is None:
            raise _erlang.ProcessError("the Erlang application is not running") from None
        _erlang.send(forwarder, (_erlang.Atom("py_forward"), receiver, term))


def whereis(name: str) -> _erlang.Pid | None:
    """The Pid registered under name on this node, or None. Does not block."""
    return _erlang.whereis(name)


def atom(name: str) -> _erlang.Atom:
    """An atom: converts to an Erlang atom where a str would become a binary.

    The number of new atoms is bounded (16 384 for the VM, which never forgets one); beyond
    it Error is raised. ValueError: no atom can have that text. Does not block.
    """
    return _erlang.atom(name)
