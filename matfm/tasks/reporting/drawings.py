"""Inputs as a chemist draws them: molecules as pictures, formulas with lowered numbers."""

from __future__ import annotations

import re
from typing import Any

from matfm.chem.scaffold_splits import read_molecule
from matfm.errors import MatfmError
from matfm.tasks.reporting.html import Html, escaped, joined, shortened, tag

_WIDTH, _HEIGHT = 280, 200
_SMALLEST_LETTERS = 11
"""Of atoms, in the unit of the drawing, which is about a pixel."""
_LARGEST = 200
"""Atoms of a molecule that is drawn; larger ones would be a knot."""
_LONGEST_FORMULA = 60
_AMOUNT = re.compile(r"(?<=[A-Za-z)\]}])([0-9]+(?:\.[0-9]+)?)")
_CHARGE = re.compile(r"[0-9]*[+\-−]$")
# Colours that RDKit writes and no other: each becomes a variable of the page, which differs between light and dark.
_BLACK, _NITROGEN, _OXYGEN, _SULFUR, _HALOGEN, _PHOSPHORUS = range(6)
_COLORS = ("#000001", "#000002", "#000003", "#000004", "#000005", "#000006")
_VARIABLES = ("ink", "atom-n", "atom-o", "atom-s", "atom-halogen", "atom-p")
_COLOR_OF_ATOM = {7: _NITROGEN, 8: _OXYGEN, 16: _SULFUR, 15: _PHOSPHORUS, 9: _HALOGEN, 17: _HALOGEN, 35: _HALOGEN}
_LAST_ATOMIC_NUMBER = 118


def drawn_input(text: str, kind: str | None) -> Html:
    """A molecule as a picture with its text below, a formula with lowered numbers, anything else as text."""
    code = tag("code", shortened(text, 120))
    if kind == "composition":
        return tag("div", formula(text), class_="formula")
    if kind not in ("smiles", "selfies"):
        return code
    try:
        molecule = read_molecule(text, kind).molecule
    except MatfmError:
        return code
    if molecule is None or not 0 < molecule.GetNumAtoms() <= _LARGEST:
        return code
    return joined([drawing(molecule, shortened(text, 120)), code])


def formula(text: str) -> Html:
    """With amounts lowered and a charge at the end raised."""
    shown = shortened(text, _LONGEST_FORMULA)
    charge = _CHARGE.search(shown)
    body = shown[: charge.start()] if charge else shown
    # The pattern has a group, so every second part is an amount.
    parts = [tag("sub", part) if place % 2 else escaped(part) for place, part in enumerate(_AMOUNT.split(body))]
    return joined([*parts, tag("sup", charge.group()) if charge else None])


def drawing(molecule: Any, description: str) -> Html:
    """An SVG of an RDKit molecule that follows the colours of the page."""
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DSVG(_WIDTH, _HEIGHT)
    options: Any = drawer.drawOptions()
    options.clearBackground = False
    options.padding = 0.08
    options.bondLineWidth = 1.6
    options.minFontSize = _SMALLEST_LETTERS
    palette = {number: _rgb(_BLACK) for number in range(_LAST_ATOMIC_NUMBER + 1)}
    options.setAtomPalette(palette | {number: _rgb(color) for number, color in _COLOR_OF_ATOM.items()})
    options.setSymbolColour(_rgb(_BLACK))
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule)
    drawer.FinishDrawing()
    return _inline(drawer.GetDrawingText(), description)


def _rgb(color: int) -> tuple[float, float, float]:
    return (0.0, 0.0, (color + 1) / 255)


def _inline(svg: str, description: str) -> Html:
    """What RDKit drew, without its XML heading and classes, in the colours of the page.

    RDKit writes shapes and numbers only, none of the user's text.
    """
    inside = svg[svg.index("<!-- END OF HEADER -->") + len("<!-- END OF HEADER -->") : svg.rindex("</svg>")]
    inside = re.sub(r" class='[^']*'", "", inside)
    inside = inside.replace("#000000", "var(--ink)")
    for color, variable in zip(_COLORS, _VARIABLES, strict=True):
        inside = re.sub(color, f"var(--{variable})", inside, flags=re.IGNORECASE)
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    title = tag("title", description)
    return tag("svg", title, Html(inside), viewBox=box, role="img", aria_label=description)
