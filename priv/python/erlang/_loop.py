"""Event loops: a thread for each context that was given a coroutine.

A request whose function gave an awaitable is handed over here with the right to answer
it (a Deferred) and its origin. The loop is asyncio's own, or uvloop's. Other threads talk
to it with call_soon_threadsafe only; what arrives while it has not woken up yet is
drained in one go.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib
import inspect
import sys
import threading
from collections import deque
from typing import Any, Awaitable, Coroutine, Iterator

import _erlang

__all__ = ["cancel", "close", "close_all", "new_event_loop", "run", "submit", "wake"]

GRACE = 1.0  # seconds for tasks to end in once they are cancelled

_runners: dict[int, Runner] = {}
_lock = threading.Lock()  # of _runners; never held while waiting
_loop_of_thread: dict[int, asyncio.AbstractEventLoop] = {}  # those of run()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop of the kind that the application setting event_loop asks for."""
    kind = _erlang.loop_settings()[1]
    if kind != "asyncio":
        try:
            uvloop = importlib.import_module("uvloop")
        except ImportError as error:
            if kind == "uvloop":
                raise _erlang.Error(f"the setting event_loop is uvloop, but {error}") from error
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.new_event_loop()


# Takes the first step at once where Python can: one turn of the loop less for each task.
_Task: Any = asyncio.Task
if sys.version_info >= (3, 12):
    _Task = functools.partial(asyncio.Task, eager_start=True)


class Runner:
    """A loop, its thread, and the tasks on it by the tokens of their requests."""

    def __init__(self, number: int) -> None:
        self._max_tasks = _erlang.loop_settings()[0]
        self._loop = new_event_loop()
        self._tasks: dict[int, asyncio.Task[None] | None] = {}  # None: not started yet
        self._arrived: deque[tuple[int, Any, Any, Awaitable[Any]]] = deque()
        self._is_called = False  # somebody called for _drain, and it has not begun
        self._is_closing = False
        self._is_finishing = False
        self._turns = False
        self._starting: int | None = None  # token of the task whose first step runs
        self._unheard: set[int] = set()  # tokens whose cancel the loop has not seen yet
        self._context = contextvars.Context()  # what tasks start with: nothing
        self._thread = threading.Thread(target=self._main, name=f"py:loop{number}", daemon=False)

    def start(self) -> None:
        # Not by the wrapper of _threads: the loop belongs to no request.
        getattr(threading.Thread.start, "__wrapped__", threading.Thread.start)(self._thread)

    # ---- from other threads ----

    def submit(self, deferred: Any, origin: Any, awaitable: Awaitable[Any]) -> None:
        if self._is_closing or len(self._tasks) >= self._max_tasks:
            raise _erlang.Error(
                "the context is closing" if self._is_closing else
                f"the event loop has {self._max_tasks} tasks, and that is the limit "
                "(application setting max_async_tasks)")
        token = deferred.token
        self._tasks[token] = None
        self._arrived.append((token, deferred, origin, awaitable))
        # Looked at after the append, cleared before the drain: nothing is left behind.
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._drain, context=self._context)

    def cancel(self, token: int) -> None:
        if token not in self._tasks:
            return
        if token in self._unheard and self._runs(token):
            _erlang.interrupt_thread(self._thread.ident)
        else:
            self._unheard.add(token)
            self._call(self._cancel, token)

    def close(self) -> None:
        self._is_closing = True
        self._call(self._stop)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _call(self, function: Any, *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(function, *args)

    def _runs(self, token: int) -> bool:
        """Whether the token's task is in the middle of a step, and does not let go."""
        task = self._tasks.get(token)
        if task is None:
            return self._starting == token
        return asyncio.current_task(self._loop) is task

    # ---- on the loop's thread ----

    def _main(self) -> None:
        while not self._is_closing:
            # What a task lets out (SystemExit), or an interrupt that came late, ends no loop.
            with contextlib.suppress(BaseException):
                self._loop.run_forever()
        self._is_finishing = True
        with contextlib.suppress(BaseException):
            self._loop.run_until_complete(self._finish())
        self._loop.close()

    def _stop(self) -> None:
        if not self._is_finishing:
            self._loop.stop()

    async def _finish(self) -> None:
        self._drain()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def _drain(self) -> None:
        self._is_called = False
        loop = self._loop
        while self._arrived:
            token, deferred, origin, awaitable = self._arrived.popleft()
            if not deferred.is_wanted():
                _discard(awaitable)
                del self._tasks[token]
                continue
            self._starting = token
            task = _Task(self._run(token, deferred, origin, awaitable), loop=loop)
            if not task.done():
                self._tasks[token] = task
        self._starting = None

    async def _run(self, token: int, deferred: Any, origin: Any,
                   awaitable: Awaitable[Any]) -> None:
        _erlang.task_origin.set(origin)
        try:
            value = await awaitable
        except BaseException as error:
            trace = error.__traceback__
            deferred.fail(error.with_traceback(trace and trace.tb_next))  # without this frame
        else:
            deferred.answer(value)
        finally:
            del self._tasks[token]
            self._unheard.discard(token)
            if not self._turns:
                self._turns = True
                self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        # One turn more before it sleeps: while asleep a loop holds the timer it cancelled last,
        # and that the task's context, with the namespace of a process that may be dead.
        self._turns = False

    def _cancel(self, token: int) -> None:
        self._unheard.discard(token)
        task = self._tasks.get(token)
        if task is not None:
            task.cancel()


def _discard(awaitable: Awaitable[Any]) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()  # else it warns that nobody awaited it


# ---- what the library calls ----


def submit(number: int, deferred: Any, origin: Any, awaitable: Awaitable[Any]) -> None:
    """Runs the awaitable on the loop of that number; its outcome goes to deferred."""
    try:
        runner = _runners.get(number) or _start(number)
        runner.submit(deferred, origin, awaitable)
    except BaseException:
        _discard(awaitable)
        raise


def _start(number: int) -> Runner:
    fresh = Runner(number)
    with _lock:
        runner = _runners.setdefault(number, fresh)
    if runner is fresh:
        fresh.start()
    else:
        fresh._loop.close()
    return runner


def cancel(token: int) -> None:
    """Cancels the task of a request, again each time; does not wait."""
    for runner in list(_runners.values()):
        runner.cancel(token)


def close(number: int) -> None:
    """Ends the loop of that number and cancels its tasks; does not wait."""
    with _lock:
        runner = _runners.pop(number, None)
    if runner is not None:
        runner.close()


def close_all(seconds: float) -> None:
    """Ends all loops and waits so long for their threads."""
    with _lock:
        runners = list(_runners.values())
        _runners.clear()
    for runner in runners:
        runner.close()
    for thread in threading.enumerate():
        if thread.name.startswith("py:loop"):
            thread.join(seconds)


# ---- on a request's own thread ----


def wake(thread: int) -> None:
    """Wakes the loop that a thread runs by run(): an interrupt is there to be seen."""
    loop = _loop_of_thread.get(thread)
    if loop is not None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None)


@contextlib.contextmanager
def _can_be_woken(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    thread = threading.get_ident()
    _loop_of_thread[thread] = loop
    try:
        yield
    finally:
        del _loop_of_thread[thread]


def run(coroutine: Coroutine[Any, Any, Any], *, debug: bool | None = None) -> Any:
    """Like asyncio.run, with a loop of the kind that the setting event_loop asks for.

    Blocks the calling request until the coroutine ends; the request's deadline interrupts
    it. Raises RuntimeError where a loop runs already.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("erlang.run() cannot be called from a running event loop")
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
            with _can_be_woken(runner.get_loop()):
                return runner.run(coroutine)
    return _run_with_old_asyncio(coroutine, debug)


def _run_with_old_asyncio(coroutine: Coroutine[Any, Any, Any], debug: bool | None) -> Any:
    loop = new_event_loop()
    try:
        if debug is not None:
            loop.set_debug(debug)
        with _can_be_woken(loop):
            return loop.run_until_complete(coroutine)
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
