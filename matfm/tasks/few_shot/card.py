"""`card.md` of a run over tasks."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matfm.core.files import write_text
from matfm.tasks.cards import command_line, versions, write_environment

if TYPE_CHECKING:
    from matfm.tasks.fewshot import FewshotConfig

_PARTS = {"train": "Trained over", "valid": "Weights chosen by", "test": "Evaluated on"}


def write_card(run: Path, config: FewshotConfig, summary: dict[str, Any]) -> None:
    """What it was trained over and how well few-shot methods do on other tasks; and `environment.json`."""
    write_environment(run, config.device)
    trained = f", {summary['trainable_share']:.1%} of the parameters trained" if "trainable_share" in summary else ""
    how = f"trained over tasks (strategy `{config.train.strategy}`{trained})" if config.train_tasks else "as it is"
    lines = [
        f"# Few-shot learning from {config.input}",
        "",
        f"`{config.backbone}`, {how}, on `{config.table}`; labels: {config.labels}.",
        "",
        "## Data",
        f"- {summary['rows_in']:,} rows: {summary['rows_used']:,} used, {summary['rows_rejected']:,} rejected",
        *(
            f"- {said} {len(names)} task(s): {', '.join(names)}"
            for part, said in _PARTS.items()
            if (names := getattr(config, f"{part}_tasks"))
        ),
        "",
        *_score_lines(config, summary["metrics"]),
        "## Training" if config.train_tasks else "## Evaluation",
        f"- Command: `{command_line()}`",
        f"- Seed {config.seed}, {summary['seconds'] / 60:.1f} minutes on {platform.machine()}",
        f"- Versions: {', '.join(f'{name} {number}' for name, number in versions().items())}",
        "",
        "## Limits",
        "Scores are means over these tasks; a new one may be easier or harder. `episodes.jsonl` has every episode.",
        "",
    ]
    write_text(run / "card.md", "\n".join(lines))


def _score_lines(config: FewshotConfig, rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    return [
        f"## Scores, {config.evaluate.episodes} episodes of each task",
        "| support | method | metric | value | 95 % interval | minus rf |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['support']} | {row['method']} | {row['metric']} | {row['value']:.4f} "
            f"| {row['interval'][0]:.4f} to {row['interval'][1]:.4f} "
            f"| {'' if 'minus_rf' not in row else format(row['minus_rf'], '+.4f')} |"
            for row in rows
        ),
        "",
    ]
