"""Sampling from MatGPT in batches that stay full: a static cache, and finished rows replaced at once.

Hugging Face's `generate` computes every row until the longest of its batch has ended, and copies its cache at every
step. Here a row that ends makes room for the next sample in the same step, and every prompt is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matfm.core.attention_context import AttentionContext, AttentionRun
from matfm.core.constraints import TokenConstraint
from matfm.core.positions import Rotation
from matfm.core.sampling import SamplingConfig, choose, uniforms
from matfm.core.slot_cache import PromptCache, SlotCache
from matfm.models.matgpt import MatGPTForCausalLM

# B rows, S slots, C prompts, P tokens of a prompt, M rows that choose, V vocabulary, D width


@dataclass(frozen=True)
class Sampled:
    """One sequence."""

    index: int
    """Number of the sample."""
    ids: tuple[int, ...]
    """Tokens after the prompt, without the end token."""
    log_probability: float
    """Natural logarithm of the model's own probability of these tokens and the end, given the prompt: before
    temperature, cuts and constraints."""
    ended: bool
    """Whether the end token came; else the sequence was cut at the limit."""


class Sampler:
    """Draws sequences one token at a time.

    Sample i depends on the seed and i, not on the others: its random numbers are its own. Logits of batches of
    different sizes may differ in their last bits, which can change a token if its random number lies just there.

    Args:
        model: in evaluation mode.
        prompt: P ≥ 1 token ids that every sequence begins with, [CLS] first; or a function that gives them for the
            number of a sample, always equally many.
        longest: most tokens after the prompt, the end token included.
        config: how tokens are drawn.
        constraint: which tokens may come after the prompt; None for all but special tokens.
        seed: of the random numbers.
        batch: rows that are computed together.
        special: token ids that are never drawn, beside what the constraint forbids. The end token is not among them.
    """

    def __init__(
        self,
        model: MatGPTForCausalLM,
        prompt: Sequence[int] | Callable[[int], Sequence[int]],
        longest: int,
        config: SamplingConfig,
        constraint: TokenConstraint | None = None,
        seed: int = 0,
        batch: int = 256,
        special: Sequence[int] = (),
    ) -> None:
        self._model, self._prompt, self._longest = model, prompt, longest
        self._config, self._constraint, self._seed, self._batch = config, constraint, seed, batch
        self._end = int(model.config.eos_token_id)
        drawn_V = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
        drawn_V[list(special)] = False
        self._drawn_V = drawn_V

    def __call__(self, first: int, count: int) -> list[Sampled]:
        """Samples `first` to `first + count - 1`, in that order."""
        if count < 1:
            return []
        prompts_CP, prompt_of = self._prompts(first, count)
        with torch.inference_mode():
            batch = _Batch(self._model, prompts_CP, prompt_of, min(self._batch, count), self._longest)
            done = batch.run(self, first, count)
        return sorted(done, key=lambda sample: sample.index)

    def _prompts(self, first: int, count: int) -> tuple[Tensor, dict[int, int]]:
        """The different prompts of some samples, (C, P), and which of them each sample has, if there are several."""
        if not callable(self._prompt):
            return torch.tensor([list(self._prompt)]), {}
        number: dict[tuple[int, ...], int] = {}
        prompt_of = {
            index: number.setdefault(tuple(self._prompt(index)), len(number)) for index in range(first, first + count)
        }
        return torch.tensor(list(number)), prompt_of if len(number) > 1 else {}

    def start(self) -> Hashable:
        """State of the constraint after the prompt."""
        return None if self._constraint is None else self._constraint.start()

    def choose(self, logits_MV: Tensor, uniform_M: np.ndarray, states: list[Hashable]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens, and their log-probabilities under the model alone."""
        drawn_MV = self._drawn_V
        if self._constraint is not None:
            allowed_MV = np.stack([self._constraint.allowed(state) for state in states])
            drawn_MV = drawn_MV & torch.from_numpy(allowed_MV).to(logits_MV.device)
        uniform = torch.from_numpy(uniform_M)
        uniform = uniform.float() if logits_MV.device.type == "mps" else uniform
        masked_MV = logits_MV.float().masked_fill(~drawn_MV, -torch.inf)
        token_M = choose(masked_MV, uniform.to(logits_MV.device), self._config)
        log_M = logits_MV.float().log_softmax(dim=-1).gather(1, token_M[:, None])[:, 0]
        return token_M.cpu().numpy(), log_M.cpu().numpy()

    def advance(self, states: list[Hashable], tokens: np.ndarray) -> list[Hashable]:
        """States after one more token each."""
        constraint = self._constraint
        if constraint is None:
            return states
        ended = tokens == self._end
        moves = zip(states, tokens.tolist(), ended.tolist(), strict=True)
        return [state if end else constraint.advance(state, token) for state, token, end in moves]

    def numbers(self, index: int) -> np.ndarray:
        """Random numbers of one sample."""
        return uniforms(self._seed, index, self._longest)

    def is_end(self, tokens: np.ndarray) -> np.ndarray:
        """Which tokens end a sequence."""
        return tokens == self._end


class _Batch:
    """The rows that are computed together. Slots 0 to P - 1 of the cache hold the row's prompt."""

    def __init__(
        self, model: MatGPTForCausalLM, prompts_CP: Tensor, prompt_of: dict[int, int], rows: int, longest: int
    ) -> None:
        config = model.config
        width = config.hidden_size // config.num_attention_heads
        self._model, self._prompt_length, self._prompt_of = model, prompts_CP.shape[1], prompt_of
        slots = self._prompt_length + longest
        weight = model.lm_head.weight
        self._cache = SlotCache(config.num_hidden_layers, rows, slots, config.num_attention_heads, width, weight)
        self._rotations = model.matgpt.rotary(torch.arange(slots, device=weight.device), weight.dtype)
        self._prompts = PromptCache()
        self._prompt_logits_CV = self._read_prompts(prompts_CP.to(weight.device))
        self._slots_S = torch.arange(slots, device=weight.device)
        self._tokens_BT = np.zeros((rows, longest), np.int64)
        self._numbers_BT = np.zeros((rows, longest))
        self._length_B = np.zeros(rows, np.int64)
        self._log_B = np.zeros(rows)
        self._index_B = np.full(rows, -1)
        self._states: list[Hashable] = [None] * rows

    def run(self, sampler: Sampler, first: int, count: int) -> list[Sampled]:
        """All samples, as they end."""
        done: list[Sampled] = []
        waiting = iter(range(first, first + count))
        rows, logits_MV = self._begin(np.arange(len(self._index_B)), waiting, sampler)
        while len(rows):
            while len(rows):
                ended = self._choose(rows, logits_MV, sampler, done)
                rows, logits_MV = self._begin(ended, waiting, sampler)
            self._drop_idle()
            rows = np.flatnonzero(self._index_B >= 0)
            if len(rows):
                logits_BV = self._forward()
                logits_MV = logits_BV if len(rows) == len(logits_BV) else logits_BV[torch.from_numpy(rows)]
        return done

    def _begin(self, rows: np.ndarray, waiting: Iterator[int], sampler: Sampler) -> tuple[np.ndarray, Tensor]:
        """Give rows the next samples; returns those that got one, and the logits (M, V) after their prompts."""
        begun = []
        for row in rows.tolist():
            index = next(waiting, -1)
            self._index_B[row] = index
            if index >= 0:
                self._length_B[row], self._log_B[row] = 0, 0.0
                self._numbers_BT[row] = sampler.numbers(index)
                self._states[row] = sampler.start()
                begun.append(row)
        chosen = np.array(begun, np.int64)
        if not self._prompt_of:
            return chosen, self._prompt_logits_CV.expand(len(begun), -1)
        prompts = torch.tensor([self._prompt_of[index] for index in self._index_B[chosen].tolist()], dtype=torch.long)
        prompts = prompts.to(self._slots_S.device)
        places = torch.from_numpy(chosen).to(self._slots_S.device)
        for layer, (keys, values) in enumerate(self._prompts.layers):
            self._cache.begin(layer, keys[prompts], values[prompts], places)
        return chosen, self._prompt_logits_CV[prompts]

    def _choose(self, rows: np.ndarray, logits_MV: Tensor, sampler: Sampler, done: list[Sampled]) -> np.ndarray:
        """One more token for the given rows; returns those that ended by it."""
        place_M = self._length_B[rows]
        states = [self._states[row] for row in rows]
        tokens, logs = sampler.choose(logits_MV, self._numbers_BT[rows, place_M], states)
        for row, state in zip(rows.tolist(), sampler.advance(states, tokens), strict=True):
            self._states[row] = state
        self._tokens_BT[rows, place_M] = tokens
        self._log_B[rows] += logs
        is_end = sampler.is_end(tokens)
        self._length_B[rows] += ~is_end
        over = is_end | (self._length_B[rows] == self._tokens_BT.shape[1])
        for row, ended in zip(rows[over].tolist(), is_end[over].tolist(), strict=True):
            ids = tuple(self._tokens_BT[row, : self._length_B[row]].tolist())
            done.append(Sampled(int(self._index_B[row]), ids, float(self._log_B[row]), ended))
        return rows[over]

    def _drop_idle(self) -> None:
        """Leave out rows without a sample once they are a quarter: at the end of a run no sample waits."""
        busy = np.flatnonzero(self._index_B >= 0)
        if not len(busy) or len(busy) > 0.75 * len(self._index_B):
            return
        self._cache.keep(torch.from_numpy(busy).to(self._slots_S.device))
        for name in ("_tokens_BT", "_numbers_BT", "_length_B", "_log_B", "_index_B"):
            setattr(self, name, getattr(self, name)[busy])
        self._states = [self._states[row] for row in busy]

    def _forward(self) -> Tensor:
        """Logits (B, V) after the last token of every row."""
        device = self._slots_S.device
        slots = self._prompt_length + np.maximum(self._length_B, 1) - 1
        rows = np.arange(len(slots))
        tokens_B = torch.from_numpy(self._tokens_BT[rows, np.maximum(self._length_B, 1) - 1]).to(device)
        slots_B = torch.from_numpy(slots).to(device)
        self._cache.place(slots_B, int(slots.max()))
        seen = self._cache.seen
        mask = (self._slots_S[:seen] <= slots_B[:, None])[:, None, None, :]
        turned = self._rotations
        rotation = Rotation(turned.cosine[slots_B][:, None, None], turned.sine[slots_B][:, None, None])
        run = AttentionRun(len(slots), 1, seen, mask, rotation=rotation)
        hidden_BD = self._model.matgpt.embed_tokens(tokens_B)
        return self._model.lm_head(self._model.matgpt.decoder(hidden_BD, AttentionContext((run,), self._cache))[-1])

    def _read_prompts(self, ids_CP: Tensor) -> Tensor:
        """Compute every prompt once, and begin all rows with it if it is the only one; logits (C, V) after them."""
        count, length = ids_CP.shape
        run = AttentionRun(count, length, length, causal=True, rotation=self._rotations.first(length))
        hidden = self._model.matgpt.embed_tokens(ids_CP.flatten())
        states = self._model.matgpt.decoder(hidden, AttentionContext((run,), self._prompts))[-1]
        if not self._prompt_of:
            for layer, (keys, values) in enumerate(self._prompts.layers):
                self._cache.begin(layer, keys, values)
        # One by one, as a product of several rows may differ in its last bits from that of one.
        return torch.stack([self._model.lm_head(last_D) for last_D in states.view(count, length, -1)[:, -1]])
