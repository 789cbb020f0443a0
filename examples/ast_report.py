"""Measures Python source files with `ast`: the work that bin/demo spreads over contexts.

By itself (python3 ast_report.py) it reports on the standard library. With --serve it measures each
path it reads from standard input and answers with one JSON line: an OS process doing the same work.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import sysconfig

__all__ = ["measure", "modules"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (
    *_FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith,
    ast.Try, *(getattr(ast, name) for name in ("TryStar", "Match") if hasattr(ast, name)),
)
# Other people's modules, and files that are broken on purpose.
_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def modules() -> list[str]:
    """Paths of all modules of the running Python's standard library but its tests, sorted."""
    found = []
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in _NOT_THE_LIBRARY]
        found += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)


def measure(path: str) -> dict[str, object]:
    """Parse one file and measure it.

    `longest` is [lines, name] of its longest function, `nesting` the depth of its deepest block.
    """
    with open(path, "rb") as file:
        source = file.read()
    functions = nesting = 0
    longest = [0, ""]
    waiting: list[tuple[ast.AST, int]] = [(ast.parse(source, path), 0)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, _BLOCKS):
            depth += 1
            nesting = max(nesting, depth)
            if isinstance(node, _FUNCTIONS):
                functions += 1
                longest = max(longest, [(node.end_lineno or 0) - node.lineno + 1, node.name])
        for child in ast.iter_child_nodes(node):
            waiting.append((child, depth - 1 if _is_elif(node, child) else depth))
    return {
        "lines": source.count(b"\n"),
        "functions": functions,
        "nesting": nesting,
        "longest": longest,
    }


def _is_elif(node: ast.AST, child: ast.AST) -> bool:
    return isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)


def _serve() -> None:
    for line in sys.stdin:
        print(json.dumps(measure(line.rstrip("\n"))), flush=True)


def _report() -> None:
    reports = {path: measure(path) for path in modules()}
    deepest = max(reports, key=lambda path: reports[path]["nesting"])
    longest = max(reports, key=lambda path: reports[path]["longest"])
    print(f"{len(reports)} modules, "
          f"{sum(report['lines'] for report in reports.values())} lines, "
          f"{sum(report['functions'] for report in reports.values())} functions")
    print(f"deepest nesting: {reports[deepest]['nesting']} in {deepest}")
    lines, name = reports[longest]["longest"]
    print(f"longest function: {name}, {lines} lines, in {longest}")


if __name__ == "__main__":
    _serve() if "--serve" in sys.argv else _report()
