"""Chemical groups of the periodic table, and the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matfm.chem.elements import ATOMIC_NUMBER, SYMBOLS
from matfm.errors import MatfmError

_TABLE = {
    "alkali_metal": "Li Na K Rb Cs Fr",
    "alkaline_earth_metal": "Be Mg Ca Sr Ba Ra",
    "lanthanide": "La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu",
    "actinide": "Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr",
    "transition_metal": """Sc Ti V Cr Mn Fe Co Ni Cu Y Zr Nb Mo Tc Ru Rh Pd Ag Hf Ta W Re Os Ir Pt Au
        Rf Db Sg Bh Hs Mt Ds Rg""",
    "post_transition_metal": "Zn Cd Hg Cn Al Ga In Tl Nh Sn Pb Fl Bi Mc",
    "metalloid": "B Si Ge As Sb",
    "nonmetal": "H C N P",
    "chalcogen": "O S Se Te Po Lv",
    "halogen": "F Cl Br I At Ts",
    "noble_gas": "He Ne Ar Kr Xe Rn Og",
}
ELEMENT_GROUPS: dict[str, tuple[str, ...]] = {name: tuple(symbols.split()) for name, symbols in _TABLE.items()}
"""Eleven groups; each of the 118 elements is in exactly one.

Collective names follow IUPAC's Red Book (2005), IR-3.5: lanthanoids are La to Lu, actinoids Ac to Lr (so neither La,
Ac nor Lu, Lr is a transition metal here), chalcogens are all of group 16. Zn, Cd, Hg and Cn are post-transition metals:
by IUPAC's Gold Book a transition element has an incomplete d subshell, as atom or as cation. Superheavy elements
go with their column.
"""


def groups_with(user: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The table's groups after the user's took their elements; still a partition of all elements.

    Elements the user does not name keep their group. A name of the table extends that group:
    `{"transition_metal": ["Zn", "Cd", "Hg"]}` moves these three. Groups left empty are dropped.

    Raises:
        MatfmError: a symbol is unknown or named twice, or a group names no element.
    """
    home: dict[str, str] = {symbol: name for name, symbols in ELEMENT_GROUPS.items() for symbol in symbols}
    named: dict[str, str] = {}
    for name, symbols in user.items():
        if isinstance(symbols, str) or not symbols:
            raise MatfmError(f"element group {name!r} is {symbols!r}; give a list of symbols, for example ['Fe', 'Co']")
        for symbol in symbols:
            if symbol not in ATOMIC_NUMBER:
                raise MatfmError(f"element group {name!r} names {symbol!r}, which is not the symbol of an element")
            if symbol in named:
                raise MatfmError(f"{symbol} is in element group {named[symbol]!r} and again in {name!r}; give it one")
            named[symbol] = name
    home |= named
    members = {name: tuple(s for s in SYMBOLS if home[s] == name) for name in dict.fromkeys((*ELEMENT_GROUPS, *user))}
    return {name: symbols for name, symbols in members.items() if symbols}
