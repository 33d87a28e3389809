"""Checkpoints that lie: their weights, their index, their configuration and their tokenizer."""

import base64
import itertools
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoProcessor, GPT2Config, GPT2LMHeadModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from checkpoints import DREAM, REMOVED, REWARD, SHORT, causal, changed, weights_in
from corpus import VALUES, header, in_shards, one_weight, refusal
from entrgi_ref import SamplingConfig, generate
from entrgi_ref.models import Dream, RewardCheckpoint, SequenceReward, load_denoiser, tokenizers
from entrgi_ref.models.checkpoints import quiet
from entrgi_ref.models.combined import examine_reward
from entrgi_ref.models.denoiser import DenoiserCheckpoint
from entrgi_ref.models.families import family_of
from entrgi_ref.models.likelihood import LikelihoodCheckpoint
from entrgi_ref.models.tokenizers import (
    LETTERS,
    _require_most_made,
    conversation,
    load_tokenizer,
    working,
)

pytestmark = pytest.mark.usefixtures("as_users_run_it")
OTHERS = DREAM.parent.parent / "parity-models"
LLADA = OTHERS / "llada-tiny"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def denoiser():
    return Dream.from_pretrained(DREAM, dtype="float32", device="cpu")


@pytest.fixture(params=["denoiser", "reward"])
def kind(request, denoiser):
    """A checkpoint, and how it is loaded."""
    if request.param == "denoiser":
        return DREAM, lambda folder: load_denoiser(folder, dtype="float32", device="cpu")
    return REWARD, lambda folder: SequenceReward.from_pretrained(folder, denoiser, dtype="float32")


def said_as(dtype):
    """The norms are said to be of a type, of the same size."""

    def edit(content):
        for name in content:
            if "norm" in name:
                content[name]["dtype"] = dtype

    return header(edit)


def said(part, **fields):
    return header(lambda content: one_weight(content, part).update(fields))


def overlapping(content):
    offsets = one_weight(content, "mlp.gate")["data_offsets"]
    one_weight(content, "mlp.up")["data_offsets"] = offsets


def replaced(change):
    """Another thing in the place of the file."""

    def edit(file):
        file.unlink()
        change(file)

    return edit


def lengthened(data):
    return lambda file: file.write_bytes(data(file.read_bytes()))


WEIGHTS = {
    "integers": (said_as("I32"), "stored as I32, expected one of F64, F32, F16, BF16"),
    "unsigned": (said_as("U32"), "stored as U32"),
    "no type": (said_as("X32"), "do not load"),
    "another size": (said_as("F64"), "do not load"),
    "turned": (said("mlp.up", shape=[48, 96]), "another shape|do not load"),
    "huge": (said("mlp.up", shape=[10**15, 10**15]), "do not load"),
    "elsewhere": (said("mlp.up", data_offsets=[10**15, 10**16]), "do not load"),
    "overlapping": (header(overlapping), "do not load"),
    "no header": (lengthened(lambda data: b""), "do not load"),
    "endless header": (lengthened(lambda data: b"\xff" * 8 + b"{}"), "do not load"),
    "half a header": (lengthened(lambda data: data[:100]), "do not load"),
    "a byte less": (lengthened(lambda data: data[:-1]), "do not load"),
    "a byte more": (lengthened(lambda data: data + b"x"), "do not load"),
    "a folder": (replaced(lambda file: file.mkdir()), "is no file that can be read"),
    "a pipe": (replaced(os.mkfifo), "is no file that can be read"),
    "a device": (replaced(lambda f: f.symlink_to("/dev/zero")), "is no file that can be read"),
    "nowhere": (replaced(lambda f: f.symlink_to("nowhere")), "is no file that can be read"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_lie_are_refused(name, kind, tmp_path):
    source, load = kind
    edit, reason = WEIGHTS[name]
    folder = changed(source, tmp_path)
    edit(folder / WHOLE)
    message = refusal(lambda: load(folder))
    assert message
    assert any(part in message for part in reason.split("|")), message


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_floating_point_numbers_are_refused(dtype, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path)
    weights = {name: tensor.to(dtype) for name, tensor in weights_in(folder / WHOLE).items()}
    try:
        save_file(weights, folder / WHOLE, metadata={"format": "pt"})
    except KeyError:
        pytest.skip("this version of safetensors has no such type")
    assert "expected one of F64, F32, F16, BF16" in refusal(lambda: load(folder))


def test_a_weight_under_two_names_is_refused(kind, tmp_path):
    """With and without a prefix that transformers adds: either could be read."""
    source, load = kind
    folder = changed(source, tmp_path)
    weights = weights_in(folder / WHOLE)
    table = "model.embed_tokens.weight"
    weights["embed_tokens.weight"] = torch.zeros_like(weights[table])
    save_file(weights, folder / WHOLE, metadata={"format": "pt"})
    said = refusal(lambda: load(folder))
    assert f"has the weight {table} twice, as " in said


def test_a_weight_under_a_name_that_is_translated_and_under_ours_is_refused(tmp_path):
    folder = changed(LLADA, tmp_path)
    for shard in folder.glob("*.safetensors"):
        weights = weights_in(shard)
        if norm := [name for name in weights if name.endswith("transformer.ln_f.weight")]:
            weights["model.norm.weight"] = torch.zeros_like(weights[norm[0]])
            save_file(weights, shard, metadata={"format": "pt"})
    said = refusal(lambda: load_denoiser(folder, dtype="float32", device="cpu"))
    assert "has the weight model.norm.weight twice, as " in said


def test_what_transformers_would_load_unasked_is_refused(kind, tmp_path):
    """An adapter, where peft is installed; and another file of weights."""
    source, load = kind
    folder = changed(source, tmp_path / "adapter")
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter too" in refusal(lambda: load(folder))
    weights = "other.safetensors"
    folder = changed(source, tmp_path / "other", config={"transformers_weights": weights})
    shutil.copy(folder / WHOLE, folder / weights)
    assert f"transformers_weights: got {weights!r}" in refusal(lambda: load(folder))


def first(weights):
    return next(iter(weights))


def doubled(folder, halves, index):
    name = first(halves[0])
    halves[1][name] = halves[0][name] * 0 + 7


def outside(folder, halves, index):
    save_file(halves[0], folder.parent / "other.safetensors", metadata={"format": "pt"})
    for name in halves[0]:
        index[name] = "../other.safetensors"


def pickled(folder, halves, index):
    torch.save({}, folder / "a.bin")
    index[first(index)] = "a.bin"


def beside(folder, halves, index):
    save_file(halves[0] | halves[1], folder / WHOLE, metadata={"format": "pt"})


def named(value):
    return lambda folder, halves, index: index.update({first(index): value})


SHARDS = {
    "a weight in both": (doubled, r"twice, in model-00001-of-00002"),
    "beside the whole": (beside, "expected one of the two"),
    "of another folder": (outside, "names the shard '../other.safetensors'"),
    "by its path": (named("/etc/x.safetensors"), "names the shard '/etc/x.safetensors'"),
    "pickled": (pickled, "names the shard 'a.bin'"),
    "missing": (named("no.safetensors"), "lacks the shards no.safetensors"),
    "a list": (named(["x"]), "names the shard"),
    "an object": (named({}), "names the shard"),
    "null": (named(None), "names the shard 'None'"),
    "a number": (named(5), "names the shard '5'"),
    "by a name that no file has": (named("x" * 300 + ".safetensors"), "names the shard 'xxx"),
    "with a NUL": (named("a\0b.safetensors"), "lacks the shards"),
    "none": (lambda folder, halves, index: index.clear(), "has no weight_map"),
}


@pytest.mark.parametrize("name", SHARDS)
def test_shards_that_do_not_fit_are_refused(name, kind, tmp_path):
    source, load = kind
    edit, reason = SHARDS[name]
    folder = in_shards(changed(source, tmp_path), edit)
    assert reason in refusal(lambda: load(folder))


def test_two_shards_alone_are_fine(kind, tmp_path):
    source, load = kind
    folder = in_shards(changed(source, tmp_path), lambda *_: None)
    assert refusal(lambda: load(folder)) is None


BAD_JSON = {
    "empty": b"",
    "lists": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "a list": b"[1]",
    "null": b"null",
    "nan": b'{"a": NaN}',
    "too large": b'{"a": 1e400}',
    "digits": b'{"a": ' + b"1" * 5000 + b"}",
    "latin": b'{"a": "\xe9"}',
    "zeros": b"\0" * 100,
}


@pytest.mark.parametrize("file", ["config.json", INDEX, "tokenizer_config.json", "vocab.json"])
@pytest.mark.parametrize("name", BAD_JSON)
def test_files_that_are_no_json_are_refused(name, file, tmp_path):
    """Two of these are JSON of transformers' own files, where no number of ours is in question."""
    folder = changed(REWARD, tmp_path)
    if file == INDEX:
        (folder / WHOLE).rename(folder / "model-1.safetensors")
    (folder / file).write_bytes(BAD_JSON[name])
    assert refusal(lambda: SequenceReward.from_pretrained(folder, None))


GENERATION = {
    "a list": "[1]",
    "no json": "{",
    "a cache that there is not": '{"cache_implementation": "banana"}',
    "compilation": '{"compile_config": [5]}',
    "an end of any kind": '{"eos_token_id": {"a": 1}}',
}


@pytest.mark.parametrize("name", GENERATION)
@pytest.mark.parametrize("source", [DREAM, LLADA, None], ids=["dream", "llada", "likelihood"])
def test_how_a_checkpoint_would_generate_is_not_read(source, name, denoiser, tmp_path):
    """Nothing here generates as transformers does: such a file spoils no good checkpoint."""
    folder = changed(source, tmp_path) if source else causal(tmp_path)
    (folder / "generation_config.json").write_text(GENERATION[name])
    if source:
        assert refusal(lambda: load_denoiser(folder, dtype="float32", device="cpu")) is None
    else:
        loaded = LikelihoodCheckpoint.examine(folder)
        assert refusal(lambda: loaded.load(denoiser, dtype="float32")) is None


@pytest.mark.parametrize("metadata", [REMOVED, None, [], "x", 5])
def test_an_index_without_metadata_is_refused(metadata, kind, tmp_path):
    """Which transformers writes into it as it reads."""
    source, load = kind
    folder = in_shards(changed(source, tmp_path), lambda *_: None)
    written = json.loads((folder / INDEX).read_text()) | {"metadata": metadata}
    kept = {key: value for key, value in written.items() if value is not REMOVED}
    (folder / INDEX).write_text(json.dumps(kept))
    got = None if metadata is REMOVED else metadata
    said = f"checkpoint: {folder / INDEX}: metadata: got {got!r}, expected an object"
    assert refusal(lambda: load(folder)) == said


def cut_merges(folder):
    lines = (folder / "merges.txt").read_text().splitlines(keepends=True)
    (folder / "merges.txt").write_text("".join(lines[:50]))


NUMBERS = {
    "rms_norm_eps": (float("nan"), float("inf"), -1, 0),
    "rope_theta": (float("nan"), float("inf"), -1, 0, 10**400),
    "max_position_embeddings": (float("nan"), -1, 0),
    "num_hidden_layers": (10**6, 10**12, 10**30, -1, 0, 1.5),
    "intermediate_size": (2**31, 10**12, 10**30, -1),
    "hidden_size": (2**31, 10**12, 10**30),
    "vocab_size": (2**31, 10**12, 10**30),
    "num_attention_heads": (2**31, 10**30),
    "pad_token_id": (2**31, 10**30, float("nan")),
}


def with_tokenizer(folder, source=LLADA, **fields):
    """A copy of a checkpoint with other fields in its tokenizer.json."""
    folder = changed(source, folder)
    written = json.loads((folder / "tokenizer.json").read_text())
    for name, value in fields.items():
        written[name] = written[name] | value if name == "model" else value
    (folder / "tokenizer.json").write_text(json.dumps(written))
    return folder


def replacing(times, part="normalizers"):
    one = {"type": "Replace", "pattern": {"String": "m"}, "content": "mm"}
    return {"type": "Sequence", part: [{"type": "Sequence", part: [one] * times}]}


@pytest.mark.parametrize("part", ["normalizer", "decoder"])
@pytest.mark.parametrize("times", [9, 35])
def test_replacements_that_double_and_double_are_refused(part, times, tmp_path):
    """Nothing can end them once they run: at 35 it would take hours, and all memory."""
    folder = with_tokenizer(tmp_path, **{part: replacing(times, f"{part}s")})
    said = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert f"the {part} of {folder}/tokenizer.json may make a text" in said


def chain(part, *steps):
    """A part of tokenizer.json with these steps, one after another."""
    named = {"pre_tokenizer": "pretokenizers", "post_processor": "processors"}
    return {part: {"type": "Sequence", named.get(part, f"{part}s"): [*steps]}}


def step(kind, **fields):
    return {"type": kind, **fields}


def regex(found, content):
    return step("Replace", pattern={"Regex": found}, content=content)


def table(*texts):
    """What SentencePiece writes for letters: a trie, here an empty one, and texts."""
    data = (0).to_bytes(4, "little") + "\0".join(texts).encode()
    return step("Precompiled", precompiled_charsmap=base64.b64encode(data).decode())


def answer(times):
    return step("TemplateProcessing", single=[{"Sequence": {"id": "A", "type_id": 0}}] * times)


BYTES = step("ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
EACH = step("Split", pattern={"Regex": "."}, behavior="Isolated", invert=False)
SPACES = [step("Metaspace", replacement=one, prepend_scheme="always", split=True) for one in "▁_"]
HELD = step("BPEDecoder", suffix=""), step("CTC", word_delimiter_token="", pad_token="q")
GROWING = {
    "bytes": ("normalizer", [step("ByteLevel")] * 2, "has 2 times ByteLevel, expected at most 1"),
    "bytes of pieces": ("pre_tokenizer", [BYTES] * 20, "has 20 times ByteLevel"),
    "sentences": ("normalizer", [regex("x", "\ufdfa"), step("NFKD")] * 3, "4.67e+04 times"),
    "between letters": ("normalizer", [regex("x*", "a")] * 9, "512 times"),
    "capitals": ("normalizer", [regex("i", ""), step("Lowercase")] * 9, "512 times"),
    "Chinese": ("normalizer", [step("BertNormalizer")] * 6, "729 times"),
    "a table": ("normalizer", [table("a", "b" * 401, "c")], "401 times"),
    "tables": ("normalizer", [table("aa")] * 9, "512 times"),
    "a beginning": ("normalizer", [step("Prepend", prepend="a" * 400)], "401 times"),
    "beginnings": ("pre_tokenizer", [*SPACES, EACH] * 5, "1.02e+03 times"),
    "in two parts": ("pre_tokenizer", [*SPACES, EACH] * 4, "1.02e+03 times"),
    "a template": ("post_processor", [answer(401)], "401 times"),
    "a suffix": ("decoder", [HELD[0]] * 6, "729 times"),
    "a delimiter": ("decoder", [HELD[1]] * 6, "729 times"),
    "many": ("normalizer", [step("Nmt")] * 100, "has 101 steps, expected at most 100"),
    "many in pieces": ("pre_tokenizer", [EACH] * 2000, "has 2001 steps"),
    "no name": (
        "normalizer",
        [{"pattern": {"String": "a"}, "content": "b"}],
        "a step {'pattern': ",
    ),
    "a list": ("normalizer", [["NFKC"]], "has a step ['NFKC'], expected one of "),
    "a bare name": ("normalizer", ["NFC"], "has a step 'NFC', expected one of "),
    "another name": ("decoder", [{"type": "x", "suffix": ""}], "has a step 'x', expected one of "),
}


@pytest.mark.parametrize("name", GROWING)
def test_steps_that_make_a_text_longer_and_longer_are_refused(name, tmp_path):
    """Each one alone does little. Together they would take all memory at some letters."""
    part, steps, said = GROWING[name]
    first = {"normalizer": table("aaaa")} if "two parts" in name else {}
    folder = with_tokenizer(tmp_path, **dict.fromkeys(LETTERS) | first | chain(part, *steps))
    found = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert found.startswith(f"checkpoint: the {part} of {folder}/tokenizer.json ")
    assert said in found


def test_a_token_has_a_longest_text(monkeypatch):
    """Or an answer that repeats it would take all memory."""
    longest = max(map(len, load_tokenizer(LLADA).get_vocab()))
    assert longest < tokenizers.LONGEST == 65536
    monkeypatch.setattr(tokenizers, "LONGEST", longest)
    load_tokenizer(LLADA)
    monkeypatch.setattr(tokenizers, "LONGEST", longest - 1)
    said = refusal(lambda: load_tokenizer(LLADA))
    assert f"a token has {longest} letters, expected at most {longest - 1}" in said


SPACE = step("Replace", pattern={"String": " "}, content="▁")
REAL = {
    "llama": chain("normalizer", step("Prepend", prepend="▁"), SPACE),
    "gemma": {"normalizer": SPACE} | chain("decoder", SPACE, step("ByteFallback"), step("Fuse")),
    "clip": chain("normalizer", step("NFC"), regex("\\s+", " "), step("Lowercase"))
    | chain("pre_tokenizer", EACH, BYTES),
    "t5": chain("normalizer", table("a" * 18), regex(" {2,}", "▁"))
    | chain("pre_tokenizer", step("WhitespaceSplit"), SPACES[0]),
    "bert": {"normalizer": step("BertNormalizer"), "decoder": step("WordPiece", prefix="##")},
    "nfkc": chain("normalizer", step("NFKC"), step("Lowercase"), regex("\\s+", " "))
    | {"pre_tokenizer": BYTES}
    | chain("post_processor", BYTES, answer(1)),
    "no table": {"normalizer": step("Precompiled", precompiled_charsmap="x")},
}


@pytest.mark.parametrize("name", REAL)
def test_the_steps_of_real_tokenizers_are_taken(name, tmp_path):
    tokenizers._require_short(with_tokenizer(tmp_path, **dict.fromkeys(LETTERS) | REAL[name]))


SPLIT = {"behavior": "Removed", "invert": False}
CLIP = r"'s|'t|'re|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@pytest.mark.parametrize(
    ("part", "one", "refused"),
    [
        ("pre_tokenizer", step("Split", pattern={"Regex": "hello|not"}, **SPLIT), "hello|not"),
        ("pre_tokenizer", step("Split", pattern={"String": "7"}, **SPLIT), "7"),
        ("pre_tokenizer", step("CharDelimiterSplit", delimiter="e"), "e"),
        ("normalizer", step("Replace", pattern={"Regex": r"\bnot\b"}, content=" "), r"\bnot\b"),
        ("normalizer", step("Replace", pattern={"String": "not"}, content="is"), None),
        ("pre_tokenizer", step("CharDelimiterSplit", delimiter=" "), None),
        ("pre_tokenizer", step("Split", pattern={"Regex": CLIP}, **SPLIT | {"invert": True}), None),
        ("pre_tokenizer", step("Split", pattern={"Regex": CLIP}, behavior="Isolated"), None),
        *[
            ("pre_tokenizer", step("Split", pattern={"Regex": regex}, **SPLIT), None)
            for regex in (r"\s+", " ", r"[\x20\u2581]", r"\p{Z}{2,}", "[[:punct:]]", "(?i:_)")
        ],
    ],
)
def test_words_that_would_be_left_out_are_refused(part, one, refused, tmp_path):
    """No sentence that is tried has all words: what a pattern names tells."""
    folder = with_tokenizer(tmp_path, **dict.fromkeys(LETTERS) | {part: one})
    if refused is None:
        tokenizers._require_short(folder)
    else:
        said = refusal(lambda: tokenizers._require_short(folder))
        assert f"the {part} of {folder}/tokenizer.json leaves {refused!r} out of a text" in said


def test_tokens_by_chance_are_refused(tmp_path):
    """The same text would have other ones at each time."""
    folder = with_tokenizer(tmp_path, model={"dropout": 0.5})
    assert "dropout: got 0.5" in refusal(lambda: DenoiserCheckpoint.examine(folder))


def test_files_that_would_be_read_instead_are_refused(tmp_path):
    files = ["tokenizer.json", "tokenizer.4.0.json"]
    folder = changed(LLADA, tmp_path / "files", tokenizer={"fast_tokenizer_files": files})
    said = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert said.startswith(f"fast_tokenizer_files: got {files!r}")
    folder = changed(LLADA, tmp_path / "template")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("{{ messages }}")
    said = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert "additional_chat_templates/default.jinja, which would be taken instead" in said


NO_TOKENIZERS = (
    *("AutoProcessor", "AutoProcessorFast", "AutoFeatureExtractor", "AutoImageProcessor"),
    *("AutoModel", "AutoModelForCausalLM", "AutoConfig", "AutoTokenizer", "Qwen2Model"),
    *("RagTokenizer", "pipeline", "utils", "OtherTokenizer", "", 5, ["AutoProcessor"]),
)


@pytest.fixture
def unasked(monkeypatch):
    """Nobody is there to be asked whether to run a checkpoint's own code."""
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("asks whether to run code"))


def with_code(folder, **options):
    """A reward model with code of its own, for whatever might be taken for its tokenizer."""
    folder = changed(REWARD, folder, **options)
    (folder / "evil.py").write_text("raise SystemExit('run')")
    kinds = ("Config", "FeatureExtractor", "ImageProcessor", "Model", "Processor", "VideoProcessor")
    maps = {"auto_map": {f"Auto{kind}": "evil.Evil" for kind in kinds}}
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps(maps))
    return folder


@pytest.mark.parametrize("declared", NO_TOKENIZERS, ids=str)
def test_a_class_that_is_no_tokenizer_is_refused(declared, unasked, tmp_path, capfd):
    """Some of them would ask whether to run the checkpoint's own code."""
    fields = {"tokenizer_class": declared}
    for i, where in enumerate(("tokenizer", "config")):
        file = f"{tmp_path}/{i}/reward-tiny/{where}{'_config' * (1 - i)}.json"
        options = {"tokenizer": {"tokenizer_class": None}} | {where: fields}
        folder = with_code(tmp_path / str(i), **options)
        said = refusal(lambda folder=folder: load_tokenizer(folder))
        assert said.startswith(f"tokenizer_class: got {declared!r} in {file}, which is no ")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "declared",
    [None, "Qwen2Tokenizer", "Qwen2TokenizerFast", "PreTrainedTokenizer", "GPT2TokenizerFast"],
)
def test_a_class_that_is_a_tokenizer_is_taken(declared, unasked, tmp_path):
    folder = with_code(tmp_path, tokenizer={"tokenizer_class": declared})
    load_tokenizer(REWARD).backend_tokenizer.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder)(SHORT) == load_tokenizer(REWARD)(SHORT)


@pytest.mark.parametrize("loader", [AutoProcessor, AutoConfig])
def test_no_question_is_asked_wherever_code_is_found(loader, unasked, tmp_path):
    """As where transformers would take a class from a field that we do not know."""
    folder = with_code(tmp_path)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "evil.Evil"}}))
    with quiet(), pytest.raises(ValueError, match="requires you to execute"):
        loader.from_pretrained(folder)


@pytest.mark.parametrize("field", ["attribute_map", "configuration_files"])
def test_a_configuration_that_sends_its_reader_elsewhere_is_refused(field, kind, tmp_path):
    """To another file, or to other fields than those that are looked at."""
    source, load = kind
    value = {"attribute_map": {"tokenizer_class": "a"}, "configuration_files": ["config.4.json"]}
    folder = changed(source, tmp_path, config={field: value[field]})
    (folder / "config.4.json").write_text((source / "config.json").read_text())
    assert refusal(lambda: load(folder)).startswith(f"{field}: got {value[field]!r}, expected none")


def test_a_normalizer_that_replaces_a_little_is_taken(tmp_path):
    folder = with_tokenizer(tmp_path, normalizer=replacing(2))
    assert not refusal(lambda: DenoiserCheckpoint.examine(folder))


def without_a_letter(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["unused0"] = vocabulary.pop("Z")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda folder: (folder / "merges.txt").write_text(""), "merges.txt makes no"),
        (cut_merges, "merges.txt makes no"),
        (without_a_letter, "vocab.json lacks letters 'Z'; is it complete?"),
    ],
)
def test_a_vocabulary_that_is_not_whole_is_refused(edit, reason, kind, tmp_path):
    """Its prompts would be read as other tokens, or without some letters."""
    source, load = kind
    folder = changed(source, tmp_path)
    edit(folder)
    assert reason in refusal(lambda: load(folder))


@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_that_no_network_has_are_refused(field, kind, tmp_path):
    """Before memory is taken for them."""
    source, load = kind
    for i, value in enumerate(NUMBERS[field]):
        folder = changed(source, tmp_path / str(i), config={field: value})
        assert refusal(lambda folder=folder: load(folder)), value
        shutil.rmtree(folder)


HEADS = {
    "dream-tiny": ("num_attention_heads", "num_key_value_heads", "hidden_size"),
    "a2d-qwen2-tiny": ("num_attention_heads", "num_key_value_heads", "hidden_size"),
    "a2d-qwen3-tiny": ("num_attention_heads", "num_key_value_heads", None),
    "llada-tiny": ("n_heads", "n_kv_heads", "d_model"),
    "open-dcoder-tiny": ("num_attention_heads", "num_key_value_heads", "hidden_size"),
}
"""What families call heads, those of keys and values, and the width that heads share, unless their
own is written.
"""


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_no_attention_computes_are_refused(name, tmp_path):
    """Weights of such a shape there can be: it is known before they are loaded."""
    heads, shared, width = HEADS[name]
    source = DREAM if name == DREAM.name else OTHERS / name
    cases = [({heads: 12, shared: 5}, f"{shared}: got 5, expected a divisor of {heads}, 12")]
    for many in (9, 96) if width else ():
        said = f"{heads}: got {many}, expected a divisor of {width}, 48"
        cases.append(({heads: many, shared: 1, width: 48}, said))
    for many in (16, 48) if width else ():
        said = f"{heads}: got {many} for a {width} of 48, which makes heads of {48 // many} "
        cases.append(({heads: many, shared: 1, width: 48}, said))
    for own in () if width else (3, 1, 0, -2, 1.5, "x", True):
        cases.append(({"head_dim": own}, f"head_dim: got {own!r}, expected an even number"))
    for i, (config, said) in enumerate(cases):
        folder = changed(source, tmp_path / str(i), config=config)
        assert refusal(lambda folder=folder: DenoiserCheckpoint.examine(folder)).startswith(said)
        shutil.rmtree(folder)


ROTATING = ["rope_parameters", "rope_scaling"]
PLAIN = {"rope_type": "default", "rope_theta": 5.0}
ROTATIONS = {
    "of a kind of layer": ({"full_attention": PLAIN}, "got 'full_attention', expected"),
    "of a kind of layer beside": (PLAIN | {"sliding_attention": PLAIN}, "got 'sliding_attention'"),
    "of no layer": ({"full_attention": {}}, "got 'full_attention'"),
    "of a part": (PLAIN | {"partial_rotary_factor": 0.5}, "got 'partial_rotary_factor'"),
    "of a factor": ({"factor": 4.0}, "got 'factor'"),
    "of a wrong name": ({"theta": 4.0}, "got 'theta'"),
    "of two types": ({"rope_type": "default", "type": "linear"}, "got {'rope_type': 'default', 't"),
    "of no type": ({"rope_type": None}, "got {'rope_type': None}, which is not supported"),
    "of a list": ([1], "got [1], expected an object"),
}


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("field", ROTATING)
def test_rotations_that_are_not_understood_are_refused(field, name):
    """Beside others too: what is not read would be left out without a word."""
    rotations, said = ROTATIONS[name]
    others = {"rope_parameters": PLAIN, "rope_scaling": {"type": "default"}, "rope_theta": None}
    for source in (DREAM, OTHERS / "a2d-qwen3-tiny", LLADA):
        config = json.loads((source / "config.json").read_text())
        for other in ({}, others):
            written = config | other | {field: rotations}
            message = refusal(lambda w=written: family_of(w, "it").translated(w))
            assert message.startswith(f"{field}: {said}")


@pytest.mark.parametrize("fields", [*itertools.combinations(["here", *ROTATING], 2)])
def test_two_periods_of_rotations_are_refused(fields):
    """Public code of different versions takes one or the other."""
    config = json.loads((DREAM / "config.json").read_text()) | {"rope_theta": None}
    for name, theta in zip(fields, (1e6, 5), strict=True):
        config |= {"rope_theta": theta} if name == "here" else {name: PLAIN | {"rope_theta": theta}}
    said = "rope_theta: got 5, 1000000.0, expected one of them"
    assert refusal(lambda: family_of(config, "it").translated(config)) == said


@pytest.mark.parametrize("field", ROTATING)
def test_rotations_that_say_nothing_more_are_taken(field, tmp_path):
    full = PLAIN | {"rope_theta": 1e6}
    cases = [(full, 1e6), (full, REMOVED), ({"type": "default", "factor": None}, 1e6), ({}, 1e6)]
    for i, (rotations, theta) in enumerate(cases):
        config = {field: rotations, "rope_theta": theta}
        folder = changed(DREAM, tmp_path / str(i), config=config)
        found = DenoiserCheckpoint.examine(folder).config.rope_parameters
        assert found == {"rope_type": "default", "rope_theta": 1e6}


TYPES = "got {.*}, expected a type that transformers knows"
OF_A_REWARD = {
    "of a kind of layer": (
        {"full_attention": PLAIN},
        "got {.*}, expected an object with 'rope_type'|got 'full_attention' beside rope_type",
    ),
    "of another kind": ({"sliding_attention": PLAIN}, "got 'sliding_attention' beside rope_type"),
    "of all beside": (PLAIN | {"full_attention": {}}, "got 'full_attention' beside rope_type"),
    "of an unknown type": ({"rope_type": "spiral"}, TYPES),
    "of no type": ({"rope_type": None}, TYPES),
    "of types": ({"rope_type": ["default"]}, TYPES),
}


@pytest.mark.parametrize("name", OF_A_REWARD)
@pytest.mark.parametrize("kind", [RewardCheckpoint, LikelihoodCheckpoint])
def test_rotations_that_a_rewards_network_cannot_read_are_named(kind, name, denoiser, tmp_path):
    rotations, said = OF_A_REWARD[name]
    folder = changed(REWARD, tmp_path, config={"rope_parameters": rotations})
    message = refusal(lambda: kind.examine(folder).load(denoiser, dtype="float32"))
    assert re.match(f"rope_parameters: ({said})", message), message


@pytest.mark.parametrize("error", [RuntimeError("of\nanother size"), TypeError("x")])
def test_a_denoiser_that_computes_nothing_is_refused(error, tmp_path, monkeypatch):
    """Whatever the reason: before anything is asked of it."""

    def forward(self, *args, **options):
        raise error

    monkeypatch.setattr(Qwen2Attention, "forward", forward)
    said = refusal(lambda: load_denoiser(DREAM, dtype="float32", device="cpu"))
    kind, reason = type(error).__name__, " ".join(str(error).split())
    assert said == f"checkpoint: {DREAM} makes no logits of tokens: {kind}: {reason}"


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_what_a_device_lacks_is_no_fault_of_a_denoiser(kind, monkeypatch):
    def forward(self, *args, **options):
        raise kind("of the device")

    monkeypatch.setattr(Qwen2Attention, "forward", forward)
    with pytest.raises(kind):
        load_denoiser(DREAM, dtype="float32", device="cpu")


@pytest.mark.slow
def test_more_layers_than_there_are_weights_for_are_refused(kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path / "many", config={"num_hidden_layers": 999})
    assert refusal(lambda: load(folder))


@pytest.mark.parametrize("field", ["auto_map", "eos_token_id", "rope_theta", "hidden_size"])
def test_values_of_any_kind_are_taken_or_refused(field, kind, tmp_path):
    source, load = kind
    for i, value in enumerate(VALUES):
        folder = changed(source, tmp_path / str(i), config={field: value})
        refusal(lambda folder=folder: load(folder))
        shutil.rmtree(folder)


def test_a_tied_network_of_a_large_vocabulary_is_refused(tmp_path):
    """Where no output layer says how large it is."""
    folder = changed(DREAM, tmp_path, config={"vocab_size": 10**12, "tie_word_embeddings": True})
    weights = weights_in(folder / WHOLE)
    del weights["lm_head.weight"]
    save_file(weights, folder / WHOLE, metadata={"format": "pt"})
    message = refusal(lambda: load_denoiser(folder, device="cpu"))
    assert "model.embed_tokens.weight, [385, 48], expected [1000000000000, 48]" in message
    del weights["model.embed_tokens.weight"]
    save_file(weights, folder / WHOLE, metadata={"format": "pt"})
    assert "lacks model.embed_tokens.weight" in refusal(lambda: load_denoiser(folder))


def test_text_files_have_a_largest_size(tmp_path):
    folder = changed(REWARD, tmp_path)
    with (folder / "special_tokens_map.json").open("wb") as file:
        file.truncate(2**28 + 1)
    assert "has 268435457 bytes" in refusal(lambda: SequenceReward.from_pretrained(folder, None))


def with_templates(folder, **templates):
    """A reward model with further templates, by name and size."""
    folder = changed(REWARD, folder)
    (folder / "additional_chat_templates").mkdir()
    for name, size in templates.items():
        with (folder / "additional_chat_templates" / f"{name}.jinja").open("wb") as file:
            file.truncate(size)
    return folder


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((2**28 + 1,), "tool.jinja has 268435457 bytes"),
        ((2**27, 2**27 + 1), "additional_chat_templates/*.jinja have 268435457 bytes"),
    ],
)
def test_further_templates_have_a_largest_size(sizes, said, tmp_path):
    folder = with_templates(tmp_path, **dict(zip(("tool", "rag"), sizes, strict=False)))
    assert said in refusal(lambda: SequenceReward.from_pretrained(folder, None))


def test_a_further_template_that_never_ends_is_refused(tmp_path):
    folder = with_templates(tmp_path)
    os.mkfifo(folder / "additional_chat_templates" / "tool.jinja")
    said = refusal(lambda: SequenceReward.from_pretrained(folder, None))
    assert "tool.jinja is no file that can be read" in said


@pytest.mark.parametrize("named", ["a file", "a list", "no text"])
def test_named_templates_without_the_usual_one_are_refused(named, tmp_path):
    """Which of them is meant, nobody says. transformers would say so at the first prompt only."""
    folder = with_templates(tmp_path / "file", tool=3)
    if named != "a file":
        template = {"name": "tool" if named == "a list" else "default", "template": 5}
        folder = changed(REWARD, tmp_path / named, tokenizer={"chat_template": [template]})
    said = refusal(lambda: load_tokenizer(folder))
    name = "default" if named == "no text" else "tool"
    assert said == (
        f"checkpoint: the tokenizer of {folder} has the chat templates {name!r}, expected a text "
        "by the name 'default'"
    )


def test_further_templates_beside_the_usual_one_are_not_taken(tmp_path):
    folder = with_templates(tmp_path, tool=3)
    own = load_tokenizer(REWARD).chat_template
    (folder / "chat_template.jinja").write_text(own)
    assert conversation(load_tokenizer(folder), SHORT) == conversation(
        load_tokenizer(REWARD), SHORT
    )


def of_vocabulary(edit, folder):
    file = folder / "vocab.json"
    tokens = json.loads(file.read_text())
    edit(tokens, list(tokens))
    file.write_text(json.dumps(tokens))


def same_id(tokens, names):
    tokens[names[5]] = tokens[names[6]]


def one_more(tokens, names):
    tokens["another"] = tokens[names[6]]


def of_a_special_one(tokens, names):
    tokens[names[5]] = 381


@pytest.mark.parametrize("edit", [same_id, one_more, of_a_special_one])
def test_tokens_that_share_an_id_are_refused(edit, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path)
    of_vocabulary(edit, folder)
    assert "gives the id" in refusal(lambda: load(folder))


TOKENIZERS = {
    "model_max_length": "many",
    "split_special_tokens": True,
    "unk_token": "",
    "eos_token": 5,
    "extra_special_tokens": 5,
    "added_tokens_decoder": {"x": 1},
    "padding_side": "up",
}


@pytest.mark.parametrize("field", TOKENIZERS)
def test_tokenizers_that_do_not_work_are_refused(field, denoiser, tmp_path):
    folder = changed(REWARD, tmp_path, tokenizer={field: TOKENIZERS[field]})

    def use():
        reward = SequenceReward.from_pretrained(folder, denoiser, dtype="float32")
        reward.bind([SHORT], 1)

    assert refusal(use)


PANICS = {
    "when it is tried": {
        "normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "a"}
    },
    "when it is loaded": {"model": {"continuing_subword_prefix": "##"}},
    "at a text": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(x+x+)+y"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
}


@pytest.mark.parametrize("when", PANICS)
def test_a_panic_of_the_library_of_tokenizers_is_one_line(when, tmp_path, capfd):
    """It is no `Exception` in Python, and writes many lines before Python knows."""
    folder = with_tokenizer(tmp_path, **PANICS[when])

    def use():
        DenoiserCheckpoint.examine(folder).require_room(["x" * 100], 1)

    assert "checkpoint: the tokenizer of " in refusal(use)
    assert "panicked" not in capfd.readouterr().err


def test_a_pattern_that_takes_the_square_of_a_text_has_a_time(tmp_path, monkeypatch):
    split = PANICS["at a text"]["pre_tokenizer"] | {"pattern": {"Regex": "x+(?=y)"}}
    folder = with_tokenizer(tmp_path, pre_tokenizer=split)
    monkeypatch.setattr(tokenizers, "SECONDS", 0.1)
    said = refusal(lambda: DenoiserCheckpoint.examine(folder).require_room(["x" * 10_000], 1))
    assert "LLaDA does not work: it takes more than 0.1 seconds for" in said


def test_what_tokenizers_say_is_heard_if_they_do_not_panic(capfd):
    work(lambda: os.write(2, b"a warning"))
    assert capfd.readouterr().err == "a warning"
    said = refusal(lambda: work(lambda: os.write(2, b"another"), ValueError("wrong")))
    assert said == "checkpoint: it: wrong"
    assert capfd.readouterr().err == "another"


def work(*steps):
    with working("checkpoint: it"):
        for step in steps:
            if isinstance(step, Exception):
                raise step
            step()


def test_tokenizers_work_in_several_threads(capfd):
    """The standard error is itself again when all have ended."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: work(lambda: None), range(400)))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_a_tokenizer_loads_where_the_standard_error_is_closed(monkeypatch):
    def closed(descriptor):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("os.dup", closed)
    assert load_tokenizer(LLADA)


def test_a_text_part_that_is_no_configuration_is_refused(kind, tmp_path):
    source, load = kind
    for field, value in (("text_config", {"vocab_size": 5}), ("text_encoder", [])):
        folder = changed(source, tmp_path / field, config={field: value})
        name = "config.json" if source is REWARD else field
        assert refusal(lambda folder=folder: load(folder)).startswith(f"{name}: got {value!r}")


def test_a_mask_that_ends_an_answer_is_refused(tmp_path):
    mask = json.loads((DREAM / "tokenizer_config.json").read_text())["mask_token"]
    folder = changed(DREAM, tmp_path, tokenizer={"eos_token": mask}, config={"eos_token_id": None})
    said = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert "is both the mask and the end of an answer" in said


@pytest.mark.parametrize("ends", [[380, 382], [382, 380]])
def test_several_ends_of_an_answer_are_those_of_the_tokenizer(ends, tmp_path):
    folder = changed(DREAM, tmp_path, config={"eos_token_id": ends})
    said = rf"^eos_token_id: got \[{ends[0]}, {ends[1]}\] in config.json, but 380 in the tokenizer"
    with pytest.warns(UserWarning, match=said):
        assert load_denoiser(folder, dtype="float32", device="cpu").eos_id == 380


def test_one_end_of_an_answer_in_a_list_is_no_contradiction(tmp_path, recwarn):
    folder = changed(DREAM, tmp_path, config={"eos_token_id": [380]})
    assert load_denoiser(folder, dtype="float32", device="cpu").eos_id == 380
    assert not recwarn.list


@pytest.mark.parametrize("ends", [[382], [382, 383], []])
def test_ends_of_an_answer_without_the_tokenizers_are_refused(ends, tmp_path):
    folder = changed(DREAM, tmp_path, config={"eos_token_id": ends})
    said = f"eos_token_id: got {ends!r} in config.json, but 380 in the tokenizer"
    assert refusal(lambda: DenoiserCheckpoint.examine(folder)) == said


def test_a_mask_among_the_ends_of_an_answer_is_refused(tmp_path):
    folder = changed(DREAM, tmp_path, config={"eos_token_id": [380, 384]})
    said = "checkpoint: the token 384 is both the mask and the end of an answer"
    assert refusal(lambda: DenoiserCheckpoint.examine(folder)) == said


def test_numbers_that_are_none_give_no_reward(denoiser, tmp_path):
    """Nobody reads all weights for it: it is said when the first number goes bad."""
    folder = changed(DREAM, tmp_path)
    weights = weights_in(folder / WHOLE)
    weights["lm_head.weight"][7, 3] = torch.nan
    save_file(weights, folder / WHOLE, metadata={"format": "pt"})
    bad = load_denoiser(folder, dtype="float32", device="cpu")
    reward = SequenceReward.from_pretrained(REWARD, bad, dtype="float32")
    config = SamplingConfig(new_tokens=2, denoising_steps=2, trajectories=1)
    message = refusal(lambda: generate(bad, reward, [SHORT], config))
    assert "the denoiser's logits are not finite" in message


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4443\n"
JSON_TEXTS = {
    "empty": b"",
    "cut off": b'{"a": 1,',
    "in UTF-16": "{}".encode("utf-16"),
    "a mark first": b"\xef\xbb\xbf{}",
    "a list": b"[]",
    "null": b"null",
}


@pytest.mark.parametrize("file", tokenizers.WRITTEN)
@pytest.mark.parametrize("name", JSON_TEXTS)
def test_a_file_of_a_tokenizer_that_is_no_object_is_named(name, file, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path)
    (folder / file).write_bytes(JSON_TEXTS[name])
    said = refusal(lambda: load(folder))
    assert said.startswith(f"checkpoint: {folder / file} ")
    assert re.search("is not JSON|holds no JSON object", said)


@pytest.mark.parametrize("file", ["merges.txt", "chat_template.jinja"])
def test_a_file_of_a_tokenizer_that_is_no_text_is_named(file, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path)
    (folder / file).write_bytes(b"\xff\xfe\xff")
    assert refusal(lambda: load(folder)).startswith(f"checkpoint: {folder / file} is no text: ")


@pytest.mark.parametrize("file", ["config.json", "vocab.json", "tokenizer_config.json", WHOLE])
def test_a_pointer_of_git_lfs_is_called_one(file, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path)
    (folder / file).write_bytes(LFS)
    said = f"checkpoint: {folder / file} is a pointer of Git LFS, not the file itself"
    assert refusal(lambda: load(folder)).startswith(said)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("tokenizer_config.json", r"does not load \(it has no tokenizer_config.json\): "),
        ("merges.txt", r"does not load \(it has no merges.txt\): "),
    ],
)
def test_a_file_of_a_tokenizer_that_is_missing_is_named(file, said, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path, without=[file])
    assert re.search(
        f"^checkpoint: the tokenizer of .* {said}|has no chat template",
        refusal(lambda: load(folder)),
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("model_max_length", "x", "an integer or a number"),
        ("model_max_length", True, "an integer or a number"),
        ("added_tokens_decoder", None, "an object"),
        ("added_tokens_decoder", [], "an object"),
        ("split_special_tokens", None, "true or false"),
        ("auto_map", None, "an object or a list"),
    ],
)
def test_a_field_of_a_tokenizer_of_another_kind_is_named(field, value, expected, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path, tokenizer={field: value})
    said = f"{field}: got {value!r} in {folder / 'tokenizer_config.json'}, expected {expected}"
    assert refusal(lambda: load(folder)) == said


@pytest.mark.parametrize("bad", [2**31, -1, "x", None, 1.0, True])
@pytest.mark.parametrize("whole", [False, True])
def test_ids_that_are_no_ids_are_named(bad, whole, kind, tmp_path):
    """The library of tokenizers wraps some around and leaves others out."""
    source, load = kind
    folder = changed(source, tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text()) | {"S": bad}
    file = "tokenizer.json" if whole else "vocab.json"
    inside = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / file).write_text(json.dumps(inside if whole else vocabulary))
    said = (
        f"checkpoint: {folder / file}: the id of 'S': got {bad!r}, expected an integer in [0, 2^31)"
    )
    assert refusal(lambda: load(folder)) == said


@pytest.mark.parametrize("share", [0.0, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("as_text", [False, True])
def test_merges_that_are_lost_in_one_file_are_noticed(share, as_text, tmp_path):
    """Texts would be read as single bytes. Some tokens are not made by merges in real ones, too."""
    folder = changed(REWARD, tmp_path)
    load_tokenizer(folder).save_pretrained(folder)
    file = folder / "tokenizer.json"
    written = json.loads(file.read_text())
    pairs = written["model"]["merges"]
    kept = pairs[: round(share * len(pairs))]
    written["model"]["merges"] = [" ".join(pair) for pair in kept] if as_text else kept
    file.write_text(json.dumps(written))
    if share > 0.5:
        assert not refusal(lambda: load_tokenizer(folder))
    else:
        assert refusal(lambda: load_tokenizer(folder)).startswith(
            f"checkpoint: the merges of {file} make no "
        )
    written["model"]["ignore_merges"] = True  # then a word of the vocabulary needs none
    file.write_text(json.dumps(written))
    assert not refusal(lambda: load_tokenizer(folder))


@pytest.mark.parametrize("mark", ["<extra_{}>", "[extra_{}]"])
def test_marks_need_no_merges(mark, tmp_path):
    """A vocabulary may have more of them than words, and none is made of letters."""
    file = tmp_path / "tokenizer.json"
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    model["vocab"] |= {mark.format(i): 3 + i for i in range(20)}
    file.write_text(json.dumps({"model": model, "pre_tokenizer": {"type": "ByteLevel"}}))
    _require_most_made(file)
    model["vocab"] |= {f"extra_{i}": 30 + i for i in range(30)}
    file.write_text(json.dumps({"model": model, "pre_tokenizer": {"type": "ByteLevel"}}))
    with pytest.raises(ValueError, match=r"the merges of .* make no 'extra_0'"):
        _require_most_made(file)


@pytest.mark.parametrize("labels", [20_000, 10**9, 2**70])
def test_many_labels_are_refused_before_they_are_counted(labels, denoiser, tmp_path):
    lists = {"id2label": REMOVED, "label2id": REMOVED}
    folder = changed(REWARD, tmp_path, config={"num_labels": labels} | lists)
    said = refusal(lambda: SequenceReward.from_pretrained(folder, denoiser))
    assert said == f"num_labels: got {labels}, expected a reward model with 1"


@pytest.mark.parametrize("field", ["hidden_act"])
def test_an_activation_that_is_not_known_is_named(field, kind, tmp_path):
    source, load = kind
    folder = changed(source, tmp_path, config={field: "silu2"})
    said = f"{field}: got 'silu2', which transformers does not know"
    assert refusal(lambda: load(folder)) == said


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_of_a_reward_that_are_no_numbers_are_named(bad, denoiser, tmp_path):
    folder = changed(REWARD, tmp_path)
    weights = weights_in(folder / WHOLE)
    weights["model.layers.0.mlp.up_proj.weight"][3, 4] = bad
    save_file(weights, folder / WHOLE, metadata={"format": "pt"})
    said = refusal(lambda: SequenceReward.from_pretrained(folder, denoiser, dtype="float32"))
    assert said.startswith(
        f"checkpoint: {folder} makes numbers of a few tokens that are not finite"
    )
    assert said.endswith("the weight model.layers.0.mlp.up_proj.weight is not")


WRITTEN = ("activation_type", "block_type", "layer_norm_type", "rms_norm_eps", "rope")


def test_what_lladas_own_code_takes_otherwise():
    assert family_of({"model_type": "llada"}, "x").written == WRITTEN


@pytest.mark.parametrize("value", [None, REMOVED])
@pytest.mark.parametrize("field", WRITTEN)
def test_what_lladas_own_code_takes_otherwise_may_not_be_missing(field, value, tmp_path):
    folder = changed(LLADA, tmp_path, config={field: value})
    said = f"{field}: got None, expected what LLaDA was trained with"
    assert refusal(lambda: DenoiserCheckpoint.examine(folder)) == said


def test_a_causal_model_of_another_name_is_one(denoiser, tmp_path):
    """`GPT2LMHeadModel`, for one."""
    for file in REWARD.iterdir():
        if file.name not in ("config.json", WHOLE):
            shutil.copy(file, tmp_path)
    torch.manual_seed(0)
    small = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
    width = json.loads((REWARD / "config.json").read_text())["vocab_size"]
    GPT2LMHeadModel(GPT2Config(vocab_size=width, **small)).save_pretrained(tmp_path)
    found = examine_reward(tmp_path)
    assert isinstance(found, LikelihoodCheckpoint)
    reward = found.load(denoiser, dtype="float32")
    assert reward.score([SHORT], ["a river"]).isfinite().all()


A2D = [OTHERS / "a2d-qwen2-tiny", OTHERS / "a2d-qwen3-tiny"]


@pytest.mark.parametrize("source", [*A2D, DREAM, OTHERS / "open-dcoder-tiny"], ids=lambda s: s.name)
@pytest.mark.parametrize("field", ["mask_token", "eos_token", "pad_token"])
@pytest.mark.parametrize("form", [str, dict], ids=["text", "object"])
def test_a_special_token_without_an_id_is_refused(source, field, form, tmp_path):
    """Libraries would give it the next one, of which the network has learnt nothing."""
    named = "<|nope|>" if form is str else {"__type": "AddedToken", "content": "<|nope|>"}
    folder = changed(source, tmp_path, tokenizer={field: named})
    said = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert said == (
        f"{field}: got '<|nope|>' in {folder / 'tokenizer_config.json'}, to which no file of the "
        "tokenizer gives an id"
    )


@pytest.mark.parametrize("source", A2D, ids=lambda source: source.name)
@pytest.mark.parametrize("token", ["e", "<|im_start|>"])
def test_another_mask_than_that_of_the_family_is_refused(source, token, tmp_path):
    folder = changed(source, tmp_path, tokenizer={"mask_token": token})
    said = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert said.startswith(f"mask_token: got {token!r} in {folder}, expected '<|mask|>'")


@pytest.mark.parametrize("bad", [395, 5, "385", 385.5, -1, [385]])
def test_a_mask_that_is_no_special_token_is_refused(bad, tmp_path):
    folder = changed(LLADA, tmp_path, config={"mask_token_id": bad})
    said = refusal(lambda: DenoiserCheckpoint.examine(folder))
    assert said == (
        f"mask_token_id: got {bad!r}, expected the id of a special token of the tokenizer"
    )
