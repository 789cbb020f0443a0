"""Calling Erlang from coroutines."""

from __future__ import annotations

import asyncio
from typing import Any

import _erlang

from ._loop import run

__all__ = ["async_call", "run", "sleep"]


def _settle(future: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    if future.done():
        return  # cancelled meanwhile
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


async def async_call(name: str, /, *args: object, **kwargs: object) -> Any:
    """Like call, for coroutines: the event loop goes on while Erlang works.

    When the task that awaits it is cancelled, the Erlang process is killed.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def done(value: object, error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(_settle, future, value, error)
        except RuntimeError:
            pass  # the loop was closed: nobody waits any more

    started = _erlang.start(name, args, kwargs, done)
    try:
        return await future
    finally:
        if future.cancel() or future.cancelled():
            _erlang.abandon(started)


async def sleep(seconds: float) -> None:
    """asyncio.sleep, under the name users of erlang expect."""
    await asyncio.sleep(seconds)
