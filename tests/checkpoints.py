"""Copies of the tiny checkpoints, changed as a test needs them."""

import json
import shutil
import string
from pathlib import Path

import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, Qwen3Config

from entrgi_ref.models import Dream, SequenceReward

PARITY = Path(__file__).parent / "data" / "parity"
DREAM, REWARD = PARITY / "dream-tiny", PARITY / "reward-tiny"

SHORT, LONG = "explain entropy", "write a short story about a river that forgets its way home"


def pair(dtype="float64", dream=DREAM, reward=REWARD, **options):
    denoiser = Dream.from_pretrained(dream, dtype=dtype, device="cpu")
    return denoiser, SequenceReward.from_pretrained(reward, denoiser, dtype=dtype, **options)


def changed(source, folder, config=(), tokenizer=(), without=()):
    """A copy of a checkpoint with other fields; None takes a field away."""
    target = folder / source.name
    shutil.copytree(source, target)
    for file, fields in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        path = target / file
        content = json.loads(path.read_text(encoding="utf-8")) | dict(fields)
        content = {key: value for key, value in content.items() if value is not REMOVED}
        path.write_text(json.dumps(content), encoding="utf-8")
    for name in without:
        (target / name).unlink()
    return target


REMOVED = object()


def weights_in(file):
    """In memory of their own: those of `load_file` are the file, which tests write anew."""
    return load(file.read_bytes())


def response_tokens(denoiser, rows, length, seed=0):
    """Random writable tokens, no end of sequence among them."""
    generator = torch.Generator().manual_seed(seed)
    usable = denoiser.writable.clone()
    usable[[denoiser.eos_id, denoiser.pad_id]] = False
    ids = usable.nonzero().squeeze(1)
    return ids[torch.randint(len(ids), (rows, length), generator=generator)]


def causal(folder, kind=Qwen3Config):
    """A random causal model with the tokenizer of the tiny reward model, written to a folder."""
    for file in REWARD.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)
    config = kind(
        vocab_size=json.loads((REWARD / "config.json").read_text())["vocab_size"],
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def of_words(folder, vocabulary):
    """Give a checkpoint another vocabulary, of which nothing is put together from letters; they
    take the places of its last tokens, so that no text loses any.
    """
    lacking = sorted({*string.ascii_letters, *string.digits} - vocabulary.keys())
    last = sorted(vocabulary, key=vocabulary.__getitem__)[-len(lacking) :]
    taken = {letter: vocabulary[token] for letter, token in zip(lacking, last, strict=True)}
    vocabulary = {t: i for t, i in vocabulary.items() if t not in last} | taken
    for file in ("vocab.json", "merges.txt"):
        (folder / file).unlink()
    Tokenizer(BPE(vocabulary, [])).save(str(folder / "tokenizer.json"))


def other_tokenizer(source, folder):
    """A copy whose tokens are others."""
    shutil.copytree(source, folder)
    tokens = json.loads((folder / "vocab.json").read_text())
    renamed = {f"{token}?" if i > 20 else token: i for token, i in tokens.items()}
    of_words(folder, renamed)
    return folder
