"""What a backbone's pretraining knows of an evaluation set: refusals, labels it saw, and the rows it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.labelled import LabelledTable
from matfm.chem.units import property_named
from matfm.errors import MatfmError
from matfm.tasks.audit import external_labels, read_audit, require_scorable
from matfm.tasks.kinds import SCRATCH
from matfm.tasks.labelled_sets import SetLoader

# R rows


@dataclass
class Pretraining:
    """The pretraining corpora of a backbone, as its audit names them; of random weights there are none."""

    backbone: str
    corpora: Sequence[str] = ()
    """Recipes or tables, where the audit's names do not lead to them."""
    loader: SetLoader = field(default_factory=SetLoader)

    def __post_init__(self) -> None:
        self.audit = None if self.backbone.startswith(SCRATCH) else read_audit(self.backbone)

    def require_scorable(self, known: LabelledTable) -> None:
        """Raise MatfmError if a score on this set would mean nothing, because its labels were seen."""
        if self.audit is not None:
            require_scorable(self.backbone, known.recipe, known.target)

    def refuse_family(self, label: str, where: str) -> None:
        """Raise MatfmError if pretraining learned labels of a property's family, of whatever origin.

        For data that the audit does not cover.
        """
        sets = [] if self.audit is None else self.audit["pretrain"]
        families = {one["family"] for each in sets for one in each["labels"].values()}
        if (property_named(label).family or label) in families:
            raise MatfmError(
                f"{self.backbone} learned labels of the family of {label} of {where}, so a score there means little; "
                "take a backbone that did not"
            )

    def external_labels(self) -> str | None:
        """The labels that pretraining used beside those of the evaluation set; None if there were none."""
        return None if self.audit is None else external_labels(self.audit)

    def seen_rows(self, known: LabelledTable, kind: str) -> np.ndarray | None:
        """Rows whose composition or molecule occurs in pretraining, bool of shape (R,); None for random weights.

        Where the audit found no test row of the set in any corpus, none is read again, and no row is true.

        Raises:
            MatfmError: a corpus is no shipped recipe and `corpora` does not say where it is.
        """
        if self.audit is None:
            return None
        audited = [pair for pair in self.audit["pairs"] if pair["evaluate"] == known.recipe]
        if not self.corpora and audited and not any(pair["identical"] for pair in audited):
            return np.zeros(len(known.inputs), dtype=bool)
        comparable = [
            one["name"] for one in self.audit["pretrain"] if (one["kind"] == "composition") == (kind == "composition")
        ]
        identities = self.loader.of(kind)
        keys = identities.of(known.inputs)
        wanted, held = {key for key in keys if key}, set()
        for name in self.corpora or comparable:
            try:
                sets = self.loader.load(name)
            except MatfmError as error:
                raise MatfmError(
                    f"pretraining corpus {name!r} of {self.backbone}: {error}; name it with --corpus"
                ) from error
            held |= {key for one in sets for key in self.loader.of(one.kind).among(one.texts, wanted) if key}
        return np.array([key in held for key in keys])
