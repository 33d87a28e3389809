"""Tokenizers from their plain files, and the conversation that a chat template makes."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Bool, Int
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from .. import checks
from ..protocols import prompt_key
from .checkpoints import quiet, read_json
from .templates import process


def load_tokenizer(folder: Path, kind: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint: of class `kind`, or of the class that it names itself.

    Raises `ValueError` if its files do not load, if it has no chat template, if its class is no
    tokenizer of transformers, if it leaves letters out, or if a token has another id than its files
    say.
    """
    process.start()  # while the files are read
    _require_readable(folder)
    written = _written(folder / "tokenizer_config.json")
    kind = kind or SAME_AS.get(str(written.get("tokenizer_class")))
    if kind is None:
        _require_known_class(written, folder)
    loader = getattr(transformers, kind) if kind else AutoTokenizer
    files = ("tokenizer.json", "vocab.json", "tokenizer.model")
    if not any((folder / file).is_file() for file in files):
        raise ValueError(f"checkpoint: {folder} has no tokenizer, none of {', '.join(files)}")
    _require_as_read(written, folder)
    _require_short(folder)
    beside = () if (folder / "tokenizer.json").is_file() else ("merges.txt",)
    lacks = [name for name in ("tokenizer_config.json", *beside) if not (folder / name).is_file()]
    perhaps = f" (it has no {' and no '.join(lacks)})" if lacks else ""
    with working(f"checkpoint: the tokenizer of {folder} does not load{perhaps}"), quiet():
        tokenizer = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        longest = max(map(len, tokenizer.get_vocab()), default=0)
        if longest > LONGEST:
            raise ValueError(f"a token has {longest} letters, expected at most {LONGEST}")
        ids = tokenizer(SENTENCE, add_special_tokens=False)["input_ids"]
        back = tokenizer.decode(ids)
        _ = [getattr(tokenizer, f"{kind}_token_id") for kind in ("unk", "eos", "pad", "mask")]
    if getattr(tokenizer, "split_special_tokens", False):
        raise ValueError(
            "split_special_tokens: got True, with which the marks of a chat template are text"
        )
    tokenizer.model_max_length = sys.maxsize  # positions are counted here: `require_positions`
    left = iter(back.lower())  # some tokenizers know no capitals
    lost = [c for c in SENTENCE.lower() if c.isalnum() and c not in left]
    if lost and tokenizer.unk_token_id not in ids:
        raise ValueError(
            f"checkpoint: the tokenizer of {folder} makes {back!r:.60} of {SENTENCE!r}, expected "
            "all of its letters: what is left out nobody would read"
        )
    _require_one_token_each(tokenizer, folder)
    _require_declared(tokenizer, folder)
    _require_merges(tokenizer, folder)
    template = tokenizer.chat_template  # several of them, by name, are a mapping
    if not (isinstance(template, str | Mapping) and template):
        raise ValueError(f"checkpoint: the tokenizer of {folder} has no chat template")
    if isinstance(template, Mapping) and not isinstance(template.get("default"), str):
        raise ValueError(
            f"checkpoint: the tokenizer of {folder} has the chat templates "
            f"{checks.some(sorted(map(repr, template)))}, expected a text by the name 'default'"
        )
    each = [template] if isinstance(template, str) else template.values()
    if any(str(one).startswith("\ufeff") for one in each):
        raise ValueError(
            f"checkpoint: the chat template of {folder} begins with a byte order mark, which would "
            "stand in each prompt: save it without"
        )
    return tokenizer


def _require_known_class(written: Mapping[str, Any], folder: Path) -> None:
    """Raise `ValueError` unless the class that is named, in tokenizer_config.json (`written`) or
    else in config.json, is a tokenizer of transformers itself. Of another one, such as
    AutoProcessor, it would look for code in the folder and ask whether to run it.
    """
    config = _written(folder / "config.json")
    file, declared = folder / "tokenizer_config.json", written.get("tokenizer_class")
    if declared is None and config.get("tokenizer_class") is not None:
        file, declared = folder / "config.json", config["tokenizer_class"]
    maps = [written.get("auto_map") or {}, config.get("auto_map") or {}]
    own = any(isinstance(found, list) or "AutoTokenizer" in str(found) for found in maps)
    with working(f"checkpoint: the tokenizer of {folder} does not load"), quiet():
        known = not own if declared is None else _is_tokenizer(declared)
    if not known:
        raise ValueError(
            f"tokenizer_class: got {declared!r:.60} in {file}, which is no tokenizer of "
            "transformers, and a checkpoint's own code is not run"
        )


def _is_tokenizer(name: Any) -> bool:
    """Whether a name, with or without `Fast` at its end, is that of a tokenizer."""
    bare = name.removesuffix("Fast") if isinstance(name, str) else ""
    found = [tokenizer_class_from_name(one) for one in (bare, f"{bare}Fast")]
    known = [one for one in found if one is not None]
    return bool(known) and all(
        isinstance(one, type) and issubclass(one, PreTrainedTokenizerBase) for one in known
    )


SENTENCE = "The quick brown fox jumps over 13 lazy dogs"
"""Each letter once at least."""
LONGEST = 2**16
"""Letters of a token, which may stand at each place of an answer. Real ones have some hundreds."""


@contextmanager
def working(said: str) -> Iterator[None]:
    """Tokenizers at work. Whatever goes wrong in them is a `ValueError` that begins with what is
    `said`.

    A panic of the library is no `Exception`, and writes lines of its own to the standard error
    before Python knows: these are left out.
    """
    panicked = False
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as heard:
        kept = _redirected(heard.fileno())
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            panicked = not isinstance(error, Exception)
            raise ValueError(f"{said}: {' '.join(str(error).split())[:300]}") from error
        finally:
            if kept is not None:
                os.dup2(kept, STANDARD_ERROR)
                os.close(kept)
                heard.seek(0)
                if not panicked and (lines := heard.read()):
                    os.write(STANDARD_ERROR, lines)


def _redirected(to: int) -> int | None:
    """The standard error as it was, None if it is closed; what is written to it goes elsewhere."""
    try:
        kept = os.dup(STANDARD_ERROR)
    except OSError:
        return None
    os.dup2(to, STANDARD_ERROR)
    return kept


STANDARD_ERROR = 2
_ONE_AT_A_TIME = threading.RLock()


def _require_one_token_each(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise `ValueError` if two tokens have one id: which of them is meant, nobody says."""
    of: dict[int, str] = {}
    for token, index in tokenizer.get_vocab().items():
        if index in of:
            raise ValueError(
                f"checkpoint: the tokenizer of {folder} gives the id {index} to {of[index]!r} and "
                f"to {token!r}"
            )
        of[index] = token


def _require_declared(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise `ValueError` if an added token has another id than its file says. Where one is missing
    or stands twice, libraries number those that follow by their order, without a word.
    """
    known, config = tokenizer.get_vocab(), folder / "tokenizer_config.json"
    listed = _written(folder / "tokenizer.json").get("added_tokens")
    by_id = _written(config).get("added_tokens_decoder")
    declared = [("tokenizer.json", one) for one in listed or [] if isinstance(one, Mapping)]
    if isinstance(by_id, Mapping):
        declared += [(config.name, {**one, "id": int(i)}) for i, one in by_id.items()]
    for file, one in declared:
        content = one.get("content", "")
        if known.get(content) != one.get("id"):
            found = f"the id {known[content]}" if content in known else "no id"
            raise ValueError(
                f"checkpoint: the tokenizer of {folder} gives {content!r:.60} {found}, but {file} "
                f"says {one.get('id')}"
            )


def require_ids(folder: Path) -> None:
    """Raise `ValueError` if a special token that is named, such as the mask, has no id in the
    files: libraries would give it the next one, of which the network has learnt nothing.
    """
    whole, config = _written(folder / "tokenizer.json"), _written(folder / "tokenizer_config.json")
    model = whole.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    vocabulary = vocabulary or _written(folder / "vocab.json")
    if not vocabulary:
        return  # it is in a file of another kind
    listed = {one[0] if isinstance(one, list) else one for one in vocabulary if one}
    listed |= _written(folder / "added_tokens.json").keys()
    by_id = config.get("added_tokens_decoder") or {}
    for one in [*(whole.get("added_tokens") or []), *by_id.values()]:
        listed |= {one["content"]} if isinstance(one, Mapping) and "content" in one else set()
    for kind in ("mask", "eos", "pad"):
        named = config.get(f"{kind}_token")
        token = named.get("content") if isinstance(named, Mapping) else named
        if isinstance(token, str) and token not in listed:
            raise ValueError(
                f"{kind}_token: got {token!r:.60} in {folder / 'tokenizer_config.json'}, to which "
                "no file of the tokenizer gives an id"
            )


def _require_merges(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raise `ValueError` if some tokens of a byte-level vocabulary cannot be made from letters, as
    when a download of merges.txt broke off, or if a letter is missing, which would be left out.

    In a tokenizer.json some tokens may be unreachable, but not half of them.
    """
    _require_most_made(folder / "tokenizer.json")
    merges, words = folder / "merges.txt", folder / "vocab.json"
    if (folder / "tokenizer.json").is_file() or not (merges.is_file() and words.is_file()):
        return
    added, letters = tokenizer.get_added_vocab(), {*ByteLevel.alphabet()}
    lines = merges.read_text(encoding="utf-8-sig").splitlines()
    made = letters | {line.replace(" ", "", 1) for line in lines if " " in line}
    vocabulary = _written(words)
    if any(token.endswith(END_OF_WORD) for token in vocabulary):
        return  # letters stand there twice, and merges are of both
    for reason, missing in (
        (f"{words} lacks letters", letters - vocabulary.keys()),
        (f"{merges} makes no", vocabulary.keys() - made - added.keys()),
    ):
        if missing:
            raise ValueError(
                f"checkpoint: {reason} {checks.some(sorted(map(repr, missing)))}; is it complete?"
            )


def _require_most_made(file: Path) -> None:
    """Raise `ValueError` if half of the tokens of this tokenizer.json cannot be made by merges,
    where a text is split into bytes.
    """
    written = _written(file)
    model, steps = written.get("model"), list(_steps(written.get("pre_tokenizer")))
    if not any(isinstance(step, Mapping) and step.get("type") == "ByteLevel" for step in steps):
        return
    if not isinstance(model, Mapping) or model.get("type") != "BPE" or model.get("ignore_merges"):
        return
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return
    pairs = model.get("merges")
    made = {
        pair.replace(" ", "", 1) if isinstance(pair, str) else "".join(map(str, pair))
        for pair in (pairs if isinstance(pairs, list) else [])
    }
    longer = {token for token in model.get("vocab") or () if len(token) > 1}
    missing = {token for token in longer - made if not re.fullmatch(r"<.*>|\[.*\]", token)}
    if 2 * len(missing) > len(longer):
        raise ValueError(
            f"checkpoint: the merges of {file} make no {checks.some(sorted(map(repr, missing)))}; "
            "is it complete?"
        )


END_OF_WORD = "</w>"
"""Ends the last letter of a word in some vocabularies, of which merges are made as well."""
GROWTH = 400
"""Times as long may a text become before it is split into tokens. Real ones come to 360 at most, by
NFKC, Lowercase, a pattern that is replaced by a space, and ByteLevel.
"""


def _require_as_read(written: Mapping[str, Any], folder: Path) -> None:
    """Raise `ValueError` for what would make other tokens or conversations than tokenizer.json and
    the chat template: files that are read instead, and chance. `written` is tokenizer_config.json.
    """
    if written.get("fast_tokenizer_files"):
        raise ValueError(
            f"fast_tokenizer_files: got {written['fast_tokenizer_files']!r:.60}, expected none: "
            "the tokenizer is that of tokenizer.json"
        )
    if (folder / NAMED_TEMPLATE).exists():
        raise ValueError(
            f"checkpoint: {folder} has the template {NAMED_TEMPLATE}, which would be taken instead "
            "of its chat template"
        )
    model = _written(folder / "tokenizer.json").get("model")
    if isinstance(model, Mapping) and model.get("dropout"):
        raise ValueError(
            f"dropout: got {model['dropout']!r:.60} in {folder}/tokenizer.json, expected none: a "
            "text would have other tokens each time"
        )


def _require_readable(folder: Path) -> None:
    """Raise `ValueError` for a file that is no text or no object of JSON, for a key that stands
    twice, such as a token with two ids, of which the last would count, and for fields and ids of
    another kind, which are left out, wrapped around or said in words of the library's own.
    """
    found = {name: read_json(folder / name) for name in WRITTEN if (folder / name).is_file()}
    for name in (*TEXTS, NAMED_TEMPLATE):
        try:
            (folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ValueError(f"checkpoint: {folder / name} is no text: {error}") from error
    for field, kinds in KINDS.items():
        value = found.get("tokenizer_config.json", {}).get(field, kinds[0]())
        if not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool)):
            expected = " or ".join(NAMES_OF_KINDS[kind] for kind in kinds)
            raise ValueError(
                f"{field}: got {checks.shown(value, 60)} in {folder / 'tokenizer_config.json'}, "
                f"expected {expected}"
            )
    model = found.get("tokenizer.json", {}).get("model")
    inner = model.get("vocab") if isinstance(model, Mapping) else None
    for name, ids in (("vocab.json", found.get("vocab.json")), ("tokenizer.json", inner)):
        for token, index in ids.items() if isinstance(ids, Mapping) else ():
            if type(index) is not int or not 0 <= index < 2**31:
                raise ValueError(
                    f"checkpoint: {folder / name}: the id of {checks.shown(token, 60)}: got "
                    f"{checks.shown(index, 60)}, expected an integer in [0, 2^31)"
                )


WRITTEN = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""The files of a tokenizer that hold objects of JSON."""
TEXTS = ("merges.txt", "chat_template.jinja")
"""Those that hold other text."""
KINDS: dict[str, tuple[type, ...]] = {
    "added_tokens_decoder": (dict,),
    "auto_map": (dict, list),
    "model_max_length": (int, float),
    "split_special_tokens": (bool,),
}
"""Fields of tokenizer_config.json, and what they may be."""
NAMES_OF_KINDS = {dict: "an object", list: "a list", int: "an integer", float: "a number"} | {
    bool: "true or false"
}
NAMED_TEMPLATE = "additional_chat_templates/default.jinja"


def _require_short(folder: Path) -> None:
    """Raise `ValueError` for steps that may make a text longer and longer, and for very many of
    them: nothing can stop them once they run.
    """
    file = folder / "tokenizer.json"
    written = _written(file)
    growth = 1.0
    for part, known in LETTERS.items():
        steps = list(_steps(written.get(part)))
        kinds = [step.get("type") if isinstance(step, Mapping) else None for step in steps]
        for step, kind in zip(steps, kinds, strict=True):
            if not (isinstance(kind, str) and kind in known):
                raise ValueError(
                    f"checkpoint: the {part} of {file} has a step {kind or step!r:.60}, expected "
                    f"one of {', '.join(known)}"
                )
        levels = kinds.count("ByteLevel")
        if levels > 1 or len(kinds) > MOST_STEPS:
            found = f"{levels} times ByteLevel" if levels > 1 else f"{len(kinds)} steps"
            raise ValueError(
                f"checkpoint: the {part} of {file} has {found}, expected at most "
                f"{1 if levels > 1 else MOST_STEPS}"
            )
        growth = 1.0 if part == "decoder" else growth  # it is given tokens, the others a text
        for step in steps:
            growth *= known[step["type"]] * _letters(step)
        if growth > GROWTH:
            raise ValueError(
                f"checkpoint: the {part} of {file} may make a text {growth:.3g} times as long, "
                f"expected at most {GROWTH} times"
            )
        lost = None if part == "decoder" else next(filter(None, map(_leaves_out, steps)), None)
        if lost:
            raise ValueError(
                f"checkpoint: the {part} of {file} leaves {lost!r:.60} out of a text, expected all "
                "of its letters: what is left out nobody would read"
            )


def _leaves_out(step: Mapping[str, Any]) -> str | None:
    """The pattern by which a step leaves certain words out, which `SENTENCE` may not have."""
    pattern = step.get("pattern")
    found = next(iter(pattern.values()), "") if isinstance(pattern, Mapping) else ""
    written = f"{step.get('delimiter') or ''}{found}"
    named = re.search(r"[^\W_]", NO_LETTERS.sub("", written))
    split = step["type"] in ("Split", "CharDelimiterSplit") and not step.get("invert")
    removed = split and step.get("behavior", "Removed") == "Removed"
    replaced = step["type"] == "Replace" and not re.search(r"[^\W_]", str(step.get("content")))
    return written if named and (removed or replaced) else None


NO_LETTERS = re.compile(
    r"\\[pP]\{\w+\}|\\[xu]\{?[\da-fA-F]+\}?|\\\w|\{[\d,]+\}|\[:\w+:\]|\(\?[\w<>=!:-]*"
)
"""Letters and digits of a pattern that stand for no letters: classes, signs by number, counts."""


def _letters(step: Mapping[str, Any]) -> float:
    """How many letters a step may make of one, where that depends on its fields."""
    kind, pattern = step["type"], step.get("pattern")
    if kind == "Replace":
        content = len(str(step.get("content")))
        if isinstance(pattern, Mapping) and pattern.get("String"):
            return max(1, content / len(str(pattern["String"])))
        return 1 + content  # a pattern may find nothing at all, between any two letters
    if kind == "Precompiled":
        return _longest(str(step.get("precompiled_charsmap")))
    if kind == "TemplateProcessing":
        return max(1, str(step.get("single")).count("'Sequence'"))
    if "" in (step.get("suffix"), step.get("word_delimiter_token")):
        return 3  # a space between any two letters
    return 1 + len(str(step.get("prepend", "")))


def _longest(table: str) -> int:
    """The longest text that a table of SentencePiece's writes: behind a trie, whose size is its
    first number, they stand one after another, with a NUL after each.
    """
    try:
        data = base64.b64decode(table)
    except ValueError:
        return 1  # loading it says so
    texts = data[4 + int.from_bytes(data[:4], "little") // 4 * 4 :]
    return max(1, *map(len, texts.decode(errors="replace").split("\0")))


def _steps(whole: Any) -> Iterator[Any]:
    """The steps of a part of tokenizer.json: itself, and those that it is a sequence of."""
    left = [whole]
    while left:
        one = left.pop()
        if one is not None:
            yield one
        if isinstance(one, Mapping):
            for name in ("normalizers", "pretokenizers", "processors", "decoders"):
                inner = one.get(name)
                left += inner if isinstance(inner, list) else []


MOST_STEPS = 100
"""Real ones have some ten in a part."""
LETTERS = {
    "normalizer": dict.fromkeys(("Nmt", "Precompiled", "Prepend", "Replace", "Sequence"), 1)
    | {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Strip": 1, "StripAccents": 1}
    | {"BertNormalizer": 3, "ByteLevel": 4, "Lowercase": 2},
    "pre_tokenizer": dict.fromkeys(("BertPreTokenizer", "CharDelimiterSplit", "Digits"), 1)
    | dict.fromkeys(("FixedLength", "Punctuation", "Sequence", "Split", "UnicodeScripts"), 1)
    | {"ByteLevel": 5, "Metaspace": 2, "Whitespace": 1, "WhitespaceSplit": 1},
    "post_processor": dict.fromkeys(("BertProcessing", "ByteLevel", "RobertaProcessing"), 1)
    | {"Sequence": 1, "TemplateProcessing": 1},
    "decoder": dict.fromkeys(("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse"), 1)
    | {"Metaspace": 1, "Replace": 1, "Sequence": 1, "Strip": 1, "WordPiece": 2},
}
"""The steps of each part, and how many letters one of them makes of one at most: U+FDFA is a whole
sentence in NFKC. Those that are called otherwise, or not at all, might do anything.
"""


SAME_AS = {"DreamTokenizer": "Qwen2Tokenizer"}
"""Classes of remote code, and those of transformers that give the same ids."""


def _written(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
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
    encoded = [ids_of(tokenizer, text, model) for text in texts]
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


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str, model: str) -> list[int]:
    """The tokens of a text as it stands. `ValueError` that names the `model` if it has none, or
    only after more than `SECONDS`.
    """
    found: list[list[int]] = []
    failed: list[BaseException] = []

    def split() -> None:
        try:
            found.append(tokenizer(text, add_special_tokens=False)["input_ids"])
        except BaseException as error:
            failed.append(error)

    with working(f"checkpoint: the tokenizer of {model} does not work"):
        # Some patterns take the square of a text's length and more, and nothing can stop them but
        # the end of the process, for which a daemon is not waited for.
        thread = threading.Thread(target=split, daemon=True)
        thread.start()
        thread.join(SECONDS)
        if failed:
            raise failed[0]
        if not found:
            raise ValueError(f"it takes more than {SECONDS} seconds for {len(text)} characters")
    return found[0]


SECONDS = 30
"""For the tokens of one text. The tests' tokenizers take one or two for a million characters."""


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
        ids += _plain(tokenizer, text[end : blank.start()].rstrip(" "), mask_id)
        ids += [mask_id] * len(blank[0])
        end = blank.end()
    return torch.tensor(ids + _plain(tokenizer, text[end:], mask_id))


def _plain(tokenizer: PreTrainedTokenizerBase, text: str, mask_id: int) -> list[int]:
    ids = ids_of(tokenizer, text, "the denoiser") if text else []
    special = [index for index in ids if index in (*tokenizer.all_special_ids, mask_id)]
    if special:
        name = tokenizer.convert_ids_to_tokens(special[0])
        raise ValueError(f"template: got the special token {name!r} in {text!r:.60}")
    return ids


def conversation(
    tokenizer: PreTrainedTokenizerBase, prompt: str, response: str | None = None, **options: Any
) -> str:
    """The text of a conversation of one turn, up to where the answer begins or with the answer.
    `options` are the template's.

    Raises `ValueError` if the template fails, takes too much time or memory, or leaves the prompt
    out.
    """
    turns = [{"role": "user", "content": prompt}]
    if response is not None:
        turns.append({"role": "assistant", "content": response})
    options["add_generation_prompt"] = response is None
    try:
        text = _rendered(tokenizer, turns, options)
    except Exception as error:  # a template can do anything
        reason = " ".join(str(error).split())
        raise ValueError(f"checkpoint: its chat template does not work: {reason}") from error
    if text and prompt.strip() not in text:
        raise ValueError(
            f"checkpoint: its chat template leaves the prompt out, or changes it: {prompt!r:.60}"
        )
    return text


def _rendered(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], options: dict[str, Any]
) -> str:
    if not isinstance(tokenizer, PreTrainedTokenizerBase):  # one of ours, without a template
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    template = tokenizer.get_chat_template()
    return process.render(template, turns, **{**tokenizer.special_tokens_map, **options})


def warn_of_special(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> None:
    """Warn if a prompt holds what the tokenizer reads as a special token, and not as text."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = sorted(token.content for token in added if token.special)
    for prompt in prompts:
        if found := [name for name in special if name in prompt]:
            warnings.warn(
                f"prompt: {prompt!r:.60} holds {checks.some(found)}, read as special tokens and "
                "not as text, as in the authors' code: row 13b of docs/ledger.md",
                stacklevel=3,
            )


def answered(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> str:
    """The text of a conversation with all of an answer.

    Where the template leaves out a part of it, such as what stands before `</think>`, that is what
    the template writes around an answer, and the answer between: what guidance reads.
    """
    text, answer = conversation(tokenizer, prompt, response), response.strip()
    before, after = around_response(tokenizer, prompt)
    if text.count(answer) > before.count(answer):  # a prompt may quote it
        return text
    return f"{before}{response}{after}"


def around_response(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, str]:
    """What the chat template writes before an answer and after it.

    Found by splitting at a placeholder. Source: authors' code; that another one is tried: ours.
    """
    parts = [""]
    for placeholder in ("RESPONSE", f"RESPONSE{prompt_key(prompt) % 2**64:016x}"):
        if placeholder not in prompt:
            parts = conversation(tokenizer, prompt, placeholder).split(placeholder)
        if len(parts) == 2:  # else the word may stand in the template itself
            before, after = parts
            other = placeholder[::-1]
            if conversation(tokenizer, prompt, other) != f"{before}{other}{after}":
                raise ValueError(
                    "checkpoint: its chat template writes something else around another answer, or "
                    "in its place"
                )
            return before, after
    raise ValueError(
        f"checkpoint: its chat template shows an answer {len(parts) - 1} times, expected once"
    )
