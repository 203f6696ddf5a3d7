"""HTML and SVG as values: text is escaped unless it is markup already, so nothing from a table can become markup."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

_VOID = frozenset({"meta", "link", "br", "hr", "img"})
_LONGEST_TEXT = 200
"""Characters of one text from a file; cells may hold megabytes."""
_CONTROLS = {code: "�" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Html(str):
    """Markup. Only functions of this module make it from other text."""

    __slots__ = ()


def escaped(content: object) -> Html:
    """Markup as it is, None as nothing, anything else as text; control characters and lone surrogates are replaced."""
    if isinstance(content, Html):
        return content
    if content is None:
        return Html("")
    text = str(content).translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8")
    return Html(html.escape(text))


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other; `between` is text."""
    return Html(escaped(between).join(escaped(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element.

    Attributes are named as in Python: `class_`, `aria_label`; None and False leave one out, True needs no value.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{joined(children)}</{name}>")


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
    return f' {name}="{escaped(str(shown))}"'


def shortened(text: object, longest: int = _LONGEST_TEXT) -> str:
    """At most so many characters, a cut end marked with an ellipsis."""
    whole = str(text)
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def sentence(text: str) -> str:
    """With a capital at the beginning; units keep theirs."""
    return text[:1].upper() + text[1:]


def number(value: Any) -> str:
    """A number for people: four digits, thousands apart; `–` where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 10_000 <= abs(value) < 1e9:
        return f"{value:,.0f}".replace("-", "−")
    digits, _, power = f"{value:.4g}".partition("e")
    return digits.replace("-", "−") + (f"×10{str(int(power)).translate(_RAISED)}" if power else "")


def table(
    caption: str, header: Sequence[object], rows: Iterable[Sequence[object]], texts: Sequence[int] = (0,)
) -> Html:
    """A table that scrolls within itself. The first column heads its row; columns but those in `texts` are numbers."""

    def line(cells: Sequence[object]) -> Html:
        first, *rest = cells
        others = (tag("td", cell, class_=None if place in texts else "n") for place, cell in enumerate(rest, start=1))
        return tag("tr", tag("th", first, scope="row"), *others)

    heads = (tag("th", head, scope="col", class_=None if place in texts else "n") for place, head in enumerate(header))
    whole = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *(line(cells) for cells in rows)),
    )
    return scrolling(whole, caption)


def scrolling(content: object, label: str) -> Html:
    """A box that scrolls sideways where its content is too wide; reachable by keyboard."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def figure(picture: object, caption: object) -> Html:
    """A picture with its caption."""
    return tag("figure", picture, tag("figcaption", caption))


def tile(what: str, value: str, note: str = "") -> Html:
    """A number that stands out, with its name above and a note below."""
    return tag("div", tag("span", what), tag("b", value), tag("span", note) if note else None, class_="tile")


def bullets(items: Iterable[object]) -> Html:
    """A list; nothing for no items."""
    lines = [tag("li", item) for item in items]
    return tag("ul", *lines) if lines else Html("")
