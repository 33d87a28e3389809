"""The parts that checkpoints are read by, one by one: borders, messages, what the hub is asked."""

import copy
import dataclasses
import hashlib
import importlib
import io
import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import threading
import types
import warnings
from collections import namedtuple
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AddedToken,
    GenerationConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from checkpoints import DREAM, LONG, REWARD, SHORT, changed, pair, response_tokens
from entrgi_ref.models import (
    DenoiserCheckpoint,
    Dream,
    SequenceReward,
    adapters,
    causal,
    checkpoints,
    families,
    likelihood,
    load_denoiser,
    loading,
    reading,
    sequence,
    templates,
    tokenizers,
)
from entrgi_ref.models import listed as listing
from entrgi_ref.models.combined import examine_reward, require_weights
from entrgi_ref.models.denoiser import _check_special_tokens, _mask_of
from entrgi_ref.models.likelihood import LikelihoodCheckpoint
from entrgi_ref.models.sequence import (
    RewardCheckpoint,
    _require_full_attention,
    fallback_of,
    require_all,
    tokens_of,
)
from entrgi_ref.models.vocabulary import VocabularyMap

pytestmark = pytest.mark.usefixtures("as_users_run_it")


def refused(pattern):
    return pytest.raises(ValueError, match=pattern)


# --- templates: the second process


class Limits:
    """`resource`, whose limits are written down and not set."""

    RLIM_INFINITY, RLIMIT_CORE, RLIMIT_AS, RLIMIT_CPU, RUSAGE_SELF = -1, "core", "space", "cpu", 0

    def __init__(self, hard=-1, user=3.25, system=1.5):
        self.hard, self.used, self.set = hard, (user, system), []

    def getrlimit(self, what):
        return 7, self.hard

    def setrlimit(self, what, limits):
        self.set.append((what, *limits))

    def getrusage(self, who):
        return namedtuple("Usage", "ru_utime ru_stime")(*self.used)

    def getpagesize(self):
        return 4096


def served(requests, monkeypatch, limits):
    monkeypatch.setattr(templates, "resource", limits)
    answers = io.StringIO()
    lines = [r if isinstance(r, str) else json.dumps(r) for r in requests]
    templates.serve(io.StringIO("".join(f"{line}\n" for line in lines)), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def asked(template, content="hello", **options):
    return [template, [{"role": "user", "content": content}], options]


def test_a_template_has_two_seconds_and_half_a_gibibyte(monkeypatch, tmp_path):
    """Beside what the process has used before it."""
    statm = tmp_path / "statm"
    statm.write_text("1000 20 3 4")
    monkeypatch.setattr(templates, "TAKEN", str(statm))
    limits = Limits()
    assert served([asked("a"), asked("b")], monkeypatch, limits) == [{"text": "a"}, {"text": "b"}]
    space = 1000 * 4096 + 2**29
    assert limits.set == [("core", 0, -1), ("space", space, -1), *[("cpu", 7, -1)] * 2]
    assert math.ceil(3.25 + 1.5) + templates.SECONDS == 7


@pytest.mark.parametrize("hard", [3, 5000])
def test_no_limit_is_above_that_of_the_system(monkeypatch, hard, tmp_path):
    (tmp_path / "statm").write_text("1 1")
    monkeypatch.setattr(templates, "TAKEN", str(tmp_path / "statm"))
    limits = Limits(hard)
    served([asked("a")], monkeypatch, limits)
    assert limits.set == [("core", 0, hard), ("space", hard, hard), ("cpu", min(7, hard), hard)]


def test_what_the_system_does_not_bound_is_not_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(templates, "TAKEN", str(tmp_path / "nowhere"))
    limits = Limits()
    served([asked("a")], monkeypatch, limits)
    assert [what for what, *_ in limits.set] == ["core", "cpu"]
    assert served([asked("a")], monkeypatch, None) == [{"text": "a"}]


def test_what_a_process_has_taken_is_what_the_system_says():
    assert templates._taken() == pytest.approx(os_says("VmSize"), rel=0.02)
    used = os.times()
    assert templates._computed() == pytest.approx(used.user + used.system, abs=0.1)


def os_says(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def test_a_text_may_be_as_long_as_is_said(monkeypatch):
    monkeypatch.setattr(templates, "LONGEST", 5)
    found = served([asked("12345"), asked("123456")], monkeypatch, None)
    assert found == [
        {"text": "12345"},
        {"error": "ValueError: it makes 6 characters of a conversation"},
    ]


def test_the_longest_text_has_four_million_characters():
    assert templates.LONGEST == 4 * 1024 * 1024
    assert (templates.SECONDS, templates.MEMORY) == (2, 512 * 1024 * 1024)


def test_an_answer_names_what_went_wrong(monkeypatch):
    """In one line that is not long; half a character is no text."""
    monkeypatch.setattr(templates, "json", _Exhausted)
    assert served(["exhausted", "other"], monkeypatch, None) == [
        {"error": "it takes more than 512 MB of memory"},
        {"error": f"KeyError: '{'x' * 299}"},
    ]
    monkeypatch.undo()
    half, good = served(
        [asked("{{ messages[0].content }}", "\ud800"), asked("b")], monkeypatch, None
    )
    assert half["error"].startswith("UnicodeEncodeError: ")
    assert good == {"text": "b"}


class _Exhausted:
    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(line):
        if line.startswith("exhausted"):
            raise MemoryError
        raise KeyError("x" * 400)


def test_chance_in_a_template_begins_anew_for_each_text(monkeypatch):
    numbers = list(range(1000))
    template = f"{{{{ {numbers} | random }}}}"
    random.seed(0)
    first = str(random.choice(numbers))
    found = served([asked(template), asked(template)], monkeypatch, None)
    assert found == [{"text": first}] * 2


# --- templates: the first process


class Running:
    """A second process that answers as it is told to."""

    def __init__(self, answer='{"text": "x"}\n', code=None):
        self.answer, self.code, self.killed, self.waited = answer, code, 0, 0
        self.asked = []
        self.closed = []
        self.stdin, self.stdout = (
            types.SimpleNamespace(
                write=self.asked.append,
                flush=lambda: None,
                readline=self.readline,
                close=partial(self.closed.append, name),
            )
            for name in ("stdin", "stdout")
        )

    def readline(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def poll(self):
        return self.code

    def wait(self):
        self.waited += 1
        return self.code

    def kill(self):
        self.killed += 1


@pytest.fixture
def started(monkeypatch):
    """Processes to be started, in turn, and how each was."""
    state = types.SimpleNamespace(waiting=[], calls=[])

    def start(command, **options):
        state.calls.append((command, options))
        return state.waiting.pop(0)

    monkeypatch.setattr(templates.subprocess, "Popen", start)
    return state


def test_one_process_renders_all_texts_of_a_process(started, monkeypatch):
    first, second, third = started.waiting = [Running(), Running(), Running()]
    process = templates.Process()
    process.start()
    assert len(started.calls) == 1
    assert process.render("{}", [{"role": "user", "content": "é"}], a=1) == "x"
    assert process.render("t", []) == "x"
    turns = '[{"role": "user", "content": "\\u00e9"}]'
    assert first.asked == [f'["{{}}", {turns}, {{"a": 1}}]\n', '["t", [], {}]\n']
    first.code = 0  # it has ended by itself
    process.render("t", [])
    monkeypatch.setattr(os, "getpid", lambda: -5)  # in a fork
    process.render("t", [])
    assert [len(one.asked) for one in (first, second, third)] == [2, 1, 1]
    ((command, options), *_) = started.calls
    assert command == [sys.executable, "-P", templates.__file__]
    expected = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TZ": "UTC"}
    assert options.pop("env").items() >= expected.items()
    assert options == {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "text": True,
        "encoding": "ascii",
        "start_new_session": True,
    }


def test_a_process_that_ends_is_told_why_and_followed_by_another(started):
    seconds = "^it takes more than 2 seconds$"
    for answer, code, said in (
        ("", -signal.SIGXCPU, seconds),
        ("", 3, "^it has ended its process, with the exit code 3$"),
        ('{"text": "cut', -9, "^it has ended its process, with the exit code -9$"),
        (BrokenPipeError(), -signal.SIGXCPU, seconds),
    ):
        ending = Running(answer)
        started.waiting = [ending, Running()]
        process = templates.Process()
        process.start()
        ending.wait = lambda code=code: code
        with refused(said):
            process.render("t", [])
        assert process.render("t", []) == "x"
        assert not ending.killed


def test_what_a_template_raises_is_raised_here(started):
    started.waiting = [Running('{"error": "KeyError: x"}\n')]
    with refused("^KeyError: x$"):
        templates.Process().render("t", [])


def test_after_an_interruption_nobody_reads_the_answer(started, monkeypatch):
    interrupted, other = started.waiting = [Running(KeyboardInterrupt()), Running()]
    process = templates.Process()
    with pytest.raises(KeyboardInterrupt):
        process.render("t", [])
    assert (interrupted.killed, interrupted.waited) == (1, 1)
    assert process.render("t", []) == "x"
    process.close()
    assert (other.killed, other.waited) == (1, 1)
    process.close()
    assert other.killed == 1


def test_a_fork_does_not_end_the_process_of_its_parent(started, monkeypatch):
    (parents,) = started.waiting = [Running()]
    process = templates.Process()
    process.start()
    monkeypatch.setattr(os, "getpid", lambda: -5)
    process.close()
    assert (parents.killed, parents.waited) == (0, 0)


# --- tokenizers


class Words:
    """A tokenizer of words: their ids are their lengths."""

    all_special_ids = (9,)

    def __call__(self, text, add_special_tokens):
        assert add_special_tokens is False
        return {"input_ids": [len(word) for word in text.split()]}

    def convert_ids_to_tokens(self, index):
        return f"<{index}>"

    def get_vocab(self):
        return {"a": 0, "b": 2, "c": 3}


HERE = {"local_files_only": True, "trust_remote_code": False}
"""How each file is read: nothing is fetched, and no code of its own is run."""


@pytest.fixture
def read(monkeypatch, tmp_path):
    """A folder with a tokenizer, which is read as a test says."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    state = types.SimpleNamespace(folder=tmp_path, asked=[], tokenizer=None)

    def from_pretrained(folder, **options):
        state.asked.append((folder, options))
        if isinstance(state.tokenizer, BaseException):
            raise state.tokenizer
        return state.tokenizer

    monkeypatch.setattr(tokenizers.process, "start", lambda: None)
    loader = types.SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setattr(tokenizers.transformers, "Qwen2Tokenizer", loader)
    state.load = lambda: tokenizers.load_tokenizer(tmp_path, "Qwen2Tokenizer")
    return state


def test_a_tokenizer_is_loaded_from_its_folder_alone(read):
    read.tokenizer = ValueError(" a\n b " + "x" * 400)
    said = f"^checkpoint: the tokenizer of {read.folder} does not load: a b {'x' * 296}$"
    with refused(said):
        read.load()
    assert read.asked == [(read.folder, HERE)]
    read.tokenizer = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        read.load()
    (read.folder / "tokenizer.json").unlink()
    with refused("has no tokenizer, none of tokenizer.json, vocab.json, tokenizer.model$"):
        read.load()
    for file in ("vocab.json", "tokenizer.model"):
        (read.folder / file).write_text("{}")
        with pytest.raises(KeyboardInterrupt):
            read.load()
        (read.folder / file).unlink()


def test_dreams_own_tokenizer_is_qwens_wherever_it_lies(read):
    """Its class is code of the checkpoint's, which gives the same ids."""
    read.tokenizer = KeyboardInterrupt()  # reached
    for declared, raised in (
        ("DreamTokenizer", pytest.raises(KeyboardInterrupt)),
        ("OtherTokenizer", refused("^tokenizer_class: got 'OtherTokenizer' in .* is not run$")),
    ):
        written = {"tokenizer_class": declared, "auto_map": {"AutoTokenizer": ["own.Own", None]}}
        (read.folder / "tokenizer_config.json").write_text(json.dumps(written))
        with raised:
            tokenizers.load_tokenizer(read.folder)
    assert read.asked == [(read.folder, HERE)]


def test_a_tokenizer_has_a_template_and_one_token_for_each_id(read):
    class Tokenizer:
        unk_token_id = eos_token_id = pad_token_id = mask_token_id = None
        chat_template, vocabulary = "x", {"a": 0, "b": 1}

        def __call__(self, text, add_special_tokens):
            assert (text, add_special_tokens) == (tokenizers.SENTENCE, False)
            return {"input_ids": [3]}

        def decode(self, ids):
            assert ids == [3]
            return self.decoded

        decoded = tokenizers.SENTENCE.upper()

        def get_vocab(self):
            return self.vocabulary

    read.tokenizer = Tokenizer()
    assert read.load() is read.tokenizer
    read.tokenizer.chat_template = {"default": "x"}  # several of them
    assert read.load() is read.tokenizer
    for nothing in ("", {}, None, 3):
        read.tokenizer.chat_template = nothing
        with refused(f"^checkpoint: the tokenizer of {read.folder} has no chat template$"):
            read.load()
    for marked in ("\ufeffx", {"default": "x", "rag": "\ufeff"}):
        read.tokenizer.chat_template = marked
        with refused("begins with a byte order mark, which would stand in each prompt"):
            read.load()
    read.tokenizer.chat_template, read.tokenizer.decoded = "x", "The quick brown fox"
    with refused(" makes 'The quick brown fox' of 'The quick .*, expected all of its letters"):
        read.load()
    read.tokenizer.unk_token_id = 3  # it says itself what it does not know
    assert read.load() is read.tokenizer
    read.tokenizer.decode = None  # what does not work is found here, and not after hours
    with refused(f"^checkpoint: the tokenizer of {read.folder} does not load: 'NoneType' object"):
        read.load()
    del read.tokenizer.decode
    read.tokenizer.chat_template = "x"
    read.tokenizer.vocabulary = {"a": 0, "b": 1, "c": 0}
    with refused("gives the id 0 to 'a' and to 'c'$"):
        read.load()
    read.tokenizer.split_special_tokens = True
    with refused("^split_special_tokens: got True, with which the marks of a chat template are"):
        read.load()


def test_texts_are_filled_up_on_the_left():
    tokens, real = tokenizers.padded(Words(), ["a bb ccc", "dd"], 8, torch.device("cpu"), "it", 4)
    assert tokens.tolist() == [[1, 2, 3], [8, 8, 2]]
    assert real.tolist() == [[True] * 3, [False, False, True]]
    assert (tokens.dtype, real.dtype) == (torch.int64, torch.bool)
    with refused("^it has 3 tokens, its tokenizer more: the id 3$"):
        tokenizers.padded(Words(), ["a bb ccc", "dd"], 8, torch.device("cpu"), "it", 3)
    with refused("^it has 3 tokens, its tokenizer more: the id 4$"):  # the first of several
        tokenizers.padded(Words(), ["a", "bbbb ccc"], 8, torch.device("cpu"), "it", 3)


def test_a_tokenizer_of_ones_own_writes_the_text_of_a_conversation():
    class Own:
        def apply_chat_template(self, turns, **options):
            said = " ".join(f"{turn['role']}: {turn['content']}" for turn in turns)
            return f"{said} {sorted(options.items())}"

    without = "[('add_generation_prompt', True), ('tokenize', False)]"
    assert tokenizers.conversation(Own(), "hi") == f"user: hi {without}"
    answered = "[('add_generation_prompt', False), ('mark', 1), ('tokenize', False)]"
    found = tokenizers.conversation(Own(), "hi", "ho", mark=1)
    assert found == f"user: hi assistant: ho {answered}"


def test_a_template_may_trim_an_answer_and_what_it_leaves_out_is_put_between():
    """Blanks around an answer are what the template makes of them, unless a part is left out."""

    class Trims:
        def apply_chat_template(self, turns, **options):
            said = [turn["content"].split("</think>")[-1].strip() for turn in turns]
            return "".join(f"<{text}>" for text in said)

    for answer, text in (
        (" ho \n", "<hi><ho>"),
        ("", "<hi><>"),
        (" so</think>ho \n", "<hi>< so</think>ho \n>"),
        (" hi ", "<hi><hi>"),  # as in the prompt
        (" so</think>hi", "<hi>< so</think>hi>"),
    ):
        assert tokenizers.answered(Trims(), "hi", answer) == text


def test_a_template_knows_the_special_tokens_unless_an_option_has_their_name():
    tokenizer = tokenizers.load_tokenizer(DREAM, "Qwen2Tokenizer")
    tokenizer.chat_template = "{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}{{ mark }}"
    ends = tokenizer.bos_token, tokenizer.eos_token
    assert tokenizers.conversation(tokenizer, "hi") == f"{ends[0]}hi{ends[1]}"
    assert tokenizers.conversation(tokenizer, "hi", eos_token="!", mark=1) == f"{ends[0]}hi!1"


def test_of_several_templates_the_default_one_is_rendered():
    tokenizer = tokenizers.load_tokenizer(DREAM, "Qwen2Tokenizer")
    said = "{{ messages[0]['content'] }}"
    tokenizer.chat_template = {"tool_use": f"tools: {said}", "default": f"plain: {said}"}
    assert tokenizers.conversation(tokenizer, "hi") == "plain: hi"


def test_one_tokenizer_at_a_time_works():
    """The standard error is that of the process: who else redirects it would lose it."""
    began, done, order = threading.Event(), threading.Event(), []

    def first():
        with tokenizers.working("first"):
            began.set()
            done.wait(10)
            order.append("first")

    def second():
        with tokenizers.working("second"), tokenizers.working("of itself"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert began.wait(10)
    threads[1].start()
    threads[1].join(0.1)
    done.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second"]


def test_special_tokens_without_a_name_are_warned_of_too():
    tokenizer = tokenizers.load_tokenizer(DREAM, "Qwen2Tokenizer")
    tokenizer.add_tokens([AddedToken("<|box|>", special=True), AddedToken("<|plain|>")])
    assert "<|box|>" not in tokenizer.all_special_tokens
    with pytest.warns(UserWarning, match=r"'a <\|box\|>' holds <\|box\|>, read as special tokens"):
        tokenizers.warn_of_special(tokenizer, ["b", "a <|box|>"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizers.warn_of_special(tokenizer, ["a <|plain|>"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_tokenizer_does_not_hide_that_it_is_to_end(error):
    def interrupted(*args, **options):
        raise error

    with pytest.raises(error):
        tokenizers.padded(interrupted, ["a"], 0, torch.device("cpu"), "it", 9)


def test_a_tokenizer_that_fails_is_one_line():
    def broken(*args, **options):
        raise BaseException("a  panic\nof " + "x" * 400)

    said = f"^checkpoint: the tokenizer of it does not work: a panic of {'x' * 289}$"
    with refused(said):
        tokenizers.padded(broken, ["a"], 0, torch.device("cpu"), "it", 9)


def test_what_does_not_work_in_a_template_is_the_denoisers_tokenizer():
    class Fails(Words):
        def __call__(self, text, add_special_tokens):
            raise RuntimeError("no\nwords")

    with refused("^checkpoint: the tokenizer of the denoiser does not work: no words$"):
        tokenizers.with_blanks(Fails(), "a _", 8)


def test_a_blank_is_one_token_for_each_underscore():
    found = tokenizers.with_blanks(Words(), "__ a my_name  ___ bb, _", 8)
    assert found.tolist() == [8, 8, 1, 7, 8, 8, 8, 3, 8]
    assert tokenizers.with_blanks(Words(), "_", 8).tolist() == [8]
    # After a letter of another alphabet it is one: some of these are written without spaces.
    assert tokenizers.with_blanks(Words(), "是_ é __", 8).tolist() == [1, 8, 1, 8, 8]
    for none in ("no blank", "a_b", "_a a_"):
        with refused("^template: got .*, expected at least one blank: underscores"):
            tokenizers.with_blanks(Words(), none, 8)
    for special in ("_ wwwwwwwww", "wwwwwwwww _", "_ wwwwwwww"):
        with refused(r"^template: got the special token '<[89]>' in ' ?w+ ?'$"):
            tokenizers.with_blanks(Words(), special, 8)
    with refused("^template: got the special token '<9>'"):
        tokenizers.with_blanks(Words(), "_ wwwwwwwww wwwwwwww", 8)


def test_spaces_before_a_blank_belong_to_the_words_that_fill_it():
    class Characters(Words):
        all_special_ids = ()

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [ord(c) for c in text]}

    found = tokenizers.with_blanks(Characters(), " a  _ b", 7)
    assert found.tolist() == [*map(ord, " a"), 7, *map(ord, " b")]


def test_each_id_has_the_string_of_its_token():
    assert tokenizers.token_strings(Words(), 5) == ("a", None, "b", "c", None)
    assert tokenizers.token_strings(Words(), 3) == ("a", None, "b")


# --- vocabularies


def test_a_vocabulary_without_tokens_matches_nothing():
    with refused(
        r"^vocabulary: the reward model has 0 of the diffusion model's 0 tokens \(0\.0%\)"
    ):
        VocabularyMap.by_string([None, None], {"a": 0}, 0)
    empty = VocabularyMap(torch.zeros(1, dtype=torch.int64), torch.zeros(1).bool(), 0, ())
    assert empty.overlap == 0


def test_a_report_names_what_is_lacking_and_what_has_no_token():
    tokens = [*"abcdefghij", None, None]
    found = VocabularyMap.by_string(tokens, {t: i for i, t in enumerate("abcdefghi")}, 4)
    assert found.report() == (
        "the reward model has 9 of the diffusion model's 10 tokens (90.0%), it lacks 'j'; "
        "2 further ids have no token"
    )
    assert found.ids.tolist() == [*range(9), 4, 4, 4]
    assert found.unmatched == ("j",)
    assert found.overlap == pytest.approx(0.9)
    q = torch.arange(12.0)[None]
    assert found.unmatched_mass(q).item() == 9 + 10 + 11
    moved = found.to(torch.device("meta"))
    assert (moved.ids.device.type, moved.matched.device.type) == ("meta", "meta")
    assert moved.report() == found.report()
    found = VocabularyMap.by_string(["a", "b\n" + "c" * 99], {"a": 0}, 0)
    assert found.report().endswith(rf"it lacks 'b\n{'c' * 56}")


def test_transformers_does_not_count_the_tokens_of_a_prompt(tmp_path, capfd):
    """It says that many of them make errors, before there is one line that says so."""
    folder = changed(REWARD, tmp_path, tokenizer={"model_max_length": 2})
    ids = tokenizers.ids_of(tokenizers.load_tokenizer(folder), LONG, "the reward model")
    assert len(ids) > 2
    assert capfd.readouterr().err == ""


def test_a_network_in_place_of_a_tokenizer_is_refused_in_one_line(tmp_path, capfd):
    folder = changed(REWARD, tmp_path, tokenizer={"tokenizer_class": "AutoModel"})
    with refused(rf"^tokenizer_class: got 'AutoModel' in {folder}/.* is no tokenizer of "):
        tokenizers.load_tokenizer(folder)
    assert capfd.readouterr().err == ""


# --- checkpoints


def test_numbers_of_a_configuration_have_borders():
    for name in checkpoints.NUMBERS:
        most = checkpoints.MOST_LABELS if name == "num_labels" else 1e30
        for good in (1e-30, 1, most):
            checkpoints.require_numbers({name: good})
        for bad in (0, -1, 1.1e30, math.inf, math.nan):
            with refused(
                rf"^{name}: got {bad!r}, expected a number in \(0, 1e30\]$".replace("+", ".")
            ):
                checkpoints.require_numbers({name: bad})
        if name == "rope_theta":
            checkpoints.require_numbers({name: None})  # so some versions of transformers write it
        for bad in (True, "1", *([None] if name != "rope_theta" else [])):
            with refused(f"^{name}: got {bad!r}, expected a number$"):
                checkpoints.require_numbers({name: bad})
    with refused("^num_labels: got 10001, expected a reward model with 1$"):
        checkpoints.require_numbers({"num_labels": 10001})
    checkpoints.require_numbers({"num_hidden_layers": 1000, "layers": "2000", "other": 2000})
    for written in ({"n_layers": 1001}, {"text_config": {"n_layers": 1001}}):
        with refused("^n_layers: got 1001, expected at most 1000 layers$"):
            checkpoints.require_numbers(written)


def test_positions_are_those_of_the_text_part():
    text = types.SimpleNamespace(max_position_embeddings=7)
    for whole in ({}, {"max_position_embeddings": 9}):
        config = types.SimpleNamespace(get_text_config=lambda: text, **whole)
        assert checkpoints.positions_of(config) == 7


def test_a_configuration_that_names_no_last_position_has_many():
    class Config:
        def __init__(self, **fields):
            self.__dict__.update(fields)

        def get_text_config(self):
            return self

    assert checkpoints.positions_of(Config()) == 2**31
    assert checkpoints.positions_of(Config(max_position_embeddings=None)) == 2**31
    assert checkpoints.positions_of(Config(max_position_embeddings=-1)) == 2**31
    assert checkpoints.positions_of(Config(max_position_embeddings=1)) == 1


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a/b", True),
        ("Dream-org/Dream-v0.1_x", True),
        ("a", False),
        ("a/b/c", False),
        ("-a/b", False),
        ("a/.b", False),
        ("./b", False),
        ("~/b", False),
        ("a/b ", False),
        ("a/", False),
    ],
)
def test_what_has_the_form_of_a_hub_id(name, is_one):
    assert checkpoints.is_hub_id(name) is is_one


def test_a_copy_in_the_hubs_cache_is_known_by_its_id_and_commit(tmp_path):
    cached = tmp_path / "models--some--model--b" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    assert checkpoints.name_of(cached) == "some/model/b"
    assert checkpoints.identity(cached) == {"name": "some/model/b", "commit": "abc"}
    assert checkpoints.name_of(cached.parent) == "snapshots"
    own = tmp_path / "trained" / "snapshots" / "best"
    own.mkdir(parents=True)
    assert checkpoints.name_of(own) == "best"
    assert "contents" in checkpoints.identity(own), "or other weights would go on with its run"


def test_a_folder_has_the_name_that_it_has_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "model")
    for path in (Path(), Path("../model"), tmp_path / "link", tmp_path / "model"):
        assert checkpoints.name_of(path) == "model"


def test_contents_are_known_by_both_ends_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SAMPLED", 3)
    file = tmp_path / "a.json"

    def known(content):
        file.write_bytes(content)
        return checkpoints.identity(tmp_path)["contents"]

    first = known(b"0123456789")
    assert len(first) == 16
    assert known(b"012xxxx789") == first  # the middle is not read
    assert len({first, known(b"01x3456789"), known(b"0123456x89"), known(b"01234567899")}) == 4
    assert known(b"01") != known(b"0")
    (tmp_path / "code.py").write_text("x")
    assert known(b"0123456789") == first


def test_contents_are_known_by_a_mebibyte_at_either_end(tmp_path):
    """By the hash that the records of earlier runs hold."""
    assert checkpoints.SAMPLED == 1024 * 1024
    content = random.Random(0).randbytes(3 * 2**20)
    (tmp_path / "b.safetensors").write_bytes(content)
    (tmp_path / "a.json").write_bytes(b"{}")
    digest = hashlib.blake2b(b"a.json 2 {}{}b.safetensors 3145728 ", digest_size=8)
    digest.update(content[: 2**20] + content[2 * 2**20 :])
    expected = {"name": tmp_path.name, "contents": digest.hexdigest()}
    assert checkpoints.identity(tmp_path) == expected


def test_a_network_of_twice_the_weights_and_a_million_numbers_is_too_large(monkeypatch):
    """An embedding may count twice, and small ones may be made."""
    config = types.SimpleNamespace(get_text_config=lambda: types.SimpleNamespace())

    def check(numbers, stored):
        blank = types.SimpleNamespace(
            parameters=lambda: [torch.empty(numbers, device="meta")],
            base_model_prefix="model",
            state_dict=dict,
        )
        monkeypatch.setattr(checkpoints, "blank", lambda *args: blank)
        checkpoints._require_size(object, Path("folder"), config, stored, {})

    check(2 * 7 + 2**20, {"a": 3, "b": 4})
    with refused("^config.json: it is of a network of 1048591 numbers, but folder has 7$"):
        check(2 * 7 + 2**20 + 1, {"a": 3, "b": 4})
    config.get_text_config = lambda: types.SimpleNamespace(num_hidden_layers=2)
    check(1, {"a": 3, "b": 4})
    with refused("^num_hidden_layers: got 2, but folder has 1 weights$"):
        check(1, {"a": 3})


@pytest.mark.parametrize("place", [None, "text_config"])
def test_a_causal_model_may_say_that_it_is_one(place, tmp_path):
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING as MODELS

    plain = json.loads(Qwen3Config(num_hidden_layers=1).to_json_string())
    for value, fits in ((True, True), (None, True), (False, False), (0, False), ("x", False)):
        said = {"is_causal": value}
        written = plain | (said if place is None else {place: said})
        (tmp_path / "config.json").write_text(json.dumps(written))
        if fits and place is None:
            found = checkpoints.known_config(tmp_path, MODELS, "causal models")
            assert found.num_hidden_layers == 1
        elif fits:  # this type has no text part
            with refused(
                "^config.json: got {'is_causal': .*} for its text part, expected a model's$"
            ):
                checkpoints.known_config(tmp_path, MODELS, "causal models")
        else:
            with refused(f"^is_causal: got {value!r}, expected a causal model: tokens that see"):
                checkpoints.known_config(tmp_path, MODELS, "causal models")
    for kind, said in ((3, "3"), ("new", "'new'"), (None, "None")):
        (tmp_path / "config.json").write_text(json.dumps(plain | {"model_type": kind}))
        with refused(f"^model_type: got {said}, which transformers does not know$"):
            checkpoints.known_config(tmp_path, MODELS, "causal models")
    (tmp_path / "config.json").write_text(json.dumps(plain | {"model_type": "t5"}))
    with refused("^model_type: got 't5', of which there are no causal models$"):
        checkpoints.known_config(tmp_path, MODELS, "causal models")


def test_a_text_file_may_be_as_large_as_is_said(tmp_path, monkeypatch):
    assert checkpoints.LARGEST_TEXT == 256 * 1024 * 1024
    monkeypatch.setattr(checkpoints, "LARGEST_TEXT", 4)
    (tmp_path / "a.json").write_text("1234")
    (tmp_path / "a.safetensors").write_text("123456")
    assert checkpoints.locate(tmp_path) == tmp_path
    (tmp_path / "b.txt").write_text("12345")
    with refused(r"b\.txt has 5 bytes, expected at most 4$"):
        checkpoints.locate(tmp_path)


def test_a_hub_that_says_nothing_is_one_line_too(monkeypatch):
    import huggingface_hub

    def silent(*args, **options):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", silent)
    said = (
        r"^checkpoint: 'a/b' is no folder here, and could not be fetched from the hub "
        r"\(ConnectionError: ConnectionError\); give a folder, or connect to the network$"
    )
    with refused(said):
        checkpoints.locate("a/b")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({}, {"rope_theta": None, "rope_type": "default"}),
        ({"rope_theta": 5.0}, {"rope_theta": 5.0, "rope_type": "default"}),
        (
            {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7.0, "rope_type": "yarn"}},
            {"rope_theta": 7.0, "rope_type": "yarn"},
        ),
        (
            {"rope_theta": 5.0, "rope_scaling": {"type": "linear"}},
            {"rope_theta": 5.0, "rope_type": "linear"},
        ),
        (
            {"rope_parameters": {"rope_theta": 1.0}, "rope_scaling": {"rope_theta": 2.0}},
            {"rope_theta": 1.0, "rope_type": "default"},
        ),
    ],
)
def test_rotations_are_read_as_old_and_new_versions_write_them(written, found):
    assert checkpoints.rope(written) == found


def test_rotations_that_are_no_object_are_named():
    for field in ("rope_parameters", "rope_scaling"):
        with refused(f"^{field}: got 'x', expected an object$"):
            checkpoints.rope({field: "x"})


def test_kinds_of_rotations_are_those_of_every_layer_type():
    written = {
        "rope_parameters": {
            "full_attention": {"rope_type": "yarn"},
            "sliding_attention": {"type": "linear"},
        },
        "rope_scaling": {"rope_theta": 1.0},
        "other": {"rope_type": "dynamic"},
    }
    assert list(checkpoints.rope_types(written)) == ["default", "yarn", "linear", "default"]
    assert list(checkpoints.rope_types({"rope_scaling": None, "rope_parameters": "x"})) == []


def test_a_message_is_one_short_line():
    assert checkpoints.one_line(KeyError()) == "KeyError: "
    assert checkpoints.one_line(ValueError(" a\n b " + "x" * 400)) == f"ValueError: a b {'x' * 296}"


class Architecture:
    """A class of transformers, of which the calls are written down."""

    def __init__(self, error=None, **report):
        self.asked, self.error, self.report = [], error, report

    def from_pretrained(self, folder, **options):
        self.asked.append((folder, options))
        if self.error:
            raise self.error
        report = dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys"), ())
        return nn.Linear(2, 2), report | self.report


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "_require_size", lambda *args: None)
    monkeypatch.setattr(checkpoints, "require_weights", lambda folder: {})

    def load(architecture, dtype=torch.float32, device="meta", **options):
        return checkpoints.load(
            architecture,
            tmp_path,
            dtype=dtype,
            device=torch.device(device),
            config="config",
            **options,
        )

    return load


def test_a_network_is_loaded_frozen_from_its_folder_alone(loaded, tmp_path):
    made = Architecture(unexpected_keys=("a.rotary_emb.inv_freq", "lm_head.weight"))
    network = loaded(made, key_mapping={"a": "b"})
    assert made.asked == [
        (
            tmp_path,
            {
                "dtype": torch.float32,
                "use_safetensors": True,
                "output_loading_info": True,
                "ignore_mismatched_sizes": True,
                **HERE,
                "attn_implementation": "sdpa",
                "config": "config",
                "generation_config": GenerationConfig(),
                "key_mapping": {"a": "b"},
            },
        )
    ]
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network.weight.device.type == "meta"
    loaded(made, attn_implementation="eager")
    assert made.asked[1][1]["attn_implementation"] == "eager"
    assert loaded(made, device_map={"": "cpu"}).weight.device.type == "cpu"


def test_weights_that_do_not_fit_are_named(loaded, tmp_path):
    more = "has weights that the architecture does not:"
    for report, said in (
        ({"missing_keys": {"b", "a"}}, "lacks a, b"),
        ({"missing_keys": {"lm_head.weight"}}, "lacks lm_head.weight"),
        ({"unexpected_keys": {"c"}}, f"{more} c"),
        ({"unexpected_keys": {"score.bias", "lm_head.weight"}}, f"{more} score.bias"),
        (
            {"unexpected_keys": {"b.norm.weight", "lm_head.bias"}},
            f"{more} b.norm.weight, lm_head.bias",
        ),
        ({"mismatched_keys": {"d"}}, "has weights of another shape: d"),
    ):
        with refused(f"^checkpoint: {tmp_path} {said}$"):
            loaded(Architecture(**report))


def test_a_network_that_does_not_load_is_one_line(loaded, tmp_path):
    said = f"^checkpoint: the weights of {tmp_path} do not load: KeyError: 'x'$"
    with refused(said):
        loaded(Architecture(KeyError("x")))
    with pytest.raises(torch.OutOfMemoryError):
        loaded(Architecture(torch.OutOfMemoryError("no room")))


def test_norms_are_exact_in_double_precision_alone(loaded, monkeypatch):
    changed = []
    monkeypatch.setattr(checkpoints, "_normalise_in_double", changed.append)
    for dtype in checkpoints.DTYPES.values():
        network = loaded(Architecture(), dtype)
        assert changed == ([network] if dtype == torch.float64 else [])
        changed.clear()


def test_files_of_weights_are_the_whole_or_the_shards(tmp_path):
    def found():
        return [file.name for file in checkpoints._weight_files(tmp_path)]

    with refused("has no weights in the safetensors format, none at all; convert them"):
        found()
    for name in ("b.bin", "a.bin"):
        (tmp_path / name).touch()
    with refused(r"format, only pickled ones \(a\.bin\), which are not read; convert them"):
        found()
    for name in ("y.safetensors", "x.safetensors"):
        (tmp_path / name).touch()
    assert found() == ["x.safetensors", "y.safetensors"]
    (tmp_path / "model.safetensors").touch()
    assert found() == ["model.safetensors"]
    index = tmp_path / "model.safetensors.index.json"
    for empty in ({}, {"weight_map": {}}, {"weight_map": ["x"]}):
        index.write_text(json.dumps(empty))
        with refused("model.safetensors.index.json has no weight_map$"):
            found()

    def of(*names):
        content = {"metadata": {}, "weight_map": dict(enumerate(names))}
        index.write_text(json.dumps(content))
        return found()

    assert of("model.safetensors", "model.safetensors") == ["model.safetensors"]
    with refused("has model.safetensors beside model.safetensors.index.json, expected one of"):
        of("x.safetensors")
    (tmp_path / "model.safetensors").unlink()
    assert of("y.safetensors", "x.safetensors", "y.safetensors") == [
        "x.safetensors",
        "y.safetensors",
    ]
    for bad in ("../x.safetensors", "x.bin", "/x.safetensors"):
        with refused(f"names the shard '{bad}', expected files in the safetensors format beside"):
            of("x.safetensors", bad)
    with refused("lacks the shards u.safetensors, z.safetensors$"):
        of("x.safetensors", "z.safetensors", "u.safetensors")


def test_weights_are_counted_and_each_is_there_once(tmp_path):
    """Of what is read: masks of older networks are stored as they like."""
    first = {
        "a.weight": torch.zeros(2, 3),
        "b.bias": torch.zeros(4, dtype=torch.bfloat16),
        "c.weight": torch.zeros(1, dtype=torch.float64),
        "d.weight": torch.zeros(1, dtype=torch.float16),
        "h.attn.bias": torch.zeros(2, 2, dtype=torch.uint8),
        "h.attention.bias": torch.zeros(2, 2, dtype=torch.bool),
        "h.attn.masked": torch.zeros(1, dtype=torch.int64),
    }
    save_file(first, tmp_path / "x.safetensors")
    sizes = {name: tensor.numel() for name, tensor in first.items()}
    assert checkpoints.require_weights(tmp_path) == sizes
    save_file({"z": torch.zeros(5)}, tmp_path / "y.safetensors")
    assert checkpoints.require_weights(tmp_path) == sizes | {"z": 5}
    save_file({"b.bias": torch.zeros(4)}, tmp_path / "y.safetensors")
    with refused(r"has the weight b\.bias twice, in x\.safetensors and in y\.safetensors$"):
        checkpoints.require_weights(tmp_path)
    for name in ("e.weight", "e.bias", "cross_attn.bias", "attn.bias.weight"):
        save_file({name: torch.zeros(1, dtype=torch.int32)}, tmp_path / "y.safetensors")
        said = (
            rf"^checkpoint: {name} in .*y\.safetensors is stored as I32, expected one of F64, F32"
        )
        with refused(f"{said}, F16, BF16$"):
            checkpoints.require_weights(tmp_path)
    (tmp_path / "y.safetensors").write_text("x")
    with refused(r"^checkpoint: the weights of .*y\.safetensors do not load: SafetensorError: "):
        checkpoints.require_weights(tmp_path)


def test_a_weight_is_found_by_its_name_here_or_there(tmp_path):
    save_file({"old.a": torch.zeros(2, 3)}, tmp_path / "x.safetensors")
    save_file({"b": torch.zeros(4)}, tmp_path / "y.safetensors")
    renamed = {r"^old\.": "new."}
    checkpoints.require_shape(tmp_path, "new.a", (2, 3), renamed)
    checkpoints.require_shape(tmp_path, "b", (4,), {})
    checkpoints.require_shape(tmp_path, "old.a", (1,), renamed, needed=False)
    for needed in (True, False):
        with refused(r"has weights of another shape: new\.a, \[2, 3\], expected \[3, 2\]$"):
            checkpoints.require_shape(tmp_path, "new.a", (3, 2), renamed, needed=needed)
    with refused(f"^checkpoint: {tmp_path} lacks old.a$"):
        checkpoints.require_shape(tmp_path, "old.a", (2, 3), renamed)


def test_a_tied_output_layer_is_the_table_or_is_not_stored(tmp_path):
    table = torch.arange(6.0).reshape(2, 3)
    save_file({"table": table}, tmp_path / "x.safetensors")
    checkpoints.require_tied(tmp_path, table, {})
    checkpoints.require_tied(tmp_path, table.half(), {"table": "lm_head.weight"})
    with refused("^tie_word_embeddings: got True, but the checkpoint has an output layer of its"):
        checkpoints.require_tied(tmp_path, table + 1, {"table": "lm_head.weight"})
    table[1, 2] = table[1, 2].nextafter(table[0, 0])  # by the last digit of one number
    with refused("^tie_word_embeddings: got True, but the checkpoint has an output layer of its"):
        checkpoints.require_tied(tmp_path, table, {"table": "lm_head.weight"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "holds no JSON object$"),
        ("{", r"is not JSON \("),
        ('{"a": NaN}', r"is not JSON \(NaN is no number\)$"),
        ('{"a": -Infinity}', r"is not JSON \(-Infinity is no number\)$"),
        ('{"a": 1e400}', r"is not JSON \(1e400 is no number\)$"),
        ('{"a":' * 10000, r"is not JSON \(.*recursion"),
    ],
)
def test_what_is_no_object_of_json_is_refused(text, said, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with refused(f"^checkpoint: {tmp_path}/a.json {said}"):
        checkpoints.read_json(tmp_path / "a.json")
    with refused(f"^checkpoint: {tmp_path} has no b.json$"):
        checkpoints.read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text('{"a": 1.5, "b": [1e300]}')
    assert checkpoints.read_json(tmp_path / "b.json") == {"a": 1.5, "b": [1e300]}


def test_devices_are_named_as_they_were_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checkpoints.device_of("cuda:1") == torch.device("cuda:1")
    assert checkpoints.device_of("cuda") == torch.device("cuda")
    assert checkpoints.device_of(torch.device("cpu")) == torch.device("cpu")
    with refused("^there: got 'cuda:2', but this machine has 2 CUDA devices; use cpu$"):
        checkpoints.device_of("cuda:2", "there")
    with refused("^there: got 'meta', expected auto, cpu, cuda, cuda:1, ...$"):
        checkpoints.device_of("meta", "there")
    with refused("^there: got 'x y', expected auto, cpu, cuda, cuda:1, ...$"):
        checkpoints.device_of("x y", "there")
    with refused("^there: got 'mps', which lacks float64, in which tokens are drawn; use cpu$"):
        checkpoints.device_of("mps", "there")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert checkpoints.device_of("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert checkpoints.device_of("auto").type == "cpu"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64, "float8"])
def test_other_precisions_are_refused(dtype):
    with refused(f"^dtype: got {dtype!r}, expected one of 'auto', 'float32', "):
        checkpoints.dtype_of(dtype, torch.device("cpu"))


def test_precisions_are_named_or_given():
    names = ("float32", "bfloat16", "float16", "float64")
    for name in names:
        dtype = getattr(torch, name)
        assert checkpoints.dtype_of(name, torch.device("cuda")) == dtype
        assert checkpoints.dtype_of(dtype, torch.device("cpu")) == dtype
    assert {*checkpoints.DTYPES} == {*names}
    with refused(r"^dtype: got torch\.int64, expected one of 'auto', 'float32', "):
        checkpoints.dtype_of(torch.int64, torch.device("cpu"))


def test_what_transformers_says_is_heard_again_after_a_failure():
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), checkpoints.quiet():
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert before[0] != logging.CRITICAL


def test_logging_that_was_off_before_the_import_stays_off():
    for before in (logging.ERROR, logging.NOTSET):
        logging.disable(before)
        try:
            importlib.reload(sys.modules["entrgi_ref.models"])
            assert logging.root.manager.disable == before
        finally:
            logging.disable(logging.NOTSET)


def test_bars_that_were_off_stay_off():
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        with checkpoints.quiet():
            assert logging.get_verbosity() == logging.CRITICAL
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()


def test_norms_in_double_precision_are_exact():
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    network = nn.Module()
    network.add_module("norm", Qwen3RMSNorm(4, eps=0.5).double())
    network.add_module("other", nn.LayerNorm(4).double())
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    network.norm.weight.data = weight
    checkpoints._normalise_in_double(network)
    x = torch.tensor([[1e-3, 2, -3, 4]], dtype=torch.float64)
    expected = x / (x.pow(2).mean() + 0.5).sqrt() * weight
    torch.testing.assert_close(network.norm(x), expected, atol=1e-15, rtol=1e-15)
    assert type(network.other) is nn.LayerNorm


# --- how a network is loaded


def test_what_follows_the_layers_is_not_rounded():
    config = Qwen3Config(
        vocab_size=8,
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=4,
    )
    assert loading.heads(checkpoints.blank(Qwen3ForCausalLM, config)) == ["lm_head"]
    assert loading.Loading.of("float32", "cpu").options == {
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "quantize": None,
        "offload": False,
        "max_memory": None,
        "attention": "sdpa",
    }


def test_room_that_is_too_little_is_said_in_gibibytes():
    network = nn.Module()
    network.add_module("table", nn.Linear(2**10, 2**9, bias=False, device="meta"))
    network.add_module("layers", nn.ModuleList([nn.Linear(2, 2, device="meta")]))
    said = "^offload: all but the layers takes 0.00195 GiB of a GPU, for which there are 0.000977$"
    with refused(said):
        loading.spread(network, "cuda", torch.float32, 2**20)
    places = loading.spread(network, "cuda", torch.float32, 2**21)
    assert places == {"table": "cuda", "layers.0": "cpu"}


def test_the_room_is_what_is_said_or_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    where = torch.device("cuda")
    free = loading.Loading(torch.float16, where, offload=True)
    assert free._room() == (where, torch.float16, 50)
    said = loading.Loading(torch.float16, where, offload=True, max_memory=3.0)
    assert said._room() == (where, torch.float16, 3 * 2**30)


def test_what_offload_needs_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(loading, "find_spec", lambda package: None)
    needs = "which needs the package"
    with refused(f"^offload: got True, {needs} accelerate; pip install accelerate$"):
        loading.Loading.of(device="cuda", offload=True)
    with refused(f"^quantize: got '8bit', {needs} torchao; pip install torchao$"):
        loading.Loading.of(device="cpu", quantize="8bit")


def test_memory_of_offload_has_borders(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(loading, "find_spec", lambda package: True)
    for good in (1e-6, 2**20):
        found = loading.Loading.of(device="cuda", offload=True, max_memory=good)
        assert found.max_memory == good
    for bad in (-1e-6, 2**20 + 1):
        with refused("^max_memory: got "):
            loading.Loading.of(device="cuda", offload=True, max_memory=bad)


def test_networks_are_loaded_together_or_apart(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(loading, "find_spec", lambda package: True)
    both = loading.Together.of("float16", "cuda:1", quantize={"reward": "8bit"}, attention="eager")
    where = torch.device("cuda:1")
    assert both.denoiser == loading.Loading(torch.float16, where, attention="eager")
    assert both.reward == loading.Loading(torch.float16, where, "8bit", attention="eager")
    apart = loading.Together.of("float32", "cpu", "cuda:0", quantize={})
    assert (apart.denoiser.device.type, apart.reward.device) == ("cpu", torch.device("cuda:0"))
    with refused("^reward_device: got 'cuda:2'"):
        loading.Together.of("float32", "cpu", "cuda:2", quantize={})
    with refused("^device: got 'cuda:2'"):
        loading.Together.of("float32", "cuda:2", quantize={})
    for of_denoiser in ({"compiled": True}, {}):
        for of_reward in ({"cuda_graphs": True}, {"adapter": "x"}, {}):
            asked_for = {"quantize": {"denoiser": "8bit"}} | of_denoiser | of_reward
            if of_denoiser:
                with refused("^compiled: cannot be combined with quantize$"):
                    loading.Together.of("float32", "cpu", **asked_for)
            else:
                loading.Together.of("float32", "cpu", **asked_for)
    for of_reward in ("cuda_graphs", "adapter"):
        with refused(f"^{of_reward}: cannot be combined with quantize$"):
            loading.Together.of("float32", "cpu", quantize={"reward": "8bit"}, **{of_reward: True})
    offloaded = loading.Together.of("float16", "cuda", quantize={}, offload=True)
    assert offloaded.denoiser.offload
    assert offloaded.reward.offload


def test_four_bits_are_those_of_nf4_in_the_precision_of_the_network():
    found = loading.Loading(torch.float16, torch.device("cuda"), "4bit")._rounding(["head"])
    assert found.load_in_4bit is True
    assert found.bnb_4bit_quant_type == "nf4"
    assert found.bnb_4bit_compute_dtype == torch.float16
    assert found.llm_int8_skip_modules == ["head"]


# --- families


def family_fields(family):
    return {
        "model_type": family.model_type,
        "rope_theta": 1e4,
        **{name: family.neutral.get(name, (1e-5,))[0] for name in family.written},
        **{theirs: 8 for theirs, ours in family.fields.items() if ours in families.REQUIRED},
        **{theirs: 16 for theirs, ours in family.fields.items() if ours == "hidden_size"},
    }


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda one: one.name)
def test_numbers_of_a_network_are_positive_integers(family):
    written = family_fields(family)
    assert family.translated(written).hidden_size == 16
    needed = {theirs: ours for theirs, ours in family.fields.items() if ours in families.REQUIRED}
    wide = {theirs: 2 for theirs, ours in needed.items() if ours == "hidden_size"}
    least = family.translated(written | dict.fromkeys(needed, 1) | wide)
    assert [getattr(least, ours) for ours in sorted({*needed.values()})] == [2, 1, 1, 1, 1, 1]
    for theirs in {ours: theirs for theirs, ours in reversed(needed.items())}.values():
        for bad in (0, -1, True, 1.0, "8"):
            with refused(rf"^{theirs}: got {bad!r}, expected a positive integer$"):
                family.translated(written | {theirs: bad})


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda one: one.name)
def test_what_is_not_known_is_refused_unless_it_says_nothing(family):
    written = family_fields(family)
    for silent in ({"new": None}, {"new": False}, {"_new": 3}, {"trust_remote": True}):
        family.translated(written | silent)
    for loud in ({"new": 0.5}, {"new": "x"}, {"new": True}, {"trus": 1}):
        with refused(f"but what it means for {family.name} is not known$"):
            family.translated(written | loud)
    for name in families.WITHOUT_EFFECT - {"model_type"}:
        family.translated(written | {name: "x"})
    with refused(f"^model_type: got 'other', expected {family.model_type!r}$"):
        family.translated(written | {"model_type": "other"})
    for name, values in family.neutral.items():
        for value in values:
            family.translated(written | {name: value})
        with refused(f"^{name}: got 'x', which is not supported$"):
            family.translated(written | {name: "x"})


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda one: one.name)
def test_layers_all_attend_in_full(family):
    written = family_fields(family)
    (layers,) = (t for t, ours in family.fields.items() if ours == "num_hidden_layers")
    written[layers] = 2
    for good in ([], None, ["full_attention"] * 2):
        family.translated(written | {"layer_types": good})
    for bad in (["full_attention"], ["full_attention"] * 3, ["full_attention", "sliding"]):
        with refused(r"^layer_types: got \[.*\], expected full_attention, once per layer$"):
            family.translated(written | {"layer_types": bad})


def test_positions_are_plain_rotations():
    written = family_fields(families.DREAM)
    for field in ("rope_scaling", "rope_parameters"):
        value = {"rope_type": "yarn", "rope_theta": 1.0}
        with refused(f"^{field}: got .*yarn.*, which is not supported$"):
            families.DREAM.translated(written | {field: value})
    for bad in ("x", None):
        with refused(f"^rope_theta: got {bad!r}, expected a number$"):
            families.DREAM.translated(written | {"rope_theta": bad})
    found = families.DREAM.translated(written | {"rope_theta": 3})
    assert found.rope_parameters["rope_theta"] == 3
    assert found.use_cache is False


def test_what_each_family_is():
    """Read without its shift a model prints nonsense, and nothing fails."""
    facts = {
        family.name: (
            family.model_type,
            family.network.__name__,
            family.shifted,
            family.tokenizer,
            family.mask_token,
            family.configured_mask,
            dict(family.template),
            family.mark,
        )
        for family in families.FAMILIES
    }
    qwen2, qwen3 = "Qwen2ForCausalLM", "Qwen3ForCausalLM"
    tokenizer = "Qwen2Tokenizer"
    mask, thinks = "<|mask|>", {"enable_thinking": False}
    assert facts == {
        "Dream": ("Dream", qwen2, True, tokenizer, None, False, {}, None),
        "A2D on Qwen3": ("a2d-qwen3", qwen3, False, tokenizer, mask, False, thinks, None),
        "A2D on Qwen2": ("a2d-qwen2", qwen2, False, tokenizer, mask, False, {}, None),
        "open-dcoder": ("qwen2", qwen2, True, tokenizer, "<M>", False, {}, "<M>"),
        "LLaDA": (
            *("llada", "LlamaForCausalLM", False, "PreTrainedTokenizerFast"),
            *(None, True, {}, None),
        ),
    }


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda one: one.name)
def test_nothing_is_dropped_by_chance(family):
    """A checkpoint may say so in any of these ways."""
    dropouts = [name for name in family.neutral if name.endswith("dropout")]
    assert dropouts
    for name in dropouts:
        for nothing in (0, 0.0, None):
            family.translated(family_fields(family) | {name: nothing})
        for some in (-1, 0.1, 1, 1.0):
            with refused(f"^{name}: got {some}, which is not supported$"):
                family.translated(family_fields(family) | {name: some})


def test_llada_falls_back_on_what_is_not_null():
    written = family_fields(families.LLADA)
    written |= {"embedding_size": 16, "n_heads": 4, "n_kv_heads": None}
    found = families.LLADA.translated(written)
    assert (found.vocab_size, found.num_key_value_heads) == (16, 4)
    assert families.LLADA.translated(written | {"embedding_size": None}).vocab_size == 8


@pytest.mark.parametrize("part", families.BLOCKWISE_NAMES)
def test_blockwise_models_are_known_by_their_names(part):
    """Wherever the name stands, and however it is written."""
    for written, name in (
        ({"model_type": "Dream"}, f"My-{part.upper()}-7B"),
        ({"model_type": "Dream", "_name_or_path": f"org/{part}-7b"}, "copy"),
    ):
        with refused(f"^model_type: got 'Dream' in {name}, which is not supported: a later block"):
            families.family_of(written, name)
    assert families.family_of({"model_type": "Dream"}, "Dream-7B") is families.DREAM


def test_a_reason_is_given_for_each_kind_that_is_refused():
    for kind, reason in families.REFUSED.items():
        with refused(f"^model_type: got {kind!r} in x, which is not supported: {reason}$"):
            families.family_of({"model_type": kind}, "x")
    known = "'Dream', 'a2d-qwen3', 'a2d-qwen2', 'qwen2', 'llada'"
    with refused(f"^model_type: got None, expected one of {known}$"):
        families.family_of({}, "x")


# --- the mask and other special tokens of a denoiser


class Marked:
    """A tokenizer that declares these special tokens."""

    def __init__(self, mask=None, eos=None, pad=None, vocabulary=None):
        self.mask_token_id, self.eos_token_id, self.pad_token_id = mask, eos, pad
        self.vocabulary = vocabulary or {}
        self.mask_token = "m"

    def get_vocab(self):
        return self.vocabulary

    def get_added_vocab(self):
        return {"[M]": 5}

    def convert_ids_to_tokens(self, index):
        return {i: token for token, i in self.vocabulary.items()}.get(index)


def test_where_the_mask_token_is_declared():
    here = Path("folder")
    dream, a2d, dcoder, llada = (
        families.DREAM,
        families.A2D_QWEN3,
        families.OPEN_DCODER,
        families.LLADA,
    )
    assert _mask_of(Marked(mask=0), {}, dream, here) == 0
    assert _mask_of(Marked(mask=4), {"mask_token_id": 5}, llada, here) == 4
    assert _mask_of(Marked(), {"mask_token_id": 5}, llada, here) == 5
    assert _mask_of(Marked(mask=4), {}, llada, here) == 4
    assert _mask_of(Marked(vocabulary={"<|mask|>": 6}), {"mask_token_id": 5}, a2d, here) == 6
    with refused("^mask_token: got 'm' in folder, expected '<|mask|>', that of A2D on Qwen3$"):
        _mask_of(Marked(mask=3, vocabulary={"<|mask|>": 6}), {}, a2d, here)
    assert _mask_of(Marked(vocabulary={"<M>": 6}), {}, dcoder, here) == 6
    for family, said in ((dream, "tokenizer"), (llada, "configuration")):
        with refused(f"^checkpoint: the {said} of folder has no mask token$"):
            _mask_of(Marked(), {}, family, here)
    for bad in (-1, True, "3", 3.0, 4):
        with refused(f"^mask_token_id: got {bad!r}, expected the id of a special token"):
            _mask_of(Marked(), {"mask_token_id": bad}, llada, here)
    with refused("has no mask token$"):
        _mask_of(Marked(), {"mask_token_id": 5.0}, llada, here)
    with refused("^model_type: got 'qwen2' with the mask token 'x', expected '<M>', that of open"):
        _mask_of(Marked(mask=1, vocabulary={"x": 1}), {}, dcoder, here)


def test_special_tokens_of_tokenizer_and_configuration_agree(recwarn):
    last = Marked(mask=1, eos=4, pad=4)
    _check_special_tokens(last, {"eos_token_id": 4, "pad_token_id": 4, "mask_token_id": 1}, 1, 5)
    _check_special_tokens(Marked(), {"eos_token_id": None, "pad_token_id": 4}, 4, 5)
    with refused("^eos_token_id: got 4 in config.json, but the tokenizer has none$"):
        _check_special_tokens(Marked(), {"eos_token_id": 4}, 4, 5)
    with refused("^checkpoint: the pad token has the id 5"):
        _check_special_tokens(Marked(mask=1, pad=5), {}, 1, 5)
    for declared in (None, 4):  # LLaDA's tokenizer does not say which token is the mask
        with refused("^checkpoint: the token 4 is both the mask and the end of an answer$"):
            _check_special_tokens(Marked(mask=declared, eos=4), {"mask_token_id": 4}, 4, 5)
    with refused("^checkpoint: the mask token has the id 5, but vocab_size is 5$"):
        _check_special_tokens(Marked(), {"mask_token_id": 5}, 5, 5)
    for name, ids in {"mask": (5, 4, 4), "eos": (1, 5, 4), "pad": (1, 4, 5)}.items():
        mask, eos, pad = ids
        with refused(f"^checkpoint: the {name} token has the id 5, but vocab_size is 5$"):
            _check_special_tokens(Marked(mask, eos, pad), {}, mask, 5)
    for name in ("mask", "eos"):
        said = f"^{name}_token_id: got 0 in config.json, but {1 if name == 'mask' else 4} in the to"
        with refused(said):
            _check_special_tokens(last, {f"{name}_token_id": 0}, 1, 5)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="^pad_token_id: got 0 in config.json, but 4 .* counts$"):
        _check_special_tokens(last, {"pad_token_id": 0}, 1, 5)


# --- rewards


def test_an_adapter_needs_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    said = "^adapter: merging one needs the package peft; pip install 'peft>=0.18'$"
    with refused(said):
        adapters.Adapter.examine("anywhere")


def test_an_adapter_that_cannot_be_merged_is_one_line(monkeypatch, tmp_path):
    peft = pytest.importorskip("peft")

    def fails():
        raise RuntimeError("no\nmerge")

    save_file({"a": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    adapted = types.SimpleNamespace(merge_and_unload=fails)
    for name, function in (
        ("get_peft_model", lambda network, config: adapted),
        ("get_peft_model_state_dict", lambda *args, **options: {"a": torch.zeros(1)}),
        ("set_peft_model_state_dict", lambda *args: None),
    ):
        monkeypatch.setattr(peft, name, function)
    monkeypatch.setattr(peft.PeftConfig, "from_pretrained", lambda folder: None)
    with refused(f"^adapter: {tmp_path} does not fit: RuntimeError: no merge$"):
        adapters.Adapter(tmp_path).merged(None)
    adapted.merge_and_unload = lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    merged = adapters.Adapter(tmp_path).merged(None)
    assert not any(module.training for module in merged.modules())
    assert not any(p.requires_grad for p in merged.parameters())


def test_room_is_for_the_tokens_of_the_conversation_alone(monkeypatch):
    """A tokenizer may begin every text of its own accord: a template has done so already."""

    class Begins(Words):
        def __call__(self, text, add_special_tokens):
            return {"input_ids": [0] * add_special_tokens + [1] * len(text.split())}

    monkeypatch.setattr(
        sequence, "around_response", lambda tokenizer, prompt: ("a b " + prompt, "c")
    )
    checkpoint = RewardCheckpoint(
        Path("x"), Qwen3Config(max_position_embeddings=8), Begins(), None, "eos"
    )
    checkpoint.require_room(["d e"], 3)
    with refused("takes 9 positions, the reward model has 8;"):
        checkpoint.require_room(["d", "d e"], 4)
    with refused("takes 9 positions, the reward model has 8;"):
        checkpoint.require_room(["longer-in-letters", "d e", "another-long-one"], 4)


def test_what_unmatched_tokens_are_read_as():
    class Ends:
        def __init__(self, unk, eos):
            self.unk_token_id, self.eos_token_id = unk, eos

    here = Path("folder")
    assert fallback_of(Ends(0, 2), here, 3) == 0
    assert fallback_of(Ends(None, 2), here, 3) == 2
    for ends, kind in ((Ends(3, 2), "unk"), (Ends(None, 3), "eos")):
        said = f"^checkpoint: the {kind} token of folder has the id 3, but its table of embeddings"
        with refused(f"{said} has 3 rows$"):
            fallback_of(ends, here, 3)
    with refused("^checkpoint: the tokenizer of folder has neither unknown nor end token$"):
        fallback_of(Ends(None, None), here, 3)


def test_tokens_beyond_the_table_are_none_of_the_reward_models():
    class Tokens:
        unk_token_id, eos_token_id = None, 0

        def get_vocab(self):
            return {"a": 0, "b": 1, "c": 2, "d": 3}

    plain = Qwen3Config(vocab_size=3)
    seeing = types.SimpleNamespace(get_text_config=lambda: plain, vocab_size=4)
    for config in (plain, seeing):
        checkpoint = RewardCheckpoint(Path("x"), config, Tokens(), None, "eos")
        with pytest.warns(UserWarning, match="it lacks 'd'$"):
            found = checkpoint.vocabulary(list("abcd"))
        assert found.ids.tolist() == [0, 1, 2, 0]
        assert found.unmatched == ("d",)


def test_strings_are_those_of_the_denoiser():
    given = types.SimpleNamespace(tokens=("a",), writable=torch.ones(2))
    assert tokens_of(given) == ("a",)
    told = types.SimpleNamespace(tokens=None, tokenizer=Words(), writable=torch.ones(4))
    assert tokens_of(told) == ("a", None, "b", "c")
    with refused("^denoiser: SimpleNamespace has neither `tokens` nor a `tokenizer`, by which"):
        tokens_of(types.SimpleNamespace(writable=torch.ones(2)))
    require_all(["a", None], given)
    for count in (1, 3):
        with refused(f"^tokens: got {count}, expected one for each of the denoiser's 2 ids$"):
            require_all(["a"] * count, given)


def test_padding_is_that_of_the_text_part():
    text = types.SimpleNamespace(pad_token_id=3)
    config = types.SimpleNamespace(get_text_config=lambda: text, pad_token_id=5)
    parts = types.SimpleNamespace(config=config), None, None, None, None, None
    tokens = torch.tensor([[3, 4], [5, 3]])
    assert SequenceReward(*parts).counting(tokens).tolist() == [[False, True], [True, False]]
    text.pad_token_id = None
    assert SequenceReward(*parts).counting(tokens).all()


@pytest.mark.parametrize(
    ("place", "fields", "said"),
    [
        ("written", {"rope_scaling": {"type": "dynamic"}}, "rope_type: got 'dynamic'"),
        ("text", {"rope_parameters": {"rope_type": "longrope"}}, "rope_type: got 'longrope'"),
        ("whole", {"sliding_window": 16}, "sliding_window: got 16"),
        ("text", {"sliding_window": 16}, "sliding_window: got 16"),
        ("whole", {"alibi": True}, "alibi: got True"),
        ("text", {"alibi": True}, "alibi: got True"),
        (None, {}, None),
    ],
)
def test_what_cannot_be_read_in_two_parts_is_refused_wherever_it_stands(
    place, fields, said, monkeypatch
):
    """A network that sees pictures too has fields of its own beside those of its language model."""
    parts = {name: fields if name == place else {} for name in ("written", "whole", "text")}
    text = types.SimpleNamespace(**parts["text"], to_dict=lambda: parts["text"])
    config = types.SimpleNamespace(**parts["whole"], get_text_config=lambda: text)
    monkeypatch.setattr(checkpoints, "known_config", lambda folder, models, kind: config)
    monkeypatch.setattr(checkpoints, "read_config", lambda folder: parts["written"])
    if said is None:
        assert sequence.readable_config(Path("x"), {}, "models") is config
        return
    with refused(f"^{said}"):
        sequence.readable_config(Path("x"), {}, "models")


def test_what_hides_tokens_is_refused_by_name():
    plain = {"layer_types": ["full_attention"], "use_sliding_window": False, "alibi": False}
    for good in ({}, {"layer_types": None}, {"use_sliding_window": None}, {"sliding_window": None}):
        _require_full_attention(types.SimpleNamespace(**plain | good))
    _require_full_attention(types.SimpleNamespace())
    for bad, said in (
        ({"layer_types": ["full_attention", "b", "a", "b"]}, "^layer_types: got a, b, expected fu"),
        ({"use_sliding_window": True}, "^use_sliding_window: got True, which is not supported$"),
        ({"sliding_window": 0}, "^sliding_window: got 0, which is not supported$"),
        ({"alibi": True}, "^alibi: got True, which is not supported: positions by distance"),
    ):
        with refused(said):
            _require_full_attention(types.SimpleNamespace(**plain | bad))


@pytest.mark.parametrize(
    ("architectures", "kind"),
    [
        (["Qwen3ForCausalLM"], LikelihoodCheckpoint),
        ([3, "Qwen3ForCausalLM"], LikelihoodCheckpoint),
        (["Qwen3ForSequenceClassification"], RewardCheckpoint),
        (["ForCausalLMHead"], RewardCheckpoint),
        ("Qwen3ForCausalLM", RewardCheckpoint),
        (None, RewardCheckpoint),
    ],
)
def test_the_architecture_says_which_kind_of_reward_it_is(
    architectures, kind, tmp_path, monkeypatch
):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
    for each in (LikelihoodCheckpoint, RewardCheckpoint):
        found = lambda *args, kind=each, **options: (kind, args, options)  # noqa: E731
        monkeypatch.setattr(each, "examine", found)
    expected = kind, (tmp_path,), {"unmatched": "zero", "adapter": "y"}
    assert examine_reward(tmp_path, unmatched="zero", adapter="y") == expected


@pytest.mark.parametrize(
    "find",
    [
        examine_reward,
        RewardCheckpoint.examine,
        LikelihoodCheckpoint.examine,
        DenoiserCheckpoint.examine,
        load_denoiser,
        Dream.from_pretrained,
        partial(SequenceReward.from_pretrained, denoiser=None),
        partial(likelihood.LikelihoodReward.from_pretrained, denoiser=None),
    ],
)
def test_a_revision_is_asked_of_the_hub_wherever_it_is_given(find, monkeypatch):
    import huggingface_hub

    def silent(hub_id, *, revision, allow_patterns):
        raise ConnectionError(f"no {revision}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", silent)
    for revision, at in (("v2", " at revision 'v2'"), (None, "")):
        with refused(f"fetched{at} from the hub .ConnectionError: no {revision}.;"):
            find("a/b", revision=revision)


def test_a_mask_token_tells_mask_predictors_of_its_own_type_alone(monkeypatch):
    vocabulary = Marked(vocabulary={"<M>": 3})
    config = types.SimpleNamespace(model_type="qwen3")
    found = RewardCheckpoint(Path("x"), config, vocabulary, None, "eos")
    monkeypatch.setattr(RewardCheckpoint, "examine", classmethod(lambda *_, **options: found))
    assert LikelihoodCheckpoint.examine("x") is found
    config.model_type = "qwen2"
    with refused("^checkpoint: x has the mask token '<M>' of open-dcoder"):
        LikelihoodCheckpoint.examine("x")


@pytest.mark.parametrize("tied", [True, False])
def test_whether_the_output_layer_is_tied_is_said_of_the_text_part(tied, monkeypatch):
    asked = []
    monkeypatch.setattr(likelihood, "require_tied", lambda *args: asked.append(args))
    monkeypatch.setattr(likelihood, "require_own_logits", lambda network: None)
    text = types.SimpleNamespace(tie_word_embeddings=tied)
    config = types.SimpleNamespace(get_text_config=lambda: text, tie_word_embeddings=not tied)
    network = types.SimpleNamespace(get_input_embeddings=lambda: nn.Embedding(2, 2))
    LikelihoodCheckpoint(Path("x"), config, None, None, "eos").require_own(network)
    assert len(asked) == tied


def test_weights_of_a_sum():
    require_weights(1, [-1e-300])
    require_weights(2, [1, 2.5])
    for rewards, weights in ((0, []), (1, []), (1, [1, 2]), (0, [1])):
        said = f"^reward_weight: got {len(weights)} for {rewards} rewards, expected one for each$"
        with refused(said):
            require_weights(rewards, weights)
    for bad in (0, -0.0, math.inf, math.nan):
        with refused(f"^reward_weight: got {bad!r}, expected a finite number, not 0$"):
            require_weights(2, [1.0, bad])


# --- reading


@pytest.mark.parametrize(
    ("width", "pad"), [(100, 19), (7, 1), (7, 0), (100, None), (2, None), (2, 1)]
)
def test_tokens_on_which_networks_are_compared_are_no_padding(width, pad):
    config = Qwen2Config(pad_token_id=pad, vocab_size=width)
    embed = nn.Embedding(width, 2)
    network = types.SimpleNamespace(config=config, get_input_embeddings=lambda: embed)
    found = reading._probe(network)
    assert found.shape == (1, 12)
    plain = [(i * 7919) % width for i in range(1, 13)]
    assert found[0].tolist() == [(i + 1) % width if i == pad else i for i in plain]
    assert pad not in found[0].tolist()
    whole = {"pad_token_id": plain[0], "max_position_embeddings": 3}  # of a network that sees
    network.config = types.SimpleNamespace(get_text_config=lambda: config, **whole)
    assert torch.equal(reading._probe(network), found)
    config.max_position_embeddings = 5
    assert reading._probe(network).shape == (1, 5)


@pytest.fixture(scope="module")
def both():
    return pair("float32")


def test_a_network_is_compared_in_two_halves(both, monkeypatch):
    """Two positions of padding and half of the tokens are read first; no graph is kept. A causal
    model is also read at once.
    """
    read, graphs = [], []
    real, read_on = reading.read_prefix, reading.hidden_states

    def prefix(network, embedded, valid, K):
        read.append((valid.tolist(), K))
        return real(network, embedded, valid, K)

    def hidden(*args, **options):
        graphs.append(torch.is_grad_enabled())
        return read_on(*args, **options)

    monkeypatch.setattr(reading, "read_prefix", prefix)
    monkeypatch.setattr(reading, "hidden_states", hidden)
    reading.require_own_scores(both[1].network)
    reading.require_own_logits(both[0].network)
    assert read == [([[False, False, *[True] * 6]], 1)] * 2
    assert graphs == [False] * 5


@pytest.mark.parametrize("which", ["scores", "logits"])
def test_a_network_may_differ_by_a_thousandth(both, which, monkeypatch):
    """In float32, of what it makes itself."""
    network = both[which == "scores"].network
    require = getattr(reading, f"require_own_{which}")
    real = reading.hidden_states
    for factor, fits in ((1 + 0.9e-3, True), (1 - 0.9e-3, True), (1 + 1.2e-3, False)):

        def scaled(*args, factor=factor, **options):
            return real(*args, **options) * factor

        monkeypatch.setattr(reading, "hidden_states", scaled)
        if fits:
            require(network)
        else:
            with refused("it is not supported$"):
                require(network)


def test_a_network_whose_numbers_are_nan_is_not_supported(both):
    """All comparisons with them are false. The weight is named, if it is one."""
    causal_model, classifier = (copy.deepcopy(one.network) for one in both)
    said = "makes numbers of a few tokens that are not finite"
    causal_model.get_output_embeddings().weight[5] = torch.nan
    with refused(f"^checkpoint: .*dream-tiny {said}: the weight lm_head.weight is not$"):
        reading.require_own_logits(causal_model)
    classifier.score.weight[:] = torch.inf
    with refused(f"{said}: the weight score.weight is not$"):
        reading.require_own_scores(classifier)
    classifier.score.weight[:] = 1.0
    norm = classifier.model.norm
    norm.weight[:] = 1e38  # a score that is finite of a hidden state that is not
    norm.register_forward_hook(lambda *given: given[-1] * 1e30)
    with refused(f"{said}$"):
        reading.require_own_scores(classifier)


def test_a_causal_model_that_forgets_what_it_read_first_is_not_supported(both, monkeypatch):
    network, real = both[0].network, reading.read_prefix

    def other(network, embedded, *rest):
        return real(network, embedded.flip(1), *rest)

    monkeypatch.setattr(reading, "read_prefix", other)
    with refused("makes other logits of tokens than of their embeddings, read in two parts"):
        reading.require_own_logits(network)
    monkeypatch.setattr(reading, "read_prefix", lambda *_: 1 / 0)
    with refused("cannot be read from embeddings in two parts: ZeroDivisionError"):
        reading.require_own_logits(network)
    monkeypatch.setattr(reading, "_probe", lambda *_: 1 / 0)
    for require in (reading.require_own_logits, reading.require_own_scores):
        with refused("cannot be read from embeddings in two parts: ZeroDivisionError"):
            require(network)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_sixteen_bits_only_what_is_far_off_is_noticed(both, dtype, monkeypatch):
    network = copy.deepcopy(both[0].network).to(dtype)
    reading.require_own_logits(network)
    real = reading.hidden_states
    for factor, fits in ((1.2, True), (0.8, True), (1.3, False)):
        scaled = lambda *args, factor=factor, **o: real(*args, **o) * factor  # noqa: E731
        monkeypatch.setattr(reading, "hidden_states", scaled)
        if fits:
            reading.require_own_logits(network)
        else:
            with refused("it is not supported$"):
                reading.require_own_logits(network)


def test_a_likelihood_is_the_mean_over_what_has_something_before_it(both):
    """Of one token, of all of them, of none."""
    denoiser, reward = both
    network = denoiser.network
    one = likelihood.LikelihoodReward(
        network, denoiser.tokenizer, reward.vocabulary, reward.embeddings, None, None
    )
    tokens = torch.tensor([[3, 50, 7, 9]]).expand(4, -1)
    counted = torch.tensor(
        [[False, False, False, True], [True] * 4, [False] * 4, [True, False, False, False]]
    )
    with torch.no_grad():
        embedded = network.get_input_embeddings()(tokens)
        read = causal.Conversations(embedded, torch.ones_like(counted), tokens, counted)
        found = one.rewards(read)
        causal_mask = torch.ones(4, 4).tril().bool()[None, None]
        logits = network(inputs_embeds=embedded[:1], attention_mask=causal_mask).logits[0]
    log_p = [logits[i].log_softmax(-1)[tokens[0, i + 1]].item() for i in range(3)]
    expected = [log_p[2], sum(log_p) / 3, 0, 0]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_score_that_is_off_is_noticed_where_hidden_states_are_not(both, monkeypatch):
    network = both[1].network
    largest = network.score.weight.norm()
    score = network.score.forward
    for share, fits in ((0.5e-3, True), (3e-3, False)):

        def off(hidden, share=share):
            # In a forward pass of its own the head is given the whole sequence.
            more = share * largest * hidden.norm() if hidden.dim() == 2 else 0
            return score(hidden) + more

        monkeypatch.setattr(network.score, "forward", off)
        if fits:
            reading.require_own_scores(network)
        else:
            with refused("of a few tokens, but .* of their embeddings, read in two parts"):
                reading.require_own_scores(network)


@pytest.mark.parametrize("which", ["scores", "logits"])
def test_a_gpu_without_room_is_not_taken_for_a_network_that_cannot_be_read(
    both, which, monkeypatch
):
    def full(*args, **options):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(reading, "hidden_states", full)
    with pytest.raises(torch.OutOfMemoryError):
        getattr(reading, f"require_own_{which}")(both[which == "scores"].network)

    def broken(*args, **options):
        raise TypeError("built otherwise")

    monkeypatch.setattr(reading, "hidden_states", broken)
    kind = type(both[which == "scores"].network).__name__
    said = f"^checkpoint: {kind} cannot be read from embeddings.*: TypeError: built otherwise$"
    with refused(said):
        getattr(reading, f"require_own_{which}")(both[which == "scores"].network)


def test_padding_is_the_mask_where_a_denoiser_has_no_other(both):
    for pad, filler in ((None, both[0].mask_id), (5, 5)):
        found = dataclasses.replace(both[0], pad_id=pad).encode([SHORT, LONG])
        assert found.tokens[~found.valid].unique().tolist() == [filler]
        assert (~found.valid).any(1).tolist() == [True, False]


def test_a_denoiser_keeps_no_keys_and_values(both):
    """It reads all positions anew at each step."""
    denoiser, kept = both[0], []
    hook = denoiser.network.model.register_forward_hook(
        lambda module, inputs, output: kept.append(output.past_key_values)
    )
    tokens = torch.full((1, 4), denoiser.mask_id)
    logits = denoiser(tokens, torch.ones_like(tokens).bool(), torch.ones(1, 2).bool())
    hook.remove()
    assert logits.shape == (2, len(denoiser.writable))
    assert kept == [None]


def test_an_answer_takes_the_positions_of_prompt_response_and_suffix(both, monkeypatch):
    denoiser, reward = both
    bound = reward.bind([SHORT], 1)
    response = response_tokens(denoiser, 1, 4)
    masked = torch.ones_like(response).bool()
    taken = bound.tokens.shape[1] + 4 + len(bound.suffix)
    monkeypatch.setattr(reward.network.config, "max_position_embeddings", taken)
    bound.at(response, masked)
    monkeypatch.setattr(reward.network.config, "max_position_embeddings", taken - 1)
    with refused(f"takes {taken} positions, the reward model has {taken - 1}; shorten"):
        bound.at(response, masked)


def test_a_score_may_be_at_the_prompt_and_a_likelihood_never_is(both):
    denoiser, reward = both
    other = likelihood.LikelihoodReward(
        denoiser.network, denoiser.tokenizer, reward.vocabulary, reward.embeddings, None, None
    )
    for one, counts, again in ((reward, True, 0), (other, False, 1)):
        bound = one.bind([SHORT, LONG], 2)
        assert bound.prefix.counted.any().item() is counts
        assert bound.prefix.embedded.shape[:2] == (4, again)
        assert bound.prefix.cache is not None


def test_what_a_network_knows_as_padding_is_no_last_token_of_a_prompt(both, monkeypatch):
    """It does not count, though it is read: an answer that ends at once may be scored there."""
    reward = both[1]
    plain = reward.bind([SHORT, LONG], 2)
    last = int(plain.tokens[0, -1])
    monkeypatch.setattr(reward.network.config, "pad_token_id", last)
    found = reward.bind([SHORT, LONG], 2).prefix
    assert torch.equal(found.counted, found.real & (found.tokens != last))
    assert not found.counted[:, -1].any()
    assert torch.equal(found.real, plain.prefix.real)


def test_a_reward_knows_the_ends_and_the_padding_of_its_denoiser(both):
    """By two names, of which Dream has one token."""
    checkpoint = RewardCheckpoint.examine(REWARD)
    for eos, pad in ((5, 6), (6, 5), (None, 5), (5, None)):
        found = checkpoint.load(dataclasses.replace(both[0], eos_id=eos, pad_id=pad))
        assert (found.eos_id, found.pad_id) == (eos, pad)


def test_trajectories_that_fit_are_read_together(both, monkeypatch):
    """Nothing is read again for the backward pass, unless there are more of them."""
    denoiser, reward = both
    again = []
    monkeypatch.setattr(
        causal, "checkpoint", lambda function, *args, **options: again.append(1) or function(*args)
    )
    response = response_tokens(denoiser, 3, 4)
    masked = torch.ones_like(response).bool()
    mixed = reward.embeddings[response[masked]]
    for size, parts in ((None, 0), (4, 0), (3, 0), (2, 2), (1, 3)):
        again.clear()
        step = dataclasses.replace(reward, micro_batch=size).bind([SHORT], 3).at(response, masked)
        step(mixed, response[masked])
        assert len(again) == parts


def test_no_position_is_before_the_first():
    """Of padding on the left either, which a table of positions would not have."""
    config = types.SimpleNamespace(get_text_config=lambda: Qwen2Config())
    network, embedded = types.SimpleNamespace(config=config), torch.zeros(1, 4, 2)
    visible = torch.tensor([[False, False, True, True]])
    asked = []
    backbone = lambda embedded, mask, places: asked.append(places.tolist()) or embedded  # noqa: E731
    for present in (None, visible):
        reading.hidden_states(network, embedded, visible, present, backbone)
    assert asked == [[[0, 0, 0, 1]]] * 2


@pytest.mark.parametrize("rotates", [True, False])
def test_whether_positions_rotate_is_said_of_the_text_part(rotates, monkeypatch):
    """A text may be longer than the positions of rotations, and not than the rows of a table."""
    text = {"max_position_embeddings": 2} | ({"rope_theta": 1e4} if rotates else {})
    whole = {} if rotates else {"rope_theta": 1e4}
    parts = types.SimpleNamespace(get_text_config=lambda: types.SimpleNamespace(**text), **whole)
    network = types.SimpleNamespace(config=parts)
    embedded, visible = torch.zeros(1, 3, 2), torch.ones(1, 3).bool()
    read = partial(reading.hidden_states, network, embedded, visible, backbone=lambda *_: embedded)
    if rotates:
        assert read() is embedded
    else:
        with refused("takes 3 positions, the reward model has 2;"):
            read()


def test_a_mask_is_handed_over_as_attention_takes_it():
    mask = torch.tensor([[True, False]])
    eager, sdpa = (
        types.SimpleNamespace(config=Qwen2Config(attn_implementation=kind))
        for kind in ("eager", "sdpa")
    )
    assert reading.as_attended(sdpa, mask, torch.float16) is mask
    added = reading.as_attended(eager, mask, torch.float16)
    assert added.dtype == torch.float16
    assert added.tolist() == [[0.0, torch.finfo(torch.float16).min]]
    for text, whole in ((eager, "sdpa"), (sdpa, "eager")):  # the part that reads is the text's
        parts = types.SimpleNamespace(
            get_text_config=lambda text=text: text.config, _attn_implementation=whole
        )
        network = types.SimpleNamespace(config=parts)
        found = reading.as_attended(network, mask, torch.float16)
        assert (found is mask) == (text is sdpa)


# --- what a checkpoint is, without its weights


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one checkpoint; what is asked of it is written down."""
    import huggingface_hub

    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    state = types.SimpleNamespace(asked=[], error=None, broken=None, cached=None)
    names = {"config.json": 18, "a.safetensors": 100, "b.safetensors": None, "code.py": 5}
    siblings = [types.SimpleNamespace(rfilename=name, size=size) for name, size in names.items()]

    def model_info(self, hub_id, **options):
        state.asked.append((hub_id, options))
        if state.error:
            raise state.error
        return types.SimpleNamespace(sha="abc", siblings=state.siblings)

    def download(hub_id, file, **options):
        state.asked.append((hub_id, file, options))
        if state.broken:
            raise state.broken
        return str(tmp_path / file)

    def cached(hub_id, file, **options):
        state.asked.append((hub_id, file, options))
        return state.cached

    state.siblings, state.folder = siblings, tmp_path
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    return state


def test_of_the_hub_the_configuration_alone_is_fetched(hub):
    found = listing.listed("some/model@v2")
    assert found == listing.Listed(
        {"model_type": "x"}, {"config.json": 18, "a.safetensors": 100, "b.safetensors": 0}, True
    )
    assert found.weights == 100
    options = {"revision": "v2", "files_metadata": True, "timeout": 10}
    assert hub.asked == [
        ("some/model", options),
        ("some/model", "config.json", {"revision": "abc"}),
    ]
    hub.siblings = None
    assert listing.listed("some/model").files == {}
    assert hub.asked[2] == ("some/model", options | {"revision": None})


def test_weights_in_folders_below_are_no_part_of_a_checkpoint(hub):
    """Such as those that a training left: they are not read."""
    folder = hub.folder / "trained"
    (folder / "checkpoint-100").mkdir(parents=True)
    for place, size in ((folder, 10), (folder / "checkpoint-100", 1000)):
        (place / "config.json").write_text('{"model_type": "x"}')
        (place / "model.safetensors").write_bytes(b"x" * size)
    assert listing.listed(folder).files == {"config.json": 19, "model.safetensors": 10}


def test_without_a_hub_what_was_fetched_is_listed(hub):
    hub.error = ConnectionError()
    for nothing in (None, object()):
        hub.cached = nothing
        assert listing.listed("some/model@v2") is None
    assert hub.asked[-1] == ("some/model", "config.json", {"revision": "v2"})
    hub.cached = str(hub.folder / "config.json")
    found = listing.listed("some/model")
    assert hub.asked[-1] == ("some/model", "config.json", {"revision": None})
    assert found == listing.Listed({"model_type": "x"}, {"config.json": 19}, False)


def test_a_hub_that_goes_away_is_none_that_lacks_a_file(hub):
    """huggingface_hub then says of the cache that it has none, by an error for a missing file."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    hub.broken = LocalEntryNotFoundError("no connection")
    assert listing.listed("some/model@v2") is None
    hub.cached = str(hub.folder / "config.json")
    assert listing.listed("some/model@v2").on_hub is False
    assert hub.asked[-1] == ("some/model", "config.json", {"revision": "v2"})


def test_a_revision_that_the_hub_lacks_is_named(hub):
    from huggingface_hub.errors import RevisionNotFoundError

    answer = types.SimpleNamespace(headers={}, request=None)
    hub.error = RevisionNotFoundError("no such revision", response=answer)
    with refused("^checkpoint: the hub has 'some/model', but no revision 'v2' of it$"):
        listing.listed("some/model@v2")


def test_what_the_hub_does_not_have_is_refused(hub):
    from huggingface_hub.errors import EntryNotFoundError

    hub.error = EntryNotFoundError("x")
    with refused("^checkpoint: the hub has no 'some/model' with a config.json$"):
        listing.listed("some/model@v2")
    for name in ("nowhere", "a/b/c", "~nobody-of-that-name/x"):
        for find in (listing.listed, checkpoints.locate):
            with refused(f"^checkpoint: there is no folder '{name}'$"):
                find(name)


def test_a_folder_is_listed_by_its_files():
    found = listing.listed(DREAM)
    sizes = {file.name: file.stat().st_size for file in DREAM.iterdir()}
    data = {name: size for name, size in sizes.items() if not name.endswith((".py", ".md"))}
    assert found.files == data
    assert found.weights == sizes["model.safetensors"]
    assert found.on_hub is False
    assert found.config == json.loads((DREAM / "config.json").read_text())
    assert listing.listed(REWARD).weights == (REWARD / "model.safetensors").stat().st_size


def test_what_a_link_leads_to_is_listed(tmp_path):
    """A snapshot in the hub's cache consists of links."""
    for file in DREAM.iterdir():
        (tmp_path / file.name).symlink_to(file.resolve())
    assert listing.listed(tmp_path).files == listing.listed(DREAM).files
