"""The page of a run's answers: what it holds, and what it does in a browser."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlparse

import pytest
from paper_runs import TINY_BASE, invoke, tiny_run

from browsing import browsing
from entrgi_ref.paper.run.folder import RunFolder
from entrgi_ref.paper.run.records import key_of, read_records
from entrgi_ref.paper.shown.browse import contents, page
from entrgi_ref.paper.shown.summary import JudgedBy, Run
from tiny_testbed import FailingReward, TinyTestbed

HOSTILE = '</script><b>bold</b><!-- <script> & \u2028\u2029 \ud800 "RUN" /*STYLE*/ \'é'
WHOLE = HOSTILE.replace("\ud800", "")
"""Without the half of a pair, which no run.json may hold."""
DECLARATION = {
    "experiment": "main",
    "testbed": "tiny",
    "settings": {"guidance": {}},
    "denoiser": {"name": "tiny"},
    "rewards": {"small": {"name": "s"}, "large": {"name": "l"}},
    "main_reward": "large",
    "benchmarks": {"riddles": "4 prompts", "sums": "4 prompts"},
}
SETTINGS = {
    "trajectories": 2,
    "new_tokens": 7,
    "denoising_steps": 7,
    "temperature": 0.7,
    "top_p": 0.95,
    "order": "entropy",
    "reward": "large",
}
METHODS = ("bon", "entrgi", "smc")
GAIN = {"bon": 0.0, "entrgi": 1.5, "smc": 0.5}
WORDS = ["The", " answer", " is", " blue", "⟨end⟩", "⟨end⟩", "⟨end⟩"]


def record(benchmark, method, seed, idx, **more):
    """A record whose second answer is the best, and whose tokens are written from the last on."""
    words = [*WORDS[:3], f" {method}{idx}", *WORDS[4:]]
    steps = list(reversed(range(7)))
    reward = idx + GAIN[method] * (2 if idx == 2 else 1)
    variant = more.get("variant", {})
    M = variant.get("gradient_steps", 3) if method == "entrgi" else 0
    settings = {**SETTINGS, **variant, "guidance": {"steps": M, "step_size": 0.5}}
    return {
        "experiment": "main",
        "benchmark": benchmark,
        "method": method,
        "variant": {},
        "seed": seed,
        "idx": idx,
        "prompt": f"{benchmark} {idx}, seed {seed}?",
        "status": "ok",
        "reason": None,
        "responses": ["short", f"The answer is {method}{idx}"],
        "rewards": [reward - 1, reward],
        "gold": [3, 4.5],
        "settings": settings,
        "written": None
        if method == "smc"
        else {"words": [["short"], words], "steps": [[0], steps]},
        **more,
    }


def failed(*cell):
    none = {"responses": [], "rewards": [], "gold": [], "written": None}
    return record(*cell) | none | {"status": "failed", "reason": "the rewards are <nan>"}


RECORDS = [
    failed(b, m, s, i) if (b, m, s, i) == ("sums", "entrgi", 1, 3) else record(b, m, s, i)
    for b in ("riddles", "sums")
    for m in METHODS
    for s in (1, 2)
    for i in range(4)
]


def run_of(folder, records=RECORDS, declaration=DECLARATION):
    opened = RunFolder(folder, declaration)
    lines = [json.dumps(one | {"fingerprint": opened.fingerprint}) + "\n" for one in records]
    (folder / "records" / "all.jsonl").write_text("".join(lines))
    return folder


class Scripts(HTMLParser):
    """The script elements of a page, as a browser would find them, and the tags outside of them."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.tags, self._within = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._within = tag == "script"
        if self._within:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._within = False

    def handle_data(self, data):
        if self._within:
            self.scripts[-1] += data


def held(text):
    """What a page's script element holds."""
    found = Scripts(text)
    assert len(found.scripts) == 2
    return json.loads(found.scripts[0])


def test_every_record_is_on_the_page_once(tmp_path):
    invoke("browse", run_of(tmp_path))
    data = held((tmp_path / "browse.html").read_text())
    keys = []
    for shown in data["records"]:
        benchmark, seed, idx, prompt = data["places"][shown["place"]]
        method, variant = data["methods"][shown["method"]][0], data["variants"][shown["variant"]]
        keys.append(("main", benchmark, method, json.dumps(variant), seed, idx))
        (own,) = (r for r in RECORDS if key_of(r) == keys[-1])
        assert prompt == own["prompt"]
        if own["status"] == "failed":
            assert shown["failed"] == own["reason"]
            continue
        assert [shown[name] for name in ("responses", "rewards", "gold")] == [
            own[name] for name in ("responses", "rewards", "gold")
        ]
        if own["written"] is None:
            assert "steps" not in shown
        else:
            words = [[data["words"][i] for i in answer] for answer in shown["words"]]
            assert {"words": words, "steps": shown["steps"]} == own["written"]
            assert shown["of"] == 7
    assert sorted(keys) == sorted(map(key_of, RECORDS))
    assert len(data["words"]) == len(set(data["words"]))


def test_the_page_needs_nothing_else(tmp_path):
    text = page(Run.read(run_of(tmp_path)))
    assert not re.search(r"(?i)https?:|@import|\burl\(|innerHTML|insertAdjacentHTML|\beval\b", text)
    tags = Scripts(text).tags
    assert not [a for t, a in tags if "src" in a or t == "link"]


def test_hostile_text_stays_text(tmp_path):
    hostile = {"prompt": HOSTILE, "responses": [HOSTILE, ""]}
    hostile["written"] = {"words": [[HOSTILE], []], "steps": [[0], []]}
    records = [
        record("sums", "bon", 1, 0, **hostile),
        failed("sums", "entrgi", 1, 0) | {"prompt": HOSTILE, "reason": HOSTILE},
    ]
    declaration = DECLARATION | {"testbed": WHOLE, "benchmarks": {"sums": WHOLE}}
    invoke("browse", run_of(tmp_path, records, declaration), "--to", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    data = held(text)
    assert data["places"][0][3] == HOSTILE == data["words"][0]
    assert data["run"]["testbed"] == WHOLE
    assert data["records"][0]["responses"] == [HOSTILE, ""]
    assert data["records"][1]["failed"] == HOSTILE
    assert not any(tag == "b" for tag, _ in Scripts(text).tags)
    assert not set(text) & {"\u2028", "\u2029"}


def test_records_of_earlier_versions_are_shown(tmp_path):
    old = [
        {k: v for k, v in r.items() if k not in ("written", "settings", "gold")} for r in RECORDS
    ]
    data = contents(Run.read(run_of(tmp_path, old)))
    assert len(data["records"]) == len(RECORDS)
    assert not any("steps" in shown or "gold" in shown for shown in data["records"])
    assert data["words"] == []


def test_a_judge_s_score_is_beside_the_answer_that_it_judged(tmp_path):
    run = Run.read(run_of(tmp_path))
    scores = {key_of(record("sums", "bon", 1, 2)): 3.5}
    judge = JudgedBy("LMUnit", "m", "lmunit", ("good?",), scores, 1, 1, 0)
    data = contents(Run(run.declaration, run.records, run.failed, [judge]))
    judged = [shown for shown in data["records"] if "judged" in shown]
    assert [shown["judged"] for shown in judged] == [{"LMUnit, other unit tests": 3.5}]
    assert data["places"][judged[0]["place"]][:3] == ["sums", 1, 2]


def test_variants_come_by_the_size_of_the_reward_model(tmp_path):
    sizes = [("large", 1), ("small", 8), ("small", 2)]
    variants = [{"reward": reward, "gradient_steps": m} for reward, m in sizes]
    records = [record("sums", "bon", 1, 0, variant=v) for v in variants]
    data = contents(Run.read(run_of(tmp_path, records)))
    assert data["variants"] == [variants[2], variants[1], variants[0]]
    assert len(data["places"]) == 1


@pytest.mark.parametrize("name", ["run.json", "records/a.jsonl", "page", ".html"])
def test_a_page_takes_no_other_files_place(tmp_path, name):
    folder = run_of(tmp_path)
    before = {file: file.read_bytes() for file in folder.rglob("*.json*")}
    with pytest.raises(ValueError, match=r"^to: got .*, expected a name that ends in \.html$"):
        invoke("browse", folder, "--to", folder / name)
    assert {file: file.read_bytes() for file in folder.rglob("*.json*")} == before


def test_a_run_as_it_is_made_can_be_browsed(tmp_path):
    testbed = TinyTestbed(judge=FailingReward(2, dislikes=("22",)))
    tiny_run(tmp_path, testbed, methods=["bon", "lookahead"])
    data = contents(Run.read(tmp_path))
    assert len(data["records"]) == len(read_records(tmp_path)) == 10
    assert sum("failed" in shown for shown in data["records"]) == 2
    for shown in data["records"]:
        if "steps" in shown:
            assert {len(answer) for answer in shown["steps"]} == {TINY_BASE.new_tokens}
            assert shown["of"] == TINY_BASE.denoising_steps
    assert sum("steps" in shown for shown in data["records"]) == 4


def test_a_run_without_records_has_no_page(tmp_path):
    with pytest.raises(ValueError, match="has no records yet"):
        invoke("browse", run_of(tmp_path, []))
    assert not (tmp_path / "browse.html").exists()


# In a browser


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of all that there may be."""
    hostile = record("riddles", "bon", 3, 0, prompt=HOSTILE, responses=[HOSTILE, "fine"])
    folder = run_of(tmp_path_factory.mktemp("run"), [*RECORDS, hostile])
    invoke("browse", folder)
    return (folder / "browse.html").as_uri()


@pytest.fixture
def opened(browser, file):
    """Open the page at an address, of a width and a scheme; nothing may go wrong in it."""
    pages, wrong = [], []

    def open_(address="", width=1280, **options):
        shown = browser.new_page(viewport={"width": width, "height": 800}, **options)
        shown.on("console", lambda message: wrong.append(message.text))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("request", lambda r: wrong.append(r.url) if r.url.startswith("http") else None)
        shown.goto(file + address)
        pages.append(shown)
        return shown

    yield open_
    for shown in pages:
        shown.close()
    assert wrong == []


FIRST = "#prompt=sums/1/1"
ANSWER = ".card.best .tokens"


def listed(shown):
    return shown.locator("#rows .text").all_text_contents()


def as_it_stands(shown, card):
    """The words of an answer that can be seen."""
    return [t.inner_text() for t in shown.locator(card).first.locator(".t:not(.masked)").all()]


@browsing
def test_a_prompt_shows_the_answers_of_all_methods_side_by_side(opened):
    shown = opened(FIRST)
    assert shown.inner_text("#prompt") == "sums 1, seed 1?"
    assert shown.locator("#heads h3").all_inner_texts() == ["Best-of-N", "EntRGi", "SMC"]
    bests = shown.locator(".card.best")
    assert bests.count() == 3
    assert bests.locator("strong").all_inner_texts() == ["1.00", "2.50", "1.50"]
    assert shown.locator(".card strong").count() == 6
    assert "gold 4.5" in bests.first.inner_text()
    assert bests.first.locator(".star").count() == 1
    lefts = [box.bounding_box()["x"] for box in bests.all()]
    assert lefts == sorted(set(lefts))
    tops = {box.bounding_box()["y"] for box in bests.all()}
    assert len(tops) == 1
    heads = [box.bounding_box()["x"] for box in shown.locator("#heads h3").all()]
    assert heads == lefts


@browsing
def test_the_slider_shows_the_answer_as_it_stood_after_each_step(opened):
    shown = opened(FIRST)
    assert shown.inner_text("#after") == "finished, 7 steps"
    assert as_it_stands(shown, ANSWER) == ["The", "answer", "is", "bon1", "⟨end⟩ × 3"]
    slider = shown.locator("#step")
    slider.focus()
    slider.press("Home")
    assert as_it_stands(shown, ANSWER) == []
    for expected in (
        ["⟨end⟩ × 1 of 3"],
        ["⟨end⟩ × 2 of 3"],
        ["⟨end⟩ × 3"],
        ["bon1", "⟨end⟩ × 3"],
        ["is", "bon1", "⟨end⟩ × 3"],
    ):
        slider.press("ArrowRight")
        assert as_it_stands(shown, ANSWER) == expected
    assert shown.inner_text("#after") == "after step 5 of 7"
    # Finished, whatever the step: nothing is known of its steps.
    assert shown.locator(".card.best").last.inner_text().endswith("The answer is smc1")
    assert "not recorded" in shown.inner_text("#unknown")
    assert parse_qs(urlparse(shown.url).fragment)["step"] == ["5"]


@browsing
def test_tokens_are_tinted_by_step_and_say_it(opened):
    shown = opened(FIRST)
    tokens = shown.locator(ANSWER).first.locator(".t")
    tints = [t.evaluate("e => getComputedStyle(e).backgroundColor") for t in tokens.all()]
    assert len(set(tints)) == len(tints) == 5
    tokens.nth(0).hover()
    assert shown.inner_text("#tip") == "“The”, step 7 of 7, position 1"
    tokens.nth(0).focus()
    tokens.nth(0).press("ArrowRight")
    assert shown.inner_text("#tip") == "“answer”, step 6 of 7, position 2"
    shown.keyboard.press("Escape")
    assert shown.inner_text("#tip") == ""
    shown.uncheck("#tint")
    assert shown.locator(ANSWER).first.is_hidden()
    assert shown.locator(".card.best .plain").first.inner_text() == "The answer is bon1"


@browsing
def test_search_reads_prompts_and_answers(opened):
    shown = opened()
    shown.keyboard.press("/")
    shown.keyboard.type("RIDDLES 2, s")
    shown.wait_for_function("document.querySelectorAll('#rows .row').length === 2")
    assert shown.inner_text("#count") == "2 of 17 prompts"
    assert shown.inner_text("#prompt mark") == "riddles 2, s"
    shown.fill("#search", "is entrgi3")
    shown.wait_for_function("document.querySelectorAll('#rows .row').length === 3")
    assert shown.locator(".t.hit").all_inner_texts() == ["is", "entrgi3"]
    shown.fill("#search", ".*")
    shown.wait_for_function("document.querySelectorAll('#rows .row').length === 0")
    assert shown.inner_text("#empty") == "No prompt fits."


@browsing
def test_filters_and_order(opened):
    shown = opened()
    shown.select_option("#benchmark", "sums")
    shown.select_option("#seed", "2")
    assert listed(shown) == [f"sums {i}, seed 2?" for i in range(4)]
    shown.uncheck("#methods >> text=SMC")
    assert shown.locator("#heads h3").all_inner_texts() == ["Best-of-N", "EntRGi"]
    shown.select_option("#sort", "high")
    assert listed(shown) == [f"sums {i}, seed 2?" for i in (2, 3, 1, 0)]  # 5.0, 4.5, ...
    shown.select_option("#sort", "low")
    assert listed(shown) == [f"sums {i}, seed 2?" for i in (0, 1, 3, 2)]
    shown.select_option("#sort", "difference")
    assert shown.locator("#plus").input_value() == "1"  # EntRGi minus Best-of-N
    assert listed(shown)[0] == "sums 2, seed 2?"
    assert shown.locator("#rows .value").all_inner_texts() == ["+3.00", "+1.50", "+1.50", "+1.50"]
    shown.uncheck("#methods >> text=EntRGi")  # it is compared all the same
    shown.select_option("#plus", "0")
    shown.select_option("#minus", "1")
    assert listed(shown)[-1] == "sums 2, seed 2?"


@browsing
def test_variants_stand_side_by_side_or_alone(browser, tmp_path):
    variants = [{"reward": "large", "gradient_steps": m} for m in (2, 8)]
    cells = [record("sums", m, 1, 0, variant=v) for m in ("bon", "entrgi") for v in variants]
    invoke("browse", run_of(tmp_path, cells))
    shown = browser.new_page()
    shown.goto((tmp_path / "browse.html").as_uri())
    heads = shown.locator("#heads h3")
    assert [h.split("\n")[0] for h in heads.all_inner_texts()] == [
        f"{name}reward large, M = {m}" for name in ("Best-of-N", "EntRGi") for m in (2, 8)
    ]
    shown.select_option("#variant", label="reward large, M = 8")
    assert heads.count() == 2
    assert "variant=reward+large%2C+M+%3D+8" in shown.url
    shown.reload()
    assert heads.count() == 2
    shown.close()


@browsing
def test_a_difference_is_of_the_variants_that_both_methods_have(browser, tmp_path):
    few, many = ({"reward": "large", "gradient_steps": m} for m in (2, 8))
    cells = [record("sums", "bon", 1, idx, variant=v) for idx, v in ((0, few), (1, many), (1, few))]
    cells += [record("sums", "entrgi", 1, idx, variant=few) for idx in (0, 1)]
    cells[1] |= {"rewards": [-9.0, -8.0]}
    cells.append({**record("sums", "entrgi", 1, 0, variant=many), "rewards": [8.0, 9.0]})
    invoke("browse", run_of(tmp_path, cells))
    shown = browser.new_page()
    shown.goto((tmp_path / "browse.html").as_uri())
    shown.select_option("#sort", "difference")
    assert shown.locator("#rows .value").all_inner_texts() == ["+1.50", "+1.50"]
    shown.close()


@browsing
def test_a_difference_is_of_the_variant_that_is_chosen(browser, tmp_path):
    gain = {(0, 2): 1.0, (0, 8): 5.0, (1, 2): 2.0, (1, 8): 0.5}
    cells = [
        record("sums", method, 1, idx, variant={"reward": "large", "gradient_steps": M})
        | {"rewards": [0.0, gain[idx, M] * (method == "entrgi")]}
        for idx, M in gain
        for method in ("bon", "entrgi")
    ]
    invoke("browse", run_of(tmp_path, cells))
    shown = browser.new_page()
    shown.goto((tmp_path / "browse.html").as_uri())
    shown.select_option("#sort", "difference")
    values = shown.locator("#rows .value")
    assert values.all_inner_texts() == ["+3.00", "+1.25"]
    shown.select_option("#variant", label="reward large, M = 2")
    assert values.all_inner_texts() == ["+2.00", "+1.00"]
    assert listed(shown) == ["sums 1, seed 1?", "sums 0, seed 1?"]
    shown.close()


@browsing
def test_prompts_without_a_reward_come_last(opened):
    """Whichever rewards come first, and also where those are above 0."""
    shown = opened("#benchmark=sums&seed=1&methods=entrgi")
    for sort, answered in (("high", (2, 1, 0)), ("low", (0, 1, 2)), ("difference", (2, 0, 1))):
        shown.select_option("#sort", sort)
        assert listed(shown) == [f"sums {idx}, seed 1?" for idx in (*answered, 3)]


@browsing
def test_failed_prompts_say_why(opened):
    shown = opened()
    shown.select_option("#sort", "failed")
    assert listed(shown)[0] == "sums 3, seed 1?"
    shown.locator("#rows .row").first.click()
    assert shown.locator(".none").inner_text() == "Failed the rewards are <nan>"


@browsing
def test_a_permalink_holds_prompt_filters_and_step(opened, file):
    shown = opened("#prompt=sums/2/1&benchmark=sums&methods=bon,entrgi&sort=high&q=answer&step=4")
    assert shown.inner_text("#prompt") == "sums 1, seed 2?"
    assert shown.locator("#heads h3").all_inner_texts() == ["Best-of-N", "EntRGi"]
    assert shown.inner_text("#after") == "after step 4 of 7"
    assert shown.input_value("#search") == "answer"
    assert shown.locator("#rows .row[aria-selected=true] .text").inner_text() == "sums 1, seed 2?"
    shown.locator("#rows .row").first.click()
    other = opened(shown.url.removeprefix(file))
    for what in ("#prompt", "#count", "#after", "#answers"):
        assert other.inner_text(what) == shown.inner_text(what)
    shown.go_back()
    assert shown.inner_text("#prompt") == "sums 1, seed 2?"


@browsing
def test_an_address_that_fits_nothing_shows_everything(opened):
    shown = opened("#prompt=sums/9/9&benchmark=x&seed=x&sort=x&step=x&plus=x&variant=x&q=")
    assert shown.inner_text("#count") == "17 prompts"
    assert shown.inner_text("#after") == "finished, 7 steps"


@browsing
def test_the_page_works_by_keyboard(opened):
    shown = opened("#prompt=sums/1/0")
    for key, expected in (("j", 1), ("j", 2), ("k", 1)):
        shown.keyboard.press(key)
        assert shown.inner_text("#prompt") == f"sums {expected}, seed 1?"
    shown.keyboard.press(",")
    assert shown.inner_text("#after") == "after step 6 of 7"
    shown.locator("#list").focus()
    shown.keyboard.press("End")
    assert shown.inner_text("#prompt") == listed(shown)[-1]
    active = shown.get_attribute("#list", "aria-activedescendant")
    assert shown.locator(f"#{active}").get_attribute("aria-selected") == "true"
    shown.keyboard.press("p")
    shown.wait_for_function("document.getElementById('after').textContent.startsWith('after')")
    shown.keyboard.press("p")
    assert shown.inner_text("#play") == "Play"


@browsing
def test_hostile_text_is_shown_as_it_is(opened):
    shown = opened("#prompt=riddles/3/0")
    assert shown.evaluate("document.getElementById('prompt').textContent") == HOSTILE
    assert shown.locator("b").count() == 0


@browsing
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_can_be_read(opened, axe, scheme, width):
    shown = opened(width=width, color_scheme=scheme, reduced_motion="reduce")
    assert shown.locator("#tip").evaluate("e => getComputedStyle(e).transitionDuration") == "0s"
    page_colour = shown.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert page_colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}[scheme]
    for reads in (False, True):
        if reads:
            shown.locator("#rows .row").nth(1).click()
            assert shown.locator("#answers").is_visible()
            assert shown.locator("#list").is_visible() == (width > 390)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        shown.evaluate(axe)
        found = shown.evaluate("axe.run()")["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []
    if width == 390:
        assert [box.bounding_box()["x"] for box in shown.locator(".card").all()] == [15] * 6
        shown.click("#back")
        assert shown.locator("#answers").is_hidden()


@browsing
def test_of_many_records_only_those_that_are_seen_are_made(browser, tmp_path):
    many = [record("sums", m, 1, i) for m in METHODS for i in range(1500)]
    invoke("browse", run_of(tmp_path, many))
    shown = browser.new_page(viewport={"width": 1280, "height": 800})
    shown.goto((tmp_path / "browse.html").as_uri())
    assert shown.inner_text("#count") == "1500 prompts"
    assert shown.locator("#rows .row").count() < 30
    shown.locator("#list").focus()
    shown.keyboard.press("End")
    assert shown.inner_text("#prompt") == "sums 1499, seed 1?"
    assert shown.locator("#rows .row").count() < 30
    shown.close()
