"""What `matfm adapt` is told, and which contradictions it must not have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from matfm.core.config import to_mapping
from matfm.core.gradient_reversal import GAMMA
from matfm.errors import MatfmError
from matfm.models.domain import ALIGNMENTS, AlignmentOptions
from matfm.tasks.finetune import FinetuneConfig
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.kinds import SCRATCH

METHODS = (*ALIGNMENTS, "intermediate", "joint", "target", "none")
LABELLED = ("intermediate", "joint", "target")
"""Methods that learn from the target's labels alone, and so need some."""
KEEPS = ("last", "best")
OWN_COLUMNS = frozenset({"row", "part", "side", "domain", "table"})
"""Columns that `predictions.parquet` has beside those of the tables."""
WEIGHTS = {"dann": 1.0, "cdan": 1.0, "coral": 10.0, "mmd": 1.0}
"""Of the alignment beside the supervised loss; covariances of pooled vectors differ by small numbers."""


@dataclass(frozen=True)
class DomainTable:
    """A table of rows of one domain or several."""

    table: str = ""
    """Path."""
    input: str = ""
    """Its input column; empty for that of the run."""
    label: str = ""
    """Its label column; empty for that of the run."""
    epochs: float = 0.0
    """Passes over it where it is trained on alone (none, intermediate, target); 0 for those of the run."""
    pretrain: str = ""
    """In a chain, instead of a table: a configuration of `matfm pretrain` that goes on from the stage before."""

    def __post_init__(self) -> None:
        if bool(self.table) == bool(self.pretrain):
            raise MatfmError("each source and target names a table (or, as an early stage of a chain, pretrain)")
        if self.epochs < 0:
            raise MatfmError(f"epochs of {self.table} is {self.epochs}; it must be positive, or 0 for those of the run")


@dataclass(frozen=True)
class AdaptConfig:
    """`matfm adapt`."""

    source: tuple[DomainTable, ...]
    """Labelled tables. Each is a domain; for the method intermediate they are a chain, trained on in this order."""
    target: tuple[DomainTable, ...]
    """Tables of the domains to predict; without the label column, or with empty cells, their rows are unlabelled."""
    input: str
    """Column with the formulas, SMILES or SELFIES."""
    label: str
    """Column with the labels."""
    method: str = "dann"
    """dann, cdan, coral or mmd: alignment; intermediate: source, then target labels; joint: both at once, without
    alignment; target: the target's labels alone; none: the source alone."""
    domain: str = ""
    """Column with the name of each row's domain; empty where a table is a domain."""
    kind: str | None = None
    """What the input column holds: composition, smiles or selfies; None is what the backbone reads."""
    split: str = "random"
    """Split of the source rows (docs/splits.md)."""
    valid_share: float = 0.1
    """Share of validation rows of the source; transfer is judged on them."""
    test_share: float = 0.1
    """Share of test rows of the source."""
    target_split: str = "random"
    """Split of the labelled target rows; column:NAME and file:PATH say it of the unlabelled ones too."""
    target_valid_share: float = 0.2
    """Share of labelled target rows that are not trained on: transfer is judged on them."""
    target_test_share: float = 0.0
    """Share of labelled target rows that are used for nothing but the scores."""
    alignment_weight: float = 0.0
    """Weight of the alignment beside the supervised loss; 0 for what suits the method."""
    gamma: float = GAMMA
    """Steepness with which the alignment sets in."""
    hidden: int = 256
    """Width of the domain classifier's hidden layer."""
    entropy: bool = False
    """Certain predictions count more for the domain classifier (CDAN+E; cdan)."""
    labelled_share: float = 0.2
    """Share of the labelled rows of a batch that are target rows, where the target has labels."""
    keep: str = "last"
    """last, or best: the weights of the best evaluation on the validation rows."""
    tolerance: float = 0.05
    """Share by which the error on source rows may grow before that is called negative transfer."""
    diagnostics: bool = True
    """Distances between the domains, and pictures."""
    on_bad: str = "skip"
    """skip or stop at rows that cannot be read."""
    seed: int = 0
    """Of splits, head, domain classifier and batches."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Backbone, strategy and training."""

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("keep", KEEPS)):
            if getattr(self, name) not in known:
                raise MatfmError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        self._check_tables()
        for name in ("alignment_weight", "gamma", "tolerance"):
            if getattr(self, name) < 0:
                raise MatfmError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 < self.labelled_share < 1:
            raise MatfmError(f"labelled_share is {self.labelled_share}; it is a share in (0, 1)")
        if self.hidden < 1:
            raise MatfmError(f"hidden is {self.hidden}; it must be at least 1")
        if self.entropy and (self.method != "cdan"):
            raise MatfmError(f"entropy is set and method is {self.method}; it is for cdan")
        if self.fit.strategy == "feature" and self.method in ALIGNMENTS:
            raise MatfmError(
                f"method {self.method} changes the encoder's vectors and strategy feature leaves them as they are; "
                "choose another strategy, or method joint or intermediate"
            )
        valid, test = self.target_valid_share, self.target_test_share
        if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
            raise MatfmError(f"target_valid_share {valid} and target_test_share {test} must leave training rows")
        self.finetuning()

    def _check_tables(self) -> None:
        for name in ("source", "target"):
            if not getattr(self, name):
                raise MatfmError(f"no {name} table was named; give --{name} TABLE")
        if self.label in OWN_COLUMNS or self.input in OWN_COLUMNS:
            own = self.label if self.label in OWN_COLUMNS else self.input
            raise MatfmError(f"predictions.parquet has a column {own!r} of its own; rename that column of the tables")
        if any(one.pretrain for one in (*self.sources, *self.target)):
            raise MatfmError("the last source and the target are tables; pretrain is for earlier stages of a chain")
        if self.stages and any(one.pretrain for one in self.stages) and self.fit.backbone.startswith(SCRATCH):
            raise MatfmError(f"a stage goes on pretraining, and {self.fit.backbone} has no weights to go on from")

    @property
    def stages(self) -> tuple[DomainTable, ...]:
        """Of a chain, what comes before the source."""
        return self.source[:-1] if self.method == "intermediate" else ()

    @property
    def sources(self) -> tuple[DomainTable, ...]:
        """Tables that are the source: of a chain, the last one."""
        return self.source[-1:] if self.method == "intermediate" else self.source

    @property
    def weight(self) -> float:
        """Of the alignment."""
        return self.alignment_weight or WEIGHTS.get(self.method, 0.0)

    def alignment(self) -> AlignmentOptions:
        """What aligns the domains."""
        return AlignmentOptions(self.method, self.hidden, self.entropy, self.seed)

    def finetuning(self, fit: FitConfig | None = None) -> FinetuneConfig:
        """The plain fine-tuning that this is beside the domains: for what both write."""
        return FinetuneConfig(
            table=", ".join(one.table for one in (*self.sources, *self.target)),
            input=self.input,
            targets=(self.label,),
            kind=self.kind,
            split=self.split,
            valid_share=self.valid_share,
            test_share=self.test_share,
            on_bad=self.on_bad,
            seed=self.seed,
            device=self.device,
            fit=fit or self.fit,
        )

    def fit_of(self, tables: tuple[DomainTable, ...], backbone: str = "") -> FitConfig:
        """How a model is trained on these tables alone, from a backbone if it is another one."""
        return replace(self.fit, epochs=tables[0].epochs or self.fit.epochs, backbone=backbone or self.fit.backbone)

    def control(self) -> dict[str, Any]:
        """All that the control depends on: it is kept beside its weights, and must be the same on resume."""
        names = (
            "source",
            "input",
            "label",
            "domain",
            "kind",
            "split",
            "valid_share",
            "test_share",
            "keep",
            "seed",
            "fit",
        )
        told = to_mapping(self)
        chain = {"stages": [to_mapping(one) for one in self.stages]} if self.stages else {}
        return {**{name: told[name] for name in names}, "source": [to_mapping(s) for s in self.sources], **chain}
