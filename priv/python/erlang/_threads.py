"""Threads that a request starts work on its behalf.

They inherit its owner, namespace and deadline, so that their calls to Erlang have an owner too:
the threads of ``threading`` as long as they live, those of a ``ThreadPoolExecutor`` for each task
anew. In between, a pool's thread belongs to nobody: it may outlive the process whose request
started it, and must not keep its namespace.

And what is bound to a thread without need, is not: a connection of ``sqlite3``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import _erlang

__all__ = ["install", "share_connections"]


class _OfThread(threading.local):
    """What a thread knows of itself."""

    pool: ThreadPoolExecutor | None = None  # it is in submit, which may start one of its threads
    starter: _erlang.Origin | None = None  # of a pool's thread, until its initializer has run


class _Task:
    """A pool's task that runs on behalf of the request that submitted it."""

    __slots__ = ("_function", "_origin")

    def __init__(self, origin: _erlang.Origin, function: Callable[..., Any]) -> None:
        self._origin = origin
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = _erlang.enter(self._origin)
        try:
            return self._function(*args, **kwargs)
        finally:
            _erlang.enter(before)


class _Initializer:
    """A pool's initializer, which runs on behalf of the request that started the thread."""

    __slots__ = ("_function", "_of_thread")

    def __init__(self, function: Callable[..., Any], of_thread: _OfThread) -> None:
        self._function = function
        self._of_thread = of_thread

    def __call__(self, *args: Any) -> Any:
        origin, self._of_thread.starter = self._of_thread.starter, None
        before = _erlang.enter(origin)
        try:
            return self._function(*args)
        finally:
            _erlang.enter(before)


def install() -> None:
    """Wraps the start of threads and the submission to thread pools; once per interpreter."""
    of_thread = _OfThread()
    _wrap_start(of_thread)
    _wrap_pool(of_thread)


def _wrap_start(of_thread: _OfThread) -> None:
    start = threading.Thread.start

    def carrying_start(self: threading.Thread) -> None:
        origin = _erlang.origin()
        if origin is None:
            return start(self)
        is_pools = of_thread.pool is not None
        if is_pools and not hasattr(of_thread.pool, "_erlang_initializer"):
            return start(self)
        run, is_own, origins = self.run, "run" in self.__dict__, [origin]

        def restore() -> None:
            if is_own:
                self.__dict__["run"] = run
            else:
                self.__dict__.pop("run", None)  # the class's again: no cycle stays

        def carried_run() -> None:
            restore()
            if is_pools:
                of_thread.starter = origins.pop()
            else:
                _erlang.enter(origins[0])
            run()

        self.__dict__["run"] = carried_run
        try:
            start(self)
        except BaseException:
            restore()
            raise

    carrying_start.__doc__ = start.__doc__
    setattr(carrying_start, "__wrapped__", start)  # for threads that are to belong to no request
    setattr(threading.Thread, "start", carrying_start)


def _wrap_pool(of_thread: _OfThread) -> None:
    init, submit = ThreadPoolExecutor.__init__, ThreadPoolExecutor.submit

    def carrying_init(
        self: ThreadPoolExecutor,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if callable(initializer):
            initializer = _Initializer(initializer, of_thread)
            setattr(self, "_erlang_initializer", True)
        init(self, max_workers, thread_name_prefix, initializer, *args, **kwargs)

    def carrying_submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        origin = _erlang.origin()
        if origin is None:
            return submit(self, fn, *args, **kwargs)
        of_thread.pool = self
        try:
            return submit(self, _Task(origin, fn), *args, **kwargs)
        finally:
            of_thread.pool = None

    carrying_init.__doc__, carrying_submit.__doc__ = init.__doc__, submit.__doc__
    setattr(ThreadPoolExecutor, "__init__", carrying_init)
    setattr(ThreadPoolExecutor, "submit", carrying_submit)


def share_connections(sqlite3: Any) -> None:
    """Lets a connection of ``sqlite3`` be used by all threads, unless it was made with check_same_thread.

    Which of its threads serves a request is the context's business: while the first waits for Erlang
    it is another. SQLite guards its connections itself if it was built to be ``serialized``, as it
    nearly always is; else nothing is changed.
    """
    connect = sqlite3.connect
    level = getattr(sqlite3, "threadsafety", None)  # from 3.11 on
    if level is None:
        with closing(connect(":memory:")) as connection:
            options = connection.execute("pragma compile_options").fetchall()
        level = 3 if ("THREADSAFE=1",) in options else 1
    if level != 3:
        return

    @functools.wraps(connect)
    def shared_connect(*args: Any, **kwargs: Any) -> Any:
        if len(args) < 5:  # the fifth is check_same_thread
            kwargs.setdefault("check_same_thread", False)
        return connect(*args, **kwargs)

    sqlite3.connect = shared_connect
