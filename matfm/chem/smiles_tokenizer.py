"""SMILES to atom-level tokens, as a Hugging Face tokenizer that loads without matfm."""

from __future__ import annotations

from matfm.chem.line_tokenizer import LineNotationTokenizer
from matfm.chem.notations import SMILES

_BONDS_AND_BRANCHES = ("-", "=", "#", "$", ":", "~", "/", "\\", "->", "<-", "(", ")", ".")
_ATOMS = ("C", "N", "O", "S", "P", "F", "Cl", "Br", "I", "B", "*", "c", "n", "o", "s", "p", "b")
_AROMATIC_IN_BRACKETS = (
    "[nH]",
    "[n+]",
    "[n-]",
    "[nH+]",
    "[o+]",
    "[s+]",
    "[se]",
    "[te]",
    "[as]",
    "[si]",
    "[pH]",
    "[c-]",
)
_STEREO = tuple(
    f"[{element}{mark}{hydrogen}{charge}]"
    for element, charge in (("C", ""), ("N", ""), ("N", "+"), ("S", ""), ("S", "+"), ("P", ""), ("P", "+"), ("Si", ""))
    for mark in ("@", "@@")
    for hydrogen in ("", "H")
)
_CHARGED = (
    "[H] [H+] [H-] [C] [CH] [CH2] [CH3] [C-] [C+] [CH-] [CH+] [CH2-] [CH2+] [CH3-] [CH3+] [N] [NH] [NH2] [N+] [N-] "
    "[NH+] [NH-] [NH2+] [NH2-] [NH3+] [NH4+] [O] [OH] [O+] [O-] [OH-] [OH+] [OH2+] [OH3+] [S] [SH] [S+] [S-] [SH+] "
    "[SH-] [S-2] [O-2] [P] [PH] [P+] [P-] [PH+] [B] [B-] [BH-] [BH3-] [BH4-] [F-] [Cl-] [Br-] [I-] [I+] [Cl+] [Cl+3] "
    "[F] [Cl] [Br] [I]"
)
_METALS_AND_MORE = (
    "[Li] [Li+] [Na] [Na+] [K] [K+] [Rb+] [Cs+] [Be+2] [Mg] [Mg+] [Mg+2] [Ca] [Ca+2] [Sr+2] [Ba+2] [Al] [Al-] [Al+3] "
    "[Ti] [Ti+4] [V] [Cr] [Cr+3] [Mn] [Mn+2] [Fe] [Fe+2] [Fe+3] [Co] [Co+2] [Co+3] [Ni] [Ni+2] [Cu] [Cu+] [Cu+2] [Zn] "
    "[Zn+2] [Ga] [Ga+3] [Ge] [GeH] [As] [AsH] [As+] [Se] [SeH] [Se-] [Se+] [Zr] [Zr+4] [Mo] [Ru] [Ru+2] [Rh] [Pd] "
    "[Pd+2] [Ag] [Ag+] [Cd] [Cd+2] [In] [In+3] [Sn] [Sn+2] [Sn+4] [Sb] [Sb+3] [Te] [La+3] [Gd+3] [W] [Os] [Ir] [Pt] "
    "[Pt+2] [Pt+4] [Au] [Au+] [Au+3] [Hg] [Hg+] [Hg+2] [Tl] [Pb] [Pb+2] [Bi] [Bi+3] [U] [Si] [SiH] [SiH2] [SiH3] "
    "[Si-] [Si-2]"
)
_ISOTOPES = (
    "[2H] [3H] [11C] [11CH3] [13C] [13CH] [13CH2] [13CH3] [13CH4] [13c] [14C] [14CH2] [14CH3] [14c] [15N] [15NH2] "
    "[15n] [18O] [18F] [123I] [125I] [131I] [35S] [32P]"
)

ALWAYS: tuple[str, ...] = (
    *_ATOMS,
    *_BONDS_AND_BRANCHES,
    *"1234567890",
    *(f"%{number}" for number in range(10, 100)),
    *_AROMATIC_IN_BRACKETS,
    *_STEREO,
    *_CHARGED.split(),
    *_METALS_AND_MORE.split(),
    *_ISOTOPES.split(),
)
"""Tokens of the shipped vocabulary that no corpus is needed for."""


class SmilesTokenizer(LineNotationTokenizer):
    """Atom-level tokenizer of SMILES.

    A bracket atom, `Cl`, `Br`, a ring number such as `%12` and every other character are one token
    each. A token outside the vocabulary is [UNK], never dropped; `coverage` names such tokens. `decode(ids,
    skip_special_tokens=True)` gives the string back exactly when none was unknown.
    """

    notation = SMILES
