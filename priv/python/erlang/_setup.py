"""What Erlang does to a context through ordinary calls."""

from __future__ import annotations

import gc
import sys

__all__ = ["add_path", "collect", "memory_stats", "preload", "reload", "same"]


def add_path(path: str) -> None:
    """Puts a directory first on sys.path, once."""
    if path in sys.path:
        sys.path.remove(path)
    sys.path.insert(0, path)


_preloaded: set[str] = set()


def preload(code: str) -> None:
    """Runs code in the interpreter's __main__, whose names every namespace starts with; once."""
    import __main__

    if code not in _preloaded:
        exec(compile(code, "<preload>", "exec"), __main__.__dict__)
        _preloaded.add(code)


def memory_stats() -> dict[str, object]:
    """Figures of the garbage collector and, when it traces, of tracemalloc."""
    stats: dict[str, object] = {
        "gc_stats": gc.get_stats(),
        "gc_count": gc.get_count(),
        "gc_threshold": gc.get_threshold(),
    }
    try:
        import tracemalloc
    except ImportError:
        return stats  # a sub-interpreter that cannot load it traces nothing
    if tracemalloc.is_tracing():
        current, peak = tracemalloc.get_traced_memory()
        stats["traced_memory_current"] = current
        stats["traced_memory_peak"] = peak
    return stats


def collect(generation: int = 2) -> int:
    """Runs the garbage collector; the number of unreachable objects found."""
    return gc.collect(generation)


def reload(name: str) -> bool:
    """Reloads a module if this interpreter has it."""
    import importlib

    module = sys.modules.get(name)
    if module is None:
        return False
    importlib.reload(module)
    return True


def same(value: object) -> object:
    """Returns its argument: what it converts to is the question."""
    return value
