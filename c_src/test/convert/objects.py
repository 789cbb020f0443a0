"""Objects for the converters' tests, made from bytes.

The same bytes make the same object. Classes are made once, here, so that a run leaves no new
types behind; what their instances do when they are looked at is in the bytes too.
"""

from __future__ import annotations

import array
import collections
import copy
import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import gc
import operator
import pathlib
import pickle
import sys
import types
import uuid
from typing import Any

import _erlang

__all__ = ["build", "fail", "print_little", "probe", "rich"]

sys.modules["erlang"] = _erlang  # where the types say they live, for pickle

_DEPTH_MAX = 40
_STEPS_MAX = 2000  # of what an object does by itself, for one input


class _Source:
    """Bytes to decide by: over and over, but is_empty tells when they were all used."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.steps = 0
        self.depth = 0
        self.open: list[Any] = []  # containers around, which may contain themselves
        self.made: list[Any] = []  # all of them, to be changed while they are read

    def byte(self) -> int:
        self.at += 1
        return self.data[(self.at - 1) % len(self.data)] if self.data else 0

    def below(self, bound: int) -> int:
        return self.byte() % bound

    def bytes(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def is_empty(self) -> bool:
        return self.at >= len(self.data)


_source = _Source(b"")


def _act() -> Any:
    """What a hostile method does: raise, change a container that is being read, or answer."""
    source = _source
    source.steps += 1
    if source.steps > _STEPS_MAX:
        raise RuntimeError("enough")
    choice = source.below(12)
    if choice == 0:
        raise _EXCEPTIONS[source.below(len(_EXCEPTIONS))]("hostile")
    if choice == 1:
        raise _Rude("hostile")
    if choice in (2, 3, 4) and source.made:
        _change(source.made[source.below(len(source.made))])
    if choice == 5:
        return NotImplemented
    return _any()


def _change(container: Any) -> None:
    choice = _source.below(3)
    try:
        if choice == 0:
            container.clear()
        elif isinstance(container, list):
            container.append(_any()) if choice == 1 else container.insert(0, None)
        elif isinstance(container, dict):
            container[_key()] = _any()
        else:
            container.add(_key())
    except (AttributeError, TypeError):
        pass


class _Rude(Exception):
    def __str__(self) -> str:
        return _act()


class _Hostile:
    """Everything that the converter might ask an object for."""

    def __iter__(self) -> Any:
        _act()
        for _ in range(_source.below(8)):
            yield _act()

    def __len__(self) -> int:
        _act()
        return _source.byte() - 10

    def __getitem__(self, key: object) -> Any:
        return _act()

    def __str__(self) -> Any:
        return _act()

    __repr__ = __str__

    def __eq__(self, other: object) -> Any:
        return _act()

    def __hash__(self) -> int:
        _act()
        return _source.below(4)

    def __int__(self) -> Any:
        return _act()

    __index__ = __float__ = __bytes__ = isoformat = tolist = keys = items = copy = __int__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _act()


class _HostileList(_Hostile, list):
    pass


class _HostileTuple(_Hostile, tuple):
    pass


class _HostileDict(_Hostile, dict):
    pass


class _HostileSet(_Hostile, set):
    pass


class _HostileStr(_Hostile, str):
    pass


class _HostileBytes(_Hostile, bytes):
    pass


class _HostileInt(_Hostile, int):
    pass


class _HostileFloat(_Hostile, float):
    pass


class _HostileMapping(_Hostile, collections.abc.Mapping):
    pass


class _HostileDeque(_Hostile, collections.deque):
    pass


class _HostileDate(_Hostile, datetime.date):
    @property
    def year(self) -> Any:
        return _act()


class _HostileTime(_Hostile, datetime.datetime):
    pass


class _HostileDecimal(_Hostile, decimal.Decimal):
    pass


class _HostileClass(type):
    """A metaclass: classes that lie about themselves."""

    def __hash__(cls) -> int:
        _act()
        return 1

    def __eq__(cls, other: object) -> bool:
        return bool(_act())

    def __instancecheck__(cls, obj: object) -> bool:
        return bool(_act())


class _OfHostileClass(list, metaclass=_HostileClass):
    pass


class _Liar:
    @property
    def __class__(self) -> Any:
        return _act()

    @property
    def __array_interface__(self) -> Any:
        return _act()

    def tolist(self) -> Any:
        return _act()


@dataclasses.dataclass
class _Fields:
    first: Any
    second: Any

    @property
    def third(self) -> Any:
        return _act()


@dataclasses.dataclass
class _HostileFields(_Hostile):
    first: Any

    def __getattribute__(self, name: str) -> Any:
        return _act() if name == "first" else object.__getattribute__(self, name)


@dataclasses.dataclass(frozen=True)
class _Frozen:
    first: Any = None


class _Slots:
    __slots__ = ("first",)


class _Colour(enum.Enum):
    RED = 1
    GREEN = "green"
    BLUE = (1, [2], {"three": 3.0})
    SELF = None


class _Number(enum.IntEnum):
    ONE = 1
    HUGE = 1 << 70


class _Bits(enum.Flag):
    A = 1
    B = 2


class _Text(str, enum.Enum):
    A = "a"


class _Structure(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int), ("b", ctypes.c_double)]


_Point = collections.namedtuple("_Point", "x y")

_EXCEPTIONS: list[Any] = [
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    StopIteration,
    RecursionError,
    MemoryError,
    BufferError,
    OverflowError,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    _erlang.Interrupt,
    _erlang.Error,
    lambda text: UnicodeDecodeError("utf-8", b"\xff", 0, 1, text),
    lambda text: StopIteration(_any()),
    lambda text: OSError(_any(), _any()),
]

# ---- scalars ----


def _small() -> Any:
    return _source.byte() - 128


def _int() -> Any:
    number = int.from_bytes(_source.bytes(_source.below(24)), "little", signed=True)
    return number << _source.byte() * _source.below(80) if _source.below(4) == 0 else number


def _float() -> Any:
    choice = _source.below(6)
    if choice < 4:
        return [float("nan"), float("inf"), -float("inf"), -0.0][choice]
    return float.fromhex(f"0x1.{_source.bytes(6).hex() or 0}p{_small() * 8}")


def _str() -> Any:
    choice = _source.below(6)
    data = _source.bytes(_source.below(100))
    if choice == 0:
        return data.decode("utf-8", "surrogateescape")
    if choice == 1:
        return data.decode("utf-16-le", "surrogatepass") if len(data) % 2 == 0 else "odd"
    if choice == 2:
        return "".join(chr(byte * 4359 % 0x110000) for byte in data)
    if choice == 3:
        return data.decode("latin-1") * _source.below(50)
    return data.hex()


def _bytes() -> Any:
    return _source.bytes(_source.below(100)) * (1 + _source.below(3))


def _atom() -> Any:
    text = _str()
    try:
        return _erlang.Atom(text[: _source.byte() + 1])
    except ValueError:
        return _erlang.Atom("x")


def _buffer() -> Any:
    data = _bytes()
    choice = _source.below(9)
    if choice == 0:
        return bytearray(data)
    if choice == 1:
        return array.array("Hifd"[_source.below(4)], data[: len(data) // 8 * 8])
    if choice == 2:
        return (ctypes.c_int * 3)(1, 2, 3)
    if choice == 3:
        return _Structure(1, 2.0)
    view = memoryview(bytearray(data) if choice % 2 else data)
    if choice == 4:
        return view[:: _source.below(5) - 7]
    if choice == 5 and len(data) % 8 == 0:
        return view.cast("bBhHiIqQfd?c"[_source.below(12)])
    if choice == 6 and len(data) > 0 and len(data) % 4 == 0:
        return view.cast("B", shape=[len(data) // 4, 2, 2])
    if choice == 7:
        view.release()
    return view


def _range() -> Any:
    return range(_small(), _small() * 9, _source.below(5) + 1 if _source.below(3) else -3)


def _huge_range() -> Any:
    start = _int()
    return range(start, start + _source.byte() * (1 << 40), 1 << 40)


def _known() -> Any:
    number = abs(_int())
    makers = (
        lambda: datetime.date(1 + number % 9999, 1 + number % 12, 1 + number % 28),
        lambda: datetime.datetime.fromtimestamp(number % 10**9, datetime.timezone.utc),
        lambda: datetime.time(number % 24, number % 60, number % 60, number % 10**6),
        lambda: datetime.timedelta(number % 10**8, number % 86400, number % 10**6),
        lambda: decimal.Decimal(number % 10**30) / 7,
        lambda: decimal.Decimal("sNaN"),
        lambda: fractions.Fraction(number, 3),
        lambda: uuid.UUID(int=number % (1 << 128)),
        lambda: pathlib.PurePosixPath(_str() or "x"),
        lambda: complex(_float(), _float()),
        lambda: list(_Colour)[number % 4],
        lambda: list(_Number)[number % 2],
        lambda: _Bits(number % 4),
        lambda: _Text.A,
        lambda: _HostileDate(1 + number % 9999, 1, 1),
        lambda: _HostileTime(1 + number % 9999, 1, 1),
        lambda: _HostileDecimal(1),
        lambda: _HostileInt(number),
        lambda: _HostileFloat(1.5),
        lambda: _HostileStr("text"),
        lambda: _HostileBytes(b"bytes"),
    )
    return makers[_source.below(len(makers))]()


def _constant() -> Any:
    constants = (None, True, False, Ellipsis, NotImplemented, "", b"", (), 0, 1, 1.0, "a", b"a")
    return constants[_source.below(len(constants))]


def _thing() -> Any:
    """What has no image."""
    things = (
        object,
        lambda: object,
        lambda: _thing,
        lambda: types,
        lambda: iter([1]),
        lambda: (item for item in (1, 2)),
        _Hostile,
        _Liar,
        _Slots,
        lambda: {}.keys(),
        lambda: _EXCEPTIONS[_source.below(16)]("text"),
        lambda: _Colour,
        lambda: {1: 2}.items(),
        lambda: slice(1, 2),
    )
    return things[_source.below(len(things))]()


# ---- containers: each adds to one that is already open, so that it can contain itself ----


def _fill(container: Any, add: Any) -> Any:
    _source.open.append(container)
    _source.made.append(container)
    for _ in range(_source.below(8) if _source.below(8) else _source.byte()):
        if _source.is_empty():
            break
        add(container)
    _source.open.pop()
    return container


def _append(container: Any) -> None:
    list.append(container, _any())


def _put(container: Any) -> None:
    dict.__setitem__(container, _key(), _any())


def _list() -> Any:
    return _fill([[], _HostileList(), _OfHostileClass()][_source.below(3)], _append)


def _dict() -> Any:
    kinds = (dict, dict, collections.OrderedDict, collections.Counter, _HostileDict)
    return _fill(kinds[_source.below(len(kinds))](), _put)


def _tuple() -> Any:
    items = _fill([], _append)
    choice = _source.below(6)
    if choice == 0:
        return _HostileTuple(items)
    if choice == 1 and len(items) == 2:
        return _Point(*items)
    return tuple(items)


def _set() -> Any:
    container = _fill([set(), _HostileSet()][_source.below(2)], lambda to: set.add(to, _key()))
    return frozenset(container) if type(container) is set and _source.below(2) else container


def _other_container() -> Any:
    items = _fill([], _append)
    choice = _source.below(10)
    if choice == 0:
        return collections.deque(items)
    if choice == 1:
        return _HostileDeque(items)
    if choice == 2:
        return _HostileMapping()
    if choice == 3:
        return types.MappingProxyType(dict(enumerate(items)))
    if choice == 4:
        return collections.UserDict(enumerate(items))
    if choice == 5:
        return collections.ChainMap(dict(enumerate(items)), {})
    if choice == 6:
        return _Fields(items, _any())
    if choice == 7:
        return _HostileFields(items)
    if choice == 8:
        return _Frozen(items)
    fields = _Fields(items, None)
    del fields.second
    return fields


def _nested() -> Any:
    """Deep enough for the frames to move to the heap, not for the oracle, which recurses."""
    inner = _any()
    for _ in range(_source.byte() if _source.depth < 4 else _source.below(4)):
        inner = [inner] if _source.below(2) else ((inner,) if _source.below(2) else {"k": inner})
    return inner


def _again() -> Any:
    return _source.open[_source.below(len(_source.open))] if _source.open else None


def _records() -> Any:
    """Maps that repeat their keys, which the converters remember."""
    keys = [_str() for _ in range(_source.below(6))]
    return [dict.fromkeys(keys, _small()) for _ in range(_source.below(10))]


_SCALARS = (_constant, _small, _int, _float, _str, _bytes, _atom, _known)
_OTHERS = (_buffer, _range, _huge_range, _thing)
_CONTAINERS = (_list, _dict, _tuple, _set, _other_container, _nested, _again, _records)
_KINDS = _SCALARS + _OTHERS + _CONTAINERS + _CONTAINERS


def _any() -> Any:
    source = _source
    if source.depth >= _DEPTH_MAX or source.is_empty():
        return _constant()
    source.depth += 1
    try:
        return _KINDS[source.below(len(_KINDS))]()
    finally:
        source.depth -= 1


def _key() -> Any:
    source = _source
    if source.is_empty():
        return _constant()
    if source.below(10) == 0:
        source.depth += 1
        try:
            return (_key(), _key()) if source.depth < _DEPTH_MAX else ()
        finally:
            source.depth -= 1
    if source.below(20) == 0:
        return [_Hostile, object, _Frozen][source.below(3)]()
    return _SCALARS[source.below(len(_SCALARS))]()


def build(data: bytes) -> Any:
    """The object that the bytes stand for; raises, sometimes, what they ask for."""
    global _source
    _source = _Source(data)
    return _act() if _source.below(16) == 0 else _any()


def probe(obj: Any) -> None:
    """Looks at Erlang's own types as users would."""
    todo = [obj]
    while todo:
        item = todo.pop()
        kind = type(item)
        if kind in (list, tuple):
            todo.extend(item[:100])
        elif kind is dict:
            todo.extend(item.values())
        elif kind in (_erlang.Pid, _erlang.Ref, _erlang.Port):
            again = pickle.loads(pickle.dumps(item))
            if again != item or hash(again) != hash(item) or again < item:
                raise AssertionError(item)
            copy.deepcopy(item), repr(item)
        elif kind is _erlang.Fun:
            if item != copy.copy(item) or not repr(item) or hash(item) != hash(item):
                raise AssertionError(item)
        elif kind is _erlang.Buffer:
            if bytes(item) != bytes(memoryview(item)) or len(item) != len(bytes(item)):
                raise AssertionError(item)


def rich() -> Any:
    """One of nearly everything, without surprises."""
    return {
        "scalars": [None, True, 1, -(1 << 80), 1 << 5000, 1.5, "text", "käse", "\U0001f600" * 40],
        "bytes": [b"bytes", b"x" * 100, bytearray(b"y" * 70), memoryview(b"z" * 80)],
        "surrogates": ["\udcff", "\ud800"],
        "atoms": [_erlang.Atom("ok"), _erlang.Atom("käse")],
        ("a", (1, "key")): {1, 2, 3},
        "images": [datetime.date(2024, 1, 2), decimal.Decimal("1.5"), _Colour.BLUE, _Fields(1, 2)],
        "known": [uuid.UUID(int=5), pathlib.PurePosixPath("a/b"), collections.deque([1]), 1j],
        "nested": [[[[[[[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]]]]]]],
        "records": [{"name": "n", "value": number, "kind": None} for number in range(6)],
        "large": {str(number): number for number in range(40)},
        "range": range(10),
        "handle": operator,
        "views": [array.array("i", [1, 2]), memoryview(array.array("d", [1.0]))],
    }


def fail() -> None:
    """Raises something with a cause and a few frames."""
    try:
        decimal.Decimal("no number")
    except decimal.InvalidOperation as cause:
        raise ValueError("käse", 1 << 100, [1, 2, 3]) from cause


def print_little() -> None:
    """For who counts allocations: how Python prints a traceback takes thousands, none of them ours."""
    sys.modules["traceback"] = types.SimpleNamespace(format_exception=lambda *_: ["a", "b"])  # type: ignore


# A collection is asked for where it matters, and has little to look at.
gc.disable()
gc.collect()
gc.freeze()
