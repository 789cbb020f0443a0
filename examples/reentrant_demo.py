"""The Python side of reentrant_demo.erl: every function here calls Erlang, which calls back."""

from __future__ import annotations

import erlang

# ---- arithmetic ----


def evaluate(expression):
    """A nested tuple like ("+", 1, ("*", 2, 3)): Erlang computes each operation, and asks Python
    for the value of its operands."""
    if not isinstance(expression, tuple):
        return expression
    operator, left, right = expression
    return erlang.call("demo_operate", operator, left, right)


# ---- Fibonacci ----


def fibonacci(n):
    """Erlang remembers; what it does not know yet it asks fibonacci_step for."""
    return erlang.call("demo_fibonacci", n)


def fibonacci_step(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


# ---- depth ----


def descend(level, bottom, path):
    """One level down by way of Erlang; the path comes back from the bottom."""
    return erlang.call("demo_descend", level, bottom, [*path, f"python {level}"])


# ---- a class whose methods are called back ----


class Account:
    """Erlang holds the object, decides about each transfer, and calls its methods."""

    def __init__(self, owner, balance):
        self.owner = owner
        self.balance = balance
        self.entries = []

    def withdraw(self, amount):
        verdict = erlang.demo_approve(self, "withdraw", amount)
        if verdict != "approved":
            raise ValueError(f"{self.owner}: {verdict}")
        self._book(-amount)

    def deposit(self, amount):
        self._book(amount)

    def transfer(self, other, amount):
        """Both sides are booked by Erlang, which calls withdraw here and deposit there."""
        return erlang.demo_transfer(self, other, amount)

    def available(self):
        return self.balance

    def _book(self, amount):
        self.balance += amount
        self.entries.append(amount)


def transfers():
    joe, mike = Account("Joe", 100), Account("Mike", 20)
    joe.transfer(mike, 30)
    mike.transfer(joe, 45)
    try:
        mike.transfer(joe, 1000)
        refusal = "none"
    except erlang.CallbackError as error:
        refusal = error.reason
    return {
        "joe": joe.balance,
        "mike": mike.balance,
        "entries": [joe.entries, mike.entries],
        "refusal": refusal,
    }
