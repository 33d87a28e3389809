"""What the files of a tokenizer say of it is what is loaded, or else it is refused."""

import json

import pytest

from checkpoints import DREAM, REWARD, changed
from entrgi_ref.models.checkpoints import read_config
from entrgi_ref.models.tokenizers import around_response, load_tokenizer

ADDED = json.loads((DREAM / "tokenizer_config.json").read_text())["added_tokens_decoder"]


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "rope_theta"),
        ("tokenizer_config.json", "eos_token"),
        ("vocab.json", "the"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path, file, key):
    folder = changed(DREAM, tmp_path)
    text = (folder / file).read_text().rstrip()
    (folder / file).write_text(f'{text[:-1]}, "{key}": 387, "{key}": 386}}')
    with pytest.raises(ValueError, match=rf"{file}: the key '{key}' stands there twice$"):
        (read_config if file == "config.json" else load_tokenizer)(folder)


def test_a_token_with_another_id_than_its_file_says_is_refused(tmp_path):
    """Ids are given in the order of the file, so that one token less moves all that follow."""
    folder = changed(REWARD, tmp_path)
    tokenizer = load_tokenizer(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    kind = "PreTrainedTokenizerFast"
    assert load_tokenizer(folder, kind).get_vocab() == tokenizer.get_vocab()
    whole = json.loads((folder / "tokenizer.json").read_text())
    del whole["added_tokens"][1]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    said = r"gives '<\|im_end\|>' the id 381, but tokenizer.json says 382$"
    with pytest.raises(ValueError, match=said):
        load_tokenizer(folder, kind)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"381": ADDED["382"], "382": ADDED["381"]}, None),
        ({"384": ADDED["381"]}, r"gives '<\|im_start\|>' the id 381, but .* says 384$"),
        ({"500": ADDED["384"] | {"content": "<x>"}}, "gives '<x>' the id 385, but .* says 500$"),
        ({"385": {}}, "gives '' no id, but tokenizer_config.json says 385$"),
    ],
)
def test_an_added_token_with_an_id_of_its_own(tmp_path, added, said):
    folder = changed(DREAM, tmp_path, tokenizer={"added_tokens_decoder": ADDED | added})
    if said is None:
        assert load_tokenizer(folder, "Qwen2Tokenizer").get_vocab()["<|im_end|>"] == 381
    else:
        with pytest.raises(ValueError, match=said):
            load_tokenizer(folder, "Qwen2Tokenizer")


def test_the_id_of_an_added_token_is_its_key(tmp_path):
    """A field of that name beside it is read by nobody."""
    for wrong in (3, 384):
        added = ADDED | {"384": ADDED["384"] | {"id": wrong}}
        folder = changed(DREAM, tmp_path / str(wrong), tokenizer={"added_tokens_decoder": added})
        assert load_tokenizer(folder, "Qwen2Tokenizer").get_vocab()[ADDED["384"]["content"]] == 384


@pytest.mark.parametrize(
    "answer", ["'RESPONSE'", "m.content + ('' if m.content == 'RESPONSE' else '!')"]
)
def test_a_template_that_knows_the_placeholder_is_refused(tmp_path, answer):
    """The word is that of the authors' code."""
    shown = f"{{% for m in messages %}}{{{{ {answer} if m.role == 'assistant' else m.content }}}}\n"
    folder = changed(REWARD, tmp_path, tokenizer={"chat_template": f"{shown}{{% endfor %}}"})
    with pytest.raises(ValueError, match="writes something else around another answer, or in its"):
        around_response(load_tokenizer(folder), "explain entropy")
