"""Threads that a request starts work on its behalf.

They inherit its owner, namespace and deadline, so that their calls to Erlang have an owner too:
the threads of ``threading`` as long as they live, those of a ``ThreadPoolExecutor`` for each task
anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import _erlang

__all__ = ["install"]


class _OfThread(threading.local):
    """What a thread knows of itself."""

    submits = False  # it is in ThreadPoolExecutor.submit, which may start a pool's thread
    base: _erlang.Origin | None = None  # of a pool's thread: for its initializer


class _Carried:
    """A pool's task that runs on behalf of the request that submitted it."""

    __slots__ = ("_function", "_of_thread", "_origin")

    def __init__(
        self, origin: _erlang.Origin, function: Callable[..., Any], of_thread: _OfThread
    ) -> None:
        self._origin = origin
        self._function = function
        self._of_thread = of_thread

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = _erlang.enter(self._origin)
        try:
            return self._function(*args, **kwargs)
        finally:
            if self._of_thread.base is not None:
                # Between tasks a pool's thread belongs to nobody: it may outlive the process whose
                # request started it, and must not keep its namespace.
                self._of_thread.base = before = None
            _erlang.enter(before)


def install() -> None:
    """Wraps the start of threads and the submission to thread pools; once per interpreter."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    of_thread = _OfThread()

    def carrying_start(self: threading.Thread) -> None:
        origin = _erlang.origin()
        if origin is None:
            return start(self)
        run, is_own, origins = self.run, "run" in self.__dict__, [origin]
        is_pools = of_thread.submits

        def restore() -> None:
            if is_own:
                self.__dict__["run"] = run
            else:
                self.__dict__.pop("run", None)  # the class's again: no cycle stays

        def carried_run() -> None:
            restore()
            origin = origins.pop()
            _erlang.enter(origin)
            if is_pools:
                of_thread.base = origin
                del origin
            run()

        self.__dict__["run"] = carried_run
        try:
            start(self)
        except BaseException:
            restore()
            raise

    def carrying_submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        origin = _erlang.origin()
        if origin is None:
            return submit(self, fn, *args, **kwargs)
        of_thread.submits = True
        try:
            return submit(self, _Carried(origin, fn, of_thread), *args, **kwargs)
        finally:
            of_thread.submits = False

    setattr(carrying_start, "__wrapped__", start)  # for threads that are to belong to no request
    carrying_start.__doc__, carrying_submit.__doc__ = start.__doc__, submit.__doc__
    setattr(threading.Thread, "start", carrying_start)
    setattr(ThreadPoolExecutor, "submit", carrying_submit)
