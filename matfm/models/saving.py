"""Save a model so that a folder never holds half of one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from matfm.core.bundled import MODEL_FILE
from matfm.core.files import readable_os_errors


def save_model(model: Any, folder: Path, run: dict[str, Any]) -> None:
    """Write `config.json` (the architecture, and under `run` the resolved configuration) and the weights.

    The weights appear last: a folder that has them is complete.
    """
    model.config.run = run
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
            model.save_pretrained(temporary)
            for written in sorted(Path(temporary).iterdir(), key=lambda path: path.name == MODEL_FILE):
                written.replace(folder / written.name)
