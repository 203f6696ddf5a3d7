"""The page: sections one below the other in one file that asks for nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matfm.tasks.reporting.html import Html, tag

_STYLE = Path(__file__).with_name("page.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Browsers run no script and fetch nothing, whatever the page holds."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    name: str
    """Where links lead to: letters and hyphens."""
    title: str
    body: Html


def page(title: str, subtitle: str, sections: Sequence[Section]) -> Html:
    """A whole HTML document."""
    links = [tag("a", section.title, href=f"#{section.name}") for section in sections]
    parts = [
        tag(
            "section",
            tag("h2", section.title, id=f"{section.name}-heading"),
            section.body,
            id=section.name,
            aria_labelledby=f"{section.name}-heading",
        )
        for section in sections
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_STYLE.read_text("utf-8"))),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("p", subtitle)),
        tag("nav", *links, aria_label="Sections"),
        tag("main", *parts),
    )
    return Html(f"<!doctype html>\n{tag('html', head, body, lang='en')}\n")
