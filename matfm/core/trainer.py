"""The one training loop: a step function in, a trained model and a log out."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from matfm.core.batching import TokenBatch
from matfm.core.checkpoint import load_newest_checkpoint, save_checkpoint
from matfm.core.files import atomic_path
from matfm.core.optim import OptimizerConfig, build_optimizers, parameter_groups, schedule_factor, set_learning_rates
from matfm.errors import MatfmError, RunError


@dataclass(frozen=True)
class StepOutput:
    """What a step function returns for one batch."""

    loss_sum: Tensor
    """Differentiable sum of the loss; the loop divides by the total weight of all batches of the step."""
    weight: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Name to (sum, weight), for the log."""


StepFunction = Callable[[Any, TokenBatch, torch.Generator], StepOutput]
Evaluation = Callable[[nn.Module], dict[str, float]]


class Batches(Protocol):
    """An endless source of batches with a position."""

    def next(self) -> TokenBatch:
        """The next batch; moves the position."""
        ...

    def state_dict(self) -> dict[str, int]:
        """The position."""
        ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How long and how often."""

    steps: int
    """Optimizer steps in all."""
    accumulate: int = 1
    """Batches per optimizer step; the result equals one batch of their sum."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    log_every: int = 20
    """Steps between records of log.jsonl."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 evaluates only at the end."""
    checkpoint_every: int = 200
    """Steps between resumable checkpoints."""
    keep_best: bool = False
    """End with the weights of the best evaluation (smallest `score`) instead of the last ones."""
    patience: int = 0
    """Stop after this many evaluations without a better score; 0 never stops early."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise MatfmError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.clip_norm < 0:
            raise MatfmError(f"clip_norm is {self.clip_norm}; it must not be negative")


@dataclass
class _Progress:
    """What a checkpoint remembers beside tensors."""

    step: int = 0
    best_score: float = math.inf
    best_step: int = 0
    since_best: int = 0


def fit(
    model: nn.Module,
    step_function: StepFunction,
    batches: Batches,
    optimizer_config: OptimizerConfig,
    loop: LoopConfig,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    evaluate: Evaluation | None = None,
    layers_from_top: Callable[[str], int] = lambda name: 0,
    resume: bool = False,
    label: str = "train",
) -> dict[str, Any]:
    """Train `model` in place and return a summary (steps, seconds, last evaluation).

    `folder` gets `log.jsonl` and, while training, `checkpoints/`. With `resume` it goes on from the
    newest intact checkpoint there and reaches the same weights as an uninterrupted run.

    Raises:
        RunError: the loss or gradient is not finite (the message names step, rows and learning rate),
            or the user interrupted.
    """
    torch.manual_seed(seed)
    run = _Run(model, step_function, batches, optimizer_config, loop, folder, seed, device, evaluate, layers_from_top)
    run.start(resume)
    started = time.perf_counter()
    bar = tqdm(total=loop.steps, initial=run.progress.step, desc=label, unit="step", disable=None, leave=False)
    try:
        with bar:
            while run.progress.step < loop.steps:
                run.one_step()
                bar.update()
                if run.evaluation_due() and run.evaluate_now(bar):
                    break
                if run.progress.step % loop.checkpoint_every == 0:
                    run.save()
    except KeyboardInterrupt as error:
        # No checkpoint is written here: the interrupt may have come in the middle of an update.
        raise RunError(f"interrupted after step {run.progress.step} of {loop.steps}; go on with --resume") from error
    return run.finish(time.perf_counter() - started)


class _Run:
    """State of one call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        step_function: StepFunction,
        batches: Batches,
        optimizer_config: OptimizerConfig,
        loop: LoopConfig,
        folder: Path,
        seed: int,
        device: torch.device,
        evaluate: Evaluation | None,
        layers_from_top: Callable[[str], int],
    ) -> None:
        self.model = model.to(device).train()
        self.step_function = step_function
        self.batches = batches
        self.optimizer_config = optimizer_config
        self.loop = loop
        self.device = device
        self.evaluate = evaluate
        groups = parameter_groups(model, optimizer_config, layers_from_top)
        self.optimizers = build_optimizers(groups, optimizer_config)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.generator = torch.Generator().manual_seed(seed)
        self.progress = _Progress()
        self.checkpoints = folder / "checkpoints"
        self.best_path = self.checkpoints / "best.safetensors"
        self.log_path = folder / "log.jsonl"
        self.sums: dict[str, list[Tensor]] = {}
        self.last_evaluation: dict[str, float] = {}
        self.window_started = time.perf_counter()

    def start(self, resume: bool) -> None:
        """Go to the newest checkpoint (its log lines are kept, later ones cut) or begin anew."""
        restored = load_newest_checkpoint(self.checkpoints, self.model, self.optimizers) if resume else None
        records = []
        if restored is None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        else:
            _, random, state = restored
            self.progress = _Progress(**state["progress"])
            self.batches.load_state_dict(state["batches"])
            self._set_random_states(random)
            records = [r for r in read_log(self.log_path) if r["step"] <= self.progress.step]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.log_path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")

    def one_step(self) -> None:
        """One optimizer step over `accumulate` batches."""
        factor = schedule_factor(self.optimizer_config, self.progress.step, self.loop.steps)
        set_learning_rates(self.optimizers, factor)
        weight = torch.zeros((), device=self.device)
        loss_sum = torch.zeros((), device=self.device)
        rows: list[Tensor] = []
        for _ in range(self.loop.accumulate):
            batch = self.batches.next().to(self.device)
            output = self.step_function(self.model, batch, self.generator)
            output.loss_sum.backward()  # type: ignore[no-untyped-call]
            weight += output.weight.detach()
            loss_sum += output.loss_sum.detach()
            rows.append(batch.rows_B)
            self._collect({"loss": (output.loss_sum, output.weight), **output.metrics}, batch.layout.tokens)
        self._apply_gradients(weight, loss_sum, rows)
        self.progress.step += 1
        if self.progress.step % self.loop.log_every == 0 or self.progress.step == self.loop.steps:
            self._log_window(factor)

    def evaluation_due(self) -> bool:
        """After the steps that `evaluate_every` names, and at the end."""
        every = self.loop.evaluate_every
        at_end = self.progress.step == self.loop.steps
        return self.evaluate is not None and (at_end or (every > 0 and self.progress.step % every == 0))

    def evaluate_now(self, bar: tqdm[Any]) -> bool:
        """Evaluate, remember the best weights, and say whether to stop early."""
        assert self.evaluate is not None
        self.model.eval()
        with torch.no_grad():
            self.last_evaluation = self.evaluate(self.model)
        self.model.train()
        self._append({"step": self.progress.step, "valid": self.last_evaluation})
        score = self.last_evaluation["score"]
        bar.set_postfix(valid=f"{score:.4g}")
        if score < self.progress.best_score:
            self.progress.best_score, self.progress.best_step, self.progress.since_best = score, self.progress.step, 0
            if self.loop.keep_best:
                with atomic_path(self.best_path) as temporary:
                    save_file({k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}, temporary)
        else:
            self.progress.since_best += 1
        return 0 < self.loop.patience <= self.progress.since_best

    def save(self) -> None:
        """Write a resumable checkpoint."""
        random = {"torch": torch.get_rng_state(), "step": self.generator.get_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        state = {"progress": vars(self.progress), "batches": self.batches.state_dict()}
        save_checkpoint(self.checkpoints, self.progress.step, self.model, self.optimizers, random, state)

    def finish(self, seconds: float) -> dict[str, Any]:
        """Load the best weights if asked, and drop the checkpoints."""
        if self.loop.keep_best and self.best_path.exists():
            self.model.load_state_dict(load_file(self.best_path, device=str(self.device)))
        self.model.eval()
        return {
            "steps": self.progress.step,
            "seconds": round(seconds, 1),
            "best_step": self.progress.best_step if self.loop.keep_best else self.progress.step,
            "valid": self.last_evaluation,
        }

    def _apply_gradients(self, weight: Tensor, loss_sum: Tensor, rows: list[Tensor]) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients) / weight)
        if not (math.isfinite(norm) and math.isfinite(float(loss_sum))):
            shown = torch.cat(rows)[:10].tolist()
            rate = self.optimizers[0].param_groups[0]["lr"]
            raise RunError(
                f"the loss or its gradient is not finite at step {self.progress.step + 1} (learning rate {rate:.3g}, "
                f"data rows {shown}…); check these rows, or lower optimizer.learning_rate; "
                f"the last checkpoint in {self.checkpoints} is intact"
            )
        clip = min(1.0, self.loop.clip_norm / norm) if self.loop.clip_norm and norm > 0 else 1.0
        torch._foreach_mul_(gradients, clip / float(weight))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _collect(self, metrics: dict[str, tuple[Tensor, Tensor]], tokens: int) -> None:
        metrics["tokens"] = (torch.tensor(float(tokens)), torch.ones(()))
        for name, (total, weight) in metrics.items():
            sums = self.sums.setdefault(name, [torch.zeros(()), torch.zeros(())])
            sums[0] = sums[0] + total.detach().cpu()
            sums[1] = sums[1] + weight.detach().cpu()

    def _log_window(self, factor: float) -> None:
        now = time.perf_counter()
        tokens = float(self.sums.pop("tokens")[0])
        means = {name: float(total / weight) for name, (total, weight) in self.sums.items() if weight > 0}
        rate = tokens / (now - self.window_started)
        lr = self.optimizer_config.learning_rate * factor
        self._append({"step": self.progress.step, "lr": lr, "tokens_per_s": round(rate), **means})
        self.sums.clear()
        self.window_started = now

    def _append(self, record: dict[str, Any]) -> None:
        with self.log_path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")

    def _set_random_states(self, random: dict[str, Tensor]) -> None:
        torch.set_rng_state(random["torch"])
        self.generator.set_state(random["step"])
        if "cuda" in random and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], self.device)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line cut off by a kill is left out."""
    records = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run whose results are written."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
