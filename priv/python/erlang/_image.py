"""What Erlang sees of objects that are not of a built-in type.

The C converter handles the built-in types and calls :func:`image` for the rest. Which
rule an object falls under depends on its type alone; it is looked up once for each
type and remembered as long as the type lives.

Importing this module imports none of the modules whose classes it knows: a class can
only be met once somebody else has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from _erlang import Atom, copy_memory

__all__ = ["array", "image"]

_Rule = Callable[[Any], Any]

_MICROSECONDS_PER_DAY = 86_400_000_000


def image(obj: object) -> Any:
    """Return an object of a built-in type that stands for ``obj``.

    ``NotImplemented`` means that there is none, so that Erlang gets a handle (or
    whatever the call asked for). Raises what the object's own methods raise.
    """
    cls = type(obj)
    try:
        rule = _rules.get(cls)
    except TypeError:  # its metaclass made the class unhashable
        return _find_rule(cls, obj)(obj)
    if rule is None:
        rule = _find_rule(cls, obj)
        meta = type(cls)
        # Classes that their metaclass compares could be added again and again.
        if (getattr(meta, "__eq__"), getattr(meta, "__hash__")) == (object.__eq__, object.__hash__):
            _rules[cls] = rule
    return rule(obj)


def array(buffer: Any, typestr: bytes, shape: tuple[int, ...]) -> Any:
    """Return what ``{ndarray, Type, Shape, Binary}`` stands for, over the bytes of ``buffer``.

    That is a numpy array where numpy is loaded, else a ``memoryview``. ``None`` means that the parts do
    not fit together, ``NotImplemented`` that only numpy has such arrays.
    """
    text = typestr.decode("latin-1")
    order, code = text[:1], _CODES.get(text[1:])
    count = 1
    for length in shape:
        count *= length
    if code is None or order not in ("<", ">", "|", "=") or len(buffer) != count * int(text[2:]):
        return None
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        return numpy.ndarray(shape, text, buffer)
    view: Any = memoryview(buffer)
    native = order in ("=", "|", "<" if sys.byteorder == "little" else ">")
    if len(code) > 1 or not (native or text[2:] == "1") or (0 in shape and len(shape) > 1):
        return NotImplemented
    try:
        return view.cast(code) if 0 in shape else view.cast(code, shape)
    except ValueError:  # half floats, before Python 3.15
        return NotImplemented


# ---- rules ----


def _none(obj: object) -> Any:
    return NotImplemented


def _isoformat(obj: Any) -> str:
    return str(obj.isoformat())


def _date(obj: Any) -> tuple[int, int, int]:
    return (obj.year, obj.month, obj.day)


def _timedelta(obj: Any) -> tuple[Atom, int]:
    microseconds = obj.seconds * 1_000_000 + obj.microseconds
    return (Atom("timedelta"), obj.days * _MICROSECONDS_PER_DAY + microseconds)


def _enum(obj: Any) -> Any:
    return obj.value


def _bytes(obj: bytes | bytearray) -> bytes:
    return bytes(memoryview(obj))


def _complex(obj: complex) -> tuple[float, float]:
    return (obj.real, obj.imag)


def _mapping(obj: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: obj[key] for key in obj}


def _tolist(obj: Any) -> Any:
    return obj.tolist()


def _scalar(obj: Any) -> Any:
    """A numpy scalar; some (longdouble) have no other Python type to turn into."""
    value = obj.tolist()
    if type(value) is not type(obj):
        return value
    return complex(obj) if obj.dtype.kind == "c" else float(obj)


def _memoryview(obj: memoryview) -> Any:
    if obj.ndim == 1 and obj.format in ("B", "c"):
        return obj.tobytes()
    try:
        return obj.tolist()
    except NotImplementedError:  # structures and the like
        return NotImplemented


def _buffer(obj: Any) -> Any:
    with memoryview(obj) as view:
        return _memoryview(view)


def _dataclass_rule(cls: type) -> _Rule:
    names = [field.name for field in sys.modules["dataclasses"].fields(cls)]

    def fields(obj: object) -> dict[str, Any]:
        return {name: getattr(obj, name) for name in names}

    return fields


# ---- which rule ----

# Subclasses of built-in types whose metaclass is not `type`: their plain value. The base
# class's own method, since the subclass may have another.
_BUILTINS: dict[type, _Rule] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: _bytes,
    bytearray: _bytes,
    tuple: lambda obj: tuple.__getitem__(obj, slice(None)),
    list: list.copy,
    dict: dict.copy,
    set: lambda obj: set.union(set(), obj),
    frozenset: lambda obj: set.union(set(), obj),
    complex: _complex,
    memoryview: _memoryview,
}

# By name and home of the class: the home is asked for only if it is loaded.
_KNOWN: dict[str, tuple[tuple[str, ...], _Rule]] = {
    "datetime": (("datetime",), _isoformat),
    "date": (("datetime",), _date),
    "time": (("datetime",), _isoformat),
    "timedelta": (("datetime",), _timedelta),
    "Decimal": (("decimal",), str),
    "Fraction": (("fractions",), str),
    "UUID": (("uuid",), str),
    "PurePath": (("pathlib",), str),
    "deque": (("collections",), list),
    "array": (("array",), _tolist),
    "Array": (("ctypes", "_ctypes"), list),
}


def _find_rule(cls: type, obj: object) -> _Rule:
    mro = cls.__mro__
    if _is_one_of(mro, "enum", "Enum"):
        return _enum
    for base in mro:
        builtin = _BUILTINS.get(base)
        if builtin is not None:
            return builtin
        known: tuple[tuple[str, ...], _Rule] = _KNOWN.get(base.__name__, ((), _none))
        homes, rule = known
        if any(_class_in(home, base.__name__) is base for home in homes):
            return rule
    if "__dataclass_fields__" in _attributes(mro):
        return _dataclass_rule(cls)
    if "__array_interface__" in _attributes(mro):
        return _array_rule(mro)
    if issubclass(cls, Mapping):
        return _mapping
    return _buffer if _has_buffer(obj) else _none


def _array_rule(mro: tuple[type, ...]) -> _Rule:
    if _is_one_of(mro, "numpy", "generic"):
        return _scalar
    return _tolist if "tolist" in _attributes(mro) else _array_interface


def _array_interface(obj: Any) -> Any:
    """The number or nested list behind ``__array_interface__`` (version 3), numpy or not."""
    interface = obj.__array_interface__
    if not isinstance(interface, Mapping) or "typestr" not in interface or "shape" not in interface:
        return NotImplemented
    typestr, shape = interface["typestr"], tuple(interface["shape"])
    read = _reader(typestr)
    if read is None or interface.get("mask") is not None:
        return NotImplemented
    size = int(typestr[2:])
    strides = interface.get("strides") or _c_strides(shape, size)
    if 0 in shape:
        return _nested(b"", read, 0, shape, strides)
    data, offset = interface.get("data"), interface.get("offset", 0)
    if isinstance(data, tuple):
        # Strides may be negative: the memory it touches starts below the first item then.
        reach = [(length - 1) * stride for length, stride in zip(shape, strides)]
        below = sum(step for step in reach if step < 0)
        above = sum(step for step in reach if step > 0) + size
        return _nested(copy_memory(data[0] + below, above - below), read, -below, shape, strides)
    with memoryview(obj if data is None else data) as view:
        return _nested(view.tobytes(), read, offset, shape, strides)


def _c_strides(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    strides = []
    for length in reversed(shape):
        strides.append(size)
        size *= length
    return tuple(reversed(strides))


def _reader(typestr: str) -> Callable[[bytes, int], Any] | None:
    """How to read an item of such a type at an offset; ``None`` if it is no number."""
    order, kind, size = typestr[0], typestr[1], typestr[2:]
    code = _CODES.get(kind + size)
    if code is None:
        return None
    import struct

    unpack = struct.Struct(("=" if order == "|" else order) + code).unpack_from
    if kind == "c":
        return lambda data, offset: complex(*unpack(data, offset))
    return lambda data, offset: unpack(data, offset)[0]


_CODES = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d", "c8": "2f", "c16": "2d",
}  # fmt: skip


def _nested(
    data: bytes,
    read: Callable[[bytes, int], Any],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> Any:
    if not shape:
        return read(data, offset)
    starts = range(offset, offset + shape[0] * strides[0], strides[0]) if strides[0] else [offset] * shape[0]
    if len(shape) == 1:
        return [read(data, start) for start in starts]
    return [_nested(data, read, start, shape[1:], strides[1:]) for start in starts]


def _attributes(mro: tuple[type, ...]) -> set[str]:
    """Names the classes define themselves: asking an object could run anything."""
    return {name for base in mro for name in vars(base)}


def _class_in(module: str, name: str) -> object:
    return getattr(sys.modules.get(module), name, None)


def _is_one_of(mro: tuple[type, ...], module: str, name: str) -> bool:
    return _class_in(module, name) in mro


def _has_buffer(obj: Any) -> bool:
    try:
        memoryview(obj).release()
    except TypeError:
        return False
    except Exception:  # a buffer, but a closed one
        return True
    return True


_rules: WeakKeyDictionary[type, _Rule] = WeakKeyDictionary()
