"""Pictures that a run drew itself, within the page."""

from __future__ import annotations

import base64

from matfm.errors import MatfmError
from matfm.tasks.reporting.html import Html, figure, tag
from matfm.tasks.reporting.run_files import RunFiles

_LARGEST = 2_000_000
"""Bytes of a picture; a page with larger ones would be hard to send."""
_PNG = b"\x89PNG\r\n\x1a\n"


def picture_of(run: RunFiles, name: str, caption: str) -> Html | None:
    """The PNG of that name with its caption; None where the run has none.

    Raises:
        MatfmError: the file is no PNG.
    """
    path = run.path / name
    if not path.is_file():
        return None
    if path.stat().st_size > _LARGEST:
        return tag("p", f"{name} is too large for this page; see it in the folder of the run.", class_="quiet")
    content = path.read_bytes()
    if not content.startswith(_PNG):
        raise MatfmError(f"{path} is no PNG picture; remove it")
    drawn = tag("img", src=f"data:image/png;base64,{base64.b64encode(content).decode()}", alt=caption)
    return figure(drawn, caption)
