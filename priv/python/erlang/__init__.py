"""Python's side of the Erlang VM it runs in."""

from __future__ import annotations

try:
    import _erlang
except ImportError as error:
    raise ImportError(
        "the module 'erlang' works only in Python that runs inside an Erlang VM "
        "(application erlang_python)"
    ) from error

from _erlang import (
    Atom,
    CallbackError,
    Error,
    Fun,
    Interrupt,
    Pid,
    Port,
    ProcessError,
    Ref,
    self,
)

from ._calls import call

__all__ = [
    "Atom", "CallbackError", "Error", "Fun", "Interrupt", "Pid", "Port", "ProcessError", "Ref",
    "call", "self",
]
