"""Calling Erlang functions."""

from __future__ import annotations

import _erlang

__all__ = ["call"]


def call(name: str, /, *args: object, **kwargs: object) -> object:
    """Calls the function registered in Erlang as name and returns its result.

    Waits without holding the GIL. Raises erlang.CallbackError if the function fails,
    erlang.Interrupt when the request's deadline passes.
    """
    return _erlang.call("call", name, args, kwargs)
