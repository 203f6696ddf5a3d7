"""What the page of a run is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matfm.tasks.reporting.html import number
from matfm.tasks.reporting.run_files import RunFiles, as_mapping

_READS = {"composition": "compositions", "smiles": "SMILES", "selfies": "SELFIES"}


def titles(run: RunFiles) -> tuple[str, str]:
    """Title and subtitle."""
    of = {
        "finetune": _finetune,
        "pretrain": _pretrain,
        "adapt": _adapt,
        "fewshot": _fewshot,
        "tune": _tune,
        "compare-strategies": _strategies,
    }
    if run.task in of:
        return of[run.task](run)
    return f"{run.task}: {run.path.resolve().name}", str(run.summary.get("backbone", ""))


def _columns(run: RunFiles) -> str:
    return f"{', '.join(run.targets) or 'targets'} from {run.training.get('input', 'input')}"


def _finetune(run: RunFiles) -> tuple[str, str]:
    summary = run.summary
    ensemble = summary.get("ensemble", 1)
    models = f", {ensemble} models" if ensemble > 1 else ""
    strategy = f" (strategy {summary['strategy']}{models})" if "strategy" in summary else ""
    how = f"{summary['task']}, {summary.get('backbone', 'a backbone')} fine-tuned{strategy}"
    return _columns(run), f"{how} on {run.config.get('table', 'a table')}"


def _pretrain(run: RunFiles) -> tuple[str, str]:
    summary = run.summary
    on = _READS.get(str(run.kind), run.kind or "a corpus")
    said = f"{summary.get('family', 'a model')} pretrained on {on}"
    objectives = ", ".join(summary.get("objectives", ()))
    return str(summary.get("name", run.path.resolve().name)), f"{said}: {objectives}" if objectives else said


def _adapt(run: RunFiles) -> tuple[str, str]:
    def tables(side: str) -> str:
        known = [as_mapping(one) for one in run.config.get(side, ())]
        return ", ".join(Path(str(one.get("table") or one.get("pretrain"))).name for one in known) or side

    method, backbone = run.summary.get("method", "adapt"), run.summary.get("backbone", "a backbone")
    return _columns(run), f"{backbone} adapted ({method}) from {tables('source')} to {tables('target')}"


def _fewshot(run: RunFiles) -> tuple[str, str]:
    counts: dict[str, Any] = run.mapping("tasks")
    said = [f"{number(count)} {part} task(s)" for part, count in counts.items() if count]
    table = Path(str(run.config.get("table", "a table"))).name
    return f"Few-shot learning on {table}", f"{run.summary.get('backbone', 'a backbone')}; {', '.join(said) or 'tasks'}"


def _tune(run: RunFiles) -> tuple[str, str]:
    counted = run.mapping("trials").get("counted")
    table = run.training.get("table", "a table")
    return f"Search of settings: {_columns(run)}", f"{number(counted)} trials on the training rows of {table}"


def _strategies(run: RunFiles) -> tuple[str, str]:
    backbone, table = run.summary.get("backbone", "a backbone"), run.training.get("table", "a table")
    return f"Strategies compared: {_columns(run)}", f"{backbone} fine-tuned on {table}, one split for all"
