"""Shared state."""

from __future__ import annotations

import threading
import unittest

import erlang
from erlang import (
    state_clear,
    state_decr,
    state_delete,
    state_get,
    state_incr,
    state_keys,
    state_set,
)


class State(unittest.TestCase):
    def setUp(self) -> None:
        state_clear()

    tearDown = setUp

    def test_values(self) -> None:
        self.assertIsNone(state_get("a"))
        self.assertEqual(state_get("a", 1), 1)
        for value in (1, 2.5, "x", b"\xff", None, True, [1, [2]], (1, (2,)), {"a": {1: 2}}, erlang.self()):
            self.assertIsNone(state_set("a", value))
            self.assertEqual(state_get("a", "default"), value)
        self.assertEqual(state_keys(), ["a"])
        state_delete("a")
        self.assertEqual(state_keys(), [])

    def test_what_is_got_is_a_copy(self) -> None:
        value = [1]
        state_set("a", value)
        value.append(2)
        got = state_get("a")
        got.append(3)
        self.assertEqual(state_get("a"), [1])

    def test_keys(self) -> None:
        keys = ["a", 1, (1, "b"), erlang.atom("a"), erlang.self()]
        for i, key in enumerate(keys):
            state_set(key, i)
        self.assertEqual([state_get(key) for key in keys], list(range(len(keys))))
        self.assertEqual(len(state_keys()), len(keys))

    def test_counters(self) -> None:
        self.assertEqual([state_incr("a") for _ in range(3)], [1, 2, 3])
        self.assertEqual(state_incr("a", 10), 13)
        self.assertEqual(state_decr("a"), 12)
        self.assertEqual(state_decr("a", 20), -8)
        self.assertEqual(state_incr("big", 1 << 100), 1 << 100)

    def test_not_a_counter(self) -> None:
        for value in ("x", 1.5, None, True, [1], "full"):
            state_set("a", value)
            with self.assertRaisesRegex(TypeError, "'a'"):
                state_incr("a")
        for amount in (1.5, "1", None):
            with self.assertRaises(TypeError):
                state_incr("b", amount)  # type: ignore[arg-type]
        self.assertIsNone(state_get("b"))

    def test_exact_from_threads(self) -> None:
        def count() -> None:
            for _ in range(50):
                state_incr("a")

        threads = [threading.Thread(target=count) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(state_get("a"), 500)


if __name__ == "__main__":
    unittest.main()
