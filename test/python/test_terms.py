"""Pid, Ref, Port, Fun and Atom."""

from __future__ import annotations

import copy
import pickle
import unittest
from typing import Any

import erlang
from erlang import Atom, Fun, Pid, Port, Ref, atom

CLASSES: tuple[Any, ...] = (Pid, Ref, Port, Fun)


def samples() -> dict[str, list[Any]]:
    """Two terms of each kind, and one of another node; python_SUITE.erl makes them."""
    terms: dict[str, list[Any]] = erlang.call("test_terms")
    return terms


class Terms(unittest.TestCase):
    def setUp(self) -> None:
        self.terms = samples()
        self.all = [term for terms in self.terms.values() for term in terms]

    def test_class(self) -> None:
        for cls in CLASSES:
            for term in self.terms[cls.__name__]:
                self.assertIs(type(term), cls)

    def test_equal_to_itself_only(self) -> None:
        again = [term for terms in samples().values() for term in terms]
        for i, one in enumerate(self.all):
            for j, two in enumerate(again):
                self.assertEqual(one == two, i == j, (one, two))
                self.assertEqual(one != two, i != j, (one, two))
        for term in self.all:
            for other in (None, 1, "x", (), repr(term)):
                self.assertFalse(term == other)
                self.assertTrue(term != other)

    def test_hash(self) -> None:
        again = [term for terms in samples().values() for term in terms]
        self.assertEqual([hash(t) for t in self.all], [hash(t) for t in again])
        self.assertEqual(len(set(self.all) | set(again)), len(self.all))
        self.assertEqual({t: 1 for t in self.all}, {t: 1 for t in again})

    def test_order(self) -> None:
        for cls in CLASSES:
            terms = self.terms[cls.__name__]
            ordered = erlang.call("test_sort", list(reversed(terms)))
            self.assertEqual(sorted(terms), ordered)
            self.assertTrue(ordered[0] <= ordered[0] < ordered[1] and ordered[1] > ordered[0])
        with self.assertRaises(TypeError):
            self.terms["Pid"][0] < self.terms["Ref"][0]
        with self.assertRaises(TypeError):
            self.terms["Pid"][0] < 1

    def test_repr(self) -> None:
        for cls in CLASSES:
            for term in self.terms[cls.__name__]:
                self.assertRegex(repr(term), rf"^<erlang\.{cls.__name__} .+>$")
                self.assertEqual(str(term), repr(term))
        self.assertRegex(repr(self.terms["Pid"][0]), r"<0\.\d+\.\d+>")

    def test_round_trip(self) -> None:
        for term in self.all:
            back = erlang.call("test_same", term)
            self.assertEqual(back, term)
            self.assertIs(type(back), type(term))
            self.assertEqual(erlang.call("test_same", {term: [term]}), {term: [term]})
        self.assertEqual(erlang.call("test_are_terms", self.terms), True)

    def test_copy(self) -> None:
        for term in self.all:
            self.assertIs(copy.copy(term), term)
            self.assertIs(copy.deepcopy([term])[0], term)

    def test_pickle(self) -> None:
        for name in ("Pid", "Ref", "Port"):
            for term in self.terms[name]:
                for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
                    self.assertEqual(pickle.loads(pickle.dumps(term, protocol)), term)
        for term in self.terms["Fun"]:
            with self.assertRaises(TypeError):
                pickle.dumps(term)

    def test_not_made_of_anything(self) -> None:
        for cls in CLASSES:
            for arguments in ((), ("x",), (1,), (b"",), (b"\x83a\x01",), (b"\x83w\x05nevr!",)):
                with self.assertRaises((TypeError, ValueError)):
                    cls(*arguments)
        external = self.terms["Pid"][0].__reduce__()[1][0]
        self.assertEqual(Pid(external), self.terms["Pid"][0])
        with self.assertRaises(ValueError):
            Ref(external)

    def test_sealed(self) -> None:
        for cls in CLASSES:
            with self.assertRaises(TypeError):
                type("Sub", (cls,), {})
            with self.assertRaises((AttributeError, TypeError)):
                self.terms[cls.__name__][0].attribute = 1

    def test_many(self) -> None:
        many = [erlang.call("test_same", term) for term in self.all for _ in range(50)]
        self.assertEqual(len(set(many)), len(self.all))


class Atoms(unittest.TestCase):
    def test_a_kind_of_str(self) -> None:
        ok = Atom("ok")
        self.assertIsInstance(ok, str)
        self.assertEqual(ok, "ok")
        self.assertEqual(hash(ok), hash("ok"))
        self.assertEqual({"ok": 1}[ok], 1)
        self.assertEqual(str(ok), "ok")
        self.assertEqual(f"{ok}", "ok")
        self.assertEqual(repr(ok), "erlang.Atom('ok')")
        self.assertIs(type(ok.upper()), str)

    def test_to_erlang(self) -> None:
        self.assertTrue(erlang.call("test_is_atom", Atom("ok")))
        self.assertTrue(erlang.call("test_is_atom", atom("größe")))
        self.assertTrue(erlang.call("test_is_atom", atom("日本")))
        self.assertFalse(erlang.call("test_is_atom", "ok"))
        self.assertEqual(erlang.call("test_same", Atom("ok")), "ok")
        self.assertIs(erlang.call("test_same", Atom("true")), True)
        self.assertIsNone(erlang.call("test_same", Atom("undefined")))
        self.assertEqual(erlang.call("test_same", {Atom("a"): Atom("b")}), {"a": "b"})

    def test_pickle_and_copy(self) -> None:
        for value in (Atom("ok"), Atom("größe")):
            for back in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
                self.assertIs(type(back), Atom)
                self.assertEqual(back, value)

    def test_no_atom_has_that_text(self) -> None:
        for make in (Atom, atom):
            make("x" * 255)
            make("ß" * 255)
            make("")
            with self.assertRaises(ValueError):
                make("x" * 256)
            with self.assertRaises(ValueError):
                make("\ud800")
            for wrong in (1, None, b"ok", ["ok"]):
                with self.assertRaises(TypeError):
                    make(wrong)

    def test_atom_makes_an_atom(self) -> None:
        self.assertIs(type(atom("made_by_test_terms")), Atom)
        self.assertTrue(erlang.call("test_is_existing", "made_by_test_terms"))
        Atom("not_made_by_test_terms")
        self.assertFalse(erlang.call("test_is_existing", "not_made_by_test_" + "terms"))


if __name__ == "__main__":
    unittest.main()
