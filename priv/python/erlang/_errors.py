"""Exceptions that are more convenient in Python than in C."""

from __future__ import annotations

import _erlang

__all__ = ["CallbackError"]


class CallbackError(_erlang.Error):
    """An Erlang function that Python called failed.

    error_class is 'error', 'exit' or 'throw'; reason the term, converted; stacktrace a
    list of "module:function/arity (file:line)". str() is what Erlang would print.
    """

    def __init__(self, error_class: str, reason: object, stacktrace: list[str], text: str) -> None:
        super().__init__(error_class, reason, stacktrace, text)
        self.error_class = error_class
        self.reason = reason
        self.stacktrace = stacktrace

    def __str__(self) -> str:
        return str(self.args[3])


CallbackError.__module__ = "erlang"
