"""Python's logging, to Erlang's logger.

A record is sent as it is made, without waiting and without a lock; what Erlang does not want, or has
no room for (c_src/sink.h), is not even formatted.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Literal

import _erlang

__all__ = ["ErlangHandler", "check_format", "configure", "setup_logging"]

_REPORT_LOG: Literal[0] = 0
_lock = threading.Lock()  # of the set-up
_stamp = 0  # of the latest options from Erlang


class _OfThread(threading.local):
    is_reporting = False


_of_thread = _OfThread()


def _encoded(text: object) -> bytes:
    return str(text).encode("utf-8", "backslashreplace")  # lone surrogates


class ErlangHandler(logging.Handler):
    """A logging.Handler whose records go to Erlang's logger. Never blocks, never raises.

    Formats the message, with the exception's traceback, by its formatter. What the record knows
    otherwise becomes metadata, and the pid on whose behalf the code ran.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        """Filters and reports; without the handler's lock, which user code would run under."""
        accepted: Any = self.filter(record)  # from 3.12 on it may be another record
        if isinstance(accepted, logging.LogRecord):
            record = accepted
        if accepted:
            self.emit(record)
        return bool(accepted)

    def emit(self, record: logging.LogRecord) -> None:
        """Reports the record, or drops it: if it is not wanted, or came about while one is formatted."""
        if _of_thread.is_reporting:
            return  # an argument's __str__ logs: that might go on for ever
        try:
            if _erlang.log_admits(record.levelno):
                _of_thread.is_reporting = True
                self._report(record)
        except Exception:
            pass
        finally:
            _of_thread.is_reporting = False

    def _report(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:  # "%d" % "x": standard error is no place to say so here
            text = f"{record.msg!r} could not be formatted: {error!r}"
        exception = record.exc_text
        if not exception and record.exc_info:
            exception = logging.Formatter().formatException(record.exc_info)
        message = _encoded(text)
        trace = _encoded(exception) if exception else None
        units = 1 + (len(message) + len(trace or b"") >> 10)
        _erlang.report(_REPORT_LOG, units, (
            record.levelno, message, int(record.created * 1e6), _erlang.self(), _encoded(record.name),
            _encoded(record.module), _encoded(record.funcName), _encoded(record.pathname),
            record.lineno, _encoded(record.threadName), trace))


ErlangHandler.__module__ = "erlang"


def _number(level: int | str | None) -> int:
    if level is None:
        return _erlang.log_level()
    if isinstance(level, str):
        if level.lower() == "notice":  # Erlang has it, Python does not
            return 25
        number = logging.getLevelName(level.upper())
        if not isinstance(number, int):
            raise ValueError(f"there is no level {level!r}")
        return number
    return level


def setup_logging(level: int | str | None = None, format: str | None = None) -> ErlangHandler:
    """Sends what is logged in this interpreter to Erlang: puts an ErlangHandler on the root logger.

    level becomes the root logger's, by default the least that Erlang's logger wants. format is that
    of logging.Formatter, by default the message alone: Erlang adds time and level. A second call
    changes level and format. Returns the handler. ValueError: no such level, or a wrong format.
    """
    number = _number(level)
    formatter = logging.Formatter(format)
    root = logging.getLogger()
    with _lock:
        handler = next((h for h in root.handlers if isinstance(h, ErlangHandler)), None)
        if handler is None:
            handler = ErlangHandler()
            handler.setFormatter(formatter)
            root.addHandler(handler)
        else:
            handler.setFormatter(formatter)
        root.setLevel(number)
    return handler


def configure(level: int | None, format: str | None, stamp: int) -> None:
    """setup_logging for py:configure_logging: once for each stamp, and none after a later one."""
    global _stamp
    if stamp > _stamp:
        _stamp = stamp
        setup_logging(level, format)


def check_format(format: str) -> None:
    """Raises ValueError if logging.Formatter does not take the format."""
    logging.Formatter(format)
