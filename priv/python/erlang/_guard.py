"""Keeps code that was written for a process of its own from ending the VM.

What CPython reports by an audit event is refused in C (guard.c); what it does not is
replaced here, once per interpreter. It is no sandbox: whoever wants to can get round it.
With the application setting guard = false the replaced functions do what they always did.

Two things hold in any case: programs start with no signal blocked, and multiprocessing
starts its processes anew (spawn).
"""

from __future__ import annotations

import builtins
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import _erlang

__all__ = ["install", "run_exit_handlers"]

EXIT = (
    "{0} would end the Erlang VM; end this call by an exception, "
    "and the VM by an Erlang function that calls init:stop()"
)
FORK = (
    "{0} copies the Erlang VM without its threads; use subprocess, "
    "or multiprocessing with the start method spawn (the default here)"
)
EXEC = "{0} would replace the Erlang VM; use subprocess to run a program"
TIMER = (
    "{0} sends a signal that ends the Erlang VM; use the call's time-out in Erlang, "
    "threading.Timer or asyncio"
)
SIGNAL = "{0}: signals belong to the Erlang VM; end this call by an exception"
CRASH = "{0} would crash the Erlang VM; try it in a process of its own"
CLOSE = (
    "{0}: file descriptor {1} belongs to the Erlang VM; close what you opened, "
    "and work on a copy (os.dup({1})) of what you did not"
)
LATER = (
    "faulthandler.dump_traceback_later works in the main interpreter only (context mode "
    "worker), and without exit=True, which would end the Erlang VM"
)
LIMIT = (
    "a recursion limit above {0} would overflow the stack and end the Erlang VM "
    "(application setting thread_stack)"
)

# Bytes of C stack that one level of recursion takes at most, where Python's own calls use it.
STACK_PER_LEVEL = 2048


def _refuse(sentence: str, *parts: object) -> None:
    raise _erlang.ProcessError(sentence.format(*parts))


def _refusing(sentence: str, name: str) -> Callable[..., None]:
    def check(*_args: object, **_kwargs: object) -> None:
        _refuse(sentence, name)

    return check


# ---- checks, called with the arguments of the function; what is wrong with those it says itself ----


def _check_timer(name: str) -> Callable[..., None]:
    at = 0 if name == "alarm" else 1

    def check(*args: object) -> None:
        if len(args) <= at or args[at] != 0:  # 0 switches it off
            _refuse(TIMER, f"signal.{name}")

    return check


def _check_pidfd_signal(descriptor: int, number: int, *_args: object) -> None:
    with io.open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
        pids = [int(line[4:]) for line in info if line.startswith("Pid:")]
    if pids and _erlang.hits_vm(pids[0], number):
        _refuse(SIGNAL, "signal.pidfd_send_signal")


def _check_close(fd: object = None) -> None:
    if _erlang.owns(fd):
        _refuse(CLOSE, "os.close", fd)


def _check_closerange(fd_low: int = 0, fd_high: int = 0) -> None:
    for fd in range(max(0, fd_low), min(fd_high, 1024)):
        if _erlang.owns(fd):
            _refuse(CLOSE, "os.closerange", fd)


def _check_dup2(fd: int = -1, fd2: int = -1, inheritable: bool = True) -> None:
    if _erlang.owns(fd2) and fd != fd2:
        _refuse(CLOSE, "os.dup2", fd2)


def _check_open(file: object = None, mode: object = "r", buffering: object = -1,
                encoding: object = None, errors: object = None, newline: object = None,
                closefd: object = True, opener: object = None) -> None:
    if isinstance(file, int) and closefd and _erlang.owns(file):
        _refuse(CLOSE + ", or open it with closefd=False", "open", file)


def _check_recursion_limit(highest: int) -> Callable[..., None]:
    def check(limit: object = 0) -> None:
        if isinstance(limit, int) and limit > highest:
            _refuse(LIMIT, highest)

    return check


def _check_dump_later(is_main: bool) -> Callable[..., None]:
    def check(timeout: object = 0, repeat: object = False, file: object = None,
              exit: object = False, **_kwargs: object) -> None:
        if exit or not is_main:
            _refuse(LATER)

    return check


# ---- replacing ----


def _replace(modules: tuple[Any, ...], name: str, make: Callable[[Any], Any]) -> None:
    """Puts make(original) in the place of a function wherever the modules have it."""
    original = getattr(modules[0], name, None)
    if original is None:
        return  # not on this platform, not in this Python
    new = make(original)
    for module in modules:
        if getattr(module, name, None) is original:
            setattr(module, name, new)


def _guard(modules: tuple[Any, ...], check: Callable[..., None], *names: str) -> None:
    for name in names:
        _replace(modules, name, lambda original: _erlang.guard(original, check))


def _guard_os() -> None:
    import posix

    modules = (posix, os)
    for sentence, names in ((EXIT, ("_exit", "abort")),
                            (FORK, ("fork", "fork1", "forkpty")),
                            (EXEC, ("execv", "execve")),
                            (SIGNAL, ("login_tty",))):
        for name in names:
            _guard(modules, _refusing(sentence, f"os.{name}"), name)
    _guard(modules, _check_close, "close")
    _guard(modules, _check_closerange, "closerange")
    _guard(modules, _check_dup2, "dup2")
    for name in ("system", "posix_spawn", "posix_spawnp"):
        _replace(modules, name, _erlang.spawner)


def _guard_signals() -> None:
    modules = (importlib.import_module("_signal"), signal)
    for name in ("alarm", "setitimer"):
        _guard(modules, _check_timer(name), name)
    for name in ("raise_signal", "siginterrupt"):
        _guard(modules, _refusing(SIGNAL, f"signal.{name}"), name)
    _guard(modules, _check_pidfd_signal, "pidfd_send_signal")


def _guard_faulthandler(module: Any, is_main: bool) -> None:
    for name in ("_read_null", "_sigsegv", "_sigabrt", "_sigfpe", "_stack_overflow",
                 "_fatal_error", "_fatal_error_c_thread", "_raise_exception"):
        _guard((module,), _refusing(CRASH, f"faulthandler.{name}"), name)
    for name in ("register", "unregister"):
        _guard((module,), _refusing(SIGNAL, f"faulthandler.{name}"), name)
    _guard((module,), _check_dump_later(is_main), "dump_traceback_later")
    if is_main:
        return
    enable = module.enable

    def enable_by_number(file: Any = None, *args: Any, **kwargs: Any) -> None:
        """Dumps Python's stack when the VM crashes."""
        # It would keep the file object, which ends with this interpreter.
        file = sys.stderr if file is None else file
        enable(file if isinstance(file, int) else file.fileno(), *args, **kwargs)

    module.enable = enable_by_number


def _spawn_by_default(context: Any) -> None:
    """multiprocessing.context: what nobody chose is spawn, as a copy of the VM cannot work."""
    context._default_context._default_context = context._concrete_contexts["spawn"]


# ---- modules that are not loaded yet ----


class _Patching:
    """A loader that finishes a module when the original one has executed it."""

    def __init__(self, loader: Any, patch: Callable[[Any], None]) -> None:
        self._loader = loader
        self._patch = patch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._patch(module)


class _WhenImported:
    """A finder that lets others find, and patches some modules when they are imported."""

    def __init__(self, patches: dict[str, Callable[[Any], None]]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        patch = self._patches.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                loader: Any = _Patching(spec.loader, patch)
                spec.loader = loader
                return spec
        return None


def _when_imported(patches: dict[str, Callable[[Any], None]]) -> None:
    for name, patch in patches.items():
        if name in sys.modules:
            patch(sys.modules[name])
    sys.meta_path.insert(0, _WhenImported(patches))


def install(is_main: bool, stack: int) -> None:
    """Puts everything in place; once per interpreter, before anything else is imported."""
    _guard_os()
    _guard_signals()
    _guard((io, builtins, sys.modules["_io"]), _check_open, "open")
    if sys.version_info < (3, 12):  # newer ones watch the C stack by themselves
        _guard((sys,), _check_recursion_limit(stack // STACK_PER_LEVEL), "setrecursionlimit")
    _when_imported({
        "_posixsubprocess": lambda module: _replace((module,), "fork_exec", _erlang.spawner),
        "faulthandler": lambda module: _guard_faulthandler(module, is_main),
        "multiprocessing.context": _spawn_by_default,
    })


# ---- the end of an interpreter ----


def run_exit_handlers(patience: float = 5.0) -> None:
    """Calls what atexit holds, then the finalisers of garbage; each is interrupted in time.

    The main interpreter never ends, so its handlers are never called.
    """
    import atexit
    import gc

    home, over, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def watch() -> None:
        while not over.wait(patience):
            with lock:
                if not over.is_set():
                    _erlang.interrupt_thread(home)

    watcher = threading.Thread(target=watch)
    try:
        watcher.start()
    except RuntimeError:
        return  # no thread to be had: nobody could interrupt them
    for work in (getattr(atexit, "_run_exitfuncs"), gc.collect):
        try:
            work()
        except BaseException:
            pass  # reported by whoever ran it
    while not over.is_set():
        try:
            with lock:
                over.set()
        except BaseException:
            pass  # a late interrupt
    watcher.join()
