"""`matfm deltas`: several trained tasks on one frozen encoder, which the folder names but does not hold.

`deltas.json` says which encoder, by name and by the SHA-256 of its weights; each task is a folder with its delta and
head (`matfm.models.delta_files`), those of the further members of an ensemble, and what calibrates its predictions.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matfm.core.adapters import checked_name
from matfm.core.bundled import MODEL_FILE
from matfm.core.config import from_mapping
from matfm.core.files import readable_os_errors, sha256_of, write_json
from matfm.errors import MatfmError
from matfm.models.backbones import PropertyModel, load_encoder, saved_architecture
from matfm.models.delta_files import DELTA_FILE, DELTA_WEIGHTS, DeltaTasks, backbone_digest, read_delta
from matfm.models.delta_parts import DeltaSpec
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.finetune import ENSEMBLE
from matfm.tasks.kinds import backbone_encoder, backbone_kind
from matfm.tasks.predictor import DELTA_FOLDER
from matfm.tasks.prompting.inputs import read_for
from matfm.tasks.uncertainty.calibration import CALIBRATION
from matfm.tasks.uncertainty.domain import DOMAIN_FILE

SET_FILE = "deltas.json"
FORMAT = 1


@dataclass(frozen=True)
class AddDeltaConfig:
    """`matfm deltas add`."""

    folder: str
    """Of the set; made if it is not there."""
    run: str
    """Run directory of a strategy that adds a delta."""
    name: str
    """Of the task in the set."""
    domain: bool = False
    """Also keep what the training rows were like (up to 2 MiB), so that predictions can be told to be outside."""


@dataclass(frozen=True)
class DeltaSet:
    """A folder of tasks on one encoder."""

    folder: Path
    record: dict[str, Any]
    """What `deltas.json` says."""

    @classmethod
    def open(cls, folder: str | Path) -> DeltaSet:
        """Read a set. Raises MatfmError where there is none, or a damaged one."""
        file = Path(folder) / SET_FILE
        if not file.is_file():
            raise MatfmError(f"{folder} holds no {SET_FILE}; make one with matfm deltas add")
        try:
            record: dict[str, Any] = json.loads(file.read_text("utf-8"))
            found = record["format"], record["backbone"]["sha256"], dict(record["deltas"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise MatfmError(f"{file} is no readable set of deltas ({error}); make it again") from error
        if found[0] != FORMAT:
            raise MatfmError(f"{file} has the format {found[0]!r}; this version of matfm reads {FORMAT}")
        return cls(Path(folder), record)

    @property
    def names(self) -> list[str]:
        """Of the tasks."""
        return list(self.record["deltas"])

    def of(self, name: str | None) -> Path:
        """Folder of a task. Raises MatfmError for a task that is not in the set."""
        if name not in self.record["deltas"]:
            asked = "say with --delta which one is meant" if name is None else f"there is no {name!r} among them"
            raise MatfmError(f"{self.folder} holds the deltas {', '.join(self.names)}; {asked}")
        return self.folder / str(name)

    def members(self, name: str | None, backbone: str | None = None) -> list[PropertyModel]:
        """The predictors of a task, each on a copy of the encoder.

        Args:
            name: of the task.
            backbone: any copy of the encoder, in place of the one that the set names.

        Raises:
            MatfmError: there is no such task, no such encoder, or it is another one.
        """
        folder = self.of(name)
        assert name is not None
        found = []
        for path in [folder, *(folder / ENSEMBLE / str(n) for n in range(1, self.record["deltas"][name]["members"]))]:
            tasks = DeltaTasks(self.backbone(backbone))
            tasks.load(path, name)
            found.append(tasks.use(name))
        return found

    def tasks(self, backbone: str | None = None) -> DeltaTasks:
        """All tasks on one encoder in memory, to be chosen by name; of ensembles the first members."""
        tasks = DeltaTasks(self.backbone(backbone))
        for name in self.names:
            tasks.load(self.folder / name, name)
        return tasks

    def backbone(self, other: str | None = None) -> Any:
        """The encoder, from where the set says or another copy. Raises MatfmError for an encoder of other weights."""
        known = self.record["backbone"]
        name = self.backbone_name(other)
        encoder = load_encoder(name, known["kind"])
        if (digest := backbone_digest(encoder)) != known["sha256"]:
            raise MatfmError(
                f"the deltas in {self.folder} belong to {known['name'] or 'an encoder'} with weights "
                f"{known['sha256'][:12]}…, and those of {name} are {digest[:12]}…; give a copy of it with --backbone"
            )
        return encoder

    def backbone_name(self, other: str | None = None) -> str:
        """Where the encoder is loaded from. Raises MatfmError where it is not there any more."""
        name = str(other or self.record["backbone"]["name"])
        try:
            saved_architecture(name)
        except MatfmError as error:
            if other:
                raise
            raise MatfmError(f"{error}; the deltas in {self.folder} need it: give a copy with --backbone") from error
        return name

    def encoder(self, name: str | None, backbone: str | None = None) -> RowEncoder:
        """How the rows of a task become tokens."""
        record, _ = read_delta(self.of(name))
        plain = backbone_encoder(self.backbone_name(backbone), self.record["backbone"]["kind"])
        spec = from_mapping(DeltaSpec, record["spec"], str(self.of(name) / DELTA_FILE))
        return read_for(plain, spec, record["head"]["property_names"])

    def digest(self, name: str | None) -> str:
        """What tells one task from another: SHA-256 over its deltas and the encoder."""
        files = sorted(self.of(name).rglob(DELTA_WEIGHTS))
        text = self.record["backbone"]["sha256"] + "".join(map(sha256_of, files))
        return hashlib.sha256(text.encode()).hexdigest()


def is_delta_set(folder: str | Path) -> bool:
    """Whether a folder is a set of deltas, and no model."""
    return (Path(folder) / SET_FILE).is_file() and not (Path(folder) / MODEL_FILE).is_file()


def add(config: AddDeltaConfig) -> dict[str, Any]:
    """Put the delta and head of a run into a set, which the first one makes; returns the summary.

    Raises:
        MatfmError: the run has no delta or no head, another encoder, or the name is taken.
    """
    checked_name(config.name)
    members = _member_folders(Path(config.run))
    read = [read_delta(member) for member in members]
    first, folder = read[0][0], Path(config.folder)
    if first["head"] is None:
        raise MatfmError(f"{config.run} holds a delta without a head, which predicts nothing")
    known = DeltaSet.open(folder).record if (folder / SET_FILE).is_file() else _empty(config, first["backbone"])
    if config.name in known["deltas"]:
        raise MatfmError(f"{folder} has a delta {config.name!r} already; choose another name")
    for record, _ in read:
        if record["backbone"]["sha256"] != known["backbone"]["sha256"]:
            raise MatfmError(
                f"{config.run} was trained on {record['backbone']['name'] or 'another encoder'} with weights "
                f"{record['backbone']['sha256'][:12]}…, and the deltas in {folder} belong to "
                f"{known['backbone']['name']} with {known['backbone']['sha256'][:12]}…; make another set"
            )
    _copy(members, Path(config.run), folder / config.name, config.domain)
    entry = {
        "targets": first["head"]["property_names"],
        "units": first["head"]["property_units"],
        "strategy": first["spec"]["method"],
        "members": len(members),
        "numbers": {
            "delta": sum(v.numel() for k, v in read[0][1].items() if not k.startswith("property_head.")),
            "head": sum(v.numel() for k, v in read[0][1].items() if k.startswith("property_head.")),
        },
        "bytes": sum(file.stat().st_size for file in (folder / config.name).rglob("*") if file.is_file()),
    }
    known["deltas"][config.name] = entry
    write_json(folder / SET_FILE, known)
    return {"task": "deltas add", "set": config.folder, "added": config.name, **known}


def _empty(config: AddDeltaConfig, backbone: dict[str, Any]) -> dict[str, Any]:
    """A new set; what its encoder reads is known from a run, or from a backbone with a tokenizer of ours."""
    if (Path(config.folder) / MODEL_FILE).is_file():
        raise MatfmError(f"{config.folder} holds a model; choose another folder for the set")
    source = config.run if (Path(config.run) / MODEL_FILE).is_file() else str(backbone["name"])
    try:
        kind = backbone_kind(source)
    except MatfmError as error:
        raise MatfmError(f"what the encoder reads is not known ({error}); add the whole run first") from error
    return {"format": FORMAT, "backbone": {**backbone, "kind": kind}, "deltas": {}}


def _member_folders(run: Path) -> list[Path]:
    """Folders of the deltas of a run's members; the run itself where it is the folder of a delta."""
    if (run / DELTA_FILE).is_file():
        return [run]
    if not (run / DELTA_FOLDER / DELTA_FILE).is_file():
        raise MatfmError(
            f"{run} holds no delta; fine-tune with a strategy that adds one (lora, adapter, prompt, prefix, …)"
        )
    others = sorted((run / ENSEMBLE).glob(f"*/{DELTA_FOLDER}"), key=lambda path: int(path.parent.name))
    return [run / DELTA_FOLDER, *others]


def _copy(members: list[Path], run: Path, folder: Path, domain: bool) -> None:
    """The task's folder, which appears whole."""
    with readable_os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".adding-") as temporary:
            whole = Path(temporary) / "delta"
            for number, member in enumerate(members):
                target = whole if number == 0 else whole / ENSEMBLE / str(number)
                target.mkdir(parents=True)
                for name in (DELTA_FILE, DELTA_WEIGHTS):
                    shutil.copyfile(member / name, target / name)
            for name in (CALIBRATION, *([DOMAIN_FILE] if domain else [])):
                if (run / name).is_file():
                    shutil.copyfile(run / name, whole / name)
            if folder.exists():  # left by a call that was ended before it wrote `deltas.json`
                shutil.rmtree(folder)
            whole.rename(folder)
