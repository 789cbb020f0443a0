"""The C side of the package erlang (c_src/module.c). Users import erlang, not this."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, final

from typing_extensions import Self

class _Term:
    """Immutable, hashable, ordered as in Erlang."""

    def __new__(cls, external: bytes, /) -> Self: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Self, /) -> bool: ...
    def __le__(self, other: Self, /) -> bool: ...
    def __gt__(self, other: Self, /) -> bool: ...
    def __ge__(self, other: Self, /) -> bool: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any, /) -> Self: ...

@final
class Pid(_Term):
    """A process, of this node or another."""

@final
class Ref(_Term):
    """A reference."""

@final
class Port(_Term):
    """A port."""

@final
class Fun(_Term):
    """A fun; Python cannot call it, and cannot pickle it."""

@final
class Atom(str):
    """A str that becomes an atom in Erlang."""

    def __new__(cls, text: str, /) -> Atom: ...

@final
class Origin:
    """On whose behalf code runs; opaque."""

class Error(Exception):
    """What this package raises."""

class ProcessError(Error):
    """An Erlang process is not there, or died."""

class Interrupt(BaseException):
    """The request was interrupted or ran out of time."""

def call(
    kind: Literal["call", "state", "system"],
    name: str,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    /,
) -> Any: ...
def start(
    name: str,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    done: Callable[[Any, BaseException | None], object],
    /,
) -> None: ...
def self() -> Pid | None: ...
def send(pid: Pid, term: object, /) -> bool: ...
def whereis(name: str, /) -> Pid | None: ...
def atom(text: str, /) -> Atom: ...
def origin() -> Origin | None: ...
def enter(origin: Origin | None, /) -> Origin | None: ...
def guard_exit() -> None: ...
def import_in_main(request: str, /) -> None: ...
def mark_main_only(package: str, /) -> None: ...
def is_main_only(package: str, /) -> bool: ...
