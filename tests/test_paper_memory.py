"""The memory that `plan --dry` predicts, beside what torch hands out on a CPU."""

import gc
import json
import random
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import product
from math import prod
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.fast import adam, gradient, nucleus, rows
from entrgi_ref.models import Dream, LikelihoodReward, SequenceReward, VocabularyMap
from entrgi_ref.models.causal import SCORE_BATCH
from entrgi_ref.models.reading import backbone_of, hidden_states, read_prefix
from entrgi_ref.paper.declared import memory
from entrgi_ref.paper.declared.memory import activations, predicted_memory
from entrgi_ref.paper.declared.shapes import REQUIRED, Sizes
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
OFTEN = ("the real vocabulary",)
"""By make test; the others by make test-slow."""


def likelihood(judge, sizes, dtype):
    """A causal model in the place of a reward model of some sizes."""
    vocabulary = judge.network.config.vocab_size
    network = frozen(Qwen3ForCausalLM(config("qwen3", vocabulary, *sizes)), dtype)
    network.config.architectures = ["Qwen3ForCausalLM"]
    parts = {field.name: getattr(judge, field.name) for field in fields(judge)}
    table = network.get_input_embeddings().weight
    return LikelihoodReward(**parts | {"network": network, "embeddings": table})


def ratio(
    case, steps, device="cpu", micro_batch=None, vocabulary_batch=None, causal=False, **changes
):
    """Predicted over measured. The changes are to the settings."""
    vocabulary, denoiser, reward, kind, dtype, lengths, K, N = case
    dream, judge = pair(vocabulary, denoiser, reward, kind, dtype)
    judge = likelihood(judge, reward, dtype) if causal else judge
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
    [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in CASES],
)
def test_the_memory_is_predicted(name):
    """What is counted is exact to a few percent."""
    for steps in (2, 0):
        assert ratio(CASES[name], steps) == pytest.approx(1, abs=0.06), steps


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_logits_that_are_held_for_the_next_step_are_predicted(dtype):
    case = (152_064, TINY, TINY, "qwen2", dtype, [12], 2, 4)
    assert ratio(case, 2, order="origin") == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_what_a_causal_model_takes_as_a_reward_is_predicted(dtype):
    """Its logits, for each token that it is asked about."""
    case = (3000, TINY, TINY, "qwen3", dtype, [12, 12], 3, 12)
    assert ratio(case, 2, causal=True) == pytest.approx(1, abs=0.02)
    assert ratio(case, 2, causal=True, micro_batch=2) == pytest.approx(1, abs=0.02)


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


def sizes(usual):
    """One by make test-slow, more by make test-deep."""
    more = [pytest.param(size, marks=pytest.mark.deep) for size in (1, 40, 1000)]
    return pytest.mark.parametrize("size", [pytest.param(usual, marks=pytest.mark.slow), *more])


@sizes(7)
def test_what_some_rows_at_a_time_take_is_predicted(monkeypatch, size):
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", 2**15)
    case = (20_000, TINY, TINY, "qwen2", "float32", [16, 16], 2, 16)
    for steps in (1, 3, 0):
        assert ratio(case, steps, vocabulary_batch=size) == pytest.approx(1, abs=0.06), steps


@sizes(3)
def test_what_some_trajectories_at_a_time_take_is_predicted(size):
    case = (700, TINY, (128, 512, 6, 4, 4, 32), "qwen3", "float32", [60, 60], 4, 24)
    assert ratio(case, 2, micro_batch=size) == pytest.approx(1, abs=0.06)


@pytest.mark.slow
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
    assert memory.SCORED == SCORE_BATCH


def test_what_is_not_known_is_said():
    with pytest.raises(ValueError, match="model_type: got 'gemma'"):
        Sizes.of({"model_type": "gemma"})
    with pytest.raises(ValueError, match="it lacks vocab_size, inter"):
        Sizes.of({"model_type": "qwen3", "hidden_size": 4})
    with pytest.raises(ValueError, match=r"^model_type: got \[\], expected one of"):
        Sizes.of({"model_type": []})


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_attention_heads", 0), ("hidden_size", -4), ("head_dim", "x"), ("head_dim", {"a": 1})],
)
def test_sizes_are_integers_from_1_on(field, value):
    right = dict.fromkeys(REQUIRED, 4) | {"model_type": "qwen2", "head_dim": None}
    assert Sizes.of(right).head == 1
    with pytest.raises(ValueError, match=f"^{field}: got .*, expected an integer of at least "):
        Sizes.of(right | {field: value})


# Everything to the byte, on the sizes of any network: what is alive, tensor by tensor


def numbers(*shapes):
    return sum(map(prod, shapes))


def kept_for_the_backward_pass(s, S, read, seen, b):
    t, wide = S * read, max(b, 4)
    norm = [(t, s.width), (t,)]
    heads = [(t, s.queries), (t, s.keys), (t, s.heads), (t, s.kv_heads)]
    attention = [(t, s.queries), (S, seen, s.repeated), (S, seen, s.repeated), (t, s.queries)]
    gated, rotations, mask = [(t, s.inner)] * 3, [(t, s.head)] * 2, (t, seen)
    in_full = [*norm, *norm, (t, s.heads), *(heads if s.kind == "qwen3" else [])]
    layer = wide * numbers(*in_full) + b * numbers(*attention, mask, *gated)
    last_tokens = 8 * numbers((2, S))
    return s.layers * layer + wide * numbers(*norm) + b * numbers(*rotations) + last_tokens


def taken_by_the_backward_pass(s, S, read, seen, b):
    t, states, gates = S * read, [(S * read, s.width)] * 2, [(S * read, s.inner)] * 3
    keys = [(S, seen, s.repeated)] * 2
    after_gates = numbers(*[(t, s.queries)] * 2, *states, *keys) - numbers(*gates)
    return b * max(numbers(*gates, *states), after_gates)


def taken_by_a_forward_pass(s, S, read, seen, b, padding=False):
    t = S * read
    # The mask predictor's last layer is narrow, and in the first one two of the three are one.
    vectors = 2 if padding and s.layers < 3 else 3
    around = [(t, s.width)] * vectors + [(t, s.head)] * 2
    queries, keys, seen_keys = (t, s.queries), (t, s.keys), (S, seen, s.keys)
    gated = [(t, s.width), *[(t, s.inner)] * 3]
    rotated = [*[queries] * 4, keys, keys], [queries, queries, *[keys] * 5]
    copied = [(S, seen, s.queries)] * 2 if 1 < s.kv_heads < s.heads else []
    mask = [] if padding else [(t, seen)]
    attention = [*[seen_keys] * 2, *[queries] * 2, *copied, *mask]
    most = max(numbers(*some) for some in (gated, *rotated, attention))
    return b * (numbers(*around) + most) + numbers(*mask)  # the mask also as bool


def saved_by_rounding(s, b, bits):
    """Less than the layers' products take with b bytes a number."""
    products = [
        (s.queries, s.width),
        (s.keys, s.width),
        (s.keys, s.width),
        (s.width, s.queries),
        (s.inner, s.width),
        (s.inner, s.width),
        (s.width, s.inner),
    ]
    whole, rows = numbers(*products), sum(rows for rows, _ in products)
    layer = {
        None: whole * b,
        "8bit": whole + rows * b,  # a scale for each row
        "4bit": whole // 2 + 4 * whole // 64,  # and for each 64 numbers
    }[bits]
    return s.layers * (whole * b - layer)


def some_sizes(chance, heads=(1, 2, 3, 6)):
    kv_heads = chance.choice(heads)
    return Sizes(
        kind=chance.choice(["qwen2", "qwen3", "llama"]),
        vocabulary=chance.randint(40, 90),
        width=8 * chance.randint(1, 9),
        inner=8 * chance.choice([1, 2, 30]),
        layers=chance.randint(1, 5),
        heads=kv_heads * chance.choice([1, 2]),
        kv_heads=kv_heads,
        head=8 * chance.randint(1, 4),
        tied=chance.random() < 0.5,
    )


def test_the_tensors_of_a_pass_are_counted_to_the_byte():
    chance = random.Random(0)
    for _ in range(300):
        sizes, b = some_sizes(chance), chance.choice([2, 4, 8])
        S, read = chance.randint(1, 9), chance.randint(1, 40)
        case = sizes, S, read, read + chance.choice([0, 1, 50, 500]), b
        assert activations(*case) == kept_for_the_backward_pass(*case), case
        assert memory.backward(*case) == taken_by_the_backward_pass(*case), case
        for padding in (False, True):
            expected = taken_by_a_forward_pass(*case, padding)
            assert memory.forward(*case, padding) == expected, case
        assert memory.forward(*case) == taken_by_a_forward_pass(*case)
        for bits in (None, "8bit", "4bit"):
            assert memory.saved(sizes, b, bits) == saved_by_rounding(sizes, b, bits), (case, bits)


def config_of(sizes, tied):
    """That config.json which says so."""
    assert sizes.kind != "llama"
    return {
        "model_type": sizes.kind,
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head,
        "tie_word_embeddings": tied,
    }


DENOISER = Sizes("qwen2", 101, 24, 56, 3, 4, 2, 8)
JUDGE = Sizes("qwen3", 97, 40, 32, 5, 6, 3, 16)
LENGTHS, K, N = [5, 13, 2], 2, 7
BATCH = {  # options of `predicted_memory` -> those of the counts by hand
    "as a run has it": ({}, {}),
    "without gradients": ({"gradient_steps": 0}, {"M": 0}),
    "one gradient step": ({"gradient_steps": 1}, {"M": 1}),
    "two": ({"gradient_steps": 2}, {"M": 2}),
    "some trajectories at a time": ({"micro_batch": 4}, {"rows": 4}),
    "all of them and more": ({"micro_batch": 7}, {"rows": 6}),
    "some positions at a time": ({"vocabulary_batch": 5}, {"n": 5}),
    "all positions and more": ({"vocabulary_batch": 50}, {"n": 42}),
    "logits that are held": ({"pauses": True}, {"held": 42 * 101}),
    "a rounded reward model": ({"quantize": {"reward": "4bit"}}, {"bits": (None, "4bit")}),
    "a rounded mask predictor": ({"quantize": {"denoiser": "8bit"}}, {"bits": ("8bit", None)}),
    "another template": ({"suffix": 5}, {"suffix": 5}),
    "a large vocabulary": ({}, {"large": 101}),
}


@pytest.mark.parametrize(
    ("dtype", "b", "guidance_dtype", "g"),
    [("bfloat16", 2, "float32", 4), ("float32", 4, "float32", 4), ("float64", 8, "bfloat16", 2)],
)
@pytest.mark.parametrize("name", BATCH)
def test_the_tensors_at_each_moment_are_counted_to_the_byte(
    monkeypatch, name, dtype, b, guidance_dtype, g
):
    options, by_hand = BATCH[name]
    M, suffix, S = by_hand.get("M", 3), by_hand.get("suffix", 2), len(LENGTHS) * K
    V, n, part, micro = 101, S * N, by_hand.get("n", S * N), by_hand.get("rows", S)
    monkeypatch.setattr(memory, "SCORED", 4)
    monkeypatch.setattr(nucleus, "LARGE", by_hand.get("large", 102))
    monkeypatch.setitem(gradient.TOKENS, "cuda", 20)
    bits = by_hand.get("bits", (None, None))
    found = predicted_memory(
        *(config_of(DENOISER, False), config_of(JUDGE, True), LENGTHS, K, N),
        *(dtype, guidance_dtype),
        **options,
    )

    table, q = n * V * g, part * V * g
    read, whole = N + suffix, 13 + N + suffix
    copies = {
        "denoiser": 24 * 56 * b if bits[0] else 0,
        "reward": 40 * (6 * 16) * b if bits[1] else 0,
    }
    reading = taken_by_a_forward_pass(DENOISER, S, 13 + N, 13 + N, b, padding=True)
    reading += copies["denoiser"]
    keys_and_values = 5 * 2 * S * 13 * (3 * 16) * b if M else 0
    each = g if "large" in by_hand and g == 4 else 5 * g + 16
    sorting = {some: some * V * each for some in (n, part)}
    moments = {
        "the draw of candidates": 3 * table + max(sorting[n], table + 8 * n * V),
        "the order": 3 * table + 4 * table,
        "the mask predictor": reading,
    }
    kept = 0
    if M:
        kept = kept_for_the_backward_pass(JUDGE, micro, read, 13 + read, b)
        backward = taken_by_the_backward_pass(JUDGE, micro, read, 13 + read, b)
        vectors = b * numbers(*[(n, 40)] * 4, *[(S * read, 40)] * 2)
        tables = (2 if M == 1 else 4) * table + q
        moments |= {
            "the nucleus in guidance": tables + sorting[part],
            "the draw of hard tokens": tables + q + 8 * part * V,
            "the weight": tables + 3 * q,
            "the soft embedding": tables + (part * V * b if b != g else 0),
            "the reward model's gradient": tables + vectors + kept + copies["reward"] + backward,
            "the gradient of the logits": tables + 3 * part * 20 * g + vectors,
            "the optimiser's step": 4 * table + q + q,
            "reading the prompts": 2 * table
            + q
            + keys_and_values // K
            + copies["reward"]
            + taken_by_a_forward_pass(JUDGE, 3, 13, 13, b),
        }
    moments = {moment: most + by_hand.get("held", 0) * b for moment, most in moments.items()}
    moments["the prediction"] = 2 * table
    scoring = taken_by_a_forward_pass(JUDGE, 4, whole, whole, b)
    moments["the final scores"] = copies["reward"] + scoring
    assert found.moments == {name: keys_and_values + most for name, most in moments.items()}
    without_moments = {key: size for key, size in asdict(found).items() if key != "moments"}
    assert without_moments == {
        "denoiser": DENOISER.as_denoiser * b - saved_by_rounding(DENOISER, b, bits[0]),
        "reward": JUDGE.as_reward * b - saved_by_rounding(JUDGE, b, bits[1]),
        "embeddings": V * 40 * b,
        "table": table,
        "cache": keys_and_values,
        "activations": kept,
        "reading": reading,
    }
    assert found.weights == found.denoiser + found.reward + found.embeddings
    assert found.working == found.moments[found.fullest] == max(found.moments.values())
    assert found.peak == found.weights + found.working


def test_likelihoods_are_asked_for_as_many_trajectories_as_are_read_at_a_time():
    """Three numbers of float32 for each word, as the difference of two vocabularies shows."""
    moment, seen = "the reward model's gradient", {}
    for most in (None, 2, 4):
        few, many = (
            predicted_memory(
                config_of(DENOISER, False),
                config_of(JUDGE, False)
                | {"architectures": ["Qwen3ForCausalLM"], "vocab_size": words},
                *(LENGTHS, K, N),
                micro_batch=most,
            ).moments[moment]
            for words in (20_000, 21_000)
        )
        seen[most] = (many - few) / (3 * 1000 * 4)
    read = N + 2  # the suffix of a template
    assert seen == {most: (most or len(LENGTHS) * K) * read for most in (None, 2, 4)}


def test_a_single_answer_is_scored_alone(monkeypatch):
    config = config_of(JUDGE, True)
    for S in (1, 16, 17):
        found = predicted_memory(config, config, [9], S, 4, gradient_steps=0)
        scoring = taken_by_a_forward_pass(JUDGE, min(S, 16), 15, 15, 2)
        assert found.moments["the final scores"] == scoring


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_parts_of_tables_are_those_that_the_code_works_on(monkeypatch, device):
    """The rows at a time, and from which size on a table is sorted, or stepped, another way."""
    monkeypatch.setitem(rows.AT_A_TIME, device, 24)
    for name in ("cpu", "cuda"):
        monkeypatch.setitem(rows.AT_A_TIME, name, 24)
    monkeypatch.setattr(nucleus, "LARGE", 6)
    monkeypatch.setattr(adam, "LARGE", 24)
    seen = []

    @rows.by_rows
    def noted(table):
        seen.append(table.numel())
        return table

    for n, V in product((1, 2, 4, 5), (1, 5, 6, 12, 13, 24, 25)):
        noted(torch.zeros(n, V))
        tables = memory._Tables(n, V, 4, device)
        assert tables.part == max(seen), (n, V)
        if nucleus._large(torch.zeros(n, V)):
            assert tables.nucleus == 4 * n * V
        else:
            assert tables.nucleus > 4 * n * V
        fused = adam.adam([torch.zeros(n, V)], lr=1).defaults["fused"]
        assert tables.adam == (0 if fused else 4 * n * V), (n, V)
        assert memory._Tables(n, V, 2, device).adam == 2 * n * V
        seen.clear()


def test_sorting_takes_the_tables_that_are_alive_at_once(monkeypatch):
    """Of what is sorted at a time values, their ids, and sums; beside them the table that parts are
    put into, and the part before.
    """
    monkeypatch.setitem(rows.AT_A_TIME, "cuda", 100)
    monkeypatch.setitem(rows.AT_A_TIME, "cpu", 100)
    of_a_number = {2: 5 * 2 + 16, 4: 5 * 4 + 16, 8: 5 * 8 + 16}
    for g, each in of_a_number.items():
        assert memory._Tables(10, 10, g, "cuda").nucleus == 100 * each
        # Ten rows of eleven: nine are a part, and one is left.
        assert memory._Tables(10, 11, g, "cuda").nucleus == max(
            99 * each, (110 + 99) * g + 11 * each
        )
        assert memory._Tables(40, 10, g, "cuda").nucleus == max(
            100 * each, (400 + 100) * g + 100 * each
        )
        assert memory._Tables(40, 10, g, "cpu").nucleus == 400 * (g + 16)
        parted = memory._Tables(40, 11, g, "cuda")
        assert (parted.draw, parted.entropy, parted.weight) == (8 * 99, 4 * 99 * g, 3 * 99 * g)
    assert memory._Tables(2, nucleus.LARGE - 1, 4, "cpu").nucleus == 20 * 2 * (nucleus.LARGE - 1)
    for g, device in ((2, "cpu"), (8, "cpu")):
        assert memory._Tables(2, nucleus.LARGE, g, device).nucleus == (g + 16) * 2 * nucleus.LARGE
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(gradient.TOKENS, device, 7)
        assert [memory._Tables(3, V, 4, device).gradient for V in (6, 7, 8)] == [
            3 * 3 * 6 * 4,
            3 * 3 * 7 * 4,
            3 * 3 * 7 * 4,
        ]


def test_sizes_are_read_from_a_configuration():
    qwen = config_of(JUDGE, False)
    assert Sizes.of(qwen) == JUDGE
    assert Sizes.of(qwen | {"tie_word_embeddings": True}) == replace(JUDGE, tied=True)
    assert not Sizes.of({key: qwen[key] for key in qwen if key != "tie_word_embeddings"}).tied
    for missing in ({"head_dim": None}, {"head_dim": 0}):
        assert Sizes.of(qwen | missing) == replace(JUDGE, head=128)
        heads = {"hidden_size": 51, "num_attention_heads": 6}
        assert Sizes.of(qwen | missing | heads | {"model_type": "Dream"}).head == 8
    kinds = {"Dream": "qwen2", "a2d-qwen2": "qwen2", "a2d-qwen3": "qwen3", "llada": "llama"}
    for kind, layers in kinds.items():
        assert Sizes.of(qwen | {"model_type": kind}).kind == layers
    theirs = {
        "model_type": "llada",
        "embedding_size": 99,
        "vocab_size": 90,
        "d_model": 48,
        "mlp_hidden_size": 64,
        "n_layers": 3,
        "n_heads": 6,
        "n_kv_heads": None,
        "weight_tying": True,
    }
    llada = Sizes("llama", 99, 48, 64, 3, 6, 6, 8, tied=True)
    assert Sizes.of(theirs) == llada
    assert Sizes.of(theirs | {"embedding_size": None, "n_kv_heads": 2}) == replace(
        llada, vocabulary=90, kv_heads=2
    )
    kinds = "Dream, a2d-qwen2, a2d-qwen3, llada, qwen2, qwen3"
    with pytest.raises(ValueError, match=f"^model_type: got 'gemma', expected one of {kinds}: of "):
        Sizes.of({"model_type": "gemma"})
    for field in qwen.keys() - {"model_type", "head_dim", "tie_word_embeddings"}:
        with pytest.raises(ValueError, match=f"^config.json: it lacks {field}$"):
            Sizes.of(qwen | {field: "8"})


def test_parameters_and_operations_are_counted_by_hand():
    """Of two heads of queries and one of keys, four wide; in layers six wide, ten inside."""
    products = 2 * 6 * 8 + 2 * 6 * 4 + 3 * 6 * 10
    for kind, more in (("llama", 0), ("qwen2", 8 + 4 + 4), ("qwen3", 4 + 4)):
        sizes = Sizes(kind, 50, 6, 10, 3, 2, 1, 4)
        assert (sizes.queries, sizes.keys, sizes.repeated) == (8, 4, 4)
        assert replace(sizes, kv_heads=2).repeated == 8
        assert sizes.in_layers == 3 * (products + 2 * 6 + more) + 6
        assert sizes.as_denoiser == sizes.in_layers + 2 * 50 * 6
        assert replace(sizes, tied=True).as_denoiser == sizes.in_layers + 50 * 6
        assert sizes.as_reward == sizes.in_layers + 50 * 6 + 6
        assert sizes.products == {
            "numbers": products,
            "rows": 8 + 4 + 4 + 6 + 10 + 10 + 6,
            "largest": 6 * 10,
        }
        assert replace(sizes, inner=7).products["largest"] == 6 * 8
        attention = 2 * (2 * 3 * 5 * 8)  # with keys and values, 5 seen, in 3 layers
        assert sizes.operations(7, 5) == 7 * (2 * sizes.in_layers + attention)
