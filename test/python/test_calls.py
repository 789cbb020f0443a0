"""Calling, sending, and on whose behalf."""

from __future__ import annotations

import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

import erlang


class Calls(unittest.TestCase):
    def test_call(self) -> None:
        self.assertEqual(erlang.call("test_same", 1), 1)
        self.assertEqual(erlang.call("test_kwargs", 1, 2, a=3), [[1, 2], {"a": 3}])
        self.assertEqual(erlang.call("test_kwargs", name=1, kind=2), [[], {"name": 1, "kind": 2}])

    def test_attribute(self) -> None:
        function = getattr(erlang, "test_same")
        self.assertEqual(function("x"), "x")
        self.assertEqual(function.__name__, "test_same")
        self.assertIn("test_same", function.__doc__)
        namespace: dict[str, object] = {}
        exec("from erlang import test_kwargs as f\nresult = f(1, b=2)", namespace)
        self.assertEqual(namespace["result"], [[1], {"b": 2}])

    def test_errors(self) -> None:
        for error_class in ("error", "throw", "exit"):
            with self.assertRaises(erlang.CallbackError) as caught:
                erlang.call("test_fail", error_class, ("bad", 1))
            self.assertEqual(caught.exception.error_class, error_class)
            self.assertEqual(caught.exception.reason, ("bad", 1))
            self.assertIsInstance(caught.exception.stacktrace, list)
            self.assertIn("bad", str(caught.exception))
        with self.assertRaisesRegex(erlang.CallbackError, "no_such_function"):
            erlang.call("no_such_function")

    def test_hierarchy(self) -> None:
        for cls in (erlang.CallbackError, erlang.ProcessError, erlang.StateFull):
            self.assertTrue(issubclass(cls, erlang.Error))
        self.assertTrue(issubclass(erlang.Error, Exception))
        self.assertTrue(issubclass(erlang.Interrupt, BaseException))
        self.assertFalse(issubclass(erlang.Interrupt, Exception))

    def test_wrong_arguments(self) -> None:
        for wrong in ((), (1,), (None, 1), (b"test_same", 1)):
            with self.assertRaises(TypeError):
                erlang.call(*wrong)  # type: ignore[arg-type]
        cyclic: list[object] = []
        cyclic.append(cyclic)
        with self.assertRaises(TypeError):
            erlang.call("test_same", cyclic)

    def test_nested(self) -> None:
        self.assertEqual(erlang.call("test_eval", "1 + 1"), 2)
        self.assertEqual(erlang.call("test_eval", "__import__('erlang').call('test_same', 7)"), 7)

    def test_threads(self) -> None:
        pid = erlang.self()
        seen: list[object] = []
        threads = [
            threading.Thread(target=lambda i=i: seen.append((erlang.call("test_same", i), erlang.self())))
            for i in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(x[0] for x in seen), list(range(8)))  # type: ignore[index]
        self.assertEqual({x[1] for x in seen}, {pid})  # type: ignore[index]
        with ThreadPoolExecutor(3) as pool:
            self.assertEqual(list(pool.map(lambda i: erlang.call("test_same", i), range(9))), list(range(9)))

    def test_a_thread_that_cannot_start(self) -> None:
        thread = threading.Thread(target=int)
        thread.start()
        with self.assertRaises(RuntimeError):
            thread.start()
        thread.join()
        self.assertNotIn("run", vars(thread))
        own = threading.Thread()
        seen: list[int] = []
        vars(own)["run"] = lambda: seen.append(1)
        own.start()
        own.join()
        self.assertEqual(seen, [1])
        own.run()
        self.assertEqual(seen, [1, 1])


class Messages(unittest.TestCase):
    def test_self(self) -> None:
        pid = erlang.self()
        self.assertIsInstance(pid, erlang.Pid)
        self.assertEqual(pid, erlang.call("test_caller"))

    def test_whereis(self) -> None:
        pid = erlang.whereis("test_receiver")
        self.assertIsInstance(pid, erlang.Pid)
        self.assertEqual(erlang.whereis(erlang.Atom("test_receiver")), pid)
        for name in ("größe", "日本"):
            self.assertIsInstance(erlang.whereis(name), erlang.Pid)
            self.assertNotEqual(erlang.whereis(name), pid)
        for nobody in ("nobody_is_called_that", "", "x" * 300, "\ud800", "a\0b"):
            self.assertIsNone(erlang.whereis(nobody))

    def test_send(self) -> None:
        pid = erlang.whereis("test_receiver")
        assert pid is not None
        term = {"a": [1, (2.5, None)]}
        for receiver in (pid, "test_receiver", erlang.Atom("test_receiver"), "größe", "日本"):
            self.assertIsNone(erlang.send(receiver, term))
            name = receiver if isinstance(receiver, str) else "test_receiver"
            self.assertEqual(erlang.call("test_received", str(name)), [term])

    def test_order(self) -> None:
        for i in range(1000):
            erlang.send("test_receiver", i)
        self.assertEqual(erlang.call("test_received", "test_receiver"), list(range(1000)))

    def test_nobody(self) -> None:
        with self.assertRaisesRegex(erlang.ProcessError, "nobody_is_called_that"):
            erlang.send("nobody_is_called_that", 1)
        self.assertIsNone(erlang.send(erlang.call("test_dead"), 1))

    def test_wrong_arguments(self) -> None:
        for receiver in (None, 1, b"test_receiver", [], object()):
            with self.assertRaises(TypeError):
                erlang.send(receiver, 1)  # type: ignore[arg-type]
        cyclic: list[object] = []
        cyclic.append(cyclic)
        with self.assertRaises(TypeError):
            erlang.send("test_receiver", cyclic)
        with self.assertRaises(TypeError):
            erlang.whereis(1)  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
