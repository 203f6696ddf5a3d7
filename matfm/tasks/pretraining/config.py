"""What a configuration of `matfm pretrain` may say, and which contradictions it must not have."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from matfm.chem.composition_schemes import SCHEMES
from matfm.chem.formula_text import ORDERS
from matfm.chem.joint_tokenizer import ORDER
from matfm.chem.masking import MOLECULE_SCHEMES, MaskingConfig
from matfm.chem.molecule_units import UNIT_KINDS
from matfm.core.loop_config import LoopOptions
from matfm.core.optim import OptimizerConfig
from matfm.errors import MatfmError
from matfm.tasks.encoding import KINDS
from matfm.tasks.pretraining.conditions import CausalObjective, check_conditions
from matfm.tasks.pretraining.contrastive import ContrastiveObjective
from matfm.tasks.pretraining.objectives import SpanObjective, check_objectives
from matfm.tasks.pretraining.setting import Objective
from matfm.tasks.rejects import ON_BAD

FAMILIES = ("matbert", "matgpt", "matt5")
_INPUTS = {"composition": "formula", "smiles": "smiles", "selfies": "selfies"}


@dataclass(frozen=True)
class CorpusConfig:
    """What is learned from: one of recipe, table and tokens."""

    targets: tuple[str, ...] = ()
    """Numeric columns to predict; a row may miss some."""
    recipe: str = ""
    """Shipped recipe or path of one; built into the run directory's `data` folder if need be."""
    table: str = ""
    """A table of the user's, in memory."""
    tokens: str = ""
    """Folder written by `matfm data encode`: any size, read as it is needed."""
    kind: str = "composition"
    """composition, smiles or selfies."""
    input: str = ""
    """Column with the formula, SMILES or SELFIES; empty for formula, smiles or selfies, by what the cells are."""
    from_smiles: bool = False
    """Whether that column holds SMILES, to be written as SELFIES (kind selfies)."""
    vocabulary: str = ""
    """Vocabulary file of `matfm data vocab`; empty for the shipped one. Compositions have the periodic table."""
    scheme: str = ""
    """How compositions are written: fraction, repeat or count; empty for fraction (MatBERT) or count (the others)."""
    order: str = "electronegativity"
    """Order of the elements in the schemes repeat and count: written, hill, electronegativity or alphabetical."""
    max_length: int = 0
    """Most tokens of a string, special ones included; longer ones lose their end. 0 is no limit."""
    held_out: float = 0.03
    """Share of molecules or compositions never trained on, chosen by a hash (of a token file: of the tokens)."""
    held_out_rows: int = 20_000
    """Most rows of a token file that are evaluated; all rows held out stay out of training."""
    enumerations: int = 0
    """Random SMILES written for every molecule, beside the canonical one; each epoch sees one of them."""
    descriptors: str | tuple[str, ...] = ()
    """rdkit, or names of RDKit descriptors, computed and learned by the objective `descriptors`."""
    fingerprint_bits: int = 0
    """Bits of a Morgan fingerprint (radius 2) for the objective `fingerprint`, a multiple of 8; 0 is off."""
    workers: int = 0
    """Processes that read molecules and compute their targets; 0 for one per core."""
    rows: int = 0
    """Rows of the table that are read, the first ones (which may be unlike the others: files are sorted); 0 for all."""
    on_bad: str = "skip"
    """Rows of a table that cannot be read, and cells that are no number: skip (they are listed), or stop."""
    more: tuple[CorpusConfig, ...] = ()
    """Further corpora of the objective `translation`, each a section like this one: compositions beside molecules."""

    def __post_init__(self) -> None:
        given = [name for name in ("recipe", "table", "tokens") if getattr(self, name)]
        if len(given) != 1:
            raise MatfmError(f"data.recipe, data.table and data.tokens: give exactly one of them, not {len(given)}")
        for name, choices in (("kind", KINDS), ("scheme", ("", *SCHEMES)), ("order", ORDERS), ("on_bad", ON_BAD)):
            if getattr(self, name) not in choices:
                shown = ", ".join(filter(None, choices))
                raise MatfmError(f"data.{name} is {getattr(self, name)!r}; choose one of {shown}")
        if not 0 < self.held_out < 1:
            raise MatfmError(f"data.held_out is {self.held_out}; it is a share between 0 and 1")
        for name in ("max_length", "enumerations", "fingerprint_bits", "workers", "rows"):
            if getattr(self, name) < 0:
                raise MatfmError(f"data.{name} is {getattr(self, name)}; it must not be negative")
        if self.held_out_rows < 1:
            raise MatfmError(f"data.held_out_rows is {self.held_out_rows}; at least 1 row is evaluated")
        if self.fingerprint_bits % 8:
            raise MatfmError(f"data.fingerprint_bits is {self.fingerprint_bits}; it must be a multiple of 8")
        if 0 < self.max_length < 3:
            raise MatfmError(f"data.max_length is {self.max_length}; [CLS], one token and [SEP] make 3")
        self._check_kind()

    def _check_kind(self) -> None:
        for_molecules = ("vocabulary", "max_length", "enumerations", "descriptors", "fingerprint_bits", "from_smiles")
        if self.kind == "composition" and (wrong := self._first(*for_molecules)):
            raise MatfmError(f"data.{wrong} is for molecules, but data.kind is 'composition'")
        if self.kind != "composition" and self.scheme:
            raise MatfmError(f"data.scheme is for compositions, but data.kind is {self.kind!r}")
        if self.from_smiles and self.kind != "selfies":
            raise MatfmError("data.from_smiles writes SMILES as SELFIES; it needs data.kind = 'selfies'")
        in_memory = ("targets", "enumerations", "descriptors", "fingerprint_bits", "from_smiles", "max_length", "rows")
        if self.tokens and (wrong := self._first(*in_memory)):
            raise MatfmError(f"data.{wrong} needs the rows of a table; a token file (data.tokens) has only tokens")

    def _first(self, *names: str) -> str | None:
        """The first of these keys that is set."""
        return next((name for name in names if getattr(self, name)), None)

    @property
    def column(self) -> str:
        """The input column."""
        return self.input or _INPUTS["smiles" if self.from_smiles else self.kind]


@dataclass(frozen=True)
class ModelConfig:
    """The model. Sizes that are 0 are those of `size`."""

    family: str = "matbert"
    """matbert (encoder), matgpt (decoder) or matt5 (both)."""
    size: str = "small"
    """tiny, small, base or large."""
    start: str = ""
    """Weights to continue from: bundled name, folder or Hub id, whose widths and depth hold; empty for random ones."""
    position_embedding: str = ""
    """Of MatBERT: none, rotary, absolute or sinusoidal; empty for none (scheme fraction) or rotary (strings). Of MatT5:
    rotary, in the attention to the source beside its relative positions, or empty."""
    hidden_size: int = 0
    """Width."""
    num_hidden_layers: int = 0
    """Blocks."""
    num_attention_heads: int = 0
    """Heads of attention; they divide the width."""
    intermediate_size: int = 0
    """Width of the feed-forward parts."""
    relative_buckets: int = 0
    """Buckets of relative distances of MatT5, half of which hold one distance each; 0 for 32, as in T5."""
    pooling: str = "mean"
    """mean, mean-max or cls (MatBERT)."""
    dropout: float = 0.0
    """Dropout after attention and feed-forward, and in the head."""
    loss: str = "l1"
    """l1, l2 or huber, on scaled targets (MatBERT)."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise MatfmError(f"model.family is {self.family!r}; choose one of {', '.join(FAMILIES)}")
        added = self.family == "matt5" and self.position_embedding == "rotary"
        if self.position_embedding and self.family != "matbert" and not added:
            own = {"matgpt": "rotary positions", "matt5": "relative positions"}[self.family]
            raise MatfmError(f"model.position_embedding is for matbert; {self.family} has {own}")
        if self.relative_buckets and self.family != "matt5":
            raise MatfmError(f"model.relative_buckets is for matt5; {self.family} has no relative positions")
        if not 0 <= self.dropout < 1:
            raise MatfmError(f"model.dropout is {self.dropout}; it is a share in [0, 1)")
        for name, value in self.sizes().items():
            if self.start:
                raise MatfmError(
                    f"model.{name} is {value}, but model.start {self.start!r} says the sizes; leave it out"
                )
            if value < 0:
                raise MatfmError(f"model.{name} is {value}; it must be positive, or 0 for that of model.size")

    def sizes(self) -> dict[str, int]:
        """The sizes that are given."""
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopOptions):
    """Length and batches, and the options of the loop."""

    epochs: float = 8.0
    """Passes over the training rows."""
    steps: int = 0
    """Optimizer steps instead of passes; 0 goes by `epochs`."""
    tokens_per_batch: int = 4096
    """Tokens of a batch (a formula has one per element and one more)."""
    length_pool: int = 0
    """Batches' worth of rows that are sorted by length together; 0 for 1 (compositions in memory) or 64."""
    masked_weight: float = 0.1
    """Weight of a masked token's cross-entropy beside other terms, where no objective is given."""
    label_smoothing: float = 0.0
    """Share of a token's target spread over the vocabulary."""
    evaluations: int = 10
    """Evaluations on the held-out rows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise MatfmError(f"train.label_smoothing is {self.label_smoothing}; it is a share in [0, 1)")
        for name in ("steps", "length_pool"):
            if getattr(self, name) < 0:
                raise MatfmError(f"train.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("tokens_per_batch", "evaluations"):
            if getattr(self, name) < 1:
                raise MatfmError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("epochs", "masked_weight"):
            if not getattr(self, name) > 0:
                raise MatfmError(f"train.{name} is {getattr(self, name)}; it must be positive")


@dataclass(frozen=True)
class PretrainConfig:
    """`matfm pretrain`."""

    data: CorpusConfig
    """What is learned from."""
    name: str = "matbert"
    """Name on the card."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    objective: tuple[Objective, ...] = ()
    """Terms of the loss; empty for what data and family offer."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length and batches."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """Masks of the objective `masked`."""
    seed: int = 0
    """Seed of weights, batches and masks."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        check_objectives(self.objective, self.model.family)
        self._check_masking()
        if self._is_set and self.model.family != "matbert":
            raise MatfmError(
                f"data.scheme 'fraction' has amounts beside the tokens, which {self.model.family} does not read; "
                "take 'count'"
            )
        self._check_translation()
        self._check_more()
        self._check_targets()
        in_order = self.position_embedding != "none" and not self._is_set
        if not in_order and any(objective.name == "permutation" for objective in self.objectives):
            raise MatfmError("the objective 'permutation' needs strings, or compositions in data.scheme 'count'")
        if not self._is_set and any(objective.name == "amounts" for objective in self.objectives):
            raise MatfmError("the objective 'amounts' needs compositions in data.scheme 'fraction'")
        for objective in self.objectives:
            if isinstance(objective, ContrastiveObjective):
                self._check_view(objective)

    @property
    def scheme(self) -> str:
        """How compositions are written."""
        return self.data.scheme or ("fraction" if self.model.family == "matbert" else "count")

    @property
    def position_embedding(self) -> str:
        """Of MatBERT."""
        return self.model.position_embedding or ("none" if self._is_set else "rotary")

    @property
    def _is_set(self) -> bool:
        """Whether rows are sets of elements with amounts beside, rather than strings."""
        return self.data.kind == "composition" and self.scheme == "fraction"

    @property
    def joint(self) -> bool:
        """Whether molecules, compositions and texts share one vocabulary, because they are translated."""
        return any(objective.name == "translation" for objective in self.objectives)

    @property
    def length_pool(self) -> int:
        """Batches' worth of rows that are sorted by length together."""
        is_short = self.data.kind == "composition" and not self.data.tokens
        return self.train.length_pool or (1 if is_short else 64)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The terms of the loss."""
        if self.objective:
            return self.objective
        if self.model.family != "matbert":
            return (CausalObjective("causal"),) if self.model.family == "matgpt" else (SpanObjective("span"),)
        offered = tuple(Objective(name) for name, key in _LEARNS.items() if getattr(self.data, key))
        return (*offered, Objective("masked", self.train.masked_weight if offered else 1.0))

    def _check_masking(self) -> None:
        if self.data.kind == "composition":
            self.masking.check_for_formulas()
            if self.masking.scheme == "element_group" and self.scheme != "fraction":
                raise MatfmError(f"masking.scheme 'element_group' needs data.scheme 'fraction', not {self.scheme!r}")
            return
        if self.masking.scheme not in MOLECULE_SCHEMES:
            choices = ", ".join(MOLECULE_SCHEMES)
            raise MatfmError(
                f"masking.scheme is {self.masking.scheme!r}, which needs formulas; molecules take {choices}"
            )
        if self.masking.scheme in UNIT_KINDS and self.data.tokens:
            raise MatfmError(
                f"masking.scheme {self.masking.scheme!r} needs the molecules of a table; a token file has only tokens: "
                "take uniform or span"
            )

    def _check_translation(self) -> None:
        data = self.data
        if not self.joint:
            return
        wrong = {
            "tokens": "needs the rows of a table; a token file has only tokens",
            "vocabulary": "has a vocabulary of its own, which holds molecules, compositions and texts",
            "max_length": "needs whole strings: cut ones are no pairs",
        }
        for key, reason in wrong.items():
            if getattr(data, key):
                raise MatfmError(f"data.{key} is given, but the objective 'translation' {reason}; leave it out")
        if data.kind == "selfies":
            raise MatfmError("the objective 'translation' writes the SELFIES of SMILES; give data.kind = 'smiles'")
        if data.kind == "composition" and not data.targets:
            raise MatfmError("the objective 'translation' of compositions needs data.targets, the columns of its texts")
        if data.kind == "composition" and (self.scheme, data.order) != ("count", ORDER):
            raise MatfmError(
                f"the objective 'translation' writes compositions in data.scheme 'count' and data.order {ORDER!r}"
            )

    def _check_more(self) -> None:
        data = self.data
        if data.more and not self.joint:
            raise MatfmError("data.more joins corpora for the objective 'translation', which is not given")
        if data.more and data.enumerations:
            raise MatfmError("data.more needs rows that are written in one way; leave data.enumerations out")
        for part in data.more:
            if part.more:
                raise MatfmError("data.more: a further corpus has none of its own")
            if part.enumerations:
                raise MatfmError("data.more: rows are written in one way; leave enumerations out")
            replace(self, data=part)  # which checks it

    def _check_targets(self) -> None:
        names = {objective.name for objective in self.objectives}
        check_objectives(self.objectives, self.model.family)
        conditional = check_conditions(self.objectives, self.data.targets)
        for name, key in _LEARNS.items():
            if name == "property" and conditional:
                continue  # its targets are what texts are conditioned on
            if name in names and not getattr(self.data, key):
                raise MatfmError(f"the objective {name!r} needs data.{key}")
            if name == "property" and self.joint and self.data.kind == "composition":
                continue  # its targets are what texts say
            if name not in names and getattr(self.data, key):
                raise MatfmError(f"data.{key} is given, but no objective learns it; add {name!r}, or leave it out")
            if {name, "permutation"} <= names:
                raise MatfmError(f"the permutation model has no head for the objective {name!r}; train one of the two")
            if {name, "masked"} <= names and self.masking.rows == 1:
                raise MatfmError(f"masking.rows is 1, which leaves no row whole for the objective {name!r}; lower it")

    def _check_view(self, objective: ContrastiveObjective) -> None:
        needed = {
            "dropout": (self.model.dropout > 0, "needs model.dropout: without it both views are the same"),
            "jitter": (
                self._is_set,
                "needs compositions in the scheme 'fraction', whose amounts it changes",
            ),
            "enumeration": (self.data.enumerations > 0, "needs data.enumerations, at least 1"),
        }
        holds, remedy = needed.get(objective.view, (True, ""))
        if not holds:
            raise MatfmError(f"objective 'contrastive': the view {objective.view!r} {remedy}")


_LEARNS = {"property": "targets", "descriptors": "descriptors", "fingerprint": "fingerprint_bits"}
"""Objective to the key of `data` that it learns."""
