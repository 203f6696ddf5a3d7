"""What the benchmarks' command lines share."""

from __future__ import annotations


def chosen(text: str, known: tuple[str, ...]) -> list[str]:
    """Comma-separated names; `all` for every one."""
    names = list(known) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"there is no {unknown[0]!r}; choose of {', '.join(known)}")
    return names
