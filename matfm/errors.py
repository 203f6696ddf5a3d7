"""The one error type that a user can cause, and the one warning."""

from __future__ import annotations

_WINDOW = 60
"""Characters of a long text that an error message shows around the position."""


class MatfmError(ValueError):
    """Something the user gave cannot be used: text, table, configuration or file.

    Args:
        text: the offending text, or (when it is the only argument) the whole message.
        position: index of the first character that cannot be read, if the text was parsed.
        reason: what is wrong and, where there is one, the remedy.
    """

    exit_code = 2
    """What the command line returns: 2, the call, the input or the configuration is wrong."""

    def __init__(self, text: str, position: int | None = None, reason: str | None = None) -> None:
        self.text = text
        self.position = position
        self.reason = text if reason is None else reason
        super().__init__(text, position, reason)

    def __str__(self) -> str:
        if self.reason is self.text:
            return self.text
        shown = repr(_window(self.text, self.position))
        place = "" if self.position is None else f" at position {self.position}"
        return f"{shown}{place}: {self.reason}"

    def caret(self) -> str:
        """The text with a caret below the position, for terminals (two lines)."""
        return f"{self.text}\n{' ' * (self.position or 0)}^"


class RunError(MatfmError):
    """The call was right but the run failed: full disk, no network, a loss that is not finite."""

    exit_code = 1


class FormulaWarning(UserWarning):
    """A formula was read in one of two possible ways; a user should check it."""


def _window(text: str, position: int | None) -> str:
    """At most `_WINDOW` characters of `text` around `position`, cut ends marked with an ellipsis."""
    if len(text) <= _WINDOW:
        return text
    start = max(0, min((position or 0) - _WINDOW // 2, len(text) - _WINDOW))
    end = start + _WINDOW
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
