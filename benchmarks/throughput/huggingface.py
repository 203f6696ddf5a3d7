"""Masked-LM pretraining: real (non-pad) tokens per second against Hugging Face's Trainer on the same token ids.

Both train a transformer encoder of the same depth, width, heads, feed-forward size and vocabulary with absolute
positions, 15 % masked tokens (80/10/10), fused AdamW and clipping, and see about the same number of real tokens a step.
They take turns in one process; tokenisation is not counted. The Trainer runs with its default sampling (random batches
padded to their longest sequence) and with its length grouping, which takes the longest of 50 batches first: it and we
run for the same number of steps, at least 50 where the data allow, and the slow default, whose batches are all alike,
for fewer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results import append, record
from benchmarks.tokenizers import corpora
from matfm import CompositionTokenizer, MatBERTConfig, MatBERTForMaskedLM, SmilesTokenizer
from matfm.chem.masking import MaskingConfig, mask_tokens
from matfm.chem.token_classes import TokenClasses, element_classes, smiles_classes
from matfm.core.batching import EpochBatches, RaggedTokens, TokenBatch
from matfm.core.objectives import masked_lm_loss
from matfm.core.optim import OptimizerConfig
from matfm.core.trainer import LoopConfig, StepOutput, fit
from matfm.errors import MatfmError
from matfm.tasks.devices import resolve_device

RESULTS = Path(__file__).parent / "results" / "huggingface.jsonl"
SEQUENCES = 40_000
MASKING = MaskingConfig(rows=1.0, rate=0.15)
WARM_UP = 3
SHAPE = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}


def formulas(wheels: Path) -> tuple[list[list[int]], Any, TokenClasses]:
    """OQMD formulas in the scheme `repeat`: one token per atom."""
    tokenizer = CompositionTokenizer(scheme="repeat")
    rows = corpora.oqmd(wheels / "crabnet-2.0.8-py3-none-any.whl")
    sequences = []
    for formula in rows[:: max(1, len(rows) // SEQUENCES)][:SEQUENCES]:
        try:
            sequences.append(tokenizer(formula)["input_ids"])
        except MatfmError:  # more atoms than the scheme writes
            continue
    return sequences, tokenizer, element_classes({})


def smiles(wheels: Path) -> tuple[list[list[int]], Any, TokenClasses]:
    """MOSES."""
    tokenizer = SmilesTokenizer()
    rows = corpora.moses(wheels / "molsets-0.3.1-py3-none-any.whl")
    chosen = rows[:: max(1, len(rows) // SEQUENCES)][:SEQUENCES]
    return tokenizer(chosen)["input_ids"], tokenizer, smiles_classes(tokenizer.get_vocab())


TASKS: dict[str, Callable[[Path], tuple[list[list[int]], Any, TokenClasses]]] = {"formulas": formulas, "smiles": smiles}


class Clock:
    """Real tokens and seconds between the steps of a run, the first ones left out."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[float, int]] = []
        self.tokens = 0

    def mark(self, tokens: int) -> None:
        """A batch of so many real tokens begins."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append((time.perf_counter(), self.tokens))
        self.tokens += tokens

    def result(self) -> tuple[int, float]:
        """Tokens and seconds from the first counted step to the beginning of the last."""
        (first, before), (last, after) = self.marks[WARM_UP], self.marks[-1]
        return after - before, last - first


def counted_steps(arguments: Any, sequences: list[list[int]]) -> int:
    """Steps that are counted, within one pass."""
    return min(arguments.steps, len(sequences) // arguments.batch - WARM_UP - 1)


def ours(sequences: list[list[int]], tokenizer: Any, classes: TokenClasses, arguments: Any) -> tuple[int, float]:
    """matfm's loop: packed batches of about as many tokens, logits only where a token is hidden."""
    tokens = RaggedTokens.from_sequences([(ids, [0.0] * len(ids)) for ids in sequences])
    longest = max(map(len, sequences))
    torch.manual_seed(0)
    config = MatBERTConfig(
        **SHAPE, vocab_size=len(tokenizer), position_embedding="absolute", max_position_embeddings=longest
    )
    model, clock = MatBERTForMaskedLM(config), Clock(arguments.device)

    def step(model: MatBERTForMaskedLM, batch: TokenBatch, rng: torch.Generator) -> StepOutput:
        clock.mark(batch.layout.tokens)
        masked = mask_tokens(batch.ids_N, batch.layout, classes, MASKING, rng)
        hidden_MD = model.matbert.forward_packed(masked.ids_N, None, batch.layout, masked.positions_M)
        total, weight = masked_lm_loss(model.lm_head(hidden_MD), masked.labels_M)
        return StepOutput(total, weight)

    loop = LoopConfig(steps=counted_steps(arguments, sequences) + WARM_UP + 1, checkpoint_every=10**9, log_every=10**9)
    with tempfile.TemporaryDirectory() as folder:
        batches = EpochBatches(tokens, arguments.tokens, seed=0, length_pool=arguments.length_pool)
        fit(model, step, batches, OptimizerConfig(), loop, Path(folder), seed=0, device=arguments.device)
    return clock.result()


def theirs(sampling: str) -> Callable[..., tuple[int, float]]:
    """Hugging Face's Trainer with BertForMaskedLM."""

    def run(sequences: list[list[int]], tokenizer: Any, _: TokenClasses, arguments: Any) -> tuple[int, float]:
        from transformers import (
            BertConfig,
            BertForMaskedLM,
            DataCollatorForLanguageModeling,
            Trainer,
            TrainingArguments,
        )

        longest = max(map(len, sequences))
        steps = arguments.default_steps if sampling == "random" else counted_steps(arguments, sequences)
        torch.manual_seed(0)
        model = BertForMaskedLM(
            BertConfig(**SHAPE, vocab_size=len(tokenizer), max_position_embeddings=longest, hidden_dropout_prob=0.0,
                       attention_probs_dropout_prob=0.0, type_vocab_size=1)
        )  # fmt: skip
        clock, collate = Clock(arguments.device), DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)

        def collate_and_mark(examples: list[dict[str, Any]]) -> Any:
            clock.mark(sum(len(example["input_ids"]) for example in examples))
            return collate([{"input_ids": example["input_ids"]} for example in examples])

        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model,
                TrainingArguments(
                    folder, per_device_train_batch_size=arguments.batch, max_steps=steps + WARM_UP + 1,
                    train_sampling_strategy=sampling, logging_strategy="no", save_strategy="no", report_to="none",
                    optim="adamw_torch_fused", use_cpu=arguments.device.type == "cpu", disable_tqdm=True,
                    remove_unused_columns=False, length_column_name="length", seed=0,
                ),
                train_dataset=[{"input_ids": ids, "length": len(ids)} for ids in sequences],
                data_collator=collate_and_mark,
            )  # fmt: skip
            trainer.train()
        return clock.result()

    return run


METHODS = {
    "matfm": ours,
    "huggingface_default": theirs("random"),
    "huggingface_length_grouping": theirs("group_by_length"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder with the package files")
    parser.add_argument("--task", choices=tuple(TASKS), action="append")
    parser.add_argument("--tokens", type=int, default=4096, help="real tokens a step, about")
    parser.add_argument("--steps", type=int, default=50, help="counted steps of each turn, or one pass if that is less")
    parser.add_argument("--default-steps", type=int, default=6, help="the same with the Trainer's default sampling")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every method")
    parser.add_argument("--length-pool", type=int, default=50, help="batches sorted by length together")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    arguments.device = resolve_device(arguments.device)
    for task in arguments.task or TASKS:
        data = TASKS[task](arguments.wheels)
        lengths = np.array([len(ids) for ids in data[0]])
        arguments.batch = round(arguments.tokens / lengths.mean())
        print(
            f"{task}: {len(lengths)} sequences, {lengths.mean():.1f} tokens on average, {lengths.max()} at most, "
            f"{arguments.batch} a step"
        )
        totals = {name: np.zeros(2) for name in METHODS}
        for _ in range(arguments.rounds):
            for name, method in METHODS.items():
                totals[name] += method(*data, arguments)
        rates = {name: tokens / seconds for name, (tokens, seconds) in totals.items()}
        for name, rate in rates.items():
            entry = {
                "benchmark": "throughput", "task": f"masked LM, {task}", "split": "run", "n": int(totals[name][0]),
                "seconds": round(totals[name][1], 2), "model": name, "metric": "tokens_per_second", "unit": "1/s",
            }  # fmt: skip
            append(RESULTS, record(arguments.device.type, 0, **entry, value=round(rate)))
            if name != "matfm":
                ratio = {**entry, "model": "matfm", "metric": f"ratio:{name}", "unit": "1"}
                append(RESULTS, record(arguments.device.type, 0, **ratio, value=round(rates["matfm"] / rate, 2)))
            print(f"{name:30} {rate:10.0f} tokens/s   matfm is {rates['matfm'] / rate:.2f} times as fast")


if __name__ == "__main__":
    main()
