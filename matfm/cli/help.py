"""Help of the commands: options in groups, and calls to copy. Plain text, which pipes and narrow terminals show too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

ROWS, MODEL, SEARCH, RUN = "Rows", "Model and training", "Search", "Run"
"""Groups of options, for `rich_help_panel`, in the order of the help; options without one are in the group Options."""
_ARGUMENTS, _OTHERS = "Arguments", "Options"


class Verb(TyperCommand):
    """A command whose help shows the groups that `rich_help_panel` of its options names."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, the groups, and the options that are in none."""
        groups: dict[str, list[tuple[str, str]]] = {
            title: [] for title in (_ARGUMENTS, ROWS, MODEL, _OTHERS, SEARCH, RUN)
        }
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                usual = _ARGUMENTS if parameter.param_type_name == "argument" else _OTHERS
                groups[getattr(parameter, "rich_help_panel", None) or usual].append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Verbs(typer.Typer):
    """A Typer whose commands are given with `examples`, calls of matfm without its name."""

    def command(  # type: ignore[override]  # Typer's settings, and one more
        self, name: str | None = None, *, examples: tuple[str, ...] = (), **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Like Typer's, with the examples below the help."""
        return super().command(name, cls=Verb, epilog=shown(examples), **settings)


def shown(examples: tuple[str, ...]) -> str | None:
    """Calls below a help text, each on a line of its own (the backspace says so to Typer)."""
    if not examples:
        return None
    title = "Example:" if len(examples) == 1 else "Examples:"
    return "\n".join(["\b", title, *(f"  matfm {example}" for example in examples)])
