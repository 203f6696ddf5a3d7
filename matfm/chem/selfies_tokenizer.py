"""SELFIES to symbols, as a Hugging Face tokenizer that loads without matfm."""

from __future__ import annotations

from matfm.chem.line_tokenizer import LineNotationTokenizer
from matfm.chem.notations import SELFIES
from matfm.chem.selfies import CONSTRAINTS

_INDEX = (
    "[C] [Ring1] [Ring2] [Branch1] [=Branch1] [#Branch1] [Branch2] [=Branch2] [#Branch2] [O] [N] [=N] [=C] [#C] [S] [P]"
)
_ORDERS = {"": 1, "=": 2, "#": 3}
_RINGS_AND_BRANCHES = (
    *(f"[{bond}{kind}{size}]" for kind in ("Ring", "Branch") for bond in _ORDERS for size in (1, 2, 3)),
    *(f"[{bond}Ring{size}]" for bond in ("-/", "-\\", "/-", "\\-", "//", "/\\", "\\/", "\\\\") for size in (1, 2, 3)),
)
_BONDED = "C N O S P F Cl Br I B Si Se C+1 C-1 N+1 N-1 O+1 O-1 S+1 S-1 P+1 P-1 B-1".split()
_HYDROGEN = (
    "[H] [H+1] [H-1] [CH1-1] [CH1+1] [CH2-1] [CH2+1] [CH3-1] [CH3+1] [NH1] [=NH1] [NH1+1] [=NH1+1] [NH1-1] [NH2+1] "
    "[=NH2+1] [NH2-1] [NH3+1] [NH4+1] [OH1-1] [OH1+1] [=OH1+1] [OH2+1] [OH3+1] [SH1] [SH1-1] [SH1+1] [PH1] [=PH1] "
    "[BH1-1] [BH3-1] [BH4-1] [SiH1] [SiH2] [SiH3] [SeH1]"
).split()
_STEREO_CENTRES = ("N@{}+1", "S@{}", "S@{}+1", "P@{}", "P@{}+1", "Si@{}")
_STEREO = (
    *(f"[{bond}C@{mark}{hydrogen}]" for bond in ("", "/", "\\") for mark in ("", "@") for hydrogen in ("", "H1")),
    *(f"[{centre.format(mark)}]" for centre in _STEREO_CENTRES for mark in ("", "@")),
    *(f"[{bond}NH1]" for bond in ("/", "\\")),
)
_IONS_AND_METALS = (
    "[Li] [Li+1] [Na] [Na+1] [K] [K+1] [Rb+1] [Cs+1] [Be+2] [Mg] [Mg+2] [Ca+2] [Sr+2] [Ba+2] [Al] [Al-1] [Al+3] "
    "[F-1] [Cl-1] [Br-1] [I-1] [Cl+3] [I+1] [O-2] [S-2] [Ti] [Ti+4] [V] [Cr] [Cr+3] [Mn] [Mn+2] [Fe] [Fe+2] [Fe+3] "
    "[Co] [Co+2] [Co+3] [Ni] [Ni+2] [Cu] [Cu+1] [Cu+2] [Zn] [Zn+2] [Ga] [Ge] [As] [=As] [Se-1] [Zr] [Mo] [Ru] [Rh] "
    "[Pd] [Pd+2] [Ag] [Ag+1] [Cd+2] [In] [Sn] [Sb] [Te] [La+3] [Gd+3] [W] [Os] [=Os] [Ir] [Pt] [Pt+2] [Pt+4] [Au] "
    "[Au+1] [Hg] [Hg+2] [Pb] [Bi] [Bi+3]"
).split()
_ISOTOPES = (
    "[2H] [3H] [11C] [11CH3] [13C] [13CH3] [13CH4] [14C] [14CH3] [15N] [15NH2] [18O] [18F] [123I] [125I] [131I] [35S]"
).split()

ALWAYS: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *_INDEX.split(),
            *_RINGS_AND_BRANCHES,
            ".",
            *(f"[{bond}{atom}]" for atom in _BONDED for bond, order in _ORDERS.items() if order <= CONSTRAINTS[atom]),
            *(f"[{bond}{atom}]" for atom in _BONDED for bond in ("/", "\\")),
            *_HYDROGEN,
            *_STEREO,
            *_IONS_AND_METALS,
            *_ISOTOPES,
        )
    )
)
"""Symbols of the shipped vocabulary that no corpus is needed for."""


class SelfiesTokenizer(LineNotationTokenizer):
    """Tokenizer of SELFIES: a symbol in brackets is one token, the dot between fragments too.

    The shipped vocabulary is robust: any sequence of its tokens that holds an atom decodes, by
    `matfm.selfies_to_smiles`, to a molecule that RDKit accepts. It never grows; a symbol outside is [UNK].
    """

    notation = SELFIES
