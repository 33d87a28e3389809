"""The memory that `plan --dry` predicts, beside what torch hands out on a CPU."""

import gc
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.fast import nucleus, rows
from entrgi_ref.models import Dream, SequenceReward, VocabularyMap, causal
from entrgi_ref.models.reading import backbone_of, hidden_states, read_prefix
from entrgi_ref.paper.declared import memory
from entrgi_ref.paper.declared.memory import activations, predicted_memory
from entrgi_ref.paper.declared.shapes import Sizes
from entrgi_ref.paper.measured.networks import Sizes as Shaped
from entrgi_ref.paper.measured.networks import Words

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # its tokenizer is none of transformers

RECORDS = Path(__file__).parent.parent / "docs" / "records"
KINDS = {
    "qwen2": (Qwen2Config, Qwen2ForSequenceClassification),
    "qwen3": (Qwen3Config, Qwen3ForSequenceClassification),
}


def config(kind, vocabulary, width, inner, layers, heads, kv_heads, head):
    return KINDS[kind][0](
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head,
        max_position_embeddings=4096,
        pad_token_id=None,
        tie_word_embeddings=False,
        num_labels=1,
    )


def frozen(network, dtype):
    return network.to(getattr(torch, dtype)).requires_grad_(False).eval()


def pair(vocabulary, denoiser, reward, kind="qwen2", dtype="float32"):
    """Random networks. The reward model's embeddings are its own table, not a second one."""
    mask_predictor = frozen(Qwen2ForCausalLM(config("qwen2", vocabulary, *denoiser)), dtype)
    classifier = frozen(KINDS[kind][1](config(kind, vocabulary, *reward)), dtype)
    ids = torch.arange(vocabulary)
    dream = Dream(
        network=mask_predictor,
        tokenizer=Words(vocabulary),
        tokens=tuple(map(str, range(vocabulary))),
        writable=ids >= 2,
        mask_id=0,
        eos_id=1,
        pad_id=1,
    )
    return dream, SequenceReward(
        network=classifier,
        tokenizer=Words(vocabulary),
        vocabulary=VocabularyMap(ids, ids >= 0, vocabulary, ()),
        embeddings=classifier.get_input_embeddings().weight,
        eos_id=1,
        pad_id=1,
        prefix_cache=True,
    )


def most_held(call):
    """The most bytes that were held at once, by the books of torch's own allocator."""
    gc.collect()  # what other tests left would count as freed here
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


TINY, SMALL = (64, 256, 2, 1, 1, 64), (128, 384, 4, 4, 2, 32)
CASES = {
    "the real vocabulary": (152_064, TINY, TINY, "qwen2", "float32", [12], 1, 6),
    "the real vocabulary in 16 bits": (152_064, TINY, TINY, "qwen3", "bfloat16", [12], 1, 4),
    "long prompts": (385, TINY, SMALL, "qwen3", "float32", [500, 500], 2, 24),
    "uneven prompts": (3000, SMALL, (128, 384, 6, 4, 2, 32), "qwen2", "float32", [20, 200], 3, 32),
    "many layers": (1000, TINY, (128, 512, 16, 4, 4, 32), "qwen2", "float32", [60, 60], 2, 48),
    "a large denoiser": (999, (384, 1536, 2, 6, 6, 64), TINY, "qwen2", "float32", [150] * 2, 3, 8),
}
"""Vocabulary, denoiser, reward model, its kind and precision, prompts, K and N."""
SELDOM = ("the real vocabulary in 16 bits", "many layers", "a large denoiser")
"""By make test-slow."""


def ratio(case, steps, device="cpu", micro_batch=None, vocabulary_batch=None, **changes):
    """Predicted over measured. The changes are to the settings."""
    vocabulary, denoiser, reward, kind, dtype, lengths, K, N = case
    dream, judge = pair(vocabulary, denoiser, reward, kind, dtype)
    judge = replace(judge, micro_batch=micro_batch)
    prompts = [" ".join(["5"] * length) for length in lengths]
    settings = SamplingConfig(
        GuidanceConfig(steps=steps),
        **{"trajectories": K, "new_tokens": N, "denoising_steps": 2} | changes,
    )
    answer = partial(generate, dream, judge, vocabulary_batch=vocabulary_batch)
    answer(prompts[:1], settings)  # what torch keeps for ever is there by now
    measured = most_held(partial(answer, prompts, settings))
    predicted = predicted_memory(
        dream.network.config.to_dict(),
        judge.network.config.to_dict(),
        dream.encode(prompts).valid.sum(1).tolist(),
        K,
        N,
        dtype,
        gradient_steps=steps,
        device=device,
        suffix=1,
        micro_batch=micro_batch,
        vocabulary_batch=vocabulary_batch,
        pauses=settings.may_pause([N]),
    )
    return predicted.working / measured


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ()) for name in CASES],
)
def test_the_memory_is_predicted(name):
    """What is counted is exact to a few percent."""
    for steps in (2, 0):
        assert ratio(CASES[name], steps) == pytest.approx(1, abs=0.06), steps


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_that_are_held_for_the_next_step_are_predicted(dtype):
    case = (152_064, TINY, TINY, "qwen2", dtype, [12], 2, 4)
    assert ratio(case, 2, order="origin") == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_some_rows_at_a_time_take_less_memory(monkeypatch):
    """Of tables [n, V] phi, psi and Adam's two stay whole, or the two and what candidates are drawn
    from, q and its nucleus; and what a part takes is small.
    """
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", 2**14)
    V, n = 20_000, 64
    dream, judge = pair(V, TINY, TINY)
    for steps, least, most in ((2, 6, 4.3), (0, 4, 4.3)):
        config = SamplingConfig(
            GuidanceConfig(steps=steps), trajectories=1, new_tokens=n, denoising_steps=1
        )
        whole, parted = (
            most_held(partial(generate, dream, judge, ["5 5"], config, vocabulary_batch=size))
            / (4 * n * V)
            for size in (None, 2)
        )
        assert whole > least
        assert parted < most, steps


SLOWLY = [pytest.param(size, marks=pytest.mark.slow) for size in (1, 40, 1000)]


@pytest.mark.parametrize("size", [7, *SLOWLY])
def test_what_some_rows_at_a_time_take_is_predicted(monkeypatch, size):
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", 2**15)
    case = (20_000, TINY, TINY, "qwen2", "float32", [16, 16], 2, 16)
    for steps in (1, 3, 0):
        assert ratio(case, steps, vocabulary_batch=size) == pytest.approx(1, abs=0.06), steps


@pytest.mark.parametrize("size", [3, *SLOWLY])
def test_what_some_trajectories_at_a_time_take_is_predicted(size):
    case = (700, TINY, (128, 512, 6, 4, 4, 32), "qwen3", "float32", [60, 60], 4, 24)
    assert ratio(case, 2, micro_batch=size) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("most", [2**18, 2**26])
def test_the_tables_of_a_gpu_are_predicted(monkeypatch, most):
    """Without Triton the vocabulary is sorted there, so many numbers at a time."""
    monkeypatch.setattr(nucleus, "applies", lambda probabilities: False)
    monkeypatch.setattr(nucleus, "LARGE", 2**30)
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", most)
    monkeypatch.setitem(rows.AT_A_TIME, "cuda", most)
    case = (5000, TINY, TINY, "qwen2", "float32", [16, 16], 2, 40)
    for steps in (2, 0):
        assert ratio(case, steps, device="cuda") == pytest.approx(1, abs=0.06), steps


@pytest.mark.parametrize("name", ["bench-paper", "bench-paper-4b"])
def test_what_was_measured_on_a_gpu_is_predicted(name):
    """Networks of the real sizes in bfloat16, each with its own prompts all of one length."""
    record = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    shape = record["shape"]

    def config_of(sizes, kind):
        options = Shaped(**sizes).options | {"head_dim": sizes["head"]}
        made = KINDS[kind][0](vocab_size=shape["vocabulary"], tie_word_embeddings=False, **options)
        return made.to_dict()

    predicted = predicted_memory(
        config_of(shape["denoiser"], "qwen2"),
        config_of(shape["reward"], "qwen3"),
        [shape["prompt"] + 2] * shape["prompts"],
        shape["trajectories"],
        shape["new_tokens"],
        shape["dtype"],
        gradient_steps=shape["gradient_steps"],
        suffix=1,
    )
    assert predicted.working == pytest.approx(record["peak_memory_bytes"], rel=0.02)
    # One table, of the first step's logits, is the measurement's own; the embeddings are shared.
    held = predicted.weights - predicted.embeddings + predicted.table
    assert held == pytest.approx(record["held_before_bytes"], rel=0.02)


def test_uneven_prompts_on_a_gpu_are_predicted():
    record = json.loads((RECORDS / "gpu.json").read_text(encoding="utf-8"))
    settings, sampling = record["settings"], json.loads(record["settings"]["sampling"])
    predicted = predicted_memory(
        Qwen2Config(**settings["dream"], tie_word_embeddings=False).to_dict(),
        Qwen3Config(**settings["reward"]).to_dict(),
        record["prompt_tokens"],
        sampling["trajectories"],
        sampling["new_tokens"],
    )
    assert predicted.peak / 2**30 == pytest.approx(record["peak_memory_gib"], rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "S", "prompt", "answer"),
    [
        ((64, 160, 2, 4, 4, 16), 3, 20, 10),
        ((96, 256, 5, 4, 2, 32), 2, 90, 7),
        ((128, 200, 3, 8, 1, 16), 4, 3, 40),
    ],
)
def test_activations_are_those_that_autograd_keeps(kind, dtype, shape, S, prompt, answer):
    network = frozen(KINDS[kind][1](config(kind, 50, *shape)), dtype)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # else its address could be another's
        return tensor

    visible = torch.ones(S, prompt + answer, dtype=torch.bool)
    type_ = getattr(torch, dtype)
    with torch.no_grad():
        prefix = torch.randn(S, prompt, shape[0], dtype=type_)
        cache = read_prefix(network, prefix, visible[:, :prompt], 1)
    response = torch.randn(S, answer, shape[0], dtype=type_, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_states(network, response, visible, backbone=backbone_of(network, cache))
    sizes = Sizes.of(network.config.to_dict())
    predicted = activations(sizes, S, answer, prompt + answer, memory.BYTES[dtype])
    assert predicted == pytest.approx(sum(kept.values()), rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted(kind):
    shape = (96, 200, 3, 4, 2, 32)
    made = config(kind, 77, *shape)
    sizes = Sizes.of(made.to_dict())
    reward = KINDS[kind][1](made)
    assert sizes.as_reward == sum(p.numel() for p in reward.parameters())
    if kind == "qwen2":
        for tied in (False, True):
            made.tie_word_embeddings = tied
            dream = Qwen2ForCausalLM(made)
            count = sum(p.numel() for p in dream.parameters())
            assert Sizes.of(made.to_dict()).as_denoiser == count


def test_the_constants_are_those_of_the_code():
    assert memory.SCORED == causal.SCORE_BATCH


def test_what_is_not_known_is_said():
    with pytest.raises(ValueError, match="model_type: got 'gemma'"):
        Sizes.of({"model_type": "gemma"})
    with pytest.raises(ValueError, match="it lacks vocab_size, inter"):
        Sizes.of({"model_type": "qwen3", "hidden_size": 4})
