"""Tokenizers from their plain files, and the conversation that a chat template makes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .. import checks
from ..protocols import prompt_key


def load_tokenizer(folder: Path, kind: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint: of class `kind`, or of the class that it names itself.

    Raises `ValueError` if its files do not load, if it has no chat template, or if its class is
    code of its own.
    """
    written = _written(folder / "tokenizer_config.json")
    declared = str(written.get("tokenizer_class"))
    kind = kind or SAME_AS.get(declared)
    maps = [written.get("auto_map") or {}, _written(folder / "config.json").get("auto_map") or {}]
    own = any("AutoTokenizer" in found or isinstance(found, list) for found in maps)
    if kind is None and own and not hasattr(transformers, declared):
        raise ValueError(
            f"tokenizer_class: got {declared!r} in {folder}, which transformers does not know, and "
            "a checkpoint's own code is not run"
        )
    loader = getattr(transformers, kind) if kind else AutoTokenizer
    files = ("tokenizer.json", "vocab.json", "tokenizer.model")
    if not any((folder / file).is_file() for file in files):
        raise ValueError(f"checkpoint: {folder} has no tokenizer, none of {', '.join(files)}")
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many kinds, for files that are missing or do not fit
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"checkpoint: the tokenizer of {folder} does not load: {reason}"
        ) from error
    template = tokenizer.chat_template  # several of them, by name, are a mapping
    if not (isinstance(template, str | Mapping) and template):
        raise ValueError(f"checkpoint: the tokenizer of {folder} has no chat template")
    return tokenizer


SAME_AS = {"DreamTokenizer": "Qwen2Tokenizer"}
"""Classes of remote code, and those of transformers that give the same ids."""


def _written(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def token_strings(tokenizer: PreTrainedTokenizerBase, width: int) -> tuple[str | None, ...]:
    """The token of every id below `width`, None where the tokenizer has none."""
    tokens: list[str | None] = [None] * width
    for token, index in tokenizer.get_vocab().items():
        if index < width:
            tokens[index] = token
    return tuple(tokens)


def padded(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    filler: int,
    device: torch.device,
    model: str,
    width: int,
) -> tuple[Int[Tensor, "P L"], Bool[Tensor, "P L"]]:
    """The tokens of texts, filled up on the left to one length, and where they are real.

    Raises `ValueError` for an id that the `model`, whose table has `width` rows, lacks.
    """
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    beyond = [index for ids in encoded for index in ids if index >= width]
    if beyond:
        raise ValueError(f"{model} has {width} tokens, its tokenizer more: the id {beyond[0]}")
    longest = max(map(len, encoded))
    filled = [[filler] * (longest - len(ids)) + ids for ids in encoded]
    real = [[False] * (longest - len(ids)) + [True] * len(ids) for ids in encoded]
    return (
        torch.tensor(filled, dtype=torch.int64, device=device),
        torch.tensor(real, dtype=torch.bool, device=device),
    )


BLANK = re.compile(r"(?<!\w)_+(?!\w)", re.ASCII)
"""A run of underscores that touches no letter or digit of ASCII: `my_name` holds none."""


def with_blanks(tokenizer: PreTrainedTokenizerBase, text: str, mask_id: int) -> Int[Tensor, "N"]:
    """The tokens of a text in which each underscore of a blank stands for one token to be written.

    What stands between the blanks is tokenised by itself. Spaces before a blank are left out, as
    byte-pair tokens bring their own. Raises `ValueError` if there is no blank, and for text that
    makes special tokens.
    """
    checks.text("template", text)
    if not BLANK.search(text):
        raise ValueError(
            f"template: got {text!r:.60}, expected at least one blank: underscores that touch no "
            "letter, one for each token, as in 'I am ____ because ____'"
        )
    ids: list[int] = []
    end = 0
    for blank in BLANK.finditer(text):
        ids += _plain(tokenizer, text[end : blank.start()].rstrip(" "))
        ids += [mask_id] * len(blank[0])
        end = blank.end()
    return torch.tensor(ids + _plain(tokenizer, text[end:]))


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    special = [index for index in ids if index in tokenizer.all_special_ids]
    if special:
        name = tokenizer.convert_ids_to_tokens(special[0])
        raise ValueError(f"template: got the special token {name!r} in {text!r:.60}")
    return ids


def conversation(
    tokenizer: PreTrainedTokenizerBase, prompt: str, response: str | None = None, **options: Any
) -> str:
    """The text of a conversation of one turn, up to where the answer begins or with the answer.
    `options` are the template's.
    """
    turns = [{"role": "user", "content": prompt}]
    if response is not None:
        turns.append({"role": "assistant", "content": response})
    try:
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=response is None, **options
            )
        )
    except Exception as error:  # a template can do anything
        reason = " ".join(str(error).split())
        raise ValueError(f"checkpoint: its chat template does not work: {reason}") from error


def around_response(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, str]:
    """What the chat template writes before an answer and after it.

    Found by splitting at a placeholder. Source: authors' code.
    """
    parts = [""]
    for placeholder in ("RESPONSE", f"RESPONSE{prompt_key(prompt) % 2**64:016x}"):
        if placeholder not in prompt:
            parts = conversation(tokenizer, prompt, placeholder).split(placeholder)
        if len(parts) == 2:  # else the word may stand in the template itself
            return parts[0], parts[1]
    raise ValueError(
        f"checkpoint: its chat template shows an answer {len(parts) - 1} times, expected once"
    )
