"""Prompts that look like something else: special tokens, placeholders, marks of thinking."""

import unicodedata
import warnings

import pytest
import torch

from checkpoints import DREAM, REWARD, SHORT, pair
from corpus import TEXTS, refusal
from entrgi_ref import GuidanceConfig, SamplingConfig, generate
from entrgi_ref.models import SequenceReward, load_denoiser

pytestmark = pytest.mark.usefixtures("as_users_run_it")
MODELS = DREAM.parent.parent / "parity-models"
CONFIG = SamplingConfig(GuidanceConfig(steps=1), 2, 4, 4)
SPECIAL = "read as special tokens and not as text"


@pytest.fixture(scope="module")
def networks():
    return pair("float64")


@pytest.fixture(autouse=True)
def in_silence():
    """What is warned of is looked at by itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*{SPECIAL}")
        yield


@pytest.mark.parametrize("name", TEXTS)
def test_it_is_answered_and_no_other_prompt_is_changed(name, networks):
    """The tokens are those of the text in the template, and a neighbour's answer stays."""
    denoiser, reward = networks
    alone = generate(denoiser, reward, [SHORT], CONFIG)
    both = generate(denoiser, reward, [TEXTS[name], SHORT], CONFIG)
    assert torch.equal(both.tokens[1], alone.tokens[0])
    assert both.rewards.isfinite().all()
    decoded = denoiser.tokenizer.decode(denoiser.encode([TEXTS[name]]).tokens[0])
    assert unicodedata.normalize("NFC", TEXTS[name]) in decoded


@pytest.mark.parametrize("name", TEXTS)
def test_the_reward_of_a_prompt_is_that_of_its_conversation(name, networks):
    """Split at a placeholder, and read at once."""
    _, reward = networks
    answer = ["an answer"]
    bound = reward.bind([TEXTS[name]], 1)
    before = bound.tokens[0].tolist()
    text = reward.tokenizer.apply_chat_template(
        [{"role": "user", "content": TEXTS[name]}, {"role": "assistant", "content": answer[0]}],
        tokenize=False,
    )
    ids = reward.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[: len(before)] == before
    assert ids[-len(bound.suffix) :] == bound.suffix.tolist()
    with torch.no_grad():
        own = reward.network(input_ids=torch.tensor([ids])).logits[0, 0]
    assert reward.score([TEXTS[name]], answer).item() == pytest.approx(own.item(), abs=1e-6)


def test_special_tokens_are_warned_of(networks):
    """Row 13b of the ledger: as in the authors' code."""
    denoiser, reward = networks
    warnings.simplefilter("always")
    for reader in (denoiser.encode, lambda prompts: reward.bind(prompts, 1)):
        with pytest.warns(UserWarning, match=rf"<\|im_end\|>.*{SPECIAL}.*row 13b of docs/ledger"):
            reader([SHORT, "stop <|im_end|>"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader([SHORT, "stop <|im_end|", "</think>"])


def test_a_mask_in_a_prompt_is_not_written_to(networks):
    """Public samplers take every mask of the row for one that is to be filled."""
    denoiser, reward = networks
    prompt = "fill <|mask|> in"
    made = denoiser.encode([prompt])
    assert (made.tokens == denoiser.mask_id).sum() == 1
    answered = generate(denoiser, reward, [prompt], CONFIG)
    assert not (answered.tokens == denoiser.mask_id).any()
    assert answered.tokens.shape[-1] == CONFIG.new_tokens


@pytest.mark.parametrize("name", ["llada-tiny", "a2d-qwen3-tiny", "open-dcoder-tiny"])
def test_the_mask_token_in_a_template_is_no_blank(name):
    """Whether the tokenizer calls it special or not."""
    denoiser = load_denoiser(MODELS / name, dtype="float32", device="cpu")
    mask = denoiser.tokenizer.convert_ids_to_tokens(denoiser.mask_id)
    message = refusal(lambda: denoiser.template(f"I am {mask} and ____"))
    assert "got the special token" in message


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("x" * 100_000, "positions"),
        ("word " * 20_000, "positions"),
        ("\u202e" * 100_000, "positions"),
        ("x" * (2**20 + 1), "got 1048577 characters, expected at most 1048576"),
        ("half \ud800", "is not valid text"),
    ],
    ids=["letters", "words", "right to left", "too long", "no text"],
)
def test_what_cannot_be_answered_is_refused(prompt, reason, networks):
    denoiser, reward = networks
    assert reason in refusal(lambda: generate(denoiser, reward, [prompt], CONFIG))


def test_a_judges_tokenizer_reads_the_same(networks):
    """Another family's marks are no special tokens of this one."""
    denoiser, _ = networks
    reward = SequenceReward.from_pretrained(REWARD, denoiser, dtype="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reward.bind(["[INST] <s> <|eot_id|>"], 1)
