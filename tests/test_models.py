"""Dream and sequence rewards on tiny checkpoints: exact where the claims are exact."""

import ast
import inspect
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen2ForCausalLM

import entrgi_ref
from checkpoints import (
    DREAM,
    LONG,
    REWARD,
    SHORT,
    changed,
    pair,
    response_tokens,
    weights_in,
)
from entrgi_ref import GuidanceConfig, SamplingConfig, checks, generate, prompt_key, schedule
from entrgi_ref.fast import nucleus
from entrgi_ref.models import Dream, SequenceReward, VocabularyMap, adapters, load_denoiser
from entrgi_ref.models.reading import backbone_of, positions
from entrgi_ref.models.tokenizers import around_response, padded

SOURCE = Path(entrgi_ref.__file__).parent
SMALL = SamplingConfig(
    GuidanceConfig(steps=2, dtype="float64"), trajectories=2, new_tokens=6, denoising_steps=6
)


@pytest.fixture(scope="module")
def double():
    return pair("float64")


@pytest.fixture(scope="module")
def single():
    return pair("float32")


def inputs(denoiser, reward, prompts, seed=0, hidden=()):
    """A denoising step: half of the response masked, with differentiable embeddings there."""
    response = response_tokens(denoiser, len(prompts), 8, seed)
    masked = torch.arange(8) % 2 == 1
    masked = masked.expand_as(response).clone()
    n = int(masked.sum())
    generator = torch.Generator().manual_seed(seed)
    d = reward.embeddings.shape[1]
    mixed = torch.randn(n, d, generator=generator, dtype=reward.embeddings.dtype) * 0.1
    likeliest = response[masked].clone()
    for index in hidden:
        likeliest[index] = denoiser.eos_id
    return response, masked, mixed, likeliest


def value_and_gradient(reward, prompts, response, masked, mixed, likeliest):
    mixed = mixed.clone().requires_grad_()
    bound = reward.bind(prompts, len(response) // len(prompts))
    rewards = bound.at(response, masked)(mixed, likeliest)
    return rewards, torch.autograd.grad(rewards.sum(), mixed)[0]


# --- the mask predictor


def test_logits_are_those_of_a_plain_bidirectional_qwen2(single):
    """One prompt at a time, eager attention, all positions: another path through the library."""
    denoiser, _ = single
    plain = Qwen2ForCausalLM.from_pretrained(
        DREAM, config=denoiser.network.config, dtype=torch.float32, attn_implementation="eager"
    )
    prompts = [SHORT, LONG]
    encoded = denoiser.encode(prompts)
    response = response_tokens(denoiser, 2, 5)
    masked = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], dtype=torch.bool)
    response[masked] = denoiser.mask_id
    tokens = torch.cat([encoded.tokens, response], 1)
    valid = torch.cat([encoded.valid, torch.ones_like(masked)], 1)
    found = denoiser(tokens, valid, masked).split([3, 3])
    for row in range(2):
        alone = tokens[row, valid[row]][None]
        everyone = torch.zeros(1, 1, alone.shape[1], alone.shape[1])
        logits = plain(alone, attention_mask=everyone).logits[0]
        expected = logits[-6:-1][masked[row]]  # shifted right by one
        torch.testing.assert_close(found[row], expected, atol=2e-5, rtol=0)


def test_output_layer_sees_masked_positions_only(single):
    denoiser, reward = single
    widths = []
    hook = denoiser.network.lm_head.register_forward_hook(
        lambda module, args, output: widths.append(tuple(output.shape))
    )
    counted = []
    generate(
        denoiser, reward, [SHORT], SMALL, observe=lambda s: counted.append(int(s.masked.sum()))
    )
    hook.remove()
    assert widths == [(n, 385) for n in counted]


def test_prompts_are_padded_on_the_left(single):
    denoiser, _ = single
    encoded = denoiser.encode([SHORT, LONG])
    text = denoiser.tokenizer.decode(encoded.tokens[0, encoded.valid[0]])
    assert text.endswith("<|im_start|>assistant\n")
    assert SHORT in text
    assert not encoded.valid[0, 0]
    assert encoded.valid[:, -1].all()
    assert encoded.keys == (prompt_key(SHORT), prompt_key(LONG))  # whatever the template is


def test_a_response_is_all_its_tokens_but_the_special_ones(single):
    """It is not cut at its end."""
    denoiser, _ = single
    first, *_, second = denoiser.tokenizer("why not", add_special_tokens=False)["input_ids"]
    row = [first, denoiser.eos_id, second, denoiser.pad_id]
    expected = denoiser.tokenizer.decode([first, second])
    assert len(expected) >= 2
    assert denoiser.decode(torch.tensor([row, row[::-1]]))[0] == expected


def test_the_template_alone_writes_special_tokens(as_users_run_it):
    """A tokenizer that begins texts by a token of its own would do so before the suffix too."""

    def tokenizer(text, add_special_tokens=True):
        return {"input_ids": [0] * add_special_tokens + [len(word) for word in text.split()]}

    tokens, valid = padded(tokenizer, ["a bb", "ccc"], 9, torch.device("cpu"), "it", 10)
    assert tokens.tolist() == [[1, 2], [9, 3]]
    assert valid.tolist() == [[True, True], [False, True]]


def test_networks_are_frozen(single):
    for network in (single[0].network, single[1].network):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_norms_keep_their_epsilon_in_double_precision(tmp_path):
    folder = changed(DREAM, tmp_path, config={"rms_norm_eps": 0.25})
    found = []
    for dtype in ("float32", "float64"):
        denoiser, _ = pair(dtype, dream=folder)
        tokens = torch.cat([denoiser.encode([SHORT]).tokens, torch.full((1, 2), 384)], 1)
        every = torch.ones_like(tokens, dtype=torch.bool)
        found.append(denoiser(tokens, every, every[:, -2:]).double())
    torch.testing.assert_close(*found, atol=2e-5, rtol=0)
    denoiser, _ = pair("float64")
    assert (denoiser(tokens, every, every[:, -2:]) - found[1]).abs().max() > 1e-3


def test_a_prompt_that_holds_the_end_of_a_turn_is_not_cut(single):
    _, reward = single
    prefix, _ = around_response(reward.tokenizer, "one <|im_end|> two")
    assert "one <|im_end|> two" in prefix
    assert reward.score(["one <|im_end|> two"], ["x"]) != reward.score(["one "], ["x"])


def test_writable_ids_have_a_token_and_are_no_mask(tmp_path):
    wide = changed(DREAM, tmp_path)
    denoiser, reward = pair("float32", dream=widened(wide, 400))
    assert len(denoiser.writable) == 400
    assert denoiser.writable.nonzero().squeeze(1).tolist() == list(range(384))
    # Five of these ids are likelier than all others, but they are never written.
    generation = generate(denoiser, reward, [SHORT], SMALL)
    assert generation.tokens.max() < 384
    free = replace(SMALL, write_every_id=True)
    assert generate(denoiser, reward, [SHORT], free).tokens.max() >= 385


def widened(folder, vocabulary):
    """The checkpoint with further ids in its output layer, and large logits for them."""
    import json

    from safetensors.torch import save_file

    weights = weights_in(folder / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        extra = weights[name][:1].expand(vocabulary - len(weights[name]), -1)
        weights[name] = torch.cat([weights[name], 30 * extra])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": vocabulary}))
    return folder


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.data())
def test_positions_count_from_the_first_real_token(paddings, data):
    rows = []
    for padding in paddings:
        rest = data.draw(st.lists(st.booleans(), min_size=3, max_size=3))
        rows.append([False] * padding + [True] * (7 - padding) + rest)
    found = positions(torch.tensor(rows))
    for padding, row in zip(paddings, found.tolist(), strict=True):
        assert row == [max(0, i - padding) for i in range(10)]


def test_answers_do_not_depend_on_the_batch(double):
    denoiser, reward = double
    for method in ("expectation", "entrgi"):
        config = replace(SMALL, guidance=replace(SMALL.guidance, weight=method))
        together = generate(denoiser, reward, [SHORT, LONG], config)
        for row, prompt in enumerate([SHORT, LONG]):
            alone = generate(denoiser, reward, [prompt], config)
            assert torch.equal(alone.tokens[0], together.tokens[row])
            torch.testing.assert_close(alone.rewards[0], together.rewards[row], atol=1e-10, rtol=0)


# --- the reward model


@pytest.mark.parametrize("hidden", [(), (1, 6)], ids=["all seen", "ends of sequence"])
def test_prefix_cache_changes_nothing(double, hidden):
    denoiser, cached = double
    plain = replace(cached, prefix_cache=False)
    prompts = [SHORT, LONG]
    step = inputs(denoiser, cached, prompts * 2, hidden=hidden)
    (value, gradient), (expected, exact) = (
        value_and_gradient(reward, prompts, *step) for reward in (cached, plain)
    )
    torch.testing.assert_close(value, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(gradient, exact, atol=1e-10, rtol=0)
    assert gradient.abs().max() > 1e-3


def test_the_next_prompts_are_read_anew(double):
    """Of as many tokens, and in a batch of the same shape."""
    denoiser, cached = double
    step = inputs(denoiser, cached, [SHORT, LONG])
    plain = replace(cached, prefix_cache=False)
    for prompts in ([SHORT, LONG], [LONG, SHORT]):
        value, _ = value_and_gradient(cached, prompts, *step)
        expected, _ = value_and_gradient(plain, prompts, *step)
        torch.testing.assert_close(value, expected, atol=1e-10, rtol=0)


def test_prefix_cache_is_used_and_never_grows(double):
    denoiser, reward = double
    response, masked, mixed, likeliest = inputs(denoiser, reward, [SHORT, LONG])
    bound = reward.bind([SHORT, LONG], 1)
    cache = bound.prefix.cache
    lengths = []
    backbone = reward.network.model
    hook = backbone.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]),
        with_kwargs=True,
    )
    at = bound.at(response, masked)
    first, second = at(mixed, likeliest), at(mixed, likeliest)
    hook.remove()
    assert torch.equal(first, second)
    assert lengths == [8 + len(bound.suffix)] * 2
    assert cache.get_seq_length() == bound.tokens.shape[1]


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_every_token_sees_something(double, prefix_cache):
    """Hidden tokens and padding see themselves: a row of nothing is nan in some kernels."""
    denoiser, reward = double
    reward = replace(reward, prefix_cache=prefix_cache)
    step = inputs(denoiser, reward, [SHORT, LONG], hidden=(1, 6))
    masks = []
    hook = reward.network.model.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    value_and_gradient(reward, [SHORT, LONG], *step)
    hook.remove()
    assert len(masks) == 1 + prefix_cache
    assert all(mask.any(-1).all() for mask in masks)


def test_gradient_is_that_of_finite_differences(double):
    denoiser, reward = double
    response, masked, mixed, likeliest = inputs(denoiser, reward, [SHORT, LONG])
    at = reward.bind([SHORT, LONG], 1).at(response, masked)
    _, gradient = value_and_gradient(reward, [SHORT, LONG], response, masked, mixed, likeliest)
    direction = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1)).double()
    h = 1e-5
    up, down = at(mixed + h * direction, likeliest), at(mixed - h * direction, likeliest)
    slope = (up.sum() - down.sum()) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(), slope, atol=1e-6, rtol=1e-5)


def test_real_tokens_score_as_in_the_models_own_forward(single):
    """Nothing masked: the reward of the embeddings is that of the tokens, one at a time."""
    denoiser, reward = single
    plain = AutoModelForSequenceClassification.from_pretrained(
        REWARD, dtype=torch.float32, attn_implementation="eager"
    )
    prompts = [SHORT, LONG]
    response = response_tokens(denoiser, 2, 8)
    everywhere = torch.ones_like(response, dtype=torch.bool)
    mixed = reward.embeddings[response].flatten(0, 1)
    found = reward.bind(prompts, 1).at(response, everywhere)(mixed, response.flatten())
    for row, prompt in enumerate(prompts):
        before, after = (
            reward.tokenizer(text)["input_ids"]
            for text in around_response(reward.tokenizer, prompt)
        )
        ids = before + reward.vocabulary.ids[response[row]].tolist() + after
        expected = plain(torch.tensor([ids])).logits[0, 0]
        torch.testing.assert_close(found[row], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_what_follows_the_end_of_an_answer_is_hidden(single, prefix_cache):
    """And so is the end itself, which for Dream is padding; but no other token moves."""
    denoiser, reward = single
    reward = replace(reward, prefix_cache=prefix_cache)
    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    response, masked, mixed, likeliest = inputs(denoiser, reward, [LONG], hidden=[2])
    found = reward.bind([LONG], 1).at(response, masked)(mixed, likeliest)

    before, after = (
        reward.tokenizer(text)["input_ids"] for text in around_response(reward.tokenizer, LONG)
    )
    table = plain.get_input_embeddings()
    answer = table(reward.vocabulary.ids[response[0]]).clone()
    answer[masked[0]] = mixed
    embedded = torch.cat([table(torch.tensor(before)), answer, table(torch.tensor(after))])
    seen = torch.ones(len(embedded), dtype=torch.int64)
    end = len(before) + 5  # the third masked position
    seen[end : len(before) + 8] = 0
    expected = plain(
        inputs_embeds=embedded[None],
        attention_mask=seen[None],
        position_ids=torch.arange(len(embedded))[None],
    ).logits[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)

    # Where end and padding are two ids, the end is seen.
    other = replace(reward, pad_id=0)
    seen[end] = 1
    expected = plain(
        inputs_embeds=embedded[None],
        attention_mask=seen[None],
        position_ids=torch.arange(len(embedded))[None],
    ).logits[0]
    found = other.bind([LONG], 1).at(response, masked)(mixed, likeliest)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_of_an_answer_that_ends_at_once_what_follows_it_is_read(single, prefix_cache):
    """In its place behind the answer, of which nothing is seen."""
    denoiser, reward = single
    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    response = response_tokens(denoiser, 1, 6)
    response[:, 0] = denoiser.eos_id
    at = replace(reward, prefix_cache=prefix_cache).bind([LONG], 1)
    found = at.at(response, response < 0)(reward.embeddings[:0], response[0, :0])
    before, after = (
        reward.tokenizer(text)["input_ids"] for text in around_response(reward.tokenizer, LONG)
    )
    assert len(after) > 1  # of which the last sees the others
    places = [*range(len(before)), *range(len(before) + 6, len(before) + 6 + len(after))]
    expected = plain(torch.tensor([before + after]), position_ids=torch.tensor([places])).logits[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("prompts", [[SHORT, LONG], [LONG, SHORT], [LONG, SHORT, LONG]])
def test_prompts_are_answered_in_the_order_in_which_they_stand(single, prompts):
    denoiser, reward = single
    encoded = denoiser.encode(prompts)
    for prompt, tokens, valid in zip(prompts, encoded.tokens, encoded.valid, strict=True):
        assert prompt in denoiser.tokenizer.decode(tokens[valid])
    response = response_tokens(denoiser, 2 * len(prompts), 4)
    nothing = reward.embeddings[:0], response[0, :0]
    found = reward.bind(prompts, 2).at(response, response < 0)(*nothing)
    scored = reward.score(prompts, ["yes"] * len(prompts))
    for row, prompt in enumerate(prompts):
        own = response[2 * row : 2 * row + 2]
        alone = reward.bind([prompt], 2).at(own, own < 0)(*nothing)
        torch.testing.assert_close(found[2 * row : 2 * row + 2], alone, atol=2e-5, rtol=0)
        score = reward.score([prompt], ["yes"])[0]
        torch.testing.assert_close(scored[row], score, atol=2e-5, rtol=0)
    assert abs(reward.score([SHORT], ["yes"]) - reward.score([LONG], ["yes"])) > 1e-3


def test_no_gradient_reaches_what_is_hidden(double):
    denoiser, reward = double
    step = inputs(denoiser, reward, [LONG], hidden=[2])
    _, gradient = value_and_gradient(reward, [LONG], *step)
    moved = gradient.abs().amax(1) > 0
    assert moved.tolist() == [True, True, False, False]


def test_final_scores_are_the_models_own(single):
    """In a batch, padded on the left, and one at a time."""
    _, reward = single
    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(REWARD)
    prompts, answers = [SHORT, LONG] * 10, ["yes", "no, a longer one", "", "a\nb"] * 5
    found = reward.score(prompts, answers)
    assert found.shape == (20,)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        turns = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer},
        ]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        torch.testing.assert_close(found[row], plain(ids).logits[0, 0], atol=2e-5, rtol=0)


THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'].lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
)


@pytest.mark.parametrize(("prompts", "answers"), [(2, 1), (1, 2)])
def test_each_answer_is_scored_with_a_prompt(single, prompts, answers):
    with pytest.raises(ValueError, match=f"responses: got {answers}, expected one for each"):
        single[1].score([SHORT] * prompts, ["a river"] * answers)


def test_prefix_and_suffix_are_the_templates(tmp_path):
    """With an empty think block before the last answer, as Qwen3's template writes it."""
    folder = changed(REWARD, tmp_path, tokenizer={"chat_template": THINKING})
    _, reward = pair("float32", reward=folder)
    prefix, suffix = around_response(reward.tokenizer, "RESPONSE, please")
    assert prefix == (
        "<|im_start|>user\nRESPONSE, please<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert suffix == "<|im_end|>\n"


def test_the_text_that_is_scored_is_the_templates_own(tmp_path):
    """Which leaves line breaks before an answer out, while guidance knows of no such thing."""
    folder = changed(REWARD, tmp_path, tokenizer={"chat_template": THINKING})
    _, reward = pair("float64", reward=folder)
    own, stripped = reward.score([SHORT] * 2, ["\n\na river", "a river"]).tolist()
    assert own == pytest.approx(stripped, abs=1e-12)
    prefix, suffix = around_response(reward.tokenizer, SHORT)
    ids = reward.tokenizer(f"{prefix}\n\na river{suffix}", return_tensors="pt")["input_ids"]
    assert reward.network(ids).logits.item() != pytest.approx(own, abs=1e-3)


OPEN_ENDED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% if not loop.last %}{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_the_score_is_at_the_true_last_token_where_nothing_follows_an_answer(
    tmp_path, prefix_cache
):
    """With a template that ends with the answer, the last token seen is not the last one read."""
    folder = changed(REWARD, tmp_path, tokenizer={"chat_template": OPEN_ENDED})
    denoiser, reward = pair("float32", reward=folder, prefix_cache=prefix_cache)
    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    before, after = around_response(reward.tokenizer, LONG)
    assert after == ""
    response, masked, mixed, likeliest = inputs(denoiser, reward, [SHORT, LONG], hidden=[6])
    found = reward.bind([SHORT, LONG], 1).at(response, masked)(mixed, likeliest)
    table = plain.get_input_embeddings()
    answer = table(reward.vocabulary.ids[response[1]]).clone()
    answer[masked[1]] = mixed[4:]
    ids = torch.tensor(reward.tokenizer(before)["input_ids"])
    embedded = torch.cat([table(ids), answer[:5]])  # the end is at position 5
    hidden = plain.model(inputs_embeds=embedded[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(found[1], plain.score(hidden)[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("end", ["", "<|im_end|>"])
def test_the_score_is_at_the_prompt_where_nothing_else_is_seen(tmp_path, end):
    """An answer that ends at once, and nothing after it but what the network knows as padding: with
    and without the cache.
    """
    template = {"chat_template": OPEN_ENDED + "{{ '" + end + "' }}"}
    padding = AutoTokenizer.from_pretrained(REWARD).convert_tokens_to_ids("<|im_end|>")
    folder = changed(REWARD, tmp_path, {"pad_token_id": padding}, template)
    denoiser, reward = pair("float64", reward=folder)
    response = response_tokens(denoiser, 2, 4)
    response[:, 0] = denoiser.eos_id
    masked = torch.zeros_like(response, dtype=torch.bool)
    found = [
        replace(reward, prefix_cache=cache)
        .bind([SHORT, LONG], 1)
        .at(response, masked)(reward.embeddings[:0], response[0, :0])
        for cache in (True, False)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-10, rtol=0)


def test_other_architectures(tmp_path):
    """A Llama reward model, with a beginning of sequence in its template, read in two parts."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=388,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        num_labels=1,
        pad_token_id=380,
    )
    folder = changed(REWARD, tmp_path, without=["model.safetensors"])
    (folder / "config.json").unlink()
    LlamaForSequenceClassification(config).save_pretrained(folder)
    denoiser, reward = pair("float64", reward=folder)
    step = inputs(denoiser, reward, [SHORT, LONG])
    value, gradient = value_and_gradient(reward, [SHORT, LONG], *step)
    plain = replace(reward, prefix_cache=False)
    expected, exact = value_and_gradient(plain, [SHORT, LONG], *step)
    torch.testing.assert_close(value, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(gradient, exact, atol=1e-10, rtol=0)


def test_adapters_are_merged(tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    torch.manual_seed(0)
    adapted = get_peft_model(plain, LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    denoiser, without = pair("float32")
    merged = SequenceReward.from_pretrained(
        REWARD, denoiser, dtype="float32", adapter=tmp_path / "adapter"
    )
    assert not any(p.requires_grad for p in merged.network.parameters())
    found = merged.score([SHORT], ["yes"])
    assert (found - without.score([SHORT], ["yes"])).abs() > 1e-3
    text = merged.tokenizer.apply_chat_template(
        [{"role": "user", "content": SHORT}, {"role": "assistant", "content": "yes"}],
        tokenize=False,
    )
    expected = adapted.eval()(**merged.tokenizer(text, return_tensors="pt")).logits[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)

    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors"):
        SequenceReward.from_pretrained(REWARD, denoiser, adapter=tmp_path / "adapter")


def test_an_adapter_of_all_linear_layers_is_merged(tmp_path):
    """The one word that peft knows in place of a list of names."""
    from peft import LoraConfig, get_peft_model

    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS")
    adapted = get_peft_model(plain, replace(lora, init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    names = json.loads(file.read_text()) | {"target_modules": "all-linear"}
    file.write_text(json.dumps(names))  # peft itself writes them out
    denoiser, _ = pair("float32")
    found = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32", adapter=tmp_path)
    expected = adapted.merge_and_unload().model.layers[1].mlp.down_proj.weight
    torch.testing.assert_close(found.network.model.layers[1].mlp.down_proj.weight, expected)


def test_an_adapter_of_the_embeddings_is_in_the_table_that_answers_are_mixed_of(tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    layers = {"target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": False}
    adapted = get_peft_model(plain, LoraConfig(r=2, task_type="SEQ_CLS", **layers))
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    denoiser, without = pair("float32")
    merged = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32", adapter=tmp_path)
    table = merged.network.get_input_embeddings().weight
    assert torch.equal(merged.embeddings, merged.vocabulary.embeddings(table, "eos"))
    assert (merged.embeddings - without.embeddings).abs().amax() > 1e-3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"r": 3}, "r: got 3, but its weights have a rank of at most 2"),
        ({"rank_pattern": {"q_proj": 10**8}}, "rank_pattern: got 100000000, but its weights have"),
        ({"target_modules": ["x"] * 5}, "target_modules: got 5 names, expected at most 4"),
        ({"init_lora_weights": "pissa_niter_9"}, "init_lora_weights: got 'pissa_niter_9', with"),
    ],
)
def test_an_adapter_that_would_take_any_time_or_memory(fields, said, tmp_path, monkeypatch):
    """As peft makes all of it before anything is compared with the file."""
    from peft import LoraConfig, get_peft_model

    plain = AutoModelForSequenceClassification.from_pretrained(REWARD)
    layers = LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["q_proj", "embed_tokens"])
    get_peft_model(plain, layers).save_pretrained(tmp_path, save_embedding_layers=False)
    monkeypatch.setattr(adapters, "MOST_NAMES", 4)
    monkeypatch.setattr(adapters, "MOST_RANK", 1)
    adapters.Adapter.examine(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(ValueError, match=f"^adapter: {said}"):
        adapters.Adapter.examine(tmp_path)


# --- vocabularies


@pytest.mark.parametrize("other", ["A", " a", "Ġa", "▁a", "a ", "ａ", "<a>"])
def test_nearly_the_same_string_is_another_token(other):
    for token, reward_token in (("a", other), (other, "a")):
        tokens, known = [token, *"bcdefghijk"], [reward_token, *"bcdefghijk"]
        found = VocabularyMap.by_string(tokens, {t: i for i, t in enumerate(known)}, fallback=20)
        assert found.ids.tolist() == [20, *range(1, 11)]
        assert found.unmatched == (token,)


def test_vocabularies_are_matched_by_string():
    tokens = ["a", "b", "c", None, "d"]
    found = VocabularyMap.by_string(tokens, {"d": 0, "c": 5, "b": 2, "a": 3, "z": 1}, fallback=9)
    assert found.ids.tolist() == [3, 2, 5, 9, 0]
    assert found.matched.tolist() == [True, True, True, False, True]
    assert found.overlap == 1
    assert found.report() == (
        "the reward model has 4 of the diffusion model's 4 tokens (100.0%); "
        "1 further ids have no token"
    )
    table = torch.arange(10.0)[:, None]
    assert found.embeddings(table, "eos").squeeze(1).tolist() == [3, 2, 5, 9, 0]
    assert found.embeddings(table, "zero").squeeze(1).tolist() == [3, 2, 5, 0, 0]
    with pytest.raises(ValueError, match="did you mean 'zero'"):
        found.embeddings(table, "zeros")


@pytest.mark.parametrize(("matching", "outcome"), [(90, None), (89, "warns"), (50, "warns")])
def test_a_small_overlap_warns(matching, outcome):
    tokens = [f"t{i}" for i in range(100)]
    known = {token: i for i, token in enumerate(tokens[100 - matching :])}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        VocabularyMap.by_string(tokens, known, fallback=0)
    assert len(caught) == (outcome is not None)
    if caught:
        lacking = 100 - matching
        assert f"{matching} of the diffusion model's 100" in str(caught[0].message)
        assert "'t0', 't1'" in str(caught[0].message)
        assert f"and {lacking - 8} more" in str(caught[0].message)


def test_a_smaller_overlap_is_refused():
    tokens = [f"t{i}" for i in range(100)]
    with pytest.raises(ValueError, match=r"49 of .* at least 50% must match"):
        VocabularyMap.by_string(tokens, dict.fromkeys(tokens[:49], 0), fallback=0)


def test_few_matches_are_enough_for_a_reward_of_zero_rows(single):
    denoiser, _ = single
    few = [t if i < 100 else None for i, t in enumerate(denoiser.tokens)]
    foreign = [t or f"<foreign {i}>" for i, t in enumerate(few)]
    with pytest.raises(ValueError, match="at least 50% must match"):
        SequenceReward.from_pretrained(REWARD, denoiser, tokens=foreign, device="cpu")
    with pytest.warns(UserWarning, match="of the diffusion model's 385 tokens"):
        reward = SequenceReward.from_pretrained(
            REWARD, denoiser, tokens=foreign, unmatched="zero", device="cpu"
        )
    assert not reward.embeddings[100:].any()


def test_few_matches_are_enough_for_zero_rows():
    """They have no pull. One that has no token at all is refused."""
    tokens = [f"t{i}" for i in range(100)]
    with pytest.warns(UserWarning, match="1 of the diffusion model's 100 tokens"):
        found = VocabularyMap.by_string(tokens, {"t3": 7}, 0, "zero")
    table = found.embeddings(torch.ones(8, 2), "zero")
    assert table.sum(1).nonzero().flatten().tolist() == [3]
    q = torch.full((1, 100), 0.01)
    assert found.unmatched_mass(q).item() == pytest.approx(0.99)
    with pytest.raises(ValueError, match=r"0 of .* some must match"):
        VocabularyMap.by_string(tokens, {"other": 7}, 0, "zero")


def test_unmatched_tokens_become_the_unknown_token_or_the_end(single, tmp_path):
    _, reward = single
    assert reward.vocabulary.unmatched == ("<|beginoftext|>", "<|mask|>")
    assert reward.vocabulary.ids[383:].tolist() == [382, 382]
    unknown = changed(REWARD, tmp_path, tokenizer={"unk_token": "<|endoftext|>"})
    _, reward = pair("float32", reward=unknown)
    assert reward.vocabulary.ids[383:].tolist() == [380, 380]
    _, reward = pair("float32", unmatched="zero")
    assert reward.embeddings[383:].abs().max() == 0
    assert reward.embeddings[:383].abs().amin(0).max() > 0


@pytest.mark.filterwarnings("ignore:pad_token_id")
def test_the_padding_may_have_the_first_id_or_none(single, tmp_path):
    for i, (mark, expected) in enumerate(((single[0].tokens[0], 0), (None, None))):
        folder = changed(DREAM, tmp_path / str(i), {"pad_token_id": expected}, {"pad_token": mark})
        found = load_denoiser(folder, dtype="float32", device="cpu")
        assert (found.pad_id, found.eos_id) == (expected, single[0].eos_id)


def test_tokens_beyond_the_reward_models_table_are_unmatched(tmp_path):
    """Its tokenizer may know more of them than it has embeddings."""
    more = [f"<|more{i}|>" for i in range(8)]
    folder = changed(REWARD, tmp_path, tokenizer={"additional_special_tokens": [*more, "<|mask|>"]})
    _, reward = pair("float32", reward=folder)
    assert reward.tokenizer.get_vocab()["<|mask|>"] >= 388
    assert reward.vocabulary.unmatched == ("<|beginoftext|>", "<|mask|>")


# --- safety and cost

BOMB = 'raise SystemExit("the checkpoint\'s own code was run")\n'


def test_code_of_a_checkpoint_never_runs(tmp_path):
    maps = {
        "config": {
            "AutoConfig": "bomb.Config",
            "AutoModel": "bomb.Model",
            "AutoModelForSequenceClassification": "bomb.Model",
        },
        "tokenizer": {"AutoTokenizer": ["bomb.Tokenizer", None]},
    }
    folders = [
        changed(
            source,
            tmp_path,
            config={"auto_map": maps["config"]},
            tokenizer={"auto_map": maps["tokenizer"]},
        )
        for source in (DREAM, REWARD)
    ]
    for folder in folders:
        for name in ("bomb", "configuration_dream", "modeling_dream", "tokenization_dream"):
            (folder / f"{name}.py").write_text(BOMB)
        (folder / "__init__.py").write_text(BOMB)
    denoiser, reward = pair("float32", *folders)
    generation = generate(denoiser, reward, [SHORT], SMALL)
    expected = generate(*pair("float32"), [SHORT], SMALL)
    assert generation.responses == expected.responses


def identifiers(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield f"{ast.unparse(node.value)}.{node.attr}"
        elif isinstance(node, ast.keyword):
            yield node.arg
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from [getattr(node, "module", None) or "", *(a.name for a in node.names)]


def test_nothing_loads_remote_code_or_pickles():
    banned = {"trust_remote_code", "pickle", "torch.load", "weights_only", "eval", "exec"}
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8").replace("trust_remote_code=False", "none=False")
        found = set(identifiers(ast.parse(text)))
        assert not banned & found, path


SHAPED_BY_DATA = "aten::nonzero", "aten::masked_select", "aten::masked_scatter_backward"


class Waits(TorchDispatchMode):
    """Counts the operations for which the host would wait for a device."""

    def __init__(self):
        super().__init__()
        self.numbers = self.lists = self.shapes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        self.numbers += name in ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
        by_mask = name.startswith("aten::index.Tensor") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.shapes += by_mask or name in SHAPED_BY_DATA
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("steps", [0, 1, pytest.param(5, marks=pytest.mark.slow)])
def test_host_waits_once_per_denoising_step(single, steps, monkeypatch):
    """Beyond the shapes that depend on data; whatever the number of gradient steps."""
    denoiser, reward = single
    monkeypatch.setattr(nucleus, "applies", lambda probabilities: False)  # a CPU's own way
    monkeypatch.setattr(checks, "at_hand", lambda tensor: False)
    to_list = torch.Tensor.tolist

    def counted(length):
        config = SamplingConfig(GuidanceConfig(steps=steps), 2, length, length)
        with Waits() as waits, monkeypatch.context() as patch:

            def tolist(tensor):
                waits.lists += 1
                return to_list(tensor)

            patch.setattr(torch.Tensor, "tolist", tolist)
            generate(denoiser, reward, [SHORT], config)
        return waits

    few, many = counted(4), counted(9)  # of which 3 and 8 steps commit something
    assert many.lists - few.lists == 5, "the conditions, all read together"
    assert many.shapes - few.shapes == 2 * 5, "where the masks are: in generate, and in Dream"
    # These are on the host anyway: the counts of two schedules.
    assert many.numbers - few.numbers == 5 * 2


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_networks_are_asked_no_more_than_needed(steps):
    """By counting: the denoiser once per step that commits, the reward M times, prompts once."""
    denoiser, reward = pair()
    lengths = {"dream": [], "reward": []}
    for name, network in (("dream", denoiser.network.model), ("reward", reward.network.model)):

        def noted(module, arguments, options, noted=lengths[name]):
            found = options.get("input_ids", options.get("inputs_embeds"))
            noted.append(tuple(found.shape[:2]))

        network.register_forward_pre_hook(noted, with_kwargs=True)
    config = SamplingConfig(
        GuidanceConfig(steps=steps, dtype="float64"),
        trajectories=2,
        new_tokens=6,
        denoising_steps=12,
    )
    generate(denoiser, reward, [SHORT, LONG], config)
    busy = sum(step.count > 0 for step in schedule(12, 6))
    assert len(lengths["dream"]) == busy < 12
    *guided, _ = lengths["reward"]  # the last is the final score
    assert len(guided) == (busy * steps + 1 if steps else 0)
    if steps:
        assert guided[0][0] == 2  # each prompt once, before it is repeated for its trajectories
        assert set(guided[1:]) == {(4, guided[1][1])}
        assert guided[1][1] < guided[0][1]  # the response and what follows it, no prompt


def test_what_a_gpu_does_is_recorded_once_per_batch(single, monkeypatch):
    """And replayed with new numbers of the same shapes, backward after each call."""
    denoiser, reward = single
    recordings = []

    def recorder(function, samples):
        recordings.append([tuple(sample.shape) for sample in samples])
        assert [sample.requires_grad for sample in samples] == [True, False, False]
        assert torch.is_grad_enabled()

        def replay(*inputs):
            for sample, now in zip(samples, inputs, strict=True):
                assert sample.shape == now.shape
                assert sample.dtype == now.dtype
            return function(*inputs)

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorder)
    plain = generate(denoiser, reward, [SHORT, LONG], SMALL)
    assert not recordings
    replayed = generate(denoiser, replace(reward, cuda_graphs=True), [SHORT, LONG], SMALL)
    assert len(recordings) == 1
    assert torch.equal(replayed.tokens, plain.tokens)
    assert torch.equal(replayed.rewards, plain.rewards)
    response, masked, mixed, likeliest = inputs(denoiser, reward, [SHORT])
    graphed = replace(reward, cuda_graphs=True).bind([SHORT], 1).at(response, masked)
    with torch.no_grad():  # the first call, which is recorded for those that follow
        graphed(mixed.detach(), likeliest)
    assert len(recordings) == 2


def test_graphs_of_a_gpu_need_one(single):
    denoiser, _ = single
    with pytest.raises(ValueError, match="cuda_graphs: got True on cpu"):
        SequenceReward.from_pretrained(REWARD, denoiser, cuda_graphs=True)


def test_the_denoisers_layers_are_compiled_if_asked(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    Dream.from_pretrained(DREAM)
    assert not compiled
    denoiser = Dream.from_pretrained(DREAM, compiled=True)
    assert compiled == list(denoiser.network.model.layers)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_some_trajectories_at_a_time_are_read_alike(cached, size):
    """In float64: the same answers, rewards and gradients. Of 4 rows the last part has 1."""
    denoiser, reward = pair()
    reward = replace(reward, prefix_cache=cached)
    parted = replace(reward, micro_batch=size)
    whole, parts = (generate(denoiser, r, [SHORT, LONG], SMALL) for r in (reward, parted))
    assert torch.equal(whole.tokens, parts.tokens)
    torch.testing.assert_close(whole.rewards, parts.rewards, rtol=1e-12, atol=1e-12)
    K = SMALL.trajectories
    response = response_tokens(denoiser, 2 * K, SMALL.new_tokens)
    masked = torch.arange(SMALL.new_tokens).expand_as(response) % 2 == 0
    found = []
    for one in (reward, parted):
        mixed = reward.embeddings[response[masked]].clone().requires_grad_()
        rewards = one.bind([SHORT, LONG], K).at(response, masked)(mixed, response[masked])
        found += [rewards.detach(), torch.autograd.grad(rewards.sum(), mixed)[0]]
    torch.testing.assert_close(found[2:], found[:2], rtol=1e-10, atol=1e-12)
    assert found[1].abs().max() > 0


def test_some_trajectories_at_a_time_keep_less():
    """What is kept for the backward pass is the inputs of each part; parts are read twice."""
    denoiser, reward = pair()
    K, N = 4, SMALL.new_tokens
    response = response_tokens(denoiser, K, N)
    masked = torch.ones_like(response, dtype=torch.bool)
    kept, read = {}, {}
    for size in (None, 1):
        step = replace(reward, micro_batch=size).bind([SHORT], K).at(response, masked)
        mixed = reward.embeddings[response[masked]].clone().requires_grad_()
        counted, rows = [], []

        def count(tensor, counted=counted):
            counted.append(tensor.nbytes)
            return tensor

        hook = reward.network.model.register_forward_pre_hook(
            lambda module, arguments, options, rows=rows: rows.append(
                len(options["inputs_embeds"])
            ),
            with_kwargs=True,
        )
        step(mixed, response[masked])  # the prompt is read
        rows.clear()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            rewards = step(mixed, response[masked])
        torch.autograd.grad(rewards.sum(), mixed)
        hook.remove()
        kept[size], read[size] = sum(counted), rows
    assert read == {None: [4], 1: [1] * 8}
    assert kept[1] < kept[None] / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batch": 0}, "micro_batch: got 0, expected an integer of at least 1"),
        ({"micro_batch": 2, "cuda_graphs": True}, "micro_batch: cannot be combined"),
    ],
)
def test_bad_micro_batches(single, options, message):
    with pytest.raises(ValueError, match=message):
        SequenceReward.from_pretrained(REWARD, single[0], **options)


def test_a_cache_is_handed_over_by_the_name_that_transformers_has_for_it(as_users_run_it):
    """5.24 warns of the old one. These networks return what they are handed."""

    class Old(torch.nn.Module):
        def forward(self, past_key_values=None, **others):
            return SimpleNamespace(last_hidden_state=past_key_values)

    class New(torch.nn.Module):
        def forward(self, cache=None, **others):
            return SimpleNamespace(last_hidden_state=cache)

    config = SimpleNamespace(_attn_implementation="sdpa")
    config.get_text_config = lambda: config
    for headless in (Old(), New()):
        network = SimpleNamespace(base_model_prefix="model", model=headless, config=config)
        read = backbone_of(network, "a cache")
        assert read(torch.zeros(1, 1, 2), torch.ones(1, 1), torch.zeros(1, 1)) == "a cache"


def test_no_cache_is_warned_of(recwarn):
    """What transformers will not do much longer is found by the newest of them."""
    denoiser, reward = pair("float64")  # it reads a few tokens already
    generate(denoiser, reward, [SHORT], SamplingConfig(GuidanceConfig(steps=1), 1, 4, 4))
    assert not [found for found in recwarn if "past_key_values" in str(found.message)]


def test_a_denoiser_is_called_with_what_fits():
    denoiser, _ = pair()
    tokens, valid = torch.zeros(2, 6).long(), torch.ones(2, 6).bool()
    for masked, said in (
        (torch.ones(2, 6).bool(), "masked: got 6 positions, expected at most 5"),  # shifted
        (torch.ones(2, 3).long(), "masked: got torch.int64, expected torch.bool"),
    ):
        with pytest.raises(ValueError, match=f"^{said}$"):
            inspect.unwrap(type(denoiser).__call__)(denoiser, tokens, valid, masked)


def test_a_reward_reads_a_row_for_each_masked_position():
    _, reward = pair()
    response, masked = torch.full((2, 4), 5), torch.ones(2, 4).bool()
    step = reward.bind([SHORT], 2).at(response, masked)
    assert step(step.embeddings[:8], torch.full((8,), 5)).shape == (2,)
    for rows in (0, 7, 9):
        with pytest.raises(
            ValueError, match=f"^mixed: got {rows} rows, expected 8, one per masked"
        ):
            step(step.embeddings[:rows], torch.full((rows,), 5))


def test_threads_may_share_the_networks():
    denoiser, reward = pair()
    config = replace(SMALL, trajectories=1)
    prompts = [SHORT, LONG] * 3
    alone = [generate(denoiser, reward, [prompt], config).responses for prompt in prompts]
    with ThreadPoolExecutor(2) as threads:
        found = threads.map(lambda prompt: generate(denoiser, reward, [prompt], config), prompts)
        assert [one.responses for one in found] == alone
