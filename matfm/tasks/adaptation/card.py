"""`card.md` of an adapted predictor."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from matfm.core.files import write_text
from matfm.tasks.adaptation.config import AdaptConfig
from matfm.tasks.cards import command_line, versions, write_environment


def write_card(run: Path, config: AdaptConfig, summary: dict[str, Any]) -> None:
    """What was adapted to what, whether it helped, and how well it does on both sides; and `environment.json`."""
    write_environment(run, config.device)
    verdict = summary["negative_transfer"]
    lines = [
        f"# {config.label} from {config.input}: {config.method}",
        "",
        (
            f"{config.fit.task} with `{config.fit.backbone}` (strategy `{config.fit.strategy}`), method "
            f"`{config.method}`, from {_tables(config.source)} to {_tables(config.target)}."
        ),
        "",
        *([f"**{verdict['warning'][0].upper()}{verdict['warning'][1:]}.**", ""] if verdict["warning"] else []),
        "## Transfer",
        _judged(config, verdict),
        *_evidence_lines(config, summary),
        "",
        "## Data",
        f"- {summary['rows_in']:,} rows: {summary['rows_used']:,} used, {summary['rows_rejected']:,} rejected",
        *(f"- {name}: {count:,} rows" for name, count in summary["rows"].items() if count),
        f"- {summary['overlap']:.1%} of the target rows have the formula or molecule of a source training row",
        *_domain_lines(summary["domains_apart"]),
        "",
        "## Scores",
        "| model | rows | metric | value | unit |",
        "|---|---|---|---|---|",
        *_score_lines(config, summary),
        "",
        "## Training",
        f"- Command: `{command_line()}`",
        f"- Seed {config.seed}, {summary['seconds'] / 60:.1f} minutes on {platform.machine()}",
        f"- Versions: {', '.join(f'{name} {number}' for name, number in versions().items())}",
        "",
    ]
    write_text(run / "card.md", "\n".join(lines))


def _judged(config: AdaptConfig, verdict: dict[str, Any]) -> str:
    if config.method == "none":
        return "- This is the model without adaptation, the control of the other methods."
    if verdict["negative"] is None:
        return "- Too few held-out rows to judge the transfer."
    return f"- Judged on {verdict['basis']}: " + ("negative transfer." if verdict["negative"] else "no sign of harm.")


def _tables(tables: Any) -> str:
    return ", ".join(f"`{one.table or one.pretrain}`" for one in tables)


def _evidence_lines(config: AdaptConfig, summary: dict[str, Any]) -> list[str]:
    names = {
        "target_labels": "held-out labelled target rows",
        "weighted_source": "held-out source rows, weighted like the target",
        "source": "held-out source rows",
    }
    known = summary["units"][config.label]
    unit = f" {known}" if known else ""
    return [
        (
            f"- {told}: error {found['control']:.4g}{unit} without adaptation, {found['adapted']:.4g}{unit} with; "
            f"difference {found['difference']:.3g} (95 % interval {found['low']:.3g} to "
            f"{found['high']:.3g}, {found['rows']} rows)"
        )
        for name, told in names.items()
        if (found := summary["evidence"][name]) is not None
    ]


def _domain_lines(apart: dict[str, Any]) -> list[str]:
    return [
        f"- {name}: proxy A-distance {found['proxy_a_distance']:.3f}, domain accuracy {found['domain_accuracy']:.3f}"
        for name, found in apart.items()
        if found is not None
    ]


def _score_lines(config: AdaptConfig, summary: dict[str, Any]) -> list[str]:
    unit = summary["units"][config.label]
    return [
        f"| {model} | {part} | {metric} | {value:.4f} | {unit if metric.startswith(('mae', 'rmse')) else ''} |"
        for model in ("control", "adapted")
        for part, targets in summary["metrics"].get(model, {}).items()
        for metric, value in targets.get(config.label, {}).items()
        if metric != "n"
    ]
