"""The one training loop: a step function in, a trained model and a log out."""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from matfm.core.acceleration import checkpoint_activations, compile_feed_forward
from matfm.core.averaging import WeightAverage
from matfm.core.batching import TokenBatch
from matfm.core.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from matfm.core.clipping import CLIPPERS
from matfm.core.diagnostics import KEY, Diagnostics
from matfm.core.distributed import REMEDY_MUON, current_ranks, sharding, share_of_step, whole, wrapped
from matfm.core.loop_config import LoopConfig
from matfm.core.optim import OptimizerConfig, build_optimizers, parameter_groups, schedule_factor, set_learning_rates
from matfm.core.precision import loss_scale_for
from matfm.core.random_states import RandomStates
from matfm.core.run_log import RunLog, read_log
from matfm.core.sam import Ascent
from matfm.core.step import Batches, Evaluation, OnEvaluation, StepFunction, StepModule, StepOutput
from matfm.core.training_state import flatten_optimizers, load_weights, restore_optimizers, whole_weights
from matfm.core.window import Window
from matfm.errors import MatfmError, RunError

__all__ = [
    "Batches",
    "Evaluation",
    "LoopConfig",
    "OnEvaluation",
    "StepFunction",
    "StepOutput",
    "fit",
    "read_log",
    "remove_checkpoints",
]


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
    on_evaluation: OnEvaluation | None = None,
) -> dict[str, Any]:
    """Train `model` in place and return a summary (steps, seconds, last evaluation).

    `folder` gets `log.jsonl` and, while training, `checkpoints/`. With `resume` it goes on from the
    newest intact checkpoint there and reaches the same weights as an uninterrupted run.
    In a process group every process calls this with the same arguments; the first one writes and evaluates.
    `on_evaluation` is told of every evaluation of this call; what it raises ends the run and is raised from here.

    Raises:
        RunError: the loss or gradient is not finite (the message names step, rows and learning rate),
            or the user interrupted.
        MatfmError: options that contradict each other, the device or the number of processes.
    """
    torch.manual_seed(seed)
    run = _Run(model, step_function, batches, optimizer_config, loop, folder, seed, device, evaluate, layers_from_top)
    run.start(resume)
    started = time.perf_counter()
    silent = None if run.ranks.first else True
    bar = tqdm(total=loop.steps, initial=run.progress.step, desc=label, unit="step", disable=silent, leave=False)
    try:
        with bar:
            while run.progress.step < loop.steps and not run.stopped_early():
                run.one_step()
                bar.update()
                if run.evaluation_due():
                    run.evaluate_now(bar)
                    if on_evaluation is not None:
                        on_evaluation(run.progress.step, loop.steps, run.last_evaluation["score"])
                if run.progress.step % loop.checkpoint_every == 0:
                    run.save()
    except KeyboardInterrupt as error:
        # No checkpoint is written here: the interrupt may have come in the middle of an update.
        raise RunError(f"interrupted after step {run.progress.step} of {loop.steps}; go on with --resume") from error
    finally:
        run.close()
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
        self.ranks = current_ranks()
        self.share = share_of_step(self.ranks, loop.accumulate)
        kind = sharding(loop.shard, self.ranks)
        if kind == "fsdp" and optimizer_config.method == "muon":
            raise MatfmError(REMEDY_MUON)
        self.loss_scale = loss_scale_for(loop.precision, device)
        self.caller_model = model.to(device)
        # FSDP2 takes a model's weights apart; the caller's stays whole, is evaluated and gets the result.
        self.model = copy.deepcopy(model) if kind == "fsdp" else model
        self.model.train()
        self.undo = [checkpoint_activations(self.model)] if loop.activation_checkpointing else []
        self.undo += [compile_feed_forward(self.model)] if loop.compile else []
        self.step = wrapped(StepModule(self.model, step_function, loop.precision, device), kind, device)
        self.batches = batches
        self.optimizer_config = optimizer_config
        self.loop = loop
        self.device = device
        self.evaluate = evaluate
        groups = parameter_groups(self.model, optimizer_config, layers_from_top)
        self.optimizers = build_optimizers(groups, optimizer_config)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.ascent = Ascent(optimizer_config.sam) if optimizer_config.sam else None
        start = round(loop.swa_start * loop.steps) if loop.average == "swa" else 0
        average = loop.average != "none"
        self.average = WeightAverage(loop.average, self.model, loop.ema_decay, start) if average else None
        self.random = RandomStates(seed, loop.accumulate, device, self.ranks)
        self.progress = _Progress()
        self.checkpoints = folder / "checkpoints"
        self.diagnostics = Diagnostics(self.model, loop.diagnose_every)
        self.log = RunLog(folder, loop.tensorboard and self.ranks.first)
        self.window = Window(self.ranks)
        self.last_evaluation: dict[str, float] = {}

    def start(self, resume: bool) -> None:
        """Go to the newest checkpoint (its log lines are kept, later ones cut) or begin anew."""
        checkpoint = newest_checkpoint(self.checkpoints) if resume else None
        self.ranks.wait()
        if checkpoint is not None:
            self._restore(checkpoint)
        if self.ranks.first:
            if checkpoint is None:
                shutil.rmtree(self.checkpoints, ignore_errors=True)
            # A fresh run keeps nothing of an older log.
            self.log.cut_after(self.progress.step if checkpoint else -1)

    def one_step(self) -> None:
        """One optimizer step over `accumulate` batches."""
        factor = schedule_factor(self.optimizer_config, self.progress.step, self.loop.steps)
        set_learning_rates(self.optimizers, factor)
        self.diagnostics.before_step(self.progress.step + 1)
        batches = self._draw()
        random = self.random.state_dict() if self.ascent else {}
        loss_sum, weight = self._gradients(batches, logged=True)
        # DDP and FSDP2 leave the mean over the processes.
        divisor = weight * (self.loss_scale.value / self.ranks.world)
        if self.ascent is not None:
            self.ascent.climb(self.parameters, float(self._norm()))
            self._zero_gradients()
            self.random.load_state_dict(random)
            self._gradients(batches, logged=False)
            self.ascent.descend()
        self._apply_gradients(divisor, loss_sum, batches)
        self.progress.step += 1
        seen = self.diagnostics.after_update()
        if seen is not None and self.ranks.first:
            self.log.append({"step": self.progress.step, KEY: seen})
        if self.average is not None:
            self.average.update(self.progress.step)
        if self.progress.step % self.loop.log_every == 0 or self.progress.step == self.loop.steps:
            means = self.window.close()
            if self.ranks.first:
                rate = self.optimizer_config.learning_rate * factor
                self.log.append({"step": self.progress.step, "lr": rate, **means})

    def evaluation_due(self) -> bool:
        """After the steps that `evaluate_every` names, and at the end."""
        every = self.loop.evaluate_every
        at_end = self.progress.step == self.loop.steps
        return self.evaluate is not None and (at_end or (every > 0 and self.progress.step % every == 0))

    def evaluate_now(self, bar: tqdm[Any]) -> None:
        """Evaluate (the average, where there is one) and remember the best weights."""
        assert self.evaluate is not None
        with self._evaluated_model() as model:
            found = self.evaluate(model) if self.ranks.first else {}
            self.last_evaluation = self.ranks.from_first(found)
            score = self.last_evaluation["score"]
            bar.set_postfix(valid=f"{score:.4g}")
            step = self.progress.step
            if self.ranks.first:
                self.log.append({"step": step, "valid": self.last_evaluation})
            if score < self.progress.best_score:
                self.progress.best_score, self.progress.best_step, self.progress.since_best = score, step, 0
                if self.loop.keep_best and self.ranks.first:
                    best = Checkpoint(step, {"model": dict(model.state_dict())}, {})
                    write_checkpoint(self.checkpoints / "best", best)
            else:
                self.progress.since_best += 1

    def stopped_early(self) -> bool:
        """Whether `patience` evaluations in a row were not better."""
        return 0 < self.loop.patience <= self.progress.since_best

    def save(self) -> None:
        """Write a resumable checkpoint: the same for any number of processes."""
        tensors = {
            "model": whole_weights(self.model),
            "optimizer": flatten_optimizers(self.optimizers),
            "random": self.ranks.every(self.random.state_dict()),
        }
        state = {
            "progress": vars(self.progress),
            "batches": self.batches.state_dict(),
            "loss_scale": self.loss_scale.state_dict(),
            "valid": self.last_evaluation,
            "averaged": self.average.count if self.average else 0,
        }
        if self.average is not None:
            tensors["average"] = {name: whole(value) for name, value in self.average.values.items()}
        if self.ranks.first:
            write_checkpoint(self.checkpoints, Checkpoint(self.progress.step, tensors, state))

    def close(self) -> None:
        """Take off what was put on the model, and close the log."""
        self.diagnostics.skip()
        for undo in self.undo:
            undo()
        self.log.close()

    def finish(self, seconds: float) -> dict[str, Any]:
        """Leave the best weights (if asked), the average or the last ones in the caller's model."""
        if self.average is not None:
            self.average.keep()
        if self.caller_model is not self.model:
            load_weights(self.caller_model, whole_weights(self.model))
        # The first process is done writing before another one reads.
        self.ranks.wait()
        best = newest_checkpoint(self.checkpoints / "best") if self.loop.keep_best else None
        if best is not None:
            load_weights(self.caller_model, best.tensors["model"])
        self.caller_model.eval()
        return {
            "steps": self.progress.step,
            "seconds": round(seconds, 1),
            "best_step": self.progress.best_step if self.loop.keep_best else self.progress.step,
            "valid": self.last_evaluation,
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        load_weights(self.model, checkpoint.tensors["model"])
        restore_optimizers(self.optimizers, checkpoint.tensors["optimizer"])
        self.random.load_state_dict(checkpoint.tensors["random"])
        self.progress = _Progress(**checkpoint.state["progress"])
        self.batches.load_state_dict(checkpoint.state["batches"])
        self.loss_scale.load_state_dict(checkpoint.state["loss_scale"])
        self.last_evaluation = checkpoint.state["valid"]
        if self.average is not None:
            self.average.restore(checkpoint.tensors["average"], checkpoint.state["averaged"])

    def _draw(self) -> list[tuple[int, TokenBatch]]:
        """This process's batches of the step, each with its place in the step; the others' are passed over."""
        drawn = [(place, self.batches.next()) for place in range(self.loop.accumulate)]
        return [(place, batch.to(self.device)) for place, batch in drawn if place in self.share]

    def _gradients(self, batches: list[tuple[int, TokenBatch]], logged: bool) -> tuple[Tensor, Tensor]:
        """Add up gradients; returns the loss's sum and weight over all processes."""
        weight = torch.zeros((), device=self.device)
        loss_sum = torch.zeros((), device=self.device)
        for place, batch in batches:
            total, count, metrics = self.step(batch, self.random.of_batch(place))
            (total * self.loss_scale.value if self.loss_scale.dynamic else total).backward()
            weight += count.detach()
            loss_sum += total.detach()
            if logged:
                self.window.add({"loss": (total, count), **metrics}, batch.layout.tokens)
        return self.ranks.total(loss_sum), self.ranks.total(weight)

    def _norm(self) -> Tensor:
        return whole(torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))

    def _apply_gradients(self, divisor: Tensor, loss_sum: Tensor, batches: list[tuple[int, TokenBatch]]) -> None:
        norm = float(self._norm() / divisor)
        loss_is_finite = math.isfinite(float(loss_sum))
        if self.loss_scale.skips(loss_is_finite, math.isfinite(norm)):
            self.diagnostics.skip()
        else:
            if not (math.isfinite(norm) and loss_is_finite):
                shown = torch.cat([batch.rows_B for _, batch in batches])[:10].tolist()
                rate = self.optimizers[0].param_groups[0]["lr"]
                raise RunError(
                    f"the loss or its gradient is not finite at step {self.progress.step + 1} (learning rate "
                    f"{rate:.3g}, data rows {shown}…); check these rows, or lower optimizer.learning_rate; "
                    f"the last checkpoint in {self.checkpoints} is intact"
                )
            self.diagnostics.before_update(float(divisor))
            with_gradient = [p for p in self.parameters if p.grad is not None]
            CLIPPERS[self.loop.clip](with_gradient, float(divisor), norm, self.loop.clip_limit)
            for optimizer in self.optimizers:
                optimizer.step()
        self._zero_gradients()

    def _zero_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def _evaluated_model(self) -> Iterator[nn.Module]:
        """The caller's model in evaluation mode, holding the weights that are judged."""
        with self.average.applied() if self.average is not None else nullcontext(), torch.no_grad():
            if self.caller_model is not self.model:
                load_weights(self.caller_model, whole_weights(self.model))
            self.caller_model.eval()
            yield self.caller_model
        self.model.train()


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run whose results are written."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
