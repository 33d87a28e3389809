"""An ordinary causal model as a reward, against its own forward pass token by token."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Qwen2Config,
)

from checkpoints import (
    DREAM,
    LONG,
    PARITY,
    REMOVED,
    REWARD,
    SHORT,
    causal,
    changed,
    weights_in,
)
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.models import LikelihoodReward, SequenceReward, load_denoiser
from entrgi_ref.models import causal as causal_rewards
from entrgi_ref.models.likelihood import LikelihoodCheckpoint
from entrgi_ref.models.tokenizers import around_response, conversation, load_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def denoiser():
    return load_denoiser(DREAM, dtype="float64", device="cpu")


@pytest.fixture(scope="module")
def reward(folder, denoiser):
    return LikelihoodReward.from_pretrained(folder, denoiser, dtype="float64")


def slowly(reward, ids, asked, places=None):
    """The mean log-probability of the `asked` ids, one forward pass for each. `places` are the
    positions, if some that are hidden lie between them.
    """
    found, places = [], list(range(len(ids))) if places is None else places
    for i in asked:
        at = {"input_ids": torch.tensor([ids[:i]]), "position_ids": torch.tensor([places[:i]])}
        at["attention_mask"] = torch.ones(1, i)  # else a gap would begin another sequence
        with torch.no_grad():
            logits = reward.network(**at, use_cache=False).logits
        found.append(float(logits[0, -1].log_softmax(-1)[ids[i]]))
    return sum(found) / len(found)


def ids_of(reward, text):
    return reward.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_score_is_the_mean_log_likelihood_of_what_follows_the_prompt(reward):
    """Of the answer and of the template's end, whatever else is in the batch."""
    prompts, answers = [SHORT, LONG, SHORT], ["a river", "the way home is long", ""]
    found = reward.score(prompts, answers)
    for prompt, answer, score in zip(prompts, answers, found.tolist(), strict=True):
        ids = ids_of(reward, conversation(reward.tokenizer, prompt, answer))
        start = len(ids_of(reward, around_response(reward.tokenizer, prompt)[0]))
        assert score == pytest.approx(slowly(reward, ids, range(start, len(ids))), abs=1e-6)


def test_answers_of_a_later_batch_begin_behind_their_own_prompts(reward, monkeypatch):
    monkeypatch.setattr(causal_rewards, "SCORE_BATCH", 2)
    prompts = [SHORT, SHORT, LONG, SHORT, LONG]
    answers = ["a river", "the way home", "a river", "home", ""]
    found = reward.score(prompts, answers)
    alone = [
        reward.score([prompt], [answer]) for prompt, answer in zip(prompts, answers, strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-9)


def test_likelihoods_of_a_network_in_16_bits_are_added_in_32(folder):
    denoiser = load_denoiser(DREAM, dtype="bfloat16", device="cpu")
    reward = LikelihoodReward.from_pretrained(folder, denoiser, dtype="bfloat16")
    answer = "the way home is long"
    found = reward.score([LONG], [answer])
    ids = torch.tensor([ids_of(reward, conversation(reward.tokenizer, LONG, answer))])
    start = len(ids_of(reward, around_response(reward.tokenizer, LONG)[0]))
    with torch.no_grad():
        log_p = reward.network(ids).logits.double().log_softmax(-1)
    of_each = log_p[0, :-1].gather(1, ids[0, 1:, None])[start - 1 :, 0]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(float(of_each.mean()), abs=2e-3)


def step_of(reward, denoiser, prompts, trajectories, response):
    masked = torch.ones_like(response, dtype=torch.bool)
    masked[:, 0] = False
    return reward.bind(prompts, trajectories).at(response, masked), masked


@pytest.mark.parametrize("turned", [False, True])
def test_whole_tokens_are_read_as_tokens(reward, denoiser, folder, turned):
    """Fixed and guided positions alike, and nothing after the end of an answer; also where the two
    vocabularies number the same tokens otherwise.
    """
    if turned:
        tokens = [*denoiser.tokens[379::-1], *denoiser.tokens[380:]]
        reward = LikelihoodReward.from_pretrained(folder, denoiser, tokens=tokens, dtype="float64")
    words = denoiser.tokenizer(LONG, add_special_tokens=False)["input_ids"][:5]
    response = torch.tensor([words, [*words[:2], denoiser.eos_id, *words[:2]]])
    step, masked = step_of(reward, denoiser, [SHORT, LONG], 1, response)
    likeliest = response[masked]
    found = step(reward.embeddings[likeliest], likeliest)
    for prompt, row, score in zip([SHORT, LONG], response.tolist(), found.tolist(), strict=True):
        end = row.index(denoiser.eos_id) if denoiser.eos_id in row else len(row)
        prefix, suffix = (ids_of(reward, t) for t in around_response(reward.tokenizer, prompt))
        answer = reward.vocabulary.ids[torch.tensor(row[:end])].tolist()
        ids = prefix + answer + suffix
        # The suffix keeps its place behind tokens that are hidden.
        places = [*range(len(prefix) + end), *range(len(prefix) + len(row), 999)][: len(ids)]
        asked = range(len(prefix), len(ids))
        assert score == pytest.approx(slowly(reward, ids, asked, places), abs=1e-6)
    other = response.clone()
    other[1, 3:] = words[3]
    step, masked = step_of(reward, denoiser, [SHORT, LONG], 1, other)
    again = step(reward.embeddings[other[masked]], other[masked])
    assert torch.allclose(again, found)  # what stands behind the end is not read


def test_the_gradient_is_that_of_finite_differences(reward, denoiser):
    torch.manual_seed(1)
    words = denoiser.tokenizer(LONG, add_special_tokens=False)["input_ids"][:4]
    response = torch.tensor([words, words[::-1]])
    step, masked = step_of(reward, denoiser, [SHORT], 2, response)
    likeliest = response[masked]
    mixed = reward.embeddings[likeliest].clone().requires_grad_()
    (slope,) = torch.autograd.grad(step(mixed, likeliest).sum(), mixed)
    direction = torch.randn_like(mixed)
    with torch.no_grad():
        ahead, behind = (step(mixed + e * direction, likeliest).sum() for e in (1e-4, -1e-4))
    numeric = float(ahead - behind) / 2e-4
    assert float((slope * direction).sum()) == pytest.approx(numeric, rel=1e-3)


def test_guidance_by_likelihood_finds_likelier_answers(reward, denoiser):
    config = SamplingConfig(
        GuidanceConfig("entrgi", 3, 0.5, dtype="float64"), trajectories=6, new_tokens=6
    )
    guided = generate(denoiser, reward, [SHORT, LONG], config)
    plain = generate(denoiser, reward, [SHORT, LONG], config.guided(steps=0))
    assert guided.average.mean() > plain.average.mean()
    alone = generate(denoiser, reward, [LONG], config)
    assert torch.equal(alone.tokens[0], guided.tokens[1])


def test_another_tokenizer_or_another_kind_of_model_is_refused(folder, denoiser, tmp_path):
    foreign = ["<nothing>"] * (len(denoiser.tokens) - 1) + [None]
    with pytest.raises(ValueError, match=r"vocabulary: .* must match"):
        LikelihoodReward.from_pretrained(folder, denoiser, tokens=foreign)
    with pytest.raises(ValueError, match=r"lacks .*lm_head|has weights that the architecture"):
        LikelihoodReward.from_pretrained(REWARD, denoiser)
    with pytest.raises(ValueError, match=r"num_labels: got 2|lacks score"):
        SequenceReward.from_pretrained(folder, denoiser)
    shutil.copytree(folder, tmp_path / "window")
    written = json.loads((folder / "config.json").read_text())
    written |= {"use_sliding_window": True, "sliding_window": 4}
    (tmp_path / "window" / "config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match="sliding"):
        LikelihoodReward.from_pretrained(tmp_path / "window", denoiser)


def test_a_model_that_changes_its_logits_is_refused(folder, reward, denoiser, tmp_path):
    """Its own forward pass would give other likelihoods than its output layer."""
    config = GraniteConfig(
        vocab_size=len(reward.network.lm_head.weight),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.3,
        logits_scaling=4.0,
    )
    GraniteForCausalLM(config).save_pretrained(tmp_path)
    reward.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"GraniteForCausalLM .* is not supported") as error:
        LikelihoodReward.from_pretrained(tmp_path, denoiser, dtype="float32")
    assert "\n" not in str(error.value)


def test_unmatched_tokens_are_read_as_it_is_said(folder, denoiser, reward):
    zero = LikelihoodReward.from_pretrained(folder, denoiser, unmatched="zero", dtype="float64")
    (one, *_) = (i for i, t in enumerate(denoiser.tokens) if t in zero.vocabulary.unmatched)
    assert not zero.embeddings[one].any()
    assert reward.embeddings[one].any()


def test_a_token_for_each_id_is_needed(folder, denoiser):
    with pytest.raises(ValueError, match=rf"tokens: got 3, expected .* {len(denoiser.tokens)} ids"):
        LikelihoodReward.from_pretrained(folder, denoiser, tokens=denoiser.tokens[:3])


@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_the_prompt_is_read_once_or_at_every_step_alike(reward, denoiser, micro_batch):
    torch.manual_seed(2)
    response = torch.randint(0, 300, (4, 5))
    response[2, 2] = denoiser.eos_id
    found = []
    for changes in ({"prefix_cache": True, "micro_batch": micro_batch}, {"prefix_cache": False}):
        step, masked = step_of(replace(reward, **changes), denoiser, [SHORT, LONG], 2, response)
        mixed = reward.embeddings[response[masked]].clone().requires_grad_()
        rewards = step(mixed, response[masked])
        found.append((rewards.detach(), torch.autograd.grad(rewards.sum(), mixed)[0]))
        cache = step.bound.prefix.cache
        assert (cache is not None) == changes["prefix_cache"]
        if cache is not None:
            assert cache.get_seq_length() == step.bound.tokens.shape[1] - 1
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("declared", [True, False])
def test_a_mask_predictor_has_no_likelihood(denoiser, declared, tmp_path):
    """Its configuration is that of an ordinary causal model, and its tokenizer need not say which
    token is the mask.
    """
    folder = PARITY.parent / "parity-models" / "open-dcoder-tiny"
    if not declared:
        folder = changed(folder, tmp_path, tokenizer={"mask_token": REMOVED})
        assert load_tokenizer(folder).mask_token is None
    with pytest.raises(ValueError, match="mask token '<M>' of open-dcoder, which is no causal"):
        LikelihoodReward.from_pretrained(folder, denoiser, dtype="float64")


def test_a_causal_model_of_a_mask_predictors_type_has_one(denoiser, tmp_path):
    """It is told from the mask predictor by the mask token alone."""
    folder = causal(tmp_path, Qwen2Config)
    assert LikelihoodCheckpoint.examine(folder).config.model_type == "qwen2"


def test_the_end_of_a_turn_counts_also_where_it_is_the_padding(reward, monkeypatch):
    """As it is in many causal models: the answer would not be asked to end."""
    expected = reward.score(["3"], ["5 7"])
    end = reward.tokenizer.eos_token_id
    monkeypatch.setattr(reward.network.config, "pad_token_id", end)
    assert torch.equal(reward.score(["3"], ["5 7"]), expected)
    assert reward.counting(torch.tensor([[end, 5]])).all()


def test_an_adapter_of_a_causal_model_is_merged(folder, denoiser, reward, tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    layers = {"target_modules": ["q_proj"], "init_lora_weights": False}
    torch.manual_seed(0)
    adapted = get_peft_model(plain, LoraConfig(r=2, task_type="CAUSAL_LM", **layers))
    adapted.save_pretrained(tmp_path)
    found = LikelihoodReward.from_pretrained(folder, denoiser, adapter=tmp_path, dtype="float64")
    expected = adapted.merge_and_unload().model.layers[1].self_attn.q_proj.weight
    torch.testing.assert_close(found.network.model.layers[1].self_attn.q_proj.weight, expected)
    assert (found.score(["3"], ["5"]) - reward.score(["3"], ["5"])).abs() > 1e-4


def test_a_tied_model_with_another_output_layer_is_refused(folder, denoiser, tmp_path):
    shutil.copytree(folder, tmp_path / "own")
    file = tmp_path / "own" / "model.safetensors"
    weights = weights_in(file)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, file, {"format": "pt"})
    LikelihoodReward.from_pretrained(tmp_path / "own", denoiser, dtype="float64")
    weights["lm_head.weight"] += 1
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match="tie_word_embeddings: got True"):
        LikelihoodReward.from_pretrained(tmp_path / "own", denoiser, dtype="float64")
