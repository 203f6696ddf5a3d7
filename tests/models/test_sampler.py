"""The sampler against its slow twin: one sequence at a time, everything computed again at every token."""

import numpy as np
import pytest
import torch

from matfm import MatGPTConfig, MatGPTForCausalLM
from matfm.core.constraints import AllowedTokens, Conjunction, Remembering, TokenLimit
from matfm.core.sampling import SamplingConfig, choose, uniforms
from matfm.models.sampler import Sampler

VOCABULARY, END, LONGEST = 20, 3, 7
SPECIAL = (0, 1, 2, 4)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = MatGPTConfig.of_size("tiny", vocab_size=VOCABULARY, initializer_range=0.4)
    return MatGPTForCausalLM(config).double().eval()


def slow_twin(model, prompt, config, index, seed, constraint=None):
    """Sample `index` by the definition: no cache, no batch."""
    numbers, ids, total = uniforms(seed, index, LONGEST), [], 0.0
    state = constraint.start() if constraint else None
    while len(ids) < LONGEST:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, -1].float()
        allowed = torch.ones(VOCABULARY, dtype=torch.bool)
        allowed[list(SPECIAL)] = False
        if constraint:
            allowed &= torch.from_numpy(constraint.allowed(state))
        masked = logits.masked_fill(~allowed, -torch.inf)[None]
        token = int(choose(masked, torch.tensor([numbers[len(ids)]]), config))
        total += float(logits.log_softmax(0)[token])
        if token == END:
            return tuple(ids), total, True
        ids.append(token)
        state = constraint.advance(state, token) if constraint else None
    return tuple(ids), total, False


def some_constraint():
    allowed, counted = np.ones(VOCABULARY, bool), np.zeros(VOCABULARY, bool)
    allowed[[7, 9]] = False
    counted[10:] = True
    return Remembering(Conjunction([AllowedTokens(allowed, END), TokenLimit(counted, 2)]), most=3)


@pytest.mark.parametrize("prompt", [[2], [2, 8, 15, 6]])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("config", [SamplingConfig(), SamplingConfig(0.7, 8, 0.9, 0.02), SamplingConfig(0.0)])
def test_equals_sampling_without_cache_and_batch(model, prompt, constrained, config):
    constraint = some_constraint() if constrained else None
    sampler = Sampler(model, prompt, LONGEST, config, constraint, seed=5, batch=4, special=SPECIAL)
    samples = sampler(0, 9)
    assert [sample.index for sample in samples] == list(range(9))
    for sample in samples:
        ids, log_probability, ended = slow_twin(model, prompt, config, sample.index, 5, constraint)
        assert (sample.ids, sample.ended) == (ids, ended)
        assert sample.log_probability == pytest.approx(log_probability, abs=1e-4)


def test_a_sample_depends_on_seed_and_number_only(model):
    def drawn(first, count, batch, seed=1):
        sampler = Sampler(model, [2], LONGEST, SamplingConfig(), seed=seed, batch=batch, special=SPECIAL)
        return [(sample.index, sample.ids) for sample in sampler(first, count)]

    whole = drawn(0, 20, 20)
    assert whole == drawn(0, 20, 1) == drawn(0, 20, 7)
    assert whole[11:19] == drawn(11, 8, 5)
    assert whole != drawn(0, 20, 20, seed=2)
    assert drawn(0, 0, 4) == []


def test_likeliest_tokens_are_those_of_hugging_face(model):
    sampler = Sampler(model, [2, 8], LONGEST, SamplingConfig(0.0), batch=2)
    made = model.generate(torch.tensor([[2, 8]]), max_new_tokens=LONGEST, do_sample=False)[0, 2:].tolist()
    (one,) = sampler(0, 1)
    assert list(one.ids) + [END] * one.ended == made


def test_shares_of_first_tokens_are_the_models(model):
    sampler = Sampler(model, [2], 1, SamplingConfig(), batch=500)
    with torch.no_grad():
        expected = model(torch.tensor([[2]])).logits[0, -1].softmax(dim=0).numpy()
    tokens = [sample.ids[0] if sample.ids else END for sample in sampler(0, 4000)]
    found = np.bincount(tokens, minlength=VOCABULARY) / 4000
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_the_limit_cuts_and_says_so(model):
    samples = Sampler(model, [2], 4, SamplingConfig(), special=[*SPECIAL, END], batch=3)(0, 5)
    assert all(len(sample.ids) == 4 and not sample.ended for sample in samples)
