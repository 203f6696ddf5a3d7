"""What a search may change: settings of a fine-tuning, each with choices or a range."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from dataclasses import dataclass, field
from typing import Any

from matfm.core.config import from_mapping, to_mapping
from matfm.errors import MatfmError
from matfm.tasks.finetune import FinetuneConfig
from matfm.tasks.fit_config import optimizer_of
from matfm.tasks.kinds import SCRATCH

_NEVER = {
    "fit.task": "it is what the targets hold",
    "fit.backbone": "its tokenizer makes the rows; search once for each backbone",
    "fit.evaluations": "trials are compared at their evaluations",
}
_KEYS = frozenset({"choices", "low", "high", "step", "log", "only"})
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Parameter:
    """One setting that is searched: among `choices`, or from `low` to `high`."""

    name: str
    """Its name as in `--set`, such as fit.optimizer.learning_rate."""
    choices: tuple[Any, ...] = ()
    low: float | None = None
    """Smallest value; whole numbers are drawn if `low`, `high` and `step` are whole."""
    high: float | None = None
    step: float | None = None
    """Distance between the values, from `low` on; any value if None."""
    log: bool = False
    """Whether small values are drawn as densely as large ones, by their logarithm."""
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Other settings, and those values of theirs for which this one has a meaning and is drawn."""

    def __post_init__(self) -> None:
        if not self.name.startswith("fit."):
            raise MatfmError(f"{self.name} cannot be searched: all trials share their rows; search settings of fit")
        if self.name in _NEVER:
            raise MatfmError(f"{self.name} cannot be searched: {_NEVER[self.name]}")
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise MatfmError(f"{self.name} needs either choices, a list that is not empty, or low and high")
        if self.choices:
            self._check_choices()
        else:
            self._check_range()

    def _check_choices(self) -> None:
        if len(set(map(repr, self.choices))) < len(self.choices):
            raise MatfmError(f"{self.name}: {list(self.choices)} names a value twice")
        for choice in self.choices:
            if not isinstance(choice, (bool, int, float, str)):
                raise MatfmError(f"{self.name}: {choice!r} cannot be a choice; list texts, numbers or true and false")

    def _check_range(self) -> None:
        low, high, step = self.low, self.high, self.step
        for key, value in (("low", low), ("high", high), ("step", 0 if step is None else step)):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise MatfmError(f"{self.name}: {key} is {value!r}; it must be a number")
            if not abs(value) <= sys.float_info.max:
                raise MatfmError(f"{self.name}: {key} is no finite number")
        assert low is not None
        assert high is not None
        if not low < high:
            raise MatfmError(f"{self.name}: low is {low} and high {high}; low must be below high")
        if self.log and (low <= 0 or step is not None):
            raise MatfmError(f"{self.name}: with log = true, low must be positive and there is no step")
        if step is not None and (step <= 0 or not _whole((high - low) / step)):
            raise MatfmError(f"{self.name}: step is {step}; it must be positive, and high lie whole steps above low")

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return not self.choices and all(isinstance(v, int) for v in (self.low, self.high, self.step or 1))

    def samples(self) -> tuple[Any, ...]:
        """Values to try a configuration with: all choices, or both ends."""
        return self.choices or (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value is one that can be drawn."""
        if self.choices:
            return value in self.choices
        if isinstance(value, str) or not self.low <= value <= self.high:
            return False
        return self.step is None or _whole((value - self.low) / self.step)

    def draw(self, trial: Any) -> Any:
        """A value for one of Optuna's trials."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, self.low, self.high, step=self.step or 1, log=self.log)
        value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        # 0.6 + 3 · 0.05 is 0.75, not 0.7500000000000001: people read and copy it.
        return value if self.step is None else round(value, 10)

    def entry(self) -> Any:
        """As it is written in a file: what `read_space` reads."""
        only = {name: list(values) for name, values in self.only.items()}
        if self.choices:
            return {"choices": list(self.choices), "only": only} if only else list(self.choices)
        given = {"low": self.low, "high": self.high, "step": self.step, "log": self.log or None, "only": only or None}
        return {key: value for key, value in given.items() if value is not None}


Space = tuple[Parameter, ...]


def read_space(values: dict[str, Any], where: str) -> Space:
    """A space from TOML: `fit.dropout = { low = 0.0, high = 0.3 }`, `fit.loss = ["l1", "huber"]`, in sections or not.

    Raises:
        MatfmError: an entry that is neither a list of choices nor a range, or nothing at all; it names `where`.
    """
    try:
        space = tuple(_parameter(name, entry) for name, entry in _entries(values))
    except MatfmError as error:
        raise MatfmError(f"{where}: {error}") from error
    except RecursionError as error:
        raise MatfmError(f"{where}: its sections are nested too deeply; settings look like fit.dropout") from error
    if not space:
        raise MatfmError(
            f"{where} names nothing to search; write for example fit.dropout = {{ low = 0.0, high = 0.3 }}"
        )
    return space


def default_space(config: FinetuneConfig, fixed: frozenset[str] = frozenset()) -> Space:
    """What is worth searching on small data, without the settings that the caller `fixed`.

    `config.kind` is known. The ranges surround the defaults of fine-tuning.
    """
    strings = config.kind != "composition"
    space = [
        Parameter("fit.optimizer.learning_rate", low=1e-4, high=5e-3, log=True),
        Parameter("fit.epochs", (15, 30, 60)),
        Parameter("fit.tokens_per_batch", (1024, 2048, 4096) if strings else (128, 256, 512)),
        Parameter("fit.dropout", low=0.0, high=0.3, step=0.05),
    ]
    if config.task == "regression":
        space.append(Parameter("fit.loss", ("l1", "l2", "huber")))
    else:
        space.append(Parameter("fit.label_smoothing", (0.0, 0.05, 0.1)))
    if not config.backbone.startswith(SCRATCH):  # of random weights nothing is worth keeping as it is
        space.insert(0, Parameter("fit.strategy", ("full", "partial", "lora")))
    layered = {"fit.strategy": ("full", "partial")}
    space.append(Parameter("fit.optimizer.layer_decay", low=0.6, high=1.0, step=0.05, only=layered))
    kept = tuple(parameter for parameter in space if not _is_fixed(parameter.name, fixed))
    if not kept:
        raise MatfmError("options fix every setting of the default space; leave one open, or give --space")
    return kept


def check_space(space: Space, config: FinetuneConfig, fixed: frozenset[str] = frozenset()) -> None:
    """Raise MatfmError for a setting that there is not, a value it cannot have, or one that is also fixed."""
    names = [parameter.name for parameter in space]
    for parameter in space:
        if names.count(parameter.name) > 1:
            raise MatfmError(f"the space names {parameter.name} twice")
        if _is_fixed(parameter.name, fixed):
            raise MatfmError(f"{parameter.name} is both set and searched; take it out of the space, or do not set it")
        for other in parameter.only:
            if setting(config, other) is None and other not in names:
                raise MatfmError(f"{parameter.name}: there is no setting {other} that it could depend on")
        met = {name: values[0] for name, values in parameter.only.items()}
        for value in parameter.samples():
            with_settings(config, {**met, parameter.name: value})


def draw(space: Space, config: FinetuneConfig, trial: Any) -> dict[str, Any]:
    """Values of one of Optuna's trials by name; of parameters with a condition only those whose condition holds."""
    drawn: dict[str, Any] = {}
    for parameter in sorted(space, key=lambda parameter: bool(parameter.only)):
        if _applies(parameter, drawn, config):
            drawn[parameter.name] = parameter.draw(trial)
    return drawn


def usual_settings(space: Space, config: FinetuneConfig) -> dict[str, Any]:
    """What the configuration has without a search, as far as that lies in the space."""
    found: dict[str, Any] = {}
    for parameter in sorted(space, key=lambda parameter: bool(parameter.only)):
        value = setting(config, parameter.name)
        if _applies(parameter, found, config) and parameter.holds(value):
            # 30 epochs, not 30.0: Optuna looks for the choice itself.
            found[parameter.name] = next((choice for choice in parameter.choices if choice == value), value)
    return found


def with_settings(config: FinetuneConfig, settings: dict[str, Any]) -> FinetuneConfig:
    """The fine-tuning with other settings; its optimizer, if it has none, is what suits the strategy.

    Raises:
        MatfmError: no such setting, or values that contradict each other.
    """
    values = _values(config, settings.get("fit.strategy", config.strategy))
    for name, value in settings.items():
        *sections, last = name.split(".")
        section = values
        for key in sections:
            section = section.get(key, {})
            if not isinstance(section, dict):
                raise MatfmError(f"the space names {name}, but {key} has no settings of its own")
        section[last] = value
    return from_mapping(FinetuneConfig, values, "the space")


def setting(config: FinetuneConfig, name: str) -> Any:
    """A setting by its dotted name; None where there is none."""
    value: Any = _values(config, config.strategy)
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _values(config: FinetuneConfig, strategy: str) -> dict[str, Any]:
    values = copy.deepcopy(to_mapping(config))
    if values["fit"]["optimizer"] is None:
        values["fit"]["optimizer"] = dataclasses.asdict(optimizer_of(strategy))
    return values


def _applies(parameter: Parameter, drawn: dict[str, Any], config: FinetuneConfig) -> bool:
    current = {name: drawn.get(name, setting(config, name)) for name in parameter.only}
    return all(current[name] in values for name, values in parameter.only.items())


def _is_fixed(name: str, fixed: frozenset[str]) -> bool:
    """Whoever sets a section, such as the optimizer, fixes what is in it."""
    return any(name == known or name.startswith(f"{known}.") for known in fixed)


def _entries(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names with their entries; a section without any of an entry's keys holds others."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        is_section = isinstance(value, dict) and not _KEYS & value.keys()
        found += _entries(value, f"{prefix}{key}.") if is_section else [(prefix + key, value)]
    return found


def _parameter(name: str, entry: Any) -> Parameter:
    if isinstance(entry, list):
        entry = {"choices": entry}
    if not isinstance(entry, dict):
        raise MatfmError(f"{name} is {entry!r}; write a list of choices, or {{ low = …, high = … }}")
    if unknown := entry.keys() - _KEYS:
        raise MatfmError(f"{name}: unknown key {min(unknown)}; known are {', '.join(sorted(_KEYS))}")
    only = entry.get("only", {})
    conditions = _entries(only) if isinstance(only, dict) else []
    if not isinstance(only, dict) or not all(isinstance(values, list) and values for _, values in conditions):
        raise MatfmError(f'{name}: only says for which values of others, such as {{ "fit.strategy" = ["full"] }}')
    if not isinstance(entry.get("choices", []), list) or not isinstance(entry.get("log", False), bool):
        raise MatfmError(f"{name}: choices is a list, and log true or false")
    return Parameter(
        name,
        tuple(entry.get("choices", ())),
        entry.get("low"),
        entry.get("high"),
        entry.get("step"),
        entry.get("log", False),
        {other: tuple(values) for other, values in conditions},
    )


def _whole(value: float) -> bool:
    return math.isfinite(value) and abs(value - round(value)) < _TOLERANCE * max(1.0, abs(value))
