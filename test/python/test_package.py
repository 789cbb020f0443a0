"""What the package offers: names, documentation, annotations."""

from __future__ import annotations

import importlib
import inspect
import os
import typing
import unittest

import erlang

FOLDER = os.path.dirname(erlang.__file__)
MODULES = sorted(
    os.path.splitext(name)[0]
    for name in os.listdir(FOLDER)
    if name.endswith(".py") and name != "__init__.py"
)


def public() -> list[tuple[str, object]]:
    return [(name, getattr(erlang, name)) for name in erlang.__all__]


class Package(unittest.TestCase):
    def test_every_name_is_there_once(self) -> None:
        self.assertEqual(len(set(erlang.__all__)), len(erlang.__all__))
        for name in erlang.__all__:
            self.assertTrue(hasattr(erlang, name), name)

    def test_star_import(self) -> None:
        names: dict[str, object] = {}
        exec("from erlang import *", names)
        self.assertLessEqual(set(erlang.__all__), set(names))

    def test_everything_is_documented(self) -> None:
        self.assertTrue(erlang.__doc__)
        for name, item in public():
            self.assertTrue(inspect.getdoc(item), name)

    def test_classes_say_that_they_are_erlangs(self) -> None:
        for name, item in public():
            if inspect.isclass(item):
                self.assertEqual((item.__module__, item.__name__), ("erlang", name))

    def test_functions_are_annotated(self) -> None:
        for name, item in public():
            if inspect.isfunction(item):
                parameters = inspect.signature(item).parameters.values()
                missing = [p.name for p in parameters if p.annotation is p.empty]
                self.assertEqual(missing, [], name)
                self.assertIn("return", item.__annotations__, name)

    def test_private_modules_export_what_they_have(self) -> None:
        for name in MODULES:
            module = importlib.import_module(f"erlang.{name}")
            self.assertTrue(module.__doc__, name)
            for exported in module.__all__:
                self.assertTrue(hasattr(module, exported), (name, exported))

    def test_it_is_typed(self) -> None:
        self.assertTrue(os.path.exists(os.path.join(FOLDER, "py.typed")))

    def test_the_stub_describes_the_c_module(self) -> None:
        import ast

        import _erlang

        path = os.path.join(os.path.dirname(FOLDER), "_erlang.pyi")
        with open(path, encoding="utf-8") as stub:
            tree = ast.parse(stub.read())
        described = {
            node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        } | {
            node.target.id
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        present = {name for name in dir(_erlang) if not name.startswith("__")}
        # A CallbackError with its attributes is in the package; some classes have no public name.
        self.assertEqual(described - {"_Term", "Origin", "Deferred"},
                         present - {"CallbackError", "Origin", "Deferred"})

    def test_unknown_names(self) -> None:
        for name in ("no_such_thing", "_private", "__wrapped__", "__file_", "f.g", "größe"):
            self.assertFalse(hasattr(erlang, name), name)
        with self.assertRaisesRegex(AttributeError, "no_such_thing"):
            getattr(erlang, "no_such_thing")
        with self.assertRaisesRegex(ImportError, "no_such_thing"):
            exec("from erlang import no_such_thing")

    def test_tools_look_at_it(self) -> None:
        inspect.getmembers(erlang)
        inspect.unwrap(erlang.call)
        self.assertIn("call", dir(erlang))
        self.assertIsNone(typing.get_type_hints(erlang).get("call"))


if __name__ == "__main__":
    unittest.main()
