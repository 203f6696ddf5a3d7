"""Amounts as they are written: plain numbers, and linear expressions of named variables (`7-x`)."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Iterable, Mapping

from matfm.errors import MatfmError

# Atomic, so that a failed match costs one pass and '2e3' is never cut into '2' and the variable 'e'.
NUMBER = r"(?>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"

CONVENTIONAL_NAMES: tuple[str, ...] = tuple("xyzwnδεαβγ")
"""Letters that are read as variables even where no value is given, so that the error can ask for one."""

_NAME = re.compile(r"[^\W\d_]\w*")
_TERM = re.compile(rf"([+-]?)({NUMBER})?({_NAME.pattern})?(?:/({NUMBER}))?")


def variable_values(variables: Mapping[str, float] | None) -> dict[str, decimal.Decimal]:
    """The values of `variables` as the decimals they are written with.

    Raises:
        MatfmError: a name does not begin with a small letter, or a value is not a finite number.
    """
    values = {}
    for name, value in (variables or {}).items():
        if not (isinstance(name, str) and _NAME.fullmatch(name) and name == name.lower()):
            raise MatfmError(f"variables: {name!r} is no name of a variable; use small letters, like 'x'")
        try:
            values[name] = decimal.Decimal(repr(float(value)))
        except (TypeError, ValueError, OverflowError) as error:
            raise MatfmError(f"variables: the value of {name!r} is {value!r}; it must be a number") from error
        if not values[name].is_finite():
            raise MatfmError(f"variables: the value of {name!r} is {value!r}; it must be finite")
    return values


def expression_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Matches a sum of numbers and multiples of `names` that holds a name, perhaps in round brackets."""
    name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    term = rf"(?:{NUMBER}?(?:{name})(?:/{NUMBER})?)"
    linear = rf"(?:{NUMBER}[+-])*+{term}(?:[+-](?:{term}|{NUMBER}))*+"
    return re.compile(rf"(?P<expression>{linear})|\((?P<bracketed>{linear})\)")


def evaluate(found: re.Match[str], text: str, values: Mapping[str, decimal.Decimal]) -> float:
    """The value (>= 0) of a match of `expression_pattern`, computed in decimals so that `1-x` can be exactly 0.

    Raises:
        MatfmError: at the expression in `text`: a variable without a value, a result that is negative or not finite.
    """
    expression = found["expression"] or found["bracketed"]
    terms = [term for term in _TERM.findall(expression) if term[1] or term[2]]
    missing = dict.fromkeys(name for *_, name, _ in terms if name and name not in values)
    if missing:
        wanted = ", ".join(f"'{name}': ..." for name in missing)
        reason = f"the amount '{expression}' needs a value; write a number or, in Python, pass variables={{{wanted}}}"
        raise MatfmError(text, found.start(), reason)
    with decimal.localcontext(decimal.Context(prec=40, traps=[])):
        total = decimal.Decimal(0)
        for sign, number, name, divisor in terms:
            value = decimal.Decimal(number or 1) * (values[name] if name else 1) / decimal.Decimal(divisor or 1)
            total += -value if sign == "-" else value
        result = float(total) if total.is_finite() else math.inf
        if not 0.0 <= result < math.inf or (total != 0 and result == 0.0):
            reason = f"the amount '{expression}' is {total:.6g}, not a positive finite number"
            raise MatfmError(text, found.start(), reason)
    return result
