"""Threads that a request starts work on its behalf.

They inherit owner, namespace and deadline, so their calls to Erlang have an owner too.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import _erlang

__all__ = ["install"]


class _Carried:
    """A callable that runs on behalf of the request that made it."""

    __slots__ = ("function", "origin")

    def __init__(self, origin, function):
        self.origin = origin
        self.function = function

    def __call__(self, *args, **kwargs):
        before = _erlang.enter(self.origin)
        try:
            return self.function(*args, **kwargs)
        finally:
            _erlang.enter(before)


def install() -> None:
    """Wraps the start of threads and the submission to thread pools; once per interpreter."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def carrying_start(self):
        origin = _erlang.origin()
        if origin is None:
            return start(self)
        run = self.run

        def carried_run():
            del self.run  # the class's again: no cycle stays
            _Carried(origin, run)()

        self.run = carried_run
        return start(self)

    def carrying_submit(self, fn, /, *args, **kwargs):
        origin = _erlang.origin()
        return submit(self, fn if origin is None else _Carried(origin, fn), *args, **kwargs)

    carrying_start.__doc__, carrying_submit.__doc__ = start.__doc__, submit.__doc__
    threading.Thread.start = carrying_start
    ThreadPoolExecutor.submit = carrying_submit
