"""What `matfm generate` may be asked, and which contradictions it must not have."""

from __future__ import annotations

from dataclasses import dataclass

from matfm.core.sampling import SamplingConfig
from matfm.errors import MatfmError
from matfm.tasks.tables import check_output, output_format

FILTERS = ("valid", "unique", "novel", "neutral", "balanced", "substructure")
"""What rows can be kept for, in the order in which they are asked."""
TRAINING = "training"
"""What `novel_to` says for the table of the model's own pretraining."""
DRAWS_PER_ROW = 20
CHUNK = 4096
_SMALLEST_CHUNK = 64


@dataclass(frozen=True)
class GenerateConfig:
    """`matfm generate`."""

    model: str
    """Bundled name, folder, Hub id or run directory of a MatGPT."""
    n: int
    """Rows to write."""
    out: str
    """Table to write; the name gives the format."""
    prompt: str = ""
    """How every formula, SMILES or SELFIES begins."""
    condition: tuple[str, ...] = ()
    """Properties of the texts, each as property=value or property=low..high, of a model that was trained with them."""
    temperature: float = 1.0
    """Below 1 sharper, above 1 flatter than the model; 0 takes the likeliest token."""
    top_k: int = 0
    """Draw from the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Draw from tokens at least this share as likely as the likeliest."""
    seed: int = 0
    """Of the random numbers: sample i has its own."""
    batch_size: int = 256
    """Sequences that are computed together."""
    max_length: int = 0
    """Most tokens after the prompt, the end included; 0 for 64 (compositions) or 128 (molecules)."""
    elements: tuple[str, ...] = ()
    """Elements that may occur; all if empty."""
    require: tuple[str, ...] = ()
    """Elements that must occur (compositions)."""
    min_elements: int = 0
    """Fewest elements (compositions); 0 for no limit."""
    max_elements: int = 0
    """Most elements (compositions); 0 for no limit."""
    max_atoms: int = 0
    """Most atoms of the formula as written, or most atoms other than hydrogen of a molecule; 0 for no limit."""
    charge_neutral: bool = False
    """Only compositions whose known oxidation states can sum to zero, by construction."""
    oxidation_states: str = "icsd24"
    """icsd24, icsd16, smact14 or pymatgen_sp."""
    alloys: bool = True
    """Compositions of metals only count as neutral and balanced."""
    substructure: str = ""
    """SMARTS that is looked for in every molecule."""
    only: tuple[str, ...] = ()
    """Write only rows that are all of these: valid, unique, novel, neutral, balanced, substructure."""
    max_draws: int = 0
    """Most samples that are drawn to find `n` rows; 0 for 20 n."""
    novel_to: str = ""
    """Table of known formulas or molecules, or `training` for the table that the model was trained on."""
    novel_input: str = ""
    """Its column; empty for formula, or smiles or selfies."""
    predict: str = ""
    """Run whose properties are predicted for every valid row."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise MatfmError(f"--n is {self.n}; at least 1 row is written")
        if not 0 <= self.seed < 2**64:
            raise MatfmError(f"--seed is {self.seed}; it is between 0 and 2^64 - 1")
        for name in ("max_length", "min_elements", "max_elements", "max_atoms", "max_draws"):
            if getattr(self, name) < 0:
                raise MatfmError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must not be negative")
        if self.batch_size < 1:
            raise MatfmError(f"--batch-size is {self.batch_size}; at least 1 sequence is computed")
        if self.max_length == 1:
            raise MatfmError("--max-length is 1, which leaves room for the end alone; give 2 or more")
        output_format(self.out)
        check_output(self.out, self.novel_to or None)
        if self.novel_to == TRAINING and self.novel_input:
            raise MatfmError("--novel-input is a column of a table; --novel-to training knows its own")
        self._check_filters()
        self.sampling()

    def _check_filters(self) -> None:
        unknown = [name for name in self.only if name not in FILTERS]
        if unknown:
            raise MatfmError(f"--only has {unknown[0]!r}; choose among {', '.join(FILTERS)}")
        for name, option in (("novel", "novel_to"), ("substructure", "substructure")):
            if name in self.only and not getattr(self, option):
                raise MatfmError(f"--only {name} needs --{option.replace('_', '-')}")
        if self.novel_input and not self.novel_to:
            raise MatfmError("--novel-input is a column of --novel-to; give that table too")
        if self.max_draws and self.max_draws < self.n:
            raise MatfmError(f"--max-draws is {self.max_draws}, fewer than --n {self.n}; raise it, or leave it out")

    def sampling(self) -> SamplingConfig:
        """How tokens are drawn."""
        return SamplingConfig(self.temperature, self.top_k, self.top_p, self.min_p)

    @property
    def draws(self) -> int:
        """Most samples that are drawn."""
        if not self.only:
            return self.n
        return self.max_draws or DRAWS_PER_ROW * self.n

    @property
    def chunk(self) -> int:
        """Samples that are drawn, written and resumed together."""
        return min(CHUNK, max(self.n, _SMALLEST_CHUNK))
