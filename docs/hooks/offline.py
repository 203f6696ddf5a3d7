"""A page that would fetch something when it is read is a warning, which `mkdocs build --strict` does not accept."""

from __future__ import annotations

import logging
import re
from typing import Any

_FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""")
_LOG = logging.getLogger("mkdocs.hooks.offline")


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Look for scripts, pictures and style sheets from elsewhere."""
    for tag in _FETCHED.findall(output):
        _LOG.warning("%s fetches from the network: %s", page.file.src_uri, tag)
    return output
