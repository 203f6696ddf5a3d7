"""`matfm adapt`: labels of one domain and rows of another in, a predictor for the other out, with a control beside.

Whatever the method, a control is trained on the source alone, and the two are compared on rows that were held out.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matfm.chem.split_file import save_split
from matfm.chem.splits import PARTS
from matfm.core.config import to_mapping
from matfm.core.files import write_json
from matfm.core.locks import alone_in_folder
from matfm.core.process import refuse_several
from matfm.core.run_directory import RunDirectory
from matfm.models.backbones import PropertyModel
from matfm.models.saving import save_tokenizer
from matfm.tasks import finetune, plots
from matfm.tasks.adaptation import pictures
from matfm.tasks.adaptation.card import write_card
from matfm.tasks.adaptation.config import LABELLED, METHODS, AdaptConfig, DomainTable
from matfm.tasks.adaptation.diagnostics import (
    Sample,
    diagnose,
    element_errors,
    element_prevalence,
    sample_rows,
    separation,
)
from matfm.tasks.adaptation.evidence import Evidence, as_record, compare, importance, judge, row_errors
from matfm.tasks.adaptation.rows import DomainRows, load_rows
from matfm.tasks.adaptation.training import CONTROL, Trained, train_control, train_on_target, train_together
from matfm.tasks.devices import resolve_device
from matfm.tasks.embed import load_embedder
from matfm.tasks.kinds import SCRATCH, backbone_kind
from matfm.tasks.labelled_rows import LabelledRows
from matfm.tasks.predictions import Predicted, predict_members
from matfm.tasks.predictor import check_backbone, in_prediction_forms
from matfm.tasks.rejects import write_rejects
from matfm.tasks.splitting import SPLIT_FILE
from matfm.tasks.uncertainty.held_out import assess

__all__ = ["METHODS", "AdaptConfig", "DomainTable", "run"]

# U usable rows, R rows of the sample


@alone_in_folder
def run(config: AdaptConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Train the control and the adapted model, compare them, and write a run directory; returns the summary.

    The adapted model lies in `out` as any fine-tuned one does, the control in `out/control`.

    Raises:
        MatfmError: a table or option that cannot be used, or `resume` of another run.
    """
    refuse_several("matfm adapt")
    started = time.perf_counter()
    device = resolve_device(config.device)
    check_backbone(config.fit)
    kind = backbone_kind(config.fit.backbone, config.kind)
    config = replace(config, kind=kind, fit=config.fit.for_kind(kind))
    begun = out / SPLIT_FILE if resume and (out / SPLIT_FILE).is_file() else None
    if begun:  # a changed configuration is named before the split is found to differ
        RunDirectory.open(out, to_mapping(config), resume)
    rows = load_rows(config, begun)
    directory = RunDirectory.open(out, to_mapping(config), resume)
    if (finished := directory.finished_summary()) is not None:
        return finished
    labelled = rows.labelled
    split = save_split(
        out / SPLIT_FILE, rows.joined.table.columns[config.input], labelled.parts_of_table(), labelled.split_method
    )
    write_rejects(out / "rejects.csv", labelled.rejects)
    save_tokenizer(labelled.encoder.tokenizer, out)
    control, adapted = _train(config, rows, out, device, resume)
    of_control, of_adapted = (_predict(model.model, labelled, device) for model in (control, adapted))
    told = _write(config, rows, out, of_control, of_adapted, device)
    summary = {
        "task": "adapt",
        "method": config.method,
        "kind": config.kind,
        "rows_in": labelled.rows_in,
        "rows_used": len(labelled.rows),
        "rows_rejected": labelled.rows_in - len(labelled.rows),
        **labelled.reading,
        "rows": _counts(rows),
        "domains": list(rows.joined.domains),
        "split_sha256": split.sha256,
        "overlap": rows.overlap(),
        "units": {p.name: p.unit for p in labelled.targets.properties},
        **told,
        "backbone": config.fit.backbone,
        "strategy": config.fit.strategy,
        "trainable_share": adapted.result["trainable_share"],
        "seed": config.seed,
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_card(out, config, summary)
    plots.draw_curves(out)
    plots.draw_diagnostics(out)
    directory.finish(summary)
    return directory.summary()


def _train(
    config: AdaptConfig, rows: DomainRows, out: Path, device: torch.device, resume: bool
) -> tuple[Trained, Trained]:
    """The control and the adapted model; the same one for the method none, in `out` alone."""
    if config.method == "none":
        control = train_control(config, rows, out, device, resume)
        return control, control
    control = train_control(config, rows, out / CONTROL, device, resume)
    if config.method in ("intermediate", "target"):
        start = out / CONTROL if config.method == "intermediate" else None
        return control, train_on_target(config, rows, out, device, resume, start)
    return control, train_together(config, rows, out, device, resume)


def _predict(model: PropertyModel, labelled: LabelledRows, device: torch.device) -> Predicted:
    forms = model.config.predict_enumerations
    written = in_prediction_forms(labelled.examples, labelled.encoder, labelled.inputs, forms)
    return predict_members([model], written, device, pooled=True)


def _write(
    config: AdaptConfig, rows: DomainRows, out: Path, control: Predicted, adapted: Predicted, device: torch.device
) -> dict[str, Any]:
    """Predictions, scores, evidence, diagnostics and pictures; what the summary says of them."""
    plain = config.finetuning()
    beside = {**rows.origin(), **_control_columns(rows, config, control)}
    finetune.write_predictions(out, plain, rows.labelled, adapted, beside)
    scores = {"adapted": _scores(rows, adapted)}
    if config.method != "none":
        scores["control"] = _scores(rows, control)
        write_json(out / CONTROL / "metrics.json", scores["control"])
    # Uncertainties are those of target rows: source validation rows say nothing of them.
    wanted_U = rows.target_U | (rows.labelled.parts == "train")
    view, of_view = rows.view(wanted_U), adapted.take(np.flatnonzero(wanted_U))
    for name, found in assess(out, plain, view, of_view).items():
        if "target_test" in scores["adapted"]:
            scores["adapted"]["target_test"][name] |= found
    RunDirectory(out).write_metrics(scores["adapted"])
    finetune.draw(out, plain, rows.view(rows.target_U), adapted.value[rows.target_U])
    sample = sample_rows(rows, config.seed)
    told = {"metrics": scores, **_transfer(config, rows, out, sample, control, adapted)}
    if not config.diagnostics:
        return {**told, "domains_apart": {}}
    vectors = _vectors(config, rows, sample, control, adapted, device)
    _draw(config, rows, out, sample, vectors, adapted)
    return {**told, "domains_apart": diagnose(sample, vectors, rows.domain_U[sample.at], config.seed)}


def _transfer(
    config: AdaptConfig, rows: DomainRows, out: Path, sample: Sample, control: Predicted, adapted: Predicted
) -> dict[str, Any]:
    """The evidence and the verdict; neither sees test rows."""
    if config.method == "none":
        nothing = {"negative": None, "basis": "none", "warning": ""}
        return {"negative_transfer": nothing, "evidence": dict.fromkeys(("target_labels", "weighted_source", "source"))}
    assert control.pooled_RD is not None
    at = sample.at[sample.judged_R]
    known = rows.known_U[at]
    apart = separation(control.pooled_RD[sample.at], sample.target_R, config.seed)
    weight_R = None if apart is None or not known.any() else importance(apart.odds_R[sample.judged_R][known])

    def evidence(positions: np.ndarray, weights: np.ndarray | None = None) -> Evidence | None:
        true_R = rows.labelled.examples.exact_labels()[positions, 0].astype(np.float64)
        before_R, after_R = (
            row_errors(rows.labelled.targets, true_R, of.value[positions]) for of in (control, adapted)
        )
        return compare(before_R, after_R, weights, config.seed)

    held = rows.positions("target", "valid")
    source, target = evidence(at[known]), evidence(held[rows.known_U[held]])
    weighted = None if weight_R is None else evidence(at[known], weight_R)
    learned = config.method in LABELLED or len(rows.positions("target", "train", labelled=True)) > 0
    unit = rows.labelled.targets.properties[0].unit
    names = {
        "unit": "" if rows.labelled.targets.classes else unit,
        "error": "share of probability on wrong classes" if rows.labelled.targets.classes else "mean absolute error",
        "control": str(out / CONTROL),
    }
    verdict = judge(source, weighted, target, config.tolerance, not learned, names)
    return {
        "negative_transfer": {"negative": verdict.negative, "basis": verdict.basis, "warning": verdict.warning},
        "evidence": {
            "target_labels": as_record(target),
            "weighted_source": as_record(weighted),
            "source": as_record(source),
        },
    }


def _scores(rows: DomainRows, predicted: Predicted) -> dict[str, Any]:
    """`source_valid`, `target_test` and so on, to target and metric; sides and parts without labels are left out."""
    scores = {}
    for side, chosen_U in (("source", ~rows.target_U), ("target", rows.target_U)):
        labelled_U = chosen_U & rows.known_U
        of_side = finetune.score_parts(rows.view(labelled_U), predicted.value[labelled_U])
        scores.update({f"{side}_{part}": found for part, found in of_side.items()})
    return scores


def _control_columns(rows: DomainRows, config: AdaptConfig, control: Predicted) -> dict[str, Any]:
    """What the control predicts, beside the adapted model's predictions."""
    if config.method == "none":
        return {}
    classes = rows.labelled.targets.classes
    if classes:
        return {f"control_{config.label}": np.array(classes[0], dtype=object)[control.value.argmax(axis=1)]}
    return {f"control_{config.label}": control.value[:, 0].astype(np.float64)}


def _vectors(
    config: AdaptConfig, rows: DomainRows, sample: Sample, control: Predicted, adapted: Predicted, device: torch.device
) -> dict[str, np.ndarray]:
    """What the heads read of the sample's rows, by model; and the vectors of the backbone as it was."""
    assert control.pooled_RD is not None
    assert adapted.pooled_RD is not None
    found = {"control": control.pooled_RD[sample.at], "adapted": adapted.pooled_RD[sample.at]}
    if config.method == "none":
        found.pop("adapted")
    if not config.fit.backbone.startswith(SCRATCH):
        embedder = load_embedder(config.fit.backbone, None, config.fit.pooling, device)
        found = {"backbone": embedder(rows.take(sample.at)), **found}
    return found


def _draw(
    config: AdaptConfig, rows: DomainRows, out: Path, sample: Sample, vectors: dict[str, np.ndarray], adapted: Predicted
) -> None:
    drawn = {name: values for name, values in vectors.items() if name != "backbone" or config.method == "none"}
    pictures.draw_embeddings(out, drawn, sample.target_R, config.seed)
    shares = element_prevalence(rows)
    if shares is None:
        return
    write_json(out / "elements.json", shares)
    shift = {symbol: both["target"] - both["source"] for symbol, both in shares.items()}
    maps = [("share of target rows with the element minus that of source rows", shift, True)]
    at = np.flatnonzero(rows.target_U & rows.known_U & (rows.labelled.parts != "train"))
    if len(at):
        true_R = rows.labelled.examples.exact_labels()[at, 0].astype(np.float64)
        errors = element_errors(rows, at, row_errors(rows.labelled.targets, true_R, adapted.value[at]))
        maps.append((f"mean error of {config.label} on held-out target rows", errors, False))
    pictures.draw_elements(out, [one for one in maps if one[1]])


def _counts(rows: DomainRows) -> dict[str, int]:
    """Side, part, and whether there is a label, to rows."""
    return {
        f"{side} {part}, {'labelled' if known else 'unlabelled'}": len(rows.positions(side, part, labelled=known))
        for side in ("source", "target")
        for part in PARTS
        for known in (True, False)
        if len(rows.positions(side, part, labelled=known))
    }
