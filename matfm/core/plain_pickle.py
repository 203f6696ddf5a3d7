"""Numbers, texts and arrays out of other people's pickle files, without running anything that these files name.

A pickle is a program; what makes it dangerous is that it may name any function and call it. Here every name leads to a
stand-in of this file that only keeps its arguments, and any other name is an error. matfm itself writes no pickles.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import Counter
from tokenize import TokenError
from typing import Any

import numpy as np

from matfm.errors import RunError

_NO_PICKLE = (pickle.UnpicklingError, EOFError, ValueError)
_SIZES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "FRAME"})
_CONTAINERS_A_BYTE = 8
"""Lists that name each other twice grow without end when they are copied; real files share little."""
_TYPES = frozenset({"b1", "u1", "i4", "i8", "f4", "f8", "O8", "O"})


class _Dtype:
    """What `numpy.dtype` was called with, and its byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def value(self) -> np.dtype[Any]:
        if self.code not in _TYPES or self.order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"an array of type {self.order}{self.code}")
        return np.dtype(self.code[0] if self.code == "O8" else self.order.replace("|", "=") + self.code)


class _Array:
    """State of a `numpy.ndarray`: shape, type, order and bytes."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _ArrayClass:
    """Stands for the class `numpy.ndarray` itself, which is only an argument."""


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """What an empty array holds, as Python 3 writes it for Python 2."""
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
    ("collections", "Counter"): Counter,
}


class _PlainReader(pickle.Unpickler):
    """Looks names up among the stand-ins only."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """A stand-in; an error for any other name."""
        found = _STAND_INS.get((module_name, global_name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is no plain data")
        return found


def read_plain_pickle(data: bytes, name: str) -> Any:
    """Lists, dictionaries, counters, numbers, texts and NumPy arrays of a pickle.

    Args:
        data: content of the file.
        name: for messages.

    Raises:
        RunError: it is damaged, or holds anything else.
    """
    try:
        _check_sizes(data)
        return _Plain(_CONTAINERS_A_BYTE * len(data)).of(_PlainReader(io.BytesIO(data)).load())
    except (*_NO_PICKLE, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{name} is not read: {error}; nothing of it was run") from error


def _check_sizes(data: bytes) -> None:
    """Refuse a few bytes that ask for all of the memory: numbered places and frames beyond the length of the data."""
    for code, argument, position in pickletools.genops(data):
        if code.name in _SIZES and not 0 <= int(argument or 0) <= len(data):
            raise pickle.UnpicklingError(f"{code.name} at byte {position} is of size {argument}")


def read_plain_array_file(data: bytes, name: str) -> Any:
    """The content of a `.npy` file, which holds an array of objects (a pickle) after its header."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if not dtype.hasobject:
            return np.frombuffer(stream.read(), dtype).reshape(shape)
    except (ValueError, TypeError, OverflowError, SyntaxError, TokenError, RecursionError) as error:
        raise RunError(f"{name} is not read: {error}") from error
    return read_plain_pickle(stream.read(), name)


class _Plain:
    """Arrays in the place of their stand-ins, in at most so many containers."""

    def __init__(self, containers: int) -> None:
        self.left = containers

    def of(self, value: Any) -> Any:
        """A plain value."""
        if isinstance(value, (_Array, dict, list)):
            self.left -= 1
            if self.left < 0:
                raise pickle.UnpicklingError("its lists hold each other too often")
        if isinstance(value, _Array):
            return self.array(value)
        if isinstance(value, Counter):
            return value
        if isinstance(value, dict):
            return {key: self.of(item) for key, item in value.items()}
        if isinstance(value, list) and value and isinstance(value[0], (list, dict, _Array)):
            return [self.of(item) for item in value]
        if value is None or isinstance(value, (list, tuple, str, bytes, int, float)):
            return value
        raise pickle.UnpicklingError(f"a {type(value).__name__}")

    def array(self, value: _Array) -> Any:
        """An array; one of objects as a list."""
        _, shape, dtype, fortran, content = value.state
        kind = dtype.value()
        if kind.hasobject:
            inner = [self.of(item) for item in content]
            return inner[0] if shape == () else inner
        return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")
