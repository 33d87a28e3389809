"""Reward models of many kinds: read as transformers itself reads them, or refused in one line."""

import json
import re
import sys

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from checkpoints import (
    DREAM,
    LONG,
    REMOVED,
    REWARD,
    SHORT,
    changed,
    pair,
    response_tokens,
    weights_in,
)
from entrgi_ref import GuidanceConfig, SamplingConfig, generate, soft_embedding
from entrgi_ref.models import Dream, RewardCheckpoint, SequenceReward, checkpoints
from entrgi_ref.models.tokenizers import answered, around_response, conversation

pytestmark = pytest.mark.usefixtures("as_users_run_it")

SIZES = {
    "vocab_size": 388,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "num_labels": 1,
    "pad_token_id": 380,
    "bos_token_id": 381,
    "eos_token_id": 382,
}
GROUPED = {"num_key_value_heads": 2}
HEADS = GROUPED | {"head_dim": 8}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
EYES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
KINDS = {
    "Arcee": HEADS,
    "BioGpt": {},
    "DiffLlama": HEADS,
    "Doge": HEADS,
    "Falcon": {"num_kv_heads": 2, "new_decoder_architecture": True},
    "Gemma": HEADS,
    "Glm": HEADS,
    "Glm4": HEADS,
    "GPT2": {},
    "GPTBigCode": {},
    "GPTNeoX": {},
    "Helium": HEADS,
    "HunYuanDenseV1": HEADS,
    "Llama": GROUPED,
    "Mistral": GROUPED | {"sliding_window": None},
    "Mixtral": GROUPED | EXPERTS | {"sliding_window": None},
    "Nemotron": GROUPED,
    "Olmo": GROUPED,
    "Olmo2": GROUPED,
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Persimmon": {},
    "Phi": GROUPED,
    "Phi3": GROUPED,
    "Qwen2": GROUPED,
    "Qwen2Moe": GROUPED
    | EXPERTS
    | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "Qwen3": HEADS,
}
"""Kinds of transformers' causal sequence classifiers, and what their small configurations need."""
OFTEN = {"GPT2", "Llama", "OPT", "Qwen2", "Qwen2Moe", "Qwen3"}
"""Tried by make test; all by make test-slow."""
FULL_ATTENTION = {"layer_types": ["full_attention"] * 2, "sliding_window": None}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
ROUTED = {
    "n_routed_experts": 4,
    "moe_intermediate_size": 16,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MORE_KINDS = {
    "DeepseekV2": LATENT | ROUTED | {"topk_method": "greedy"},
    "DeepseekV3": LATENT | ROUTED,
    "Exaone4": GROUPED | FULL_ATTENTION,
    "HunYuanMoEV1": HEADS | {"num_experts": 4, "moe_topk": 2},
    "JetMoe": GROUPED | EXPERTS | {"kv_channels": 8},
    "MiniCPM3": LATENT,
    "Ministral3": HEADS,
    "Phimoe": GROUPED | EXPERTS,
    "Qwen3Moe": HEADS | EXPERTS | {"moe_intermediate_size": 16},
    "SeedOss": HEADS,
    "SmolLM3": HEADS,
    "StableLm": GROUPED,
    "Starcoder2": GROUPED,
}
"""Further ones. An older transformers lacks some."""
NOT_READ = [
    *("Bert", "Bloom", "CTRL", "Electra", "GPTJ"),
    *("Jamba", "MiniMax", "Mpt", "Olmo3", "Qwen3Next"),
]
"""No causal attention to all before, or none that can be read from embeddings in two parts."""
OLDEST = transformers.__version__ == "5.0.0"
LATER = ("Olmo", "Olmo2")
"""Kinds of which transformers 5.0.0 has no sequence classifier yet."""


def checkpoint(folder, kind, change=(), scale=1.0, **tokenizer):
    """A small reward model of a kind, with the tokenizer of the tiny one."""
    config_class = getattr(transformers, f"{kind}Config")
    architecture = getattr(transformers, f"{kind}ForSequenceClassification")
    torch.manual_seed(0)
    if kind == "Gemma3":
        text = SIZES | HEADS | {"sliding_window": 16, "layer_types": ["sliding_attention"] * 2}
        shared = {name: SIZES[name] for name in ("num_labels", "pad_token_id")}
        config = config_class(text_config=text, vision_config=EYES, mm_tokens_per_image=4, **shared)
    else:
        config = config_class(**SIZES | (KINDS | MORE_KINDS).get(kind, {}) | dict(change))
    network = architecture(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    # Of a class that transformers does not guess from the kind of model.
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast"} | tokenizer
    target = changed(REWARD, folder, tokenizer=tokenizer, without=["model.safetensors"])
    AutoTokenizer.from_pretrained(REWARD).backend_tokenizer.save(str(target / "tokenizer.json"))
    (target / "config.json").unlink()
    network.save_pretrained(target)
    return target


def own_score(folder, ids):
    """By the checkpoint's own forward pass, one sequence and no padding."""
    plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return plain.eval()(torch.tensor([ids])).logits[0, 0].detach()


def ids_of(reward, text):
    return reward.tokenizer(text, add_special_tokens=False)["input_ids"]


def written_out(reward, prompt, response):
    """The ids of a conversation with a response of diffusion tokens."""
    before, after = around_response(reward.tokenizer, prompt)
    return ids_of(reward, before) + reward.vocabulary.ids[response].tolist() + ids_of(reward, after)


def rewards_of(reward, prompts, response):
    """What guidance sees of responses of which every second token is masked but certain."""
    masked = (torch.arange(response.shape[1]) % 2 == 1).expand_as(response).clone()
    mixed = reward.embeddings[response[masked]]
    return reward.bind(prompts, 1).at(response, masked)(mixed, response[masked])


def slow(kinds):
    """Tried by make test-slow, where transformers has them."""
    return [
        pytest.param(
            kind,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(
                    not hasattr(transformers, f"{kind}ForSequenceClassification"),
                    reason=f"this transformers has no {kind}",
                ),
            ],
        )
        for kind in sorted(kinds)
    ]


@pytest.mark.parametrize(
    "kind", [*sorted(OFTEN), *slow((KINDS.keys() | MORE_KINDS.keys()) - OFTEN)]
)
def test_a_kind_is_read_as_by_transformers(kind, tmp_path):
    """Finished texts, and real tokens in guidance, in batches of prompts of different lengths."""
    if OLDEST and kind in LATER:
        pytest.skip("transformers 5.0.0 has no such sequence classifier")
    folder = checkpoint(tmp_path, kind, scale=2.0)
    if OLDEST and kind == "Doge":  # its mask there is wrong for a text that is read in two parts
        with pytest.raises(ValueError, match="read in two parts: it is not supported"):
            pair("float32", reward=folder)
        return
    denoiser, reward = pair("float32", reward=folder)
    prompts, answers = [SHORT, LONG], ["yes", "no, a longer one"]
    scores = reward.score(prompts, answers)
    for found, prompt, answer in zip(scores, prompts, answers, strict=True):
        ids = ids_of(reward, conversation(reward.tokenizer, prompt, answer))
        torch.testing.assert_close(found, own_score(folder, ids), atol=1e-5, rtol=1e-4)
    response = response_tokens(denoiser, 2, 8)
    for found, prompt, row in zip(
        rewards_of(reward, prompts, response), prompts, response, strict=True
    ):
        expected = own_score(folder, written_out(reward, prompt, row))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["Gemma", "BioGpt"])
def test_embeddings_are_those_that_the_network_reads(kind, tmp_path):
    """These two multiply their table by the root of its width; Gemma of transformers 5.0.0 does so
    behind the table, and reads the plain one.
    """
    folder = checkpoint(tmp_path, kind)
    _, reward = pair("float32", reward=folder)
    embed = reward.network.get_input_embeddings()
    ids = reward.vocabulary.ids
    torch.testing.assert_close(reward.embeddings, embed(ids))
    plain = OLDEST and kind == "Gemma"
    assert torch.allclose(reward.embeddings, embed.weight[ids]) == plain
    certain = torch.nn.functional.one_hot(torch.tensor([65]), len(ids)).float()
    torch.testing.assert_close(soft_embedding(certain, reward.embeddings), embed(ids[65:66]))


# Where the score is read

ENDS_WITH_EOS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}"
)


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize(
    "kind", ["GPT2", *(pytest.param(k, marks=pytest.mark.slow) for k in ("Qwen3", "Llama"))]
)
def test_padding_that_ends_a_template_is_not_scored(kind, prefix_cache, tmp_path):
    """With pad = eos, transformers' own heads take the token before it."""
    end = json.loads((REWARD / "vocab.json").read_text()).get("<|im_end|>")
    tokenizer = pair("float32")[1].tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>") if end is None else end
    folder = checkpoint(
        tmp_path, kind, {"pad_token_id": end}, scale=2.0, chat_template=ENDS_WITH_EOS
    )
    denoiser, reward = pair("float32", reward=folder, prefix_cache=prefix_cache)
    prompts, answers = [SHORT, LONG], ["yes", "no, a longer one"]
    assert around_response(reward.tokenizer, SHORT)[1] == "<|im_end|>"
    for found, prompt, answer in zip(reward.score(prompts, answers), prompts, answers, strict=True):
        ids = ids_of(reward, conversation(reward.tokenizer, prompt, answer))
        assert ids[-1] == end
        torch.testing.assert_close(found, own_score(folder, ids), atol=1e-5, rtol=1e-4)
    response = response_tokens(denoiser, 2, 8)
    found = rewards_of(reward, prompts, response)
    for row, prompt in enumerate(prompts):
        expected = own_score(folder, written_out(reward, prompt, response[row]))
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


# Refused

FULL = {"layer_types": ["full_attention"] * 2, "sliding_window": None}
DYNAMIC = {
    "full_attention": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


@pytest.mark.parametrize(
    ("kind", "change", "pattern"),
    [
        ("Qwen3", {"is_causal": False}, "is_causal: got False"),
        ("Llama", {"is_causal": False}, "is_causal: got False"),
        ("Falcon", {"alibi": True}, "alibi: got True"),
        ("Gemma3", {}, "layer_types: got sliding_attention"),
        ("Gemma3", {"text": {"layer_types": ["full_attention"] * 2}}, "sliding_window: got 16"),
        ("Gemma3", {"text": FULL | {"rope_parameters": DYNAMIC}}, "rope_type: got 'dynamic'"),
    ],
)
def test_what_is_not_causal_or_not_plain_is_refused_by_name(kind, change, pattern, tmp_path):
    folder = checkpoint(tmp_path, kind)
    config = json.loads((folder / "config.json").read_text())
    config |= {key: value for key, value in change.items() if key != "text"}
    if "text" in change:
        config["text_config"] |= change["text"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=pattern) as error:
        pair("float32", reward=folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("Qwen2Moe", {"use_sliding_window": True, "sliding_window": 8}, "layer_types: got sliding"),
        ("Qwen2Moe", {"use_sliding_window": True, "sliding_window": 0}, "layer_types: got sliding"),
        ("Mistral", {"use_sliding_window": False, "sliding_window": 8}, "sliding_window: got 8"),
        ("Mistral", {"use_sliding_window": False, "sliding_window": 0}, "sliding_window: got 0"),
    ],
)
def test_a_window_that_is_on_is_refused(kind, change, said, tmp_path):
    """Mistral has no such switch: there it is a word that nobody reads."""
    folder = checkpoint(tmp_path, kind)
    config = json.loads((folder / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if key != "layer_types"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=said) as error:
        pair("float32", reward=folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", slow(NOT_READ))
def test_a_kind_that_is_not_read_is_refused_in_one_line(kind, tmp_path):
    with pytest.raises(ValueError, match=r"^(checkpoint|layer_types|sliding_window): ") as error:
        pair("float32", reward=checkpoint(tmp_path, kind))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_network_that_makes_something_else_of_tokens_is_refused(dtype, monkeypatch):
    """Whatever the reason: here tokens see what follows them."""
    forward = transformers.Qwen3Model.forward

    def bidirectional(self, input_ids=None, inputs_embeds=None, attention_mask=None, **options):
        if input_ids is not None:
            length = input_ids.shape[1]
            attention_mask = torch.ones(1, 1, length, length, dtype=torch.bool)
        return forward(
            self,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            **options,
        )

    # Weights of the size of trained ones: in those of the tiny checkpoint positions hardly matter.
    monkeypatch.setattr(transformers.Qwen3Model, "forward", bidirectional)
    with pytest.raises(ValueError, match=r"of a few tokens, but .* of their") as error:
        pair(dtype)
    assert "\n" not in str(error.value)


def test_a_head_of_zeros_is_no_mismatch(tmp_path):
    folder = changed(REWARD, tmp_path)
    weights = weights_in(folder / "model.safetensors")
    weights["score.weight"].zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _, reward = pair("float32", reward=folder)
    assert reward.score([SHORT], ["yes"]).item() == 0


def test_a_fallback_beyond_the_table_is_refused(tmp_path):
    """The unknown token is in the tokenizer, but the table ends before it."""
    folder = checkpoint(tmp_path, "Qwen3", {"vocab_size": 383}, unk_token="<|added|>")
    with pytest.raises(ValueError, match=r"unk token of .* has the id 383, .* has 383 rows"):
        pair("float32", reward=folder)


def test_a_tokenizer_with_more_tokens_than_the_table_is_one_line(tmp_path):
    template = "{% for m in messages %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    folder = checkpoint(tmp_path, "Qwen3", {"vocab_size": 300, "pad_token_id": 0},
                        chat_template=template, unk_token="!")  # fmt: skip
    with pytest.warns(UserWarning, match="vocabulary: the reward model has 300"):
        _, reward = pair("float32", reward=folder)
    with pytest.raises(ValueError, match="the reward model has 300 tokens, its tokenizer more"):
        reward.score([SHORT], ["yes"])


@pytest.mark.parametrize("word", ["RESPONSE", "RESPONSE: ", "USER RESPONSE RESPONSE"])
def test_a_template_may_hold_any_word(word, tmp_path):
    template = (
        "{% for m in messages %}{{ '" + word + "' + m['role'] + m['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
    )
    folder = changed(REWARD, tmp_path, tokenizer={"chat_template": template})
    _, reward = pair("float32", reward=folder)
    for prompt in ("RESPONSE, please", SHORT):
        prefix, suffix = around_response(reward.tokenizer, prompt)
        assert prefix == f"{word}user{prompt}<|im_end|>\n{word}assistant"
        assert suffix == "<|im_end|>\n"


# A denoiser of one's own


class Protocol:
    """Nothing but what the protocol asks for."""

    def __init__(self, denoiser):
        self.mask_id, self.eos_id = denoiser.mask_id, denoiser.eos_id
        self.writable = denoiser.writable
        self.encode, self.decode, self._call = denoiser.encode, denoiser.decode, denoiser.__call__

    def __call__(self, tokens, valid, masked):
        return self._call(tokens, valid, masked)


def test_a_reward_model_guides_any_denoiser():
    denoiser, reward = pair("float64")
    own = Protocol(denoiser)
    with pytest.raises(ValueError, match=r"neither `tokens` nor a `tokenizer`.*tokens="):
        SequenceReward.from_pretrained(REWARD, own, dtype="float64")
    with pytest.raises(ValueError, match=r"tokens: got 3, expected one for each .* 385 ids"):
        SequenceReward.from_pretrained(REWARD, own, tokens=["a", "b", "c"], dtype="float64")
    config = SamplingConfig(GuidanceConfig(steps=1, dtype="float64"), 2, 6, 6)
    expected = generate(denoiser, reward, [SHORT], config)
    for options in ({"tokens": denoiser.tokens}, {}):
        if not options:
            own.tokenizer = denoiser.tokenizer
        loaded = SequenceReward.from_pretrained(REWARD, own, dtype="float64", **options)
        assert torch.equal(loaded.embeddings, reward.embeddings)
        assert loaded.pad_id is None
        found = generate(own, loaded, [SHORT], config)
        assert torch.equal(found.tokens, expected.tokens)  # its end is its padding anyway


def test_a_reward_model_may_have_a_device_of_its_own(monkeypatch):
    """`cpu:0` is another name, and so another device, of the same memory."""
    denoiser = Dream.from_pretrained(DREAM, dtype="float64", device="cpu")
    reward = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float64", device="cpu:0")
    with pytest.raises(ValueError, match=r"^device: got 'meta', expected auto, cpu, cuda"):
        SequenceReward.from_pretrained(REWARD, denoiser, dtype="float64", device="meta")
    config = SamplingConfig(GuidanceConfig(steps=1, dtype="float64"), 2, 6, 6)
    found = generate(denoiser, reward, [SHORT], config)
    expected = generate(*pair("float64"), [SHORT], config)
    assert torch.equal(found.tokens, expected.tokens)
    moves = []
    original = torch.Tensor.to

    def to(tensor, *arguments, **options):
        if sys._getframe(1).f_globals["__name__"].startswith("entrgi_ref"):  # not transformers
            moves.append(arguments[0] if arguments else None)
        return original(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    response = response_tokens(denoiser, 1, 4)
    masked = torch.ones_like(response, dtype=torch.bool)
    at = reward.bind([SHORT], 1).at(response, masked)
    moves.clear()
    at(reward.embeddings[response[0]], response[0])
    devices = [move for move in moves if isinstance(move, torch.device)]
    assert len(devices) == 4  # the response, what is seen, where it is scored; the rewards


# Errors before the first step


@pytest.mark.parametrize("steps", [0, 1])
def test_too_few_positions_are_found_before_the_first_step(steps, monkeypatch):
    denoiser, reward = pair("float32")
    reward.network.config.max_position_embeddings = 40
    called = []
    monkeypatch.setattr(Dream, "__call__", lambda *arguments: called.append(1))
    config = SamplingConfig(GuidanceConfig(steps=steps), 1, 8, 8)
    with pytest.raises(ValueError, match="the reward model has 40; shorten"):
        generate(denoiser, reward, [LONG], config)
    assert called == []


# Adapters


def adapter(folder, *, config=(), rename=lambda name: name, drop=(), add=(), scale=0.5):
    """A LoRA adapter of the tiny reward model, changed as a test needs it."""
    from peft import LoraConfig, get_peft_model

    plain = AutoModelForSequenceClassification.from_pretrained(REWARD, dtype=torch.float32)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS")
    adapted = get_peft_model(plain, lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter).data.mul_(scale)
    adapted.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    weights = {rename(name): tensor for name, tensor in weights_in(file).items()}
    weights = {n: t for n, t in weights.items() if not any(part in n for part in drop)} | dict(add)
    save_file(weights, file, metadata={"format": "pt"})
    written = json.loads((folder / "adapter_config.json").read_text()) | dict(config)
    written = {key: value for key, value in written.items() if value is not REMOVED}
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder


def with_adapter(folder):
    denoiser = Dream.from_pretrained(DREAM, dtype="float32", device="cpu")
    return SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32", adapter=folder)


ONE_OFF = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.diag(
        torch.tensor([1.0, torch.inf])
    ).repeat(1, 16)
}
FOREIGN = {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.zeros(2, 32)}


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"drop": ["layers.1.self_attn.v_proj.lora_B"]}, r"lacks .*layers\.1.*v_proj\.lora_B"),
        ({"drop": ["score"]}, r"lacks .*score"),
        ({"drop": ["lora"]}, r"lacks .*lora_A"),
        ({"add": FOREIGN}, r"does not name: .*layers\.9"),
        ({"rename": lambda name: name.replace("base_model.", "")}, "lacks .*base_model"),
        ({"config": {"r": 4}}, "of another shape: .*lora_A"),
        ({"config": {"target_modules": ["q_proj"]}}, "does not name: .*v_proj"),
        ({"config": {"target_modules": ["nothing"]}}, "does not fit: .*[Nn]o modules"),
        ({"config": {"peft_type": "IA3"}}, "peft_type: got 'IA3', expected 'LORA'"),
        ({"config": {"peft_type": REMOVED}}, "peft_type: got None"),
        ({"config": {"scaled_twice": True}}, "does not know scaled_twice"),
        ({"config": {"lora_scale": 0.5, "how": "so"}}, "does not know how, lora_scale"),
        ({"config": {"r": 0}}, "does not fit"),
        ({"config": {"target_modules": "(([a-z0-9_.]+)+)+!"}}, "target_modules: got the pattern"),
        ({"config": {"exclude_modules": "([a-z]+)+!"}}, "exclude_modules: got the pattern"),
        ({"config": {"rank_pattern": {"([a-z]+)+!": 2}}}, r"rank_pattern: got '\(\[a-z"),
        ({"config": {"alpha_pattern": {"([a-z]+)+!": 2}}}, r"alpha_pattern: got '\(\[a-z"),
        ({"config": {"layers_pattern": "([a-z]+)+!"}}, r"layers_pattern: got '\(\[a-z"),
        ({"config": {"layers_pattern": ["([a-z]+)+!"]}}, r"layers_pattern: got '\(\[a-z"),
        ({"scale": float("nan")}, "not finite"),
        ({"add": ONE_OFF}, "has weights that are not finite$"),
        ({"config": {"lora_bias": True}}, "lora_bias: got True"),
        ({"config": {"alora_invocation_tokens": [1, 2]}}, r"alora_invocation_tokens: got \[1, 2\]"),
        (
            {"config": {"alora_invocation_tokens": [1] * 6000}},
            r"alora_invocation_tokens: got \[1, ",
        ),
        (
            {"config": {"layer_replication": [[0, 2], [0, 2]]}},
            r"layer_replication: got \[\[0, 2\], ",
        ),
        (
            {"config": {"layer_replication": [[0, 2]] * 6000}},
            r"layer_replication: got \[\[0, 2\], ",
        ),
        ({"config": {"layer_replication": "x"}}, "layer_replication: got 'x', expected none"),
    ],
)
def test_an_adapter_is_merged_exactly_or_refused(change, pattern, tmp_path):
    folder = adapter(tmp_path / "adapter", **change)
    with pytest.raises(ValueError, match=f"adapter: .*{pattern}") as error:
        with_adapter(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_an_adapter_that_fits_is_merged(tmp_path):
    silent = {"unheard_of_but_off": False, "layer_replication": None}
    folder = adapter(tmp_path / "adapter", config=silent)
    merged = with_adapter(folder)
    assert not any(parameter.requires_grad for parameter in merged.network.parameters())
    assert not any(module.training for module in merged.network.modules())
    found = merged.score([SHORT], ["yes"])
    plain = pair("float32")[1].score([SHORT], ["yes"])
    assert (found - plain).abs() > 1e-3


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_one_line(file, tmp_path):
    folder = adapter(tmp_path / "adapter")
    (folder / file).write_bytes(b"\0" * 64)
    with pytest.raises(ValueError, match=r"adapter|not JSON") as error:
        RewardCheckpoint.examine(REWARD, adapter=folder)
    assert re.fullmatch(r"[^\n]+", str(error.value))


# Devices


def test_apples_device_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match="device: got 'mps', which lacks float64"):
        Dream.from_pretrained(DREAM, device="mps")


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DebertaV2"])
def test_an_encoder_is_refused_by_its_configuration(kind, tmp_path, monkeypatch):
    folder = checkpoint(tmp_path, kind, {"max_position_embeddings": 512})
    monkeypatch.setattr(checkpoints, "load", None)
    with pytest.raises(
        ValueError, match=f"{kind}ForSequenceClassification does not score the last"
    ):
        RewardCheckpoint.examine(folder)


# Room


def longer_as_text(reward, denoiser):
    """Tokens of which the text has more tokens than they are."""
    for seed in range(64):
        response = response_tokens(denoiser, 1, 12, seed)
        around = around_response(reward.tokenizer, SHORT)
        written = ids_of(
            reward, conversation(reward.tokenizer, SHORT, denoiser.decode(response)[0])
        )
        if len(written) > sum(len(ids_of(reward, text)) for text in around) + 12:
            return denoiser.decode(response)
    raise AssertionError


def test_a_text_may_be_longer_than_the_positions_it_was_trained_on(tmp_path):
    """As text an answer may have more tokens than were generated: too late to refuse it. Rotations
    have no last one, so it is scored, as transformers does it.
    """
    denoiser, reward = pair("float32")
    texts = longer_as_text(reward, denoiser)
    around = around_response(reward.tokenizer, SHORT)
    room = sum(len(ids_of(reward, text)) for text in around) + 12
    folder = changed(REWARD, tmp_path, config={"max_position_embeddings": room})
    RewardCheckpoint.examine(folder).require_room([SHORT], 12)
    found = pair("float32", reward=folder)[1].score([SHORT], texts)
    assert torch.equal(found, reward.score([SHORT], texts))
    (text,) = [answered(reward.tokenizer, SHORT, answer) for answer in texts]
    there = len(ids_of(reward, text))
    reward.network.config.max_position_embeddings = -(-there // 4)
    assert torch.equal(found, reward.score([SHORT], texts))
    reward.network.config.max_position_embeddings = most = (there - 1) // 4
    with pytest.raises(ValueError, match=f"{there} tokens, expected at most {4 * most}, four"):
        reward.score([SHORT], texts)


def test_a_text_longer_than_a_table_of_positions_is_refused(tmp_path):
    folder = checkpoint(tmp_path, "GPT2", {"max_position_embeddings": 30})
    _, reward = pair("float32", reward=folder)
    with pytest.raises(ValueError, match="the reward model has 30"):
        reward.score([SHORT], ["a long answer " * 9])
