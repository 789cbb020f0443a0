"""What every interpreter runs once, right after it was made; and the import rules.

Called by the C library only. A sub-interpreter cannot load every extension module,
and some break for the whole process when a sub-interpreter is the first to import them.
So before a sub-interpreter loads one from outside the standard library, the main
interpreter imports it with its package, once; if the sub-interpreter is then refused,
the package is remembered as main-only.
"""

from __future__ import annotations

import _thread
import ast
import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import _erlang

__all__ = ["finish", "import_anchors", "import_package", "imports_main_only", "is_main_only", "setup"]

# Single-phase modules and modules with global state: safe in own-GIL interpreters only
# if the main interpreter loaded them first.
ANCHORS = (
    "datetime", "decimal", "sqlite3", "ssl", "asyncio", "ctypes", "zoneinfo", "hashlib",
    "json", "socket", "select", "array", "zlib", "bz2", "lzma", "pickle", "random",
    "uuid", "unicodedata", "xml.etree.ElementTree", "multiprocessing", "queue", "csv",
)

REFUSED = "cannot be loaded in a sub-interpreter"
HELP = (
    "{0} " + REFUSED + "; call its functions without a context "
    "(py:call({0}, ...)), or use a context of mode worker"
)


class ClosedInput:
    """sys.stdin inside the VM: reading raises a sentence that says why."""

    closed = True
    encoding = "utf-8"
    errors = "strict"

    def _refuse(self, *_args: object) -> Any:
        raise OSError("standard input belongs to the Erlang VM; Python cannot read it")

    read = readline = readlines = fileno = __next__ = _refuse

    def __iter__(self) -> ClosedInput:
        return self

    def isatty(self) -> bool:
        return False


def setup(kind: str, stack: int) -> None:
    """Prepares the current interpreter; kind is main, shared_gil or own_gil.

    Threads that Python starts get stacks of the same size as ours.
    """
    import signal  # noqa: F401  now, while the VM's handlers are put back afterwards
    import threading  # early, so that the home thread is its main thread

    threading.stack_size(stack)
    _be_main_thread()

    setattr(sys, "stdin", ClosedInput())
    from erlang import _guard, _threads

    _guard.install(kind == "main", stack)
    _threads.install()
    _hook_extension_modules(kind == "main")


def _be_main_thread() -> None:
    # From 3.13 a sub-interpreter takes the main interpreter's thread for its main thread.
    import threading as public

    threading: Any = public  # what follows has no public name
    main, ident = threading.main_thread(), threading.get_ident()
    if main.ident == ident:
        return
    with threading._active_limbo_lock:
        threading._active.pop(main._ident, None)
        main._ident = ident
        if hasattr(main, "_handle"):
            main._handle = getattr(_thread, "_make_thread_handle")(ident)
        threading._active[ident] = main


def finish() -> None:
    """What is to be done before the interpreter ends: exit handlers, event loops, pools."""
    from erlang import _guard

    _guard.run_exit_handlers()
    _finish_threads()
    # The stand-in of a thread that `threading` did not start (3.13+) wants the module's globals
    # when it ends: it ends while they are there.
    local: Any = getattr(sys.modules.get("threading"), "_thread_local_info", None)
    if local is not None:
        vars(local).clear()


def _finish_threads(seconds: float = 0.5) -> None:
    """Ends event loops and the idle threads of pools.

    A pool that is busy keeps its threads; the interpreter is left behind then.
    """
    loops: Any = sys.modules.get("erlang._loop")
    if loops is not None:
        loops.close_all(2.0)
    import time

    waiting: list[Any] = []
    pools: Any = sys.modules.get("concurrent.futures.thread")
    if pools is not None:
        with pools._global_shutdown_lock:
            pools._shutdown = True
        for thread, queue in list(pools._threads_queues.items()):
            queue.put(None)
            waiting.append(thread)
    pools = sys.modules.get("concurrent.futures.process")
    if pools is not None:
        pools._global_shutdown = True
        for thread, wakeup in list(pools._threads_wakeups.items()):
            wakeup.wakeup()
            waiting.append(thread)
    end = time.monotonic() + seconds
    for thread in waiting:
        thread.join(max(0.0, end - time.monotonic()))


def import_anchors(_unused: str) -> None:
    """Imports in the main interpreter what own-GIL interpreters share badly."""
    for name in ANCHORS:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # not part of this Python


def import_package(request: str) -> None:
    """Imports a module with its package in the main interpreter on behalf of a sub-interpreter.

    The first line is its name, the others are the sub-interpreter's sys.path: what only that
    one knows is searched last.
    """
    name, *paths = request.split("\n")
    sys.path.extend(path for path in paths if path not in sys.path)
    if name not in sys.modules:
        importlib.import_module(name)


def _is_standard(name: str) -> bool:
    if sys.version_info >= (3, 10):
        return name in sys.stdlib_module_names or name == "erlang"
    return False  # there are no sub-interpreters there


class _GilWatch:
    """Finds out whose import switches the GIL of a free-threaded Python on.

    CPython has it on for a moment while it makes any extension module. So only when none is being
    made does it show that it stays on; then it was one of those made since that was last so.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._in_the_making = 0
        self._suspects: list[str] = []

    def create(self, original: Callable[..., Any], loader: Any, spec: ModuleSpec) -> Any:
        with self._lock:
            self._in_the_making += 1
        module = None
        try:
            module = original(loader, spec)
        finally:
            self._made(spec.name, module)
        return module

    def _made(self, name: str, module: Any) -> None:
        with self._lock:
            self._in_the_making -= 1
            if module is None or _erlang.needs_gil(module):
                self._suspects.append(name)
            if self._in_the_making:
                return
            suspects, self._suspects = self._suspects, []
        if suspects and _has_gil():
            _erlang.gil_enabled(" or ".join(suspects))


def _has_gil() -> bool:
    is_enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return is_enabled()


def _watch_gil(create: Callable[..., Any]) -> Callable[..., Any]:
    if _has_gil():
        return create
    watch = _GilWatch()
    return lambda loader, spec: watch.create(create, loader, spec)


def _hook_extension_modules(is_main: bool) -> None:
    from erlang import _threads

    loader = importlib.machinery.ExtensionFileLoader
    create, execute = _watch_gil(loader.create_module), loader.exec_module

    def guarded(original: Callable[..., Any], name: str, *args: object) -> Any:
        package = name.partition(".")[0]
        try:
            return original(*args)
        except Exception as error:
            if not _import_in_main(name):
                raise  # it is broken everywhere
            _erlang.mark_main_only(package)
            _importers.update(_packages_in_the_making())
            raise _refusal(package, error) from error

    # After it has run, too: a library may register its exit handler only then (OpenSSL does).
    def create_in_main(self: Any, spec: ModuleSpec) -> Any:
        module = create(self, spec)
        _erlang.guard_exit()
        return module

    def exec_in_main(self: Any, module: Any) -> None:
        try:
            execute(self, module)
        finally:
            _erlang.guard_exit()
        share_connections(module)

    def share_connections(module: Any) -> None:
        if module.__spec__.name == "_sqlite3":
            _threads.share_connections(module)

    def create_module(self: Any, spec: ModuleSpec) -> Any:
        package = spec.name.partition(".")[0]
        if not _is_standard(package) and not _erlang.is_main_only(package):
            _import_in_main(spec.name)
        return guarded(create, spec.name, self, spec)

    def exec_module(self: Any, module: Any) -> None:
        try:
            guarded(execute, module.__spec__.name, self, module)
        finally:
            _erlang.guard_exit()
        share_connections(module)

    setattr(loader, "create_module", create_in_main if is_main else create_module)
    setattr(loader, "exec_module", exec_in_main if is_main else exec_module)
    if not is_main:
        _hook_packages()


def _refusal(package: str, error: Exception) -> ImportError:
    return ImportError(HELP.format(package) + f" ({error})", name=package)


def _hook_packages() -> None:
    """Lets a package that hides a refusal behind an error of its own, as numpy does, still say what helps."""
    loader = importlib.machinery.SourceFileLoader
    execute = loader.exec_module

    def exec_module(self: Any, module: Any) -> None:
        try:
            execute(self, module)
        except Exception as error:
            name = module.__spec__.name
            if "." in name or REFUSED in str(error) or not is_main_only(name):
                raise
            raise _refusal(name, error) from error

    setattr(loader, "exec_module", exec_module)


def _import_in_main(name: str) -> bool:
    paths = [path for path in sys.path if isinstance(path, str)]
    return bool(_erlang.import_in_main("\n".join([name, *paths])))


# Packages that were being imported when something was refused here: if they then fail as well,
# whatever they say, that is why.
_importers: set[str] = set()


def _packages_in_the_making() -> set[str]:
    making = [name for name, module in list(sys.modules.items())
              if getattr(getattr(module, "__spec__", None), "_initializing", False)]
    return {name.partition(".")[0] for name in making} - {"__main__"}


def is_main_only(name: str) -> bool:
    """Whether the package of a module, whose import has just failed, loads in main only."""
    package = name.partition(".")[0]
    if package in _importers:
        _erlang.mark_main_only(package)
    return _erlang.is_main_only(package)


def _imports(source: str) -> set[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()  # running it tells what is wrong
    names: set[str] = set()
    for node in ast.walk(tree) if len(tree.body) < 1000 else tree.body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def imports_main_only(source: str) -> bool:
    """Whether code imports a package that only the main interpreter can load.

    Finds out by importing what is not known yet.
    """
    if "import" not in source:
        return False
    for name in sorted(_imports(source)):
        if _erlang.is_main_only(name.partition(".")[0]):
            return True
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except Exception:
                pass  # if that was a refusal it is known now; else the code itself reports it
        if name not in sys.modules and is_main_only(name):
            return True
    return False
