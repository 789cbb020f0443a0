"""Streams: an iterator whose items go to Erlang in steps; see py_stream.erl.

A step is a request. Between two steps a stream holds neither seat, slot nor thread.
"""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable

import _erlang

__all__ = ["Stream"]


class Stream:
    """What Erlang holds: an iterator, sync or async, and the batch of the current step."""

    __slots__ = ("_batch", "_idle", "_is_async", "_iterator")

    def __init__(self, iterable: Any) -> None:
        self._is_async = hasattr(type(iterable), "__aiter__")
        self._iterator = type(iterable).__aiter__(iterable) if self._is_async else iter(iterable)
        self._batch = _erlang.Batch()
        self._idle: asyncio.Future[None] | None = None  # done when the async step is

    def step(self, limit: int, sends_parts: bool) -> Any:
        """Takes items as long as the step lasts; its result is made by the Batch."""
        self._batch.begin(limit, sends_parts)
        if self._is_async:
            return self._fill()
        return self._batch.fill(self._iterator)

    async def _fill(self) -> Any:
        batch, take = self._batch, self._iterator.__anext__
        self._idle = asyncio.get_running_loop().create_future()
        try:
            while batch.add(await take()):
                pass
        except StopAsyncIteration:
            batch.finish(None)
        except BaseException as error:
            trace = error.__traceback__
            batch.finish(error.with_traceback(trace and trace.tb_next))  # without this frame
        finally:
            self._idle.set_result(None)
            self._idle = None
        return batch

    def close(self) -> Awaitable[None] | None:
        """Closes a generator: its finally blocks run."""
        if self._is_async:
            return self._close()
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()
        return None

    async def _close(self) -> None:
        if self._idle is not None:
            await self._idle
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
