"""Notebooks as pages, with the outputs that they were saved with; links in them are checked like all others."""

from __future__ import annotations

import json
import re
from typing import Any

from mkdocs.structure.files import File, Files

_PANDAS = re.compile(r'<style.*?</style>\s*| border="1" class="dataframe"', re.DOTALL)
"""What pandas says about the looks of a table, which the theme decides."""


class NotebookFile(File):
    """A notebook, which MkDocs takes for a page."""

    def is_documentation_page(self) -> bool:
        """Yes, although it is no Markdown."""
        return True


def on_files(files: Files, config: Any) -> Files:
    """Every notebook becomes a page."""
    folders = (config.docs_dir, config.site_dir, config.use_directory_urls)
    return Files([NotebookFile(file.src_uri, *folders) if _is_notebook(file) else file for file in files])


def on_page_read_source(page: Any, config: Any) -> str | None:  # noqa: ARG001 (called by name)
    """The notebook as Markdown; of other pages nothing, so that MkDocs reads them."""
    if not _is_notebook(page.file):
        return None
    cells = json.loads(page.file.content_string)["cells"]
    return "\n\n".join(_markdown(cell) for cell in cells)


def _is_notebook(file: File) -> bool:
    return file.src_uri.endswith(".ipynb")


def _markdown(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *map(_output, cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    shown = {kind: "".join(text) for kind, text in output.get("data", {}).items()}
    if "image/png" in shown:
        return f"![What the cell above draws](data:image/png;base64,{shown['image/png'].strip()})"
    if "text/html" in shown:
        return _PANDAS.sub("", shown["text/html"])
    text = shown.get("text/plain") or "".join(output["text"])
    return f"```text\n{text.rstrip()}\n```"
