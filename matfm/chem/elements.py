"""The periodic table as plain data: symbols in order of atomic number."""

from __future__ import annotations

SYMBOLS: tuple[str, ...] = tuple(
    """H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
    Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
    Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
    Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og""".split()
)
"""118 symbols, hydrogen first."""

ATOMIC_NUMBER: dict[str, int] = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}

HYDROGEN_ISOTOPES: frozenset[str] = frozenset({"D", "T"})

TEMPORARY_SYMBOLS: dict[str, str] = dict(
    zip("Uub Uut Uuq Uup Uuh Uus Uuo".split(), "Cn Nh Fl Mc Lv Ts Og".split(), strict=True)
)
"""IUPAC's systematic symbols of elements that have a name by now."""

_PAULING = """H 2.20 Li 0.98 Be 1.57 B 2.04 C 2.55 N 3.04 O 3.44 F 3.98 Na 0.93 Mg 1.31 Al 1.61 Si 1.90 P 2.19 S 2.58
    Cl 3.16 K 0.82 Ca 1.00 Sc 1.36 Ti 1.54 V 1.63 Cr 1.66 Mn 1.55 Fe 1.83 Co 1.88 Ni 1.91 Cu 1.90 Zn 1.65 Ga 1.81
    Ge 2.01 As 2.18 Se 2.55 Br 2.96 Kr 3.00 Rb 0.82 Sr 0.95 Y 1.22 Zr 1.33 Nb 1.6 Mo 2.16 Tc 1.9 Ru 2.2 Rh 2.28
    Pd 2.20 Ag 1.93 Cd 1.69 In 1.78 Sn 1.96 Sb 2.05 Te 2.1 I 2.66 Xe 2.60 Cs 0.79 Ba 0.89 La 1.10 Ce 1.12 Pr 1.13
    Nd 1.14 Pm 1.13 Sm 1.17 Eu 1.2 Gd 1.20 Tb 1.1 Dy 1.22 Ho 1.23 Er 1.24 Tm 1.25 Yb 1.1 Lu 1.27 Hf 1.3 Ta 1.5
    W 2.36 Re 1.9 Os 2.2 Ir 2.20 Pt 2.28 Au 2.54 Hg 2.00 Tl 1.62 Pb 2.33 Bi 2.02 Po 2.0 At 2.2 Rn 2.2 Fr 0.7 Ra 0.9
    Ac 1.1 Th 1.3 Pa 1.5 U 1.38 Np 1.36 Pu 1.28 Am 1.3 Cm 1.3 Bk 1.3 Cf 1.3 Es 1.3 Fm 1.3 Md 1.3 No 1.3 Lr 1.3
    """.split()
PAULING: dict[str, float] = dict(zip(_PAULING[::2], map(float, _PAULING[1::2]), strict=True))
"""Pauling electronegativities (dimensionless), as in pymatgen 2026.10's `Element.X`; elements without a value (He, Ne,
Ar, and from Rf on) are absent."""
