"""Runs the unittest modules beside it inside a context; called by python_SUITE.erl."""

from __future__ import annotations

import importlib
import io
import unittest


def run(name: str) -> dict[str, object]:
    """Runs one module: how many tests it has, what was skipped, and the text of what failed."""
    module = importlib.import_module(name)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    text = io.StringIO()
    result = unittest.TextTestRunner(stream=text, verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    return {"run": result.testsRun, "failed": failed, "text": text.getvalue()}
