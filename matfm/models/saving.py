"""Save a model so that a folder never holds half of one, and load it with readable errors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig
from transformers.utils import logging

from matfm.core.bundled import MODEL_FILE, resolve_weights
from matfm.core.files import readable_os_errors
from matfm.errors import MatfmError


def save_model(model: Any, folder: Path, run: dict[str, Any]) -> None:
    """Write `config.json` (the architecture, and under `run` the resolved configuration) and the weights.

    The weights appear last: a folder that has them is complete.
    """
    model.config.run = run
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
            with without_bars():
                model.save_pretrained(temporary)
            for written in sorted(Path(temporary).iterdir(), key=lambda path: path.name == MODEL_FILE):
                written.replace(folder / written.name)


def load_model(cls: Any, name: str) -> Any:
    """`cls.from_pretrained` by bundled name, folder or Hub id, in evaluation mode.

    Raises:
        MatfmError: nothing is there, it is another architecture, or its files are damaged.
    """
    path = resolve_weights(name)
    try:
        architecture = PreTrainedConfig.get_config_dict(path)[0].get("model_type")
        if architecture != cls.config_class.model_type:
            raise MatfmError(f"{name} is a {architecture} model; {cls.config_class.model_type} is what this needs")
        with without_bars():
            return cls.from_pretrained(path).eval()
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise MatfmError(f"the weights {name!r} cannot be loaded: {reason}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Transformers draws a bar for every small file; put its setting back afterwards."""
    active = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if active:
            logging.enable_progress_bar()
