"""What cannot be loaded is refused in one clear line: what was given, what was expected."""

import json
import os
import re
import subprocess
import sys
import warnings
from fnmatch import fnmatch

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2Config
from typer.testing import CliRunner

from checkpoints import DREAM, LONG, REMOVED, REWARD, SHORT, changed, pair, weights_in
from entrgi_ref import SamplingConfig, __main__, denoising, generate
from entrgi_ref.models import Dream, SequenceReward
from entrgi_ref.models.checkpoints import dtype_of, locate, quiet, require_positions
from entrgi_ref.models.families import DREAM as FAMILY
from entrgi_ref.models.tokenizers import load_tokenizer

pytestmark = pytest.mark.usefixtures("as_users_run_it")
HUB = {"model_type": "Dream", **json.loads((DREAM / "config.json").read_text())}


@pytest.mark.parametrize(
    ("config", "tokenizer"),
    [
        ({}, {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ({}, {"auto_map": ["evil.T", None]}),
        ({"auto_map": {"AutoTokenizer": ["evil.T", None]}}, {}),
    ],
)
@pytest.mark.parametrize("declared", ["EvilTokenizer", REMOVED])
def test_code_of_a_tokenizer_never_runs(tmp_path, monkeypatch, config, tokenizer, declared):
    """Where transformers would ask whether to run it."""
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asks whether to run code"))
    folder = changed(REWARD, tmp_path, config, {"tokenizer_class": declared} | tokenizer)
    (folder / "evil.py").write_text("raise SystemExit('run')")
    with pytest.raises(ValueError, match="code is not run") as error:
        pair("float32", reward=folder)
    refused(error, "tokenizer_class: got ('EvilTokenizer'|None) in ")


def refused(error, pattern):
    message = str(error.value)
    assert re.search(pattern, message), message
    assert "\n" not in message


def test_dreams_configuration_as_on_the_hub():
    """The numbers of Dream-v0-Instruct-7B."""
    hub = HUB | {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "max_position_embeddings": 131072,
        "max_window_layers": 28,
    }
    config = FAMILY.translated(hub)
    for field in ("hidden_size", "num_attention_heads", "vocab_size", "rms_norm_eps"):
        assert getattr(config, field) == hub[field]
    other = {"rms_norm_eps": 1e-5, "hidden_act": "gelu", "max_position_embeddings": 77}
    other |= {"initializer_range": 0.5, "tie_word_embeddings": True, "eos_token_id": 3}
    for field, value in other.items():
        assert getattr(FAMILY.translated(hub | {field: value}), field) == value
    assert config.rope_parameters["rope_theta"] == 1e6
    assert set(config.layer_types) == {"full_attention"}
    newer = {k: v for k, v in hub.items() if k not in ("rope_theta", "rope_scaling")}
    newer["rope_parameters"] = {"rope_theta": 1e6, "rope_type": "default"}
    newer["layer_types"] = ["full_attention"] * 28
    assert FAMILY.translated(newer).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "qwen2"),
        ("model_type", "LLaDA"),
        ("model_type", REMOVED),
        ("use_sliding_window", True),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_parameters", {"rope_theta": 1e6, "rope_type": "llama3"}),
        ("rope_theta", REMOVED),
        ("layer_types", ["sliding_attention", "full_attention"]),
        ("attention_dropout", 0.1),
        ("hidden_size", REMOVED),
        ("hidden_size", "large"),
        ("num_key_value_heads", None),
        ("use_mrope", True),
        ("query_pre_attn_scalar", 144),
        ("attention_bias", True),
    ],
)
def test_a_field_that_changes_the_maths_is_refused_by_name(field, value):
    config = {key: v for key, v in (HUB | {field: value}).items() if v is not REMOVED}
    with pytest.raises(ValueError, match=f"^{field}: got ") as error:
        FAMILY.translated(config)
    refused(error, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [("sliding_window", 4096), ("some_switch", False), ("note", None), ("_commit_hash", "abc")],
)
def test_a_field_without_effect_is_not(field, value):
    assert FAMILY.translated(HUB | {field: value}).hidden_size == 48


def test_checkpoints_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="no folder") as error:
        Dream.from_pretrained(tmp_path / "nowhere")
    refused(error, "nowhere")
    with pytest.raises(ValueError, match=r"no config\.json") as error:
        Dream.from_pretrained(tmp_path)
    refused(error, "config")


def test_a_hub_id_without_a_network(monkeypatch):
    import huggingface_hub

    def no_network(*args, **kwargs):
        raise ConnectionError("Name or service not known\nand a second line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(ValueError, match="could not be fetched at revision 'v1'") as error:
        Dream.from_pretrained("some/model", revision="v1")
    refused(error, "some/model.*Name or service not known")


def test_the_hub_is_asked_for_data_alone(monkeypatch):
    import huggingface_hub

    asked = {}

    def fetch(hub_id, **options):
        asked.update(options, id=hub_id)
        return str(DREAM)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    Dream.from_pretrained("some/model", revision="abc", dtype="float32", device="cpu")
    assert (asked["id"], asked["revision"]) == ("some/model", "abc")
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked["allow_patterns"])
    files = ["config.json", "model-00001-of-00004.safetensors", "model.safetensors.index.json"]
    files += [
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
    ]
    for file in files:
        assert any(fnmatch(file, pattern) for pattern in asked["allow_patterns"]), file


def test_every_revision_reaches_the_hub(monkeypatch):
    """That of an argument, of an option, or behind the id."""
    import huggingface_hub

    from entrgi_ref.__main__ import app

    asked = []

    def fetch(hub_id, revision, **options):
        asked.append((hub_id, revision))
        return str({"some/dream": DREAM, "some/reward": REWARD}[hub_id])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    words = "--dream some/dream --reward some/reward --dream-revision a --reward-revision b"
    more = "--new-tokens 2 --device cpu --trajectories 1 --method bon"
    done = CliRunner().invoke(app, ["hello", *f"{words} {more}".split()])
    assert done.exit_code == 0, done.output
    assert asked == [("some/dream", "a"), ("some/reward", "b")]
    assert locate("some/dream@c") == DREAM
    assert locate("some/dream") == DREAM
    assert locate("some/dream@c", "d") == DREAM  # what is said apart counts
    assert asked[2:] == [("some/dream", "c"), ("some/dream", None), ("some/dream", "d")]


def test_shards_are_read(tmp_path):
    """Two shards and their index, as large checkpoints have them."""
    folder = changed(DREAM, tmp_path)
    weights = weights_in(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves, index = [{}, {}], {}
    for i, (name, tensor) in enumerate(weights.items()):
        halves[i % 2][name] = tensor
        index[name] = f"model-{i % 2 + 1:05}-of-00002.safetensors"
    for i, half in enumerate(halves):
        file = folder / f"model-{i + 1:05}-of-00002.safetensors"
        save_file(half, file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    sharded, whole = (
        Dream.from_pretrained(f, dtype="float32", device="cpu") for f in (folder, DREAM)
    )
    for a, b in zip(sharded.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("source", [DREAM, REWARD], ids=["dream", "reward"])
def test_weights_that_cannot_be_used(source, tmp_path):
    def load(folder):
        if source is DREAM:
            return Dream.from_pretrained(folder, dtype="float32", device="cpu")
        return pair("float32", reward=folder)

    folder = changed(source, tmp_path / "bin", without=["model.safetensors"])
    (folder / "pytorch_model.bin").write_bytes(b"not to be read")
    with pytest.raises(ValueError, match="only pickled ones") as error:
        load(folder)
    refused(error, r"pytorch_model\.bin")

    folder = changed(source, tmp_path / "broken")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="do not load") as error:
        load(folder)
    refused(error, "weights")

    folder = changed(source, tmp_path / "lacking")
    weights = weights_in(folder / "model.safetensors")
    missing = next(name for name in weights if "layers.1" in name)
    less = {name: tensor for name, tensor in weights.items() if name != missing}
    save_file(less, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks") as error:
        load(folder)
    refused(error, re.escape(missing))

    folder = changed(source, tmp_path / "surplus")
    more = weights | {missing.replace("layers.1", "layers.7"): weights[missing].clone()}
    save_file(more, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not") as error:
        load(folder)
    refused(error, "layers.7")

    folder = changed(source, tmp_path / "twice")
    file = folder / "model.safetensors"
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    name, first = next((n, h) for n, h in header.items() if h.get("dtype") == "BF16" or "norm" in n)
    other = f"{{{json.dumps(name)}:{json.dumps(first)},".encode() + data[9:end]
    file.write_bytes(len(other).to_bytes(8, "little") + other + data[end:])
    with pytest.raises(ValueError, match="do not load") as error:
        load(folder)
    refused(error, re.escape(f"the key '{name[:39]}"))

    folder = changed(source, tmp_path / "shape", config={"intermediate_size": 128})
    with pytest.raises(ValueError, match="checkpoint: ") as error:
        load(folder)
    refused(error, "mlp")


def test_tokenizers_that_cannot_be_used(tmp_path):
    folder = changed(DREAM, tmp_path / "mask", tokenizer={"mask_token": REMOVED})
    with pytest.raises(ValueError, match="no mask token") as error:
        Dream.from_pretrained(folder)
    refused(error, "tokenizer")
    for source, load in ((DREAM, Dream.from_pretrained), (REWARD, reward_of)):
        folder = changed(source, tmp_path / "template", tokenizer={"chat_template": REMOVED})
        with pytest.raises(ValueError, match="no chat template") as error:
            load(folder)
        refused(error, source.name)
        folder = changed(source, tmp_path / "files", without=["vocab.json", "merges.txt"])
        with pytest.raises(ValueError, match="no tokenizer") as error:
            load(folder)
        refused(error, source.name)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\x65"}, "content": ""}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\d"}, "content": ""}},
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "."},
                "behavior": "Removed",
                "invert": False,
            }
        },
        {"model": "without a letter"},
    ],
    ids=["normalizer", "digits", "pre_tokenizer", "vocabulary"],
)
def test_a_tokenizer_that_leaves_letters_out(change, tmp_path):
    """Prompts would be others, and answers would be scored without them."""
    folder = changed(REWARD, tmp_path, tokenizer={"tokenizer_class": "PreTrainedTokenizerFast"})
    file = folder / "tokenizer.json"
    load_tokenizer(REWARD).save_pretrained(tmp_path)
    whole = json.loads((tmp_path / "tokenizer.json").read_text())
    file.write_text(json.dumps(whole))
    load_tokenizer(folder)
    if "model" in change:
        words, merges = whole["model"]["vocab"], whole["model"]["merges"]
        words["??"] = words.pop("e")
        whole["model"]["merges"] = [pair for pair in merges if "e" not in "".join(pair)]
    else:
        whole |= change
    file.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="expected all of its letters") as error:
        load_tokenizer(folder)
    refused(error, f"the tokenizer of {folder} makes ")


def reward_of(folder):
    denoiser = Dream.from_pretrained(DREAM, dtype="float32", device="cpu")
    return SequenceReward.from_pretrained(folder, denoiser, dtype="float32")


@pytest.mark.parametrize(
    ("config", "pattern"),
    [
        (
            {"id2label": {"0": "A", "1": "B"}, "label2id": {"A": 0, "B": 1}},
            "num_labels: got 2, expected a reward model with 1",
        ),
        ({"model_type": "unheard_of"}, "model_type: got 'unheard_of'"),
        ({"model_type": "whisper"}, "model_type: got 'whisper'"),
        ({"model_type": REMOVED}, "model_type: got None"),
        ({"use_sliding_window": True, "max_window_layers": 1}, "layer_types|use_sliding_window"),
        ({"model_type": "mistral", "sliding_window": 8}, "sliding_window: got 8"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_type: got 'dynamic'",
        ),
        (
            {
                "rope_scaling": {
                    "rope_type": "longrope",
                    "factor": 2.0,
                    "original_max_position_embeddings": 256,
                    "short_factor": [1.0] * 6,
                    "long_factor": [2.0] * 6,
                }
            },
            "rope_type: got 'longrope'",
        ),
        # Either says that a window slides: newer configurations by layer, older ones by a switch.
        (
            {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8},
            "layer_types: got sliding_attention, expected full_attention only",
        ),
        (
            {"layer_types": ["full_attention"] * 2, "use_sliding_window": True},
            "use_sliding_window: got True",
        ),
    ],
)
def test_reward_models_that_cannot_be_used(config, pattern, tmp_path):
    with pytest.raises(ValueError, match=pattern) as error:
        reward_of(changed(REWARD, tmp_path, config=config))
    refused(error, pattern)


def dream_of(folder):
    return Dream.from_pretrained(folder, dtype="float32", device="cpu")


DREAMS = [
    ({"hidden_size": 0}, {}, "hidden_size: got 0, expected a positive integer"),
    ({"num_key_value_heads": 0}, {}, "num_key_value_heads: got 0"),
    ({"rope_scaling": "linear"}, {}, "rope_scaling: got 'linear', expected an object"),
    ({"rope_scaling": [1]}, {}, r"rope_scaling: got \[1\], expected an object"),
    ({"rms_norm_eps": "tiny"}, {}, "rms_norm_eps: got 'tiny', expected a number"),
    ({"max_position_embeddings": "many"}, {}, "max_position_embeddings: got 'many'"),
    ({"layer_types": ["full_attention"]}, {}, "layer_types: .* once per layer"),
    ({"vocab_size": 300}, {}, "mask token has the id 384, but vocab_size is 300"),
    ({"mask_token_id": 7}, {}, r"mask_token_id: got 7 in config\.json, but 384"),
    ({"eos_token_id": 7}, {}, r"eos_token_id: got 7 in config\.json, but 380"),
    ({}, {"eos_token": None}, r"eos_token_id: got 380 in config\.json, but the tokenizer has none"),
    ({"tie_word_embeddings": True}, {}, "tie_word_embeddings: got True, but|lm_head"),
    ({}, {"mask_token": "<|nomask|>"}, "mask_token: got .* no file of the tokenizer gives an id"),
    ({}, {"chat_template": 5}, "no chat template"),
]
REWARDS = [
    ({"hidden_size": "big"}, {}, r"config\.json|weights"),
    ({"rms_norm_eps": "tiny"}, {}, "rms_norm_eps: got 'tiny', expected a number"),
    ({"max_position_embeddings": "many"}, {}, "max_position_embeddings: got 'many'"),
    ({"max_position_embeddings": None}, {}, "max_position_embeddings: got None"),
    ({"rope_scaling": [1]}, {}, "rope_scaling: got"),
    ({"rope_theta": "big"}, {}, "rope_theta: got 'big', expected a number"),
    ({"use_sliding_window": "true"}, {}, r"config\.json|sliding"),
    ({"layer_types": "full_attention"}, {}, r"config\.json|layer_types"),
    ({"num_labels": "one"}, {}, "num_labels: got 'one', expected a number"),
    ({"num_key_value_heads": 0}, {}, r"config\.json|weights"),
    ({"quantization_config": {"bits": 4}}, {}, "quantization_config: "),
    ({"rope_scaling": {"rope_type": "banana"}}, {}, "rope_parameters: got .*'banana'"),
    ({"hidden_size": 0}, {}, r"config\.json|weights|hidden_size"),
    ({"model_type": "bert"}, {}, "."),
]


@pytest.mark.parametrize(("config", "tokenizer", "pattern"), DREAMS)
def test_dreams_that_contradict_themselves(config, tokenizer, pattern, tmp_path):
    with pytest.raises(ValueError, match=pattern) as error:
        dream_of(changed(DREAM, tmp_path, config=config, tokenizer=tokenizer))
    refused(error, pattern)


@pytest.mark.parametrize(("config", "tokenizer", "pattern"), REWARDS)
def test_reward_models_that_contradict_themselves(config, tokenizer, pattern, tmp_path, capfd):
    with pytest.raises(ValueError, match=pattern) as error:
        reward_of(changed(REWARD, tmp_path, config=config, tokenizer=tokenizer))
    refused(error, pattern)
    assert capfd.readouterr().err == ""  # no reports before the one line


def test_a_configuration_that_never_ends(tmp_path):
    folder = changed(DREAM, tmp_path)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not JSON") as error:
        dream_of(folder)
    refused(error, "config")


@pytest.mark.parametrize("template", ["{{ messages[0]['content'] + 1 }}", "{{ nothing.at.all }}"])
def test_templates_that_do_not_work(template, tmp_path):
    dream = dream_of(changed(DREAM, tmp_path, tokenizer={"chat_template": template}))
    with pytest.raises(ValueError, match="its chat template does not work") as error:
        dream.encode([SHORT])
    refused(error, "template")


def test_a_template_that_makes_nothing_of_a_prompt(tmp_path):
    dream = dream_of(changed(DREAM, tmp_path, tokenizer={"chat_template": "{{ '' }}"}))
    with pytest.raises(ValueError, match="makes nothing of a prompt"):
        dream.encode([SHORT])


def test_a_template_that_makes_nothing_of_one_of_several_prompts(tmp_path):
    template = "{{ messages[0]['content'] if 'river' in messages[0]['content'] else '' }}"
    denoiser = Dream.from_pretrained(
        changed(DREAM, tmp_path, tokenizer={"chat_template": template})
    )
    with pytest.raises(ValueError, match="its chat template makes nothing of a prompt"):
        denoiser.encode([LONG, SHORT])
    assert denoiser.encode([LONG]).valid.all()


def test_a_template_that_hides_the_answer(tmp_path):
    template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    reward = reward_of(changed(REWARD, tmp_path, tokenizer={"chat_template": template}))
    with pytest.raises(ValueError, match="shows an answer 0 times"):
        reward.bind([SHORT], 1)


def test_a_template_that_shows_the_answer_twice(tmp_path):
    template = "{% for m in messages %}{{ m['content'] * loop.index }}{% endfor %}"
    reward = reward_of(changed(REWARD, tmp_path, tokenizer={"chat_template": template}))
    with pytest.raises(ValueError, match="shows an answer 2 times"):
        reward.bind([SHORT], 1)


def test_a_template_whose_end_depends_on_the_prompt():
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ messages[0]['content'] }}"
    _, reward = pair("float32")
    reward.tokenizer.chat_template = template
    reward.bind([SHORT, SHORT], 1)
    with pytest.raises(ValueError, match="after an answer varies"):
        reward.bind([SHORT, LONG], 1)


def test_a_prompt_longer_than_the_models_positions():
    config = SamplingConfig(new_tokens=8, denoising_steps=8, trajectories=1)
    for name in ("dream", "reward"):
        denoiser, reward = pair("float32")
        network = denoiser.network if name == "dream" else reward.network
        network.config.max_position_embeddings = 30
        with pytest.raises(ValueError, match="has 30; shorten the prompt or lower new_tokens"):
            generate(denoiser, reward, [SHORT], config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device")
def test_devices_and_dtypes_that_are_not_there():
    with pytest.raises(ValueError, match=r"device: got 'cuda', but this machine has 0 CUDA"):
        Dream.from_pretrained(DREAM, device="cuda")
    with pytest.raises(ValueError, match=r"device: got 'gpu', expected auto, cpu"):
        Dream.from_pretrained(DREAM, device="gpu")
    with pytest.raises(ValueError, match=r"dtype: .* did you mean 'bfloat16'"):
        Dream.from_pretrained(DREAM, dtype="bfloat61")
    with pytest.raises(ValueError, match=r"dtype: got torch\.int64"):
        Dream.from_pretrained(DREAM, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"unmatched: .* expected one of 'eos', 'zero'"):
        pair("float32", unmatched="skip")


def test_a_sequence_may_fill_all_positions():
    config = Qwen2Config(max_position_embeddings=40)
    require_positions("Dream", 40, config)
    with pytest.raises(ValueError, match="takes 41 positions, Dream has 40"):
        require_positions("Dream", 41, config)


def test_automatic_dtypes_are_the_papers_on_a_gpu():
    assert dtype_of("auto", torch.device("cuda")) == torch.bfloat16
    assert dtype_of("auto", torch.device("cpu")) == torch.float32


def test_transformers_is_quiet_no_longer_than_it_must_be():
    from transformers.utils import logging

    logging.enable_progress_bar()
    before = logging.get_verbosity()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet():
            assert not logging.is_progress_bar_enabled()
            warnings.warn("of the library", stacklevel=1)
        assert not heard
        warnings.warn("of ours", stacklevel=1)
        assert [str(one.message) for one in heard] == ["of ours"]
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == before


# --- the command line

TINY = ["--dream", str(DREAM), "--reward", str(REWARD), "--new-tokens", "4", "--device", "cpu"]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "entrgi_ref", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--dream", "nowhere", "--reward", str(REWARD)], "no folder 'nowhere'"),
        ([*TINY, "--method", "entrgy"], "did you mean 'entrgi'"),
        ([*TINY, "--temperature", "0"], "temperature: got 0"),
        ([*TINY, "--new-tokens", "600"], "positions"),
        ([*TINY, "--temperature", "hot"], "--temperature"),
        ([*TINY, "--nosuch", "1"], "No such option"),
        ([*TINY, "--denoising-steps", "0"], "--denoising-steps"),
        ([*TINY, "--device", "xpu"], "device: got 'xpu'"),
        ([*TINY, "--device", "cuda:9"], "device: got 'cuda:9'"),
        ([*TINY, "--out", str(REWARD / "config.json")], "out: cannot write .*config.json"),
    ],
)
def test_command_line_says_it_in_one_line(arguments, pattern, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["entrgi_ref", "hello", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    said = capfd.readouterr()
    assert stop.value.code == 2
    assert re.fullmatch(r"error: .*\n", said.err), said.err
    assert re.search(pattern, said.err)
    assert said.out == ""


@pytest.mark.slow
def test_nothing_else_is_said_by_the_process():
    done = run("hello", "--dream", "some/model", "--reward", str(REWARD))
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*\n", done.stderr), done.stderr
    assert "'some/model' is no folder here" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("prompt", ["", " \n", b"\xff".decode(errors="surrogateescape")])
def test_prompts_that_are_no_text(prompt, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["entrgi_ref", prompt, *TINY])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert stop.value.code == 2
    said = capfd.readouterr().err
    assert re.fullmatch(r"error: prompt: got .*\n", said), said


@pytest.mark.parametrize(
    ("trajectories", "advice"),
    [(4, "lower --trajectories from 4 to 2"), (1, "lower --new-tokens from 4 to 2")],
)
def test_out_of_memory_says_what_to_lower(trajectories, advice, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(denoising, "predict", full)
    command = ["entrgi_ref", "hello", *TINY, "--trajectories", str(trajectories)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: out of memory: {advice}")


def test_a_revision_of_a_folder_is_refused():
    """It would say nothing."""
    for revision in ("main", "0" * 40):
        with pytest.raises(ValueError, match=r"revision: got '\w+' for the folder .*expected none"):
            locate(DREAM, revision)


def test_a_template_that_is_no_valid_text_is_refused():
    denoiser, _ = pair("float32")
    with pytest.raises(ValueError, match=r"template: got .*which is not valid text"):
        denoiser.template("bad \udcff ____")


@pytest.mark.parametrize("denoiser", [str(DREAM), None, object()])
def test_a_denoiser_that_is_none_is_refused(denoiser):
    with pytest.raises(ValueError, match=r"denoiser: got .*expected a Denoiser"):
        SequenceReward.from_pretrained(REWARD, denoiser, dtype="float32")


def test_a_wrapper_that_passes_all_on_is_a_denoiser():
    """On every Python: since 3.12, isinstance with a protocol does not ask `__getattr__`."""

    class Passing:
        def __getattr__(self, name):
            return getattr(denoiser, name)

        def __call__(self, *inputs):
            return denoiser(*inputs)

    denoiser, _ = pair("float32")
    reward = SequenceReward.from_pretrained(REWARD, Passing(), dtype="float32")
    assert reward.embeddings.shape[0] == len(denoiser.writable)


def test_dream_says_the_dtype_of_its_logits():
    """So that float16 is refused before it runs."""
    for name in ("float32", "bfloat16"):
        denoiser, _ = pair(name)
        assert denoiser.dtype == getattr(torch, name)
        tokens, valid = denoiser.encode([SHORT]).tokens, denoiser.encode([SHORT]).valid
        masked = torch.ones(1, 2, dtype=torch.bool)
        assert denoiser(tokens, valid, masked).dtype == denoiser.dtype
