"""Recorded logits, token ids and decodes of further families' public code, replayed.

The recordings lie in tests/data/parity-models; PARITY_MODELS_DIR names another folder of the same
layout. All settings come from the recording.
"""

import json
import os
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from checkpoints import DREAM, REMOVED, REWARD, weights_in
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.__main__ import app
from entrgi_ref.models import DenoiserCheckpoint, Dream, SequenceReward, families, load_denoiser
from entrgi_ref.orders import ORDERS, Candidates, commit
from entrgi_ref.paper.declared.shapes import Sizes

OWN = Path(__file__).parent / "data" / "parity-models"
"""What bad input is made from, whatever is replayed."""
FOLDER = Path(os.environ.get("PARITY_MODELS_DIR") or OWN)
RECORDED = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))["models"]
TOLERANCE = 1e-4
"""Of logits: 20 times above rounding, 9 times below the smallest mistake (their README)."""


@cache
def vectors():
    return load_file(FOLDER / "vectors.safetensors")


@cache
def load(name, dtype):
    return load_denoiser(FOLDER / name, dtype=dtype, device="cpu")


def recorded(name, *fields):
    return [vectors()[f"{name}.{field}"] for field in fields]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECORDED)
def test_logits_at_masked_positions(name, dtype):
    """Padded in a batch, and each row by itself."""
    denoiser = load(name, dtype)
    suffix = "64" if dtype == "float64" else ""
    tokens, valid, masked = recorded(name, "tokens", "valid", "masked")
    together, alone = recorded(name, f"logits{suffix}", f"logits{suffix}_alone")
    with torch.no_grad():
        assert torch.allclose(denoiser(tokens, valid, masked), together, rtol=0, atol=TOLERANCE)
        rows = [
            denoiser(tokens[i, valid[i]][None], valid[i, valid[i]][None], masked[i][None])
            for i in range(len(tokens))
        ]
    assert torch.allclose(torch.cat(rows), alone, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", RECORDED)
def test_hidden_padding_is_never_seen(name):
    """What stands there changes nothing; were it seen, much would (row 31 of the ledger)."""
    denoiser = load(name, "float32")
    tokens, valid, masked, expected = recorded(name, "tokens", "valid", "masked", "logits")
    assert not valid.all()
    with torch.no_grad():
        hidden = denoiser(tokens.where(valid, 7), valid, masked)
        seen = denoiser(tokens, torch.ones_like(valid), masked)
    assert torch.allclose(hidden, expected, rtol=0, atol=TOLERANCE)
    moved = (seen - expected).abs().max()
    assert moved > 100 * TOLERANCE
    assert FOLDER != OWN or 0.95 < moved < 5  # as the ledger says, of ours


@pytest.mark.filterwarnings("ignore:prompt:UserWarning")  # that it holds special tokens
@pytest.mark.parametrize("name", RECORDED)
def test_ids_of_prompts_and_of_special_tokens(name):
    record, denoiser = RECORDED[name], load(name, "float32")
    for case in record["tokenizer"]:
        found = denoiser.encode([case["text"]])
        assert found.tokens[0].tolist() == case["chat"]
        assert found.valid.all()
        plain = denoiser.tokenizer(case["text"], add_special_tokens=False)["input_ids"]
        assert plain == case["plain"]
    together = denoiser.encode([case["text"] for case in record["tokenizer"]])
    for case, row, real in zip(record["tokenizer"], together.tokens, together.valid, strict=True):
        assert row[real].tolist() == case["chat"]
    assert denoiser.family.shifted == bool(record["shift"])
    assert denoiser.mask_id == record["mask_token_id"]
    assert (denoiser.eos_id, denoiser.pad_id) == (record["eos_token_id"], record["pad_token_id"])
    assert len(denoiser.tokens) == len(denoiser.writable) == record["vocab_size"]
    writable = denoiser.writable.nonzero().flatten().tolist()
    assert writable == [i for i in range(record["tokenizer_length"]) if i != denoiser.mask_id]


DECODES = [
    (name, kind)
    for name in RECORDED
    for kind in ("decode", "decode_even")
    if kind in RECORDED[name]
]


@pytest.mark.parametrize(("name", "kind"), DECODES)
def test_unguided_decodes_step_by_step(name, kind):
    """What is committed, and where. How many at a step is taken from the recording: their schedules
    are not Dream's (a row of the ledger).
    """
    denoiser = load(name, "float32")
    prompt, real, before, after, counts, confidence = recorded(
        name,
        *(f"{kind}.{field}" for field in ("prompt", "prompt_valid", "before", "after")),
        *(f"{kind}.{field}" for field in ("counts", "confidence")),
    )
    board = before[0]
    assert (board == denoiser.mask_id).all()
    valid = torch.cat([real, torch.ones_like(board, dtype=torch.bool)], 1)
    for step in range(len(counts)):
        assert torch.equal(board, before[step])
        masked = board == denoiser.mask_id
        with torch.no_grad():
            logits = denoiser(torch.cat([prompt, board], 1), valid, masked)
        q = logits.softmax(-1)
        candidates = Candidates(q.argmax(-1), q, logits, logits, 1.0)
        found = ORDERS["maskgit_plus"](candidates)
        assert torch.allclose(found, confidence[step][masked], rtol=0, atol=TOLERANCE)
        where = commit(candidates.tokens, found, counts[step], masked)
        written = board.masked_scatter(masked, candidates.tokens)
        board = torch.where(where, written, board)
        assert torch.equal(board, after[step])


@pytest.mark.parametrize("method", ["entrgi", "aps"])
@pytest.mark.parametrize("name", RECORDED)
def test_a_guided_answer_from_end_to_end(name, method):
    """Every family under a reward model of its tokenizer: answers are written in full, guidance
    changes them, and they do not depend on their batch.
    """
    denoiser = load(name, "float64")
    reward = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float64", unmatched="zero")
    config = SamplingConfig(
        GuidanceConfig(method, 2, 0.5, dtype="float64"), trajectories=2, new_tokens=6
    )
    prompts = [case["text"] for case in RECORDED[name]["tokenizer"]][:3]
    guided = generate(denoiser, reward, prompts, config)
    assert denoiser.writable[guided.tokens].all()
    plain = generate(denoiser, reward, prompts, config.guided(steps=0))
    assert not torch.equal(guided.tokens, plain.tokens)
    alone = generate(denoiser, reward, prompts[1:2], config)
    assert torch.equal(alone.tokens[0], guided.tokens[1])
    expected = reward.score([prompts[1]] * 2, guided.responses[1])
    assert torch.allclose(guided.rewards[1], expected)


@pytest.mark.parametrize("name", RECORDED)
def test_parameters_are_counted_from_the_configuration(name):
    """For `plan --dry`. An output layer equal to the table is stored twice and held once."""
    sizes = Sizes.of(json.loads((FOLDER / name / "config.json").read_text(encoding="utf-8")))
    assert sizes.as_denoiser == sum(p.numel() for p in load(name, "float32").network.parameters())


@pytest.mark.parametrize("name", RECORDED)
def test_the_command_answers_by_every_family(name):
    words = ["--denoiser", str(FOLDER / name), "--reward", str(REWARD), "--unmatched", "zero"]
    small = "--new-tokens 4 --trajectories 2 --gradient-steps 1 --device cpu --dtype float32"
    done = CliRunner().invoke(app, ["why?", *words, *small.split()])
    assert done.exit_code == 0, done.output
    denoiser = load(name, "float32")
    reward = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32", unmatched="zero")
    config = SamplingConfig(
        GuidanceConfig("entrgi", 1), trajectories=2, new_tokens=4, denoising_steps=4, seed=0
    )
    expected = generate(denoiser, reward, ["why?"], config)
    for score in expected.rewards[0].tolist():
        assert f"{score:+.2f}" in done.output


# Bad input


def changed_copy(name, tmp_path, config=None, tokenizer=None):
    """A checkpoint with some fields changed, or removed."""
    folder = tmp_path / "changed"
    shutil.copytree(OWN / name, folder)
    for file, fields in (("config.json", config or {}), ("tokenizer_config.json", tokenizer or {})):
        written = json.loads((folder / file).read_text(encoding="utf-8")) | fields
        kept = {key: value for key, value in written.items() if value is not REMOVED}
        (folder / file).write_text(json.dumps(kept), encoding="utf-8")
    return folder


def refused(folder, pattern):
    with pytest.raises(ValueError, match=pattern) as error:
        load_denoiser(folder, dtype="float32", device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("llada-tiny", "alibi", True),
        ("llada-tiny", "activation_type", "gelu"),
        ("llada-tiny", "block_type", "sequential"),
        ("llada-tiny", "layer_norm_type", "default"),
        ("llada-tiny", "include_bias", True),
        ("llada-tiny", "include_qkv_bias", True),
        ("llada-tiny", "input_emb_norm", True),
        ("llada-tiny", "scale_logits", True),
        ("llada-tiny", "rope", False),
        ("llada-tiny", "multi_query_attention", True),
        ("llada-tiny", "attention_layer_norm", True),
        ("llada-tiny", "clip_qkv", 8.0),
        ("llada-tiny", "block_group_size", 2),
        ("llada-tiny", "layer_norm_with_affine", False),
        ("llada-tiny", "bias_for_layer_norm", True),
        ("llada-tiny", "rope_full_precision", False),
        ("llada-tiny", "d_model", "wide"),
        ("llada-tiny", "mlp_hidden_size", None),
        ("llada-tiny", "query_scale", 2.0),
        ("a2d-qwen3-tiny", "use_sliding_window", True),
        ("a2d-qwen3-tiny", "attention_bias", True),
        ("a2d-qwen3-tiny", "block_size", 32),
        ("a2d-qwen3-tiny", "use_sinks", True),
        ("open-dcoder-tiny", "rope_pairs", True),
        ("a2d-qwen3-tiny", "rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("a2d-qwen2-tiny", "use_mrope", True),
        ("a2d-qwen2-tiny", "layer_types", ["sliding_attention", "full_attention"]),
        ("open-dcoder-tiny", "attention_dropout", 0.1),
    ],
)
def test_a_field_that_changes_the_maths_is_refused_by_name(name, field, value, tmp_path):
    refused(changed_copy(name, tmp_path, {field: value}), f"^{field}: got ")


@pytest.mark.parametrize("kind", ["sdar", "llada2_moe", "Fast_dLLM_Qwen", "diffusion_gemma"])
def test_another_kind_of_diffusion_is_refused_with_its_reason(kind, tmp_path):
    reason = "random canvas" if kind == "diffusion_gemma" else "no whole answer"
    refused(changed_copy("a2d-qwen3-tiny", tmp_path, {"model_type": kind}), reason)


def test_a_blockwise_model_is_refused_by_the_name_of_its_folder(tmp_path):
    shutil.copytree(OWN / "a2d-qwen3-tiny", tmp_path / "Qwen3-0.6B-diffusion-bd3lm-v0.1")
    refused(tmp_path / "Qwen3-0.6B-diffusion-bd3lm-v0.1", "bd3lm.*no whole answer")
    fetched = tmp_path / "models--dllm-hub--Qwen3-0.6B-diffusion-bd3lm-v0.1" / "snapshots/abc"
    shutil.copytree(OWN / "a2d-qwen3-tiny", fetched)
    refused(fetched, "in dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1, which is.*no whole answer")
    first = {"_name_or_path": "someone/Qwen3-0.6B-diffusion-bd3lm-v0.1"}
    refused(changed_copy("a2d-qwen3-tiny", tmp_path / "copy", first), "no whole answer")


def test_a_model_of_no_family_is_refused_with_those_that_there_are(tmp_path):
    folder = changed_copy("a2d-qwen3-tiny", tmp_path, {"model_type": "gpt2"})
    refused(folder, "^model_type: got 'gpt2', expected one of 'Dream', 'a2d-qwen3'")


def test_a_declaration_without_a_field_that_is_needed_is_refused():
    fields = {theirs: ours for theirs, ours in families.QWEN.items() if ours != "hidden_size"}
    with pytest.raises(ValueError, match=r"^fields: got none for .* 'hidden_size'"):
        load_denoiser(OWN / "a2d-qwen3-tiny", family=replace(families.A2D_QWEN3, fields=fields))


def test_an_ordinary_causal_model_is_no_open_dcoder(tmp_path):
    """Nothing in its configuration says so: the mask token does."""
    tokenizer = {"mask_token": "<|fim_middle|>"}
    folder = changed_copy("open-dcoder-tiny", tmp_path, tokenizer=tokenizer)
    (folder / "special_tokens_map.json").unlink()
    refused(folder, "mask token '<.fim_middle.>', expected '<M>'")


def test_a_mask_token_that_is_nowhere(tmp_path):
    refused(changed_copy("llada-tiny", tmp_path, {"mask_token_id": REMOVED}), "no mask token")


def test_a_mask_token_that_only_the_vocabulary_has(tmp_path):
    """As of open-dcoder on the hub: its tokenizer has the token and declares no mask."""
    folder = changed_copy("open-dcoder-tiny", tmp_path, tokenizer={"mask_token": None})
    (folder / "special_tokens_map.json").unlink()
    assert load_denoiser(folder, dtype="float32", device="cpu").mask_id == 386


@pytest.mark.parametrize("name", ["a2d-qwen2-tiny", "llada-tiny"])
def test_the_end_of_an_answer_is_the_tokenizers_where_the_configuration_has_none(name, tmp_path):
    silent = {"eos_token_id": REMOVED, "pad_token_id": REMOVED}
    found = load_denoiser(changed_copy(name, tmp_path, silent), dtype="float32", device="cpu")
    known = load(name, "float32")
    assert (found.eos_id, found.pad_id) == (known.eos_id, known.pad_id) != (None, None)


def test_room_is_for_the_prompt_as_its_familys_template_writes_it(tmp_path):
    """Qwen3's writes an empty thought where none is wanted."""
    name, prompt = "a2d-qwen3-tiny", "why?"
    length = load(name, "float32").encode([prompt]).tokens.shape[1]
    folder = changed_copy(name, tmp_path, {"max_position_embeddings": length + 3})
    checkpoint = DenoiserCheckpoint.examine(folder)
    checkpoint.require_room([prompt, prompt], 3)
    with pytest.raises(ValueError, match=f"takes {length + 4} positions, A2D on Qwen3 has"):
        checkpoint.require_room(["", prompt], 4)


def test_a_mask_token_beyond_the_table(tmp_path):
    refused(
        changed_copy("llada-tiny", tmp_path, {"mask_token_id": 400}),
        "mask_token_id: got 400, expected the id of a special token",
    )


def test_tokenizer_and_configuration_may_differ_in_the_padding_alone(tmp_path):
    """As in DiffuCoder. The tokenizer counts, and a line says so."""
    folder = changed_copy("a2d-qwen3-tiny", tmp_path, {"pad_token_id": 382})
    with pytest.warns(UserWarning, match="pad_token_id: got 382 .* 380 in the tokenizer"):
        assert load_denoiser(folder, dtype="float32", device="cpu").pad_id == 380
    shutil.rmtree(folder)
    refused(
        changed_copy("a2d-qwen3-tiny", tmp_path, {"eos_token_id": 380}), "^eos_token_id: got 380"
    )


def with_weights(folder, change):
    """The weights of a folder of one shard, changed."""
    file = folder / "model.safetensors"
    weights = weights_in(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})
    return folder


def test_a_tied_model_with_an_output_layer_of_its_own(tmp_path):
    """One that is equal is fine (as stored in a2d-qwen2-tiny), one that differs is refused."""

    def other(weights):
        weights["lm_head.weight"] = weights["lm_head.weight"] + 1

    tied = changed_copy("a2d-qwen2-tiny", tmp_path)
    denoiser = load_denoiser(tied, dtype="float32", device="cpu")
    assert denoiser.network.lm_head.weight is denoiser.network.model.embed_tokens.weight
    refused(with_weights(tied, other), "^tie_word_embeddings: got True")
    translated = changed_copy("llada-tiny", tmp_path / "llada", {"weight_tying": True})
    refused(translated, "^tie_word_embeddings: got True")  # its own is called otherwise


def test_an_output_layer_of_the_wrong_width(tmp_path):
    def narrower(weights):
        weights["lm_head.weight"] = weights["lm_head.weight"][:380].contiguous()

    for name in ("a2d-qwen3-tiny", "a2d-qwen2-tiny"):  # the second one is tied
        folder = changed_copy(name, tmp_path / name)
        message = r"another shape: lm_head.weight, \[380, \d+\], expected \[\d+, \d+\]"
        refused(with_weights(folder, narrower), message)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("a2d-qwen3-tiny", "model.embed_tokens.weight"),
        ("llada-tiny", "model.transformer.wte.weight"),
        ("llada-tiny", "model.transformer.ff_out.weight"),
    ],
)
def test_a_table_of_the_wrong_height_is_found_before_weights_are_loaded(name, table, tmp_path):
    folder = changed_copy(name, tmp_path)
    for file in folder.glob("*.safetensors"):
        weights = weights_in(file)
        if table in weights:
            weights[table] = weights[table][:380].contiguous()
        save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"another shape: [a-z_.]+, \[380, \d+\], expected"):
        DenoiserCheckpoint.examine(folder)


@pytest.mark.parametrize("name", ["a2d-qwen2-tiny", "llada-tiny"])
def test_blanks_of_a_checkpoint_are_those_of_its_denoiser(name):
    blank = DenoiserCheckpoint.examine(FOLDER / name).template("a __ home")
    assert torch.equal(blank, load(name, "float32").template("a __ home"))
    assert (blank == load(name, "float32").mask_id).sum() == 2


def test_the_key_value_heads_of_llada_may_be_null(tmp_path):
    folder = changed_copy("llada-tiny", tmp_path, {"n_kv_heads": None})
    loaded = load_denoiser(folder, dtype="float32", device="cpu")
    assert loaded.network.config.num_key_value_heads == 4
    embedding = changed_copy("llada-tiny", tmp_path / "b", {"embedding_size": None})
    assert load_denoiser(embedding, dtype="float32", device="cpu").network.config.vocab_size == 400


def test_dream_is_loaded_as_dream_and_nothing_else_is(tmp_path):
    assert type(load_denoiser(DREAM, dtype="float32", device="cpu")) is Dream
    with pytest.raises(ValueError, match="model_type: got 'llada', expected 'Dream'"):
        Dream.from_pretrained(OWN / "llada-tiny")
