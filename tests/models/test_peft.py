"""LoRA and prompt tuning by PEFT of MatGPT and MatT5: few numbers are trained, kept, loaded and merged."""

import pytest
import torch

from matfm import MatGPTConfig, MatGPTForCausalLM, MatT5Config, MatT5ForConditionalGeneration, SmilesTokenizer

peft = pytest.importorskip("peft")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),  # PEFT asks by the old name
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]

SOURCES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN", "C#N", "CC(C)C", "OCC=C", "FC(F)F"]
TARGETS = ["OCC", "C1=CC=CC=C1", "OC(C)=O", "NCC", "N#C", "C(C)(C)C", "C=CCO", "C(F)(F)F"]
TOKENIZER = SmilesTokenizer(padding_side="left")
MAPS = {"CAUSAL_LM": ["qkv", "out", "gate_up", "down"], "SEQ_2_SEQ_LM": ["qkv", "q", "kv", "out", "gate_up", "down"]}
TASKS = list(MAPS)
RANK, PROMPT = 4, 3


def plain(task):
    """The same pretrained model at each call; wide initial weights make every part matter."""
    torch.manual_seed(0)
    cls, config = {
        "CAUSAL_LM": (MatGPTForCausalLM, MatGPTConfig),
        "SEQ_2_SEQ_LM": (MatT5ForConditionalGeneration, MatT5Config),
    }[task]
    return cls(config.of_size("tiny", vocab_size=len(TOKENIZER), initializer_range=0.3)).eval()


def batch(task):
    sources, targets = (TOKENIZER(texts, padding=True, return_tensors="pt") for texts in (SOURCES, TARGETS))
    predicted = sources if task == "CAUSAL_LM" else targets
    labels = predicted["input_ids"].masked_fill(predicted["attention_mask"] == 0, -100)
    return {**sources, "labels": labels}


def adapted(task, method):
    config = {
        "lora": peft.LoraConfig(task_type=task, r=RANK, target_modules=MAPS[task]),
        "prompt": peft.PromptTuningConfig(task_type=task, num_virtual_tokens=PROMPT),
    }[method]
    return peft.get_peft_model(plain(task), config)


def trained(task, method, steps=10):
    tuned = adapted(task, method).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=3e-2)
    losses = []
    for _ in range(steps):
        loss = tuned(**batch(task)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return tuned.eval(), losses


def trained_numbers(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("task", TASKS)
def test_lora_trains_its_two_thin_matrices_and_prompt_tuning_its_vectors(task):
    lora, prompt = adapted(task, "lora"), adapted(task, "prompt")
    maps = [
        module
        for name, module in plain(task).named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in MAPS[task]
    ]
    assert trained_numbers(lora) == sum(RANK * (each.in_features + each.out_features) for each in maps)
    # PEFT holds a prompt for each half of an encoder–decoder model and puts the first before the source.
    halves = 1 if task == "CAUSAL_LM" else 2
    assert trained_numbers(prompt) == halves * PROMPT * 64
    assert trained_numbers(lora) < 0.3 * sum(parameter.numel() for parameter in plain(task).parameters())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_it_learns_generates_and_is_the_same_when_loaded(task, method, tmp_path):
    tuned, losses = trained(task, method)
    assert losses[-1] < 0.9 * losses[0]
    tuned.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 4 * trained_numbers(tuned) + 10_000
    loaded = peft.PeftModel.from_pretrained(plain(task), tmp_path).eval()
    torch.testing.assert_close(loaded(**batch(task)).logits, tuned(**batch(task)).logits)
    sources = {name: values for name, values in batch(task).items() if name != "labels"}
    made, again = (
        model.generate(**sources, max_new_tokens=4, do_sample=False, use_cache=cached)
        for model, cached in ((tuned, True), (loaded, False))
    )
    assert torch.equal(made, again)


@pytest.mark.parametrize("task", TASKS)
def test_merged_lora_equals_the_adapter_and_unloaded_lora_the_model_before(task):
    tuned, _ = trained(task, "lora")
    tuned, before = tuned.double(), plain(task).double()
    expected = tuned(**batch(task)).logits
    with tuned.disable_adapter():
        torch.testing.assert_close(tuned(**batch(task)).logits, before(**batch(task)).logits)
    merged = tuned.merge_and_unload()
    assert type(merged) is type(before)
    assert merged.state_dict().keys() == before.state_dict().keys()
    torch.testing.assert_close(merged(**batch(task)).logits, expected)
    assert not torch.allclose(before(**batch(task)).logits, expected)
