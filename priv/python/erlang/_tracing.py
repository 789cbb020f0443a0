"""Spans: what code did, from when to when, and inside what.

A finished span is sent to Erlang without waiting, and kept there (py_log.erl) while tracing is enabled.
"""

from __future__ import annotations

import functools
import inspect
import random
import time
import traceback
from collections.abc import Callable, Generator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Literal

import _erlang

__all__ = ["Span", "trace"]

_REPORT_SPAN: Literal[1] = 1
# What one span may hold, so that the table's bound is one of memory too.
_TEXT_MAX = 4096
_ITEMS_MAX = 128

_current: ContextVar[Span | None] = ContextVar("erlang.span", default=None)
_random = random.Random()  # not the one that users seed
_is_tracing = _erlang.is_tracing  # what a span costs when it is not


def _text(value: object) -> bytes:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:
        text = f"{type(value).__name__} ({type(error).__name__})"
    if len(text) > _TEXT_MAX:
        text = text[:_TEXT_MAX] + "..."
    return text.encode("utf-8", "backslashreplace")


def _scalar(value: object) -> object:
    if value is None or isinstance(value, (bool, _erlang.Atom, _erlang.Pid, _erlang.Ref)):
        return value
    if isinstance(value, int) and value.bit_length() <= 1024:
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value[:_TEXT_MAX])
    return _text(value)


def _image(value: object) -> object:
    """A plain copy: no object of the user's is kept alive, and none changes later."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_scalar(item) for item in list(value)[:_ITEMS_MAX]]
    return _scalar(value)


def _images(attributes: dict[str, object]) -> dict[bytes, object]:
    return {_text(key): _image(value) for key, value in list(attributes.items())[:_ITEMS_MAX]}


def _size(images: dict[bytes, object]) -> int:
    total = 0
    for value in images.values():
        for item in value if isinstance(value, list) else (value,):
            total += len(item) if isinstance(item, bytes) else 32
    return total


class Span:
    """What a with block does, for py:get_traces: Span(name, **attributes).

    A span opened inside of it, in the same coroutine or thread, becomes its child. An exception that
    leaves the block makes its status error. While tracing is disabled nothing is recorded, and it
    costs next to nothing. Never blocks, never raises.
    """

    __slots__ = ("_attributes", "_events", "_exception", "_ids", "_is_recording", "_message", "_name",
                 "_ok", "_pid", "_start", "_system", "_token")

    _attributes: dict[str, object]
    _events: list[tuple[bytes, int, dict[bytes, object]]]
    _exception: tuple[bytes, bytes, bytes] | None
    _ids: tuple[bytes, bytes, bytes | None]  # trace, span, parent
    _message: bytes | None
    _ok: bool
    _pid: _erlang.Pid | None
    _start: int
    _system: int
    _token: Token[Span | None]

    def __init__(self, name: str, /, **attributes: object) -> None:
        self._name = name
        self._attributes = attributes
        self._is_recording = False

    def __enter__(self) -> Span:
        if not _is_tracing() or self._is_recording:
            return self
        self._pid = _erlang.self()
        self._events, self._exception, self._message, self._ok = [], None, None, True
        own = b"%016x" % _random.getrandbits(64)
        parent = _current.get()
        # A generator that is suspended inside its span leaves it behind on a thread that serves others.
        if parent is not None and parent._pid == self._pid:
            self._ids = (parent._ids[0], own, parent._ids[1])
        else:
            self._ids = (b"%032x" % _random.getrandbits(128), own, None)
        self._token = _current.set(self)
        self._is_recording = True
        self._system = time.time_ns()
        self._start = time.monotonic_ns()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if not self._is_recording:
            return
        end = time.monotonic_ns()
        self._is_recording = False
        try:
            _current.reset(self._token)
        except (ValueError, RuntimeError):
            pass  # a generator's span that ends elsewhere than it began
        try:
            if error is not None and not isinstance(error, GeneratorExit):
                self._fail(error)
            if _is_tracing():
                self._report(end)
        except Exception:
            pass

    @property
    def is_recording(self) -> bool:
        """Whether the span is open and tracing was enabled when it began."""
        return self._is_recording

    def set_attribute(self, key: str, value: object) -> None:
        """Adds an attribute, or changes it.

        Numbers, str, bytes, None, atoms, pids and flat lists of them are kept, of others the repr.
        """
        self._attributes[key] = value

    def event(self, name: str, /, **attributes: object) -> None:
        """Something that happens now; at most 128 of a span are kept."""
        if self._is_recording and len(self._events) < _ITEMS_MAX:
            self._events.append((_text(name), time.monotonic_ns(), _images(attributes)))

    def set_status(self, status: str, message: str | None = None) -> None:
        """Sets the status, "ok" or "error", with a message; an exception sets it too."""
        if status not in ("ok", "error"):
            raise ValueError(f"a span's status is 'ok' or 'error', not {status!r}")
        self._ok = status == "ok"
        self._message = None if message is None else _text(message)

    def _fail(self, error: BaseException) -> None:
        self._ok = False
        try:
            message = str(error)
        except Exception:
            message = "(its __str__ fails)"
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else (
            f"{kind.__module__}.{kind.__qualname__}")
        lines = "".join(traceback.format_tb(error.__traceback__))
        self._exception = (_text(name), _text(message), _text(lines[-_TEXT_MAX:]))

    def _report(self, end: int) -> None:
        attributes = _images(self._attributes)
        size = 512 + _size(attributes) + sum(64 + _size(event[2]) for event in self._events)
        _erlang.report(_REPORT_SPAN, 1 + (size >> 10), (
            _text(self._name), self._ids, self._pid, (self._system, self._start, end),
            (self._ok, self._message), self._exception, attributes, self._events))


Span.__module__ = "erlang"


def _traced(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        raise TypeError("an asynchronous generator cannot be traced; use erlang.Span inside of it")
    if inspect.iscoroutinefunction(function):
        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with Span(name):
                return await function(*args, **kwargs)

        return coroutine
    if inspect.isgeneratorfunction(function):
        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with Span(name):
                return (yield from function(*args, **kwargs))

        return generator

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not _is_tracing():
            return function(*args, **kwargs)
        with Span(name):
            return function(*args, **kwargs)

    return wrapper


def trace(name: str | Callable[..., Any] | None = None) -> Any:
    """Decorates a function, coroutine function or generator function: each call is a Span.

    The span's name is the function's with its module, or name: @trace, @trace() or @trace("name").
    """
    if not isinstance(name, str) and name is not None:
        return trace()(name)
    given = name

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = f"{function.__module__}.{function.__qualname__}"
        return _traced(function, given or own)

    return decorate
