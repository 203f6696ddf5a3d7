"""Markup, charts, the periodic table and drawings of the report page."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matfm.chem.elements import ATOMIC_NUMBER, SYMBOLS
from matfm.tasks.reporting.charts import Axis, Frame, axis, tick_label
from matfm.tasks.reporting.drawings import drawn_input, formula
from matfm.tasks.reporting.html import Html, escaped, joined, number, shortened, tag
from matfm.tasks.reporting.page import _STYLE
from matfm.tasks.reporting.periodic_table import ElementValue, periodic_table, place


@settings(max_examples=50)
@given(st.text())
def test_text_never_becomes_markup(text):
    made = tag("p", text, title=text, **{"class": text})
    assert made.count("<") == made.count(">") == 2
    assert made.count('"') == 4
    assert "\0" not in made
    made.encode("utf-8")


def test_markup_is_not_escaped_twice():
    inner = tag("b", "a & b")
    assert escaped(inner) is inner
    assert tag("p", inner, None, 3) == "<p><b>a &amp; b</b>3</p>"
    assert joined([inner, "<"], ", ") == "<b>a &amp; b</b>, &lt;"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("a", aria_label="x", hidden=True, open=False, width=2.50) == '<a aria-label="x" hidden width="2.5"></a>'
    assert escaped("a\x00\x1b\ud800") == "a��?"
    assert isinstance(joined([]), Html)


def test_numbers_for_people():
    shown = {0.28027: "0.2803", -1.5: "−1.5", 12345.6: "12,346", 4.86e-10: "4.86×10⁻¹⁰", 3: "3", 1234: "1,234"}
    assert {value: number(value) for value in shown} == shown
    assert [number(value) for value in (None, float("nan"), float("inf"))] == ["–", "–", "∞"]
    assert shortened("x" * 300, 10) == "x" * 9 + "…"


@given(st.floats(-1e12, 1e12, allow_subnormal=False), st.floats(1e-9, 1e12, allow_subnormal=False), st.booleans())
def test_ticks_are_few_and_within_the_axis(low, length, log):
    begin = abs(low) + 1e-6 if log else low
    end = begin * (1 + length) if log else low + length
    if not end > begin or (end - begin) < 1e-9 * abs(begin):
        return
    ticks = Axis("", begin, end, log).ticks()
    slack = 1e-6 * (end - begin)
    assert all(begin - slack <= tick <= end + slack for tick in ticks)
    assert 1 <= len(ticks) <= 12
    assert all(tick_label(tick) for tick in ticks)


def test_a_logarithmic_axis_of_a_short_range_has_ticks():
    assert len(axis("loss", np.array([1.33, 1.35]), log=True).ticks()) > 1
    assert axis("nothing", np.array([np.nan])).low == 0.0
    assert axis("one value", np.array([5.0])).low < 5 < axis("one value", np.array([5.0])).high


def test_marks_lie_within_the_picture():
    frame = Frame(Axis("x", 0, 10), Axis("y", 1e-3, 1e3, log=True))
    x, y = frame.at(np.array([0.0, 10.0, 5.0]), np.array([1e-3, 1e3, 1.0]))
    assert x[0] < x[2] < x[1]
    assert y[1] < y[2] < y[0]
    assert y[2] == pytest.approx((y[0] + y[1]) / 2)
    many = frame.line(np.linspace(0, 10, 5000), np.full(5000, 1.0))
    assert many.count("L") < 500
    assert "<path d=" in frame.line(np.array([1.0, 2.0]), np.array([np.nan, -1.0]))


def test_every_element_has_its_own_place():
    places = [place(number) for number in range(1, 119)]
    assert len(set(places)) == 118
    assert all(0 <= column <= 17 for column, _ in places)
    group = {
        17: "He Ne Ar Kr Xe Rn Og",
        0: "H Li Na K Rb Cs Fr",
        2: "Sc Y Lu Lr",
        16: "F Cl Br I At Ts",
        3: "Ti Zr Hf Rf",
    }
    for column, symbols in group.items():
        assert {place(ATOMIC_NUMBER[symbol])[0] for symbol in symbols.split()} == {column}


def test_the_table_shades_by_value_and_marks_what_rests_on_few_rows():
    values = {"Fe": ElementValue(1.0, 50), "O": ElementValue(0.0, 50), "Be": ElementValue(9.0, 1)}
    drawn = periodic_table(values, "error", fewest=5)
    of = {title.split(":")[0]: css for css, title in re.findall(r'<g class="([^"]*)"><title>([^<]*)', drawn)}
    assert (of["Fe"], of["O"], of["Be"], of["Au"]) == ("cell h7", "cell h0", "cell h7 few", "none")
    assert "Be: 9 (1 row)" in drawn
    assert set(SYMBOLS) <= set(of)
    assert periodic_table({}, "error", 5)


def test_formulas_have_lowered_amounts_and_raised_charges():
    assert formula("Ba(Zr0.1Ti0.9)O3") == "Ba(Zr<sub>0.1</sub>Ti<sub>0.9</sub>)O<sub>3</sub>"
    assert formula("Fe3+") == "Fe<sup>3+</sup>"
    assert formula("2H2O") == "2H<sub>2</sub>O"
    assert formula("<b>2") == "&lt;b&gt;2"
    assert len(formula("Fe" * 10_000)) < 200


def test_molecules_are_drawn_in_colours_of_the_page():
    drawn = drawn_input("OC(=O)c1ccc(Cl)nc1CS", "smiles")
    for name in ("ink", "atom-o", "atom-n", "atom-s", "atom-halogen"):
        assert f"var(--{name})" in drawn
    assert not re.search("#[0-9a-fA-F]{6}", drawn)
    assert "OC(=O)c1ccc(Cl)nc1CS" in drawn
    assert "<svg" in drawn_input("[C][C][O]", "selfies")
    for text in ("<script>", "C" * 1000, ""):
        assert "<svg" not in drawn_input(text, "smiles")
    assert drawn_input("<i>", None) == "<code>&lt;i&gt;</code>"


def _colors(block):
    return {
        name: tuple(int(value[place : place + 2], 16) / 255 for place in (0, 2, 4))
        for name, value in re.findall(r"--([a-z0-9-]+): #([0-9a-f]{6})", block)
    }


def _contrast(one, other):
    """WCAG 2.2, relative luminance."""

    def luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_from_what_is_behind_them(scheme):
    style = _STYLE.read_text("utf-8")
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    color = _colors(light if scheme == "light" else dark.split("}")[0])
    for text in ("ink", "quiet", "link", "bad", "good"):
        assert _contrast(color[text], color["paper"]) >= 4.5, text
    assert _contrast(color["quiet"], color["panel"]) >= 4.5
    for mark in [f"s{n}" for n in range(6)] + [name for name in color if name.startswith("atom-")]:
        assert _contrast(color[mark], color["paper"]) >= 3, mark
        assert _contrast(color[mark], color["panel"]) >= 3, mark
    for shade in range(8):
        on = color["on-low" if shade < 5 else "on-high"]
        assert _contrast(on, color[f"h{shade}"]) >= 4.5, shade
