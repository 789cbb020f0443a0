"""Exceptions that are more convenient in Python than in C."""

from __future__ import annotations

import _erlang

__all__ = ["CallbackError", "StateFull"]


class CallbackError(_erlang.Error):
    """An Erlang function that Python called failed.

    error_class is 'error', 'exit' or 'throw'; reason the term, converted; stacktrace a
    list of "module:function/arity (file:line)". str() is what Erlang would print.
    """

    error_class: str
    reason: object
    stacktrace: list[str]

    def __init__(self, error_class: str, reason: object, stacktrace: list[str], text: str) -> None:
        super().__init__(error_class, reason, stacktrace, text)
        self.error_class = error_class
        self.reason = reason
        self.stacktrace = stacktrace

    def __str__(self) -> str:
        return str(self.args[3])


class StateFull(_erlang.Error):
    """A new key of the shared state would exceed the application's setting max_state_entries."""


CallbackError.__module__ = StateFull.__module__ = "erlang"
