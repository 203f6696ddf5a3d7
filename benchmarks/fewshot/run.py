"""Few-shot learning on tasks that were never seen: trained over other tasks, beside the classical methods.

Resumable: training goes on from its checkpoint, and episodes that were answered are not answered again.

`python benchmarks/fewshot/run.py --study molecules --backbone molbert-small`
`python benchmarks/fewshot/run.py --study compositions-2way,compositions-5way --backbone matbert-small-oqmd`
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.contamination import Pretraining
from benchmarks.fewshot import tables
from benchmarks.results import append, load, matching, record
from benchmarks.scored import slug
from benchmarks.weights import weights_of
from matfm.core.optim import OptimizerConfig
from matfm.tasks import fewshot
from matfm.tasks.few_shot.evaluation import summarise

RESULTS = Path(__file__).parent / "results"
METHODS = ("prototypes", "kernel", "embedding-kernel", "rf", "lr", "knn", "gp", "linear-probe")
NAMES = {
    "rf": "rf-{classical}", "lr": "lr-{classical}", "knn": "knn-{classical}", "gp": "gp-{classical}",
    "finetune": "{backbone} fine-tuned",
}  # fmt: skip
"""Methods that do not use what was learned over tasks; the others are named after the encoder."""
EXTERNAL = {
    "molecules": "20 other MoleculeACE sets (binarised)",
    "compositions": "12 properties of other families (AFLOW, Materials Project, Matbench)",
}


@dataclass(frozen=True)
class Study:
    """One question."""

    data: str
    """molecules or compositions."""
    labels: str
    ways: int
    ratio: str
    sizes: tuple[int, ...]
    metrics: tuple[str, ...]
    classical: str
    distance: str = "mahalanobis"


STUDIES = {
    "molecules": Study("molecules", "classes", 2, "natural", (16, 32, 64), ("delta_auprc", "roc_auc"), "ecfp"),
    "compositions-2way": Study(
        "compositions", "median", 2, "natural", (10, 20, 50), ("delta_auprc", "roc_auc"), "magpie"
    ),
    "compositions-5way": Study("compositions", "quantiles", 5, "balanced", (5, 25), ("accuracy",), "magpie"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", default="molecules", help=f"comma-separated; known: {', '.join(STUDIES)}")
    parser.add_argument("--backbone", default="molbert-small")
    parser.add_argument("--untrained", action="store_true", help="evaluate the backbone without training over tasks")
    parser.add_argument("--steps", type=int, default=2000, help="updates of the training over tasks")
    parser.add_argument("--accumulate", type=int, default=8, help="episodes an update")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--strategy", default="full")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument(
        "--valid",
        type=int,
        default=0,
        help="score so many training tasks in place of the test tasks, to choose options",
    )
    parser.add_argument("--episodes", type=int, default=25, help="of each test task and size; ten tasks give 250")
    parser.add_argument("--finetune-episodes", type=int, default=20, help="the same for fine-tuning; 0 leaves it out")
    parser.add_argument("--limit", type=int, default=0, help="rows of a task, for trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", default="runs/fewshot", help="tables and run directories")
    arguments = parser.parse_args()
    for name in arguments.study.split(","):
        run_study(name, arguments)


def run_study(name: str, arguments: argparse.Namespace) -> None:
    study, work = STUDIES[name], Path(arguments.work)
    pretraining = Pretraining(arguments.backbone)
    for task in tables.COMPOSITIONS_TEST if study.data == "compositions" else ():
        recipe, label = task.split(":")
        pretraining.refuse_family(label, recipe)
    built = tables.molecules_table if study.data == "molecules" else tables.compositions_table
    table, seen = built(work, arguments.limit)
    trial = arguments.limit or arguments.valid
    begun = f"{name}{arguments.limit or ''}{f'-valid{arguments.valid}' if arguments.valid else ''}"
    own = f"{Path(arguments.backbone).name}-{weights_of(arguments.backbone)}"
    out = work / f"{begun}-{own}-{slug('-'.join(f'{key}{value}' for key, value in decides(arguments).items()))}"
    config = configured(study, table, arguments)
    summary = fewshot.run(config, out, resume=out.exists())
    episodes = load(out / "episodes.jsonl")
    if arguments.finetune_episodes:
        few = replace(
            config, train_tasks=(), classical="none",
            evaluate=replace(config.evaluate, methods=("finetune",), episodes=arguments.finetune_episodes),
        )  # fmt: skip
        tuned = work / f"{begun}-{own}-finetune-seed{arguments.seed}"
        fewshot.run(few, tuned, resume=tuned.exists())
        episodes += load(tuned / "episodes.jsonl")
    rows = summarise(episodes, study.metrics)
    for row in rows:
        low, high = row["interval"]
        ratio = f"  {row['ratio_to_rf']:.2f} × rf" if row.get("ratio_to_rf") else ""
        score = f"{row['value']:.4f} [{low:.4f}, {high:.4f}]"
        print(f"{name}@{row['support']}  {row['method']:18} {row['metric']:12} {score}{ratio}")
    if not trial:
        write_records(name, study, rows, episodes, seen, summary, pretraining, arguments)


def decides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that the numbers depend on, beside study, backbone and seed."""
    names = ("untrained", "steps", "accumulate", "learning_rate", "strategy", "width", "episodes", "finetune_episodes")
    return {name: getattr(arguments, name) for name in names} | {"seed": arguments.seed}


def configured(study: Study, table: Path, arguments: argparse.Namespace) -> fewshot.FewshotConfig:
    molecules = study.data == "molecules"
    train = tables.MOLECULES_TRAIN if molecules else tables.COMPOSITIONS_TRAIN
    test = tables.MOLECULES_TEST if molecules else tables.COMPOSITIONS_TEST
    if arguments.valid:
        train, test = train[: -arguments.valid], train[-arguments.valid :]
    sizes = tuple(size for size in study.sizes if not arguments.limit or size + 8 <= arguments.limit)
    return fewshot.FewshotConfig(
        table=str(table),
        input="smiles" if molecules else "formula",
        train_tasks=() if arguments.untrained else tuple(train),
        test_tasks=tuple(test),
        labels=study.labels,
        backbone=arguments.backbone,
        classical=study.classical,
        distance=study.distance,
        width=arguments.width,
        seed=arguments.seed,
        device=arguments.device,
        episodes=fewshot.EpisodeConfig(ways=study.ways, support=sizes, queries=64, ratio=study.ratio),
        train=fewshot.TrainConfig(
            steps=arguments.steps,
            accumulate=arguments.accumulate,
            strategy=arguments.strategy,
            checkpoint_every=50,
            optimizer=OptimizerConfig(learning_rate=arguments.learning_rate, layer_decay=0.75, warmup=0.05),
        ),
        evaluate=fewshot.EvaluateConfig(episodes=arguments.episodes, queries=256, methods=METHODS),
    )


def write_records(
    name: str, study: Study, rows: list[dict[str, Any]], episodes: list[dict[str, Any]], seen: float,
    summary: dict[str, Any], pretraining: Pretraining, arguments: argparse.Namespace,
) -> None:  # fmt: skip
    """One record for each size, method and metric (mean over tasks), and one for the ratio to the random forest."""
    path, learned = RESULTS / f"{name}.jsonl", pretraining.external_labels()
    for row in rows:
        method, size = row["method"], row["support"]
        trained = method not in NAMES and not arguments.untrained
        encoder = f"{Path(arguments.backbone).name}{' trained over tasks' if trained else ''}"
        model = NAMES.get(method, "{method} ({encoder})").format(
            classical=study.classical, backbone=Path(arguments.backbone).name, method=method, encoder=encoder
        )
        encoded = method not in NAMES or method == "finetune"
        external = [learned if encoded else None, EXTERNAL[study.data] if trained else None]
        own = [e for e in episodes if e["method"] == method and e["support"] == size]
        shared = {
            "benchmark": "fewshot", "task": f"{name}@{size}", "split": "mean", "model": model,
            "n": row["episodes"], "tasks": row["tasks"], "seconds": round(sum(e["seconds"] for e in own), 1),
            "external_labels": "; ".join(filter(None, external)) or None,
            "weights": weights_of(arguments.backbone) if encoded else None, "settings": decides(arguments),
            "contaminated_share": seen if trained else None,
            "training_seconds": summary["seconds"] if trained else None,
        }  # fmt: skip
        beside = {key: row[key] for key in ("minus_rf", "minus_rf_interval") if key in row}
        made = [{"metric": row["metric"], "unit": "", "value": row["value"], "interval": row["interval"], **beside}]
        if row.get("ratio_to_rf"):
            made.append({"metric": f"ratio:vs_rf:{row['metric']}", "unit": "", "value": row["ratio_to_rf"]})
        for values in made:
            known = {key: shared[key] for key in ("task", "model", "weights", "settings")}
            if not matching(load(path), metric=values["metric"], **known):
                append(path, record(arguments.device, arguments.seed, **shared, **values))


if __name__ == "__main__":
    main()
