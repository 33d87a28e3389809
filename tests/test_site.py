"""The built site in a browser. Needs the site (`make docs`), Chromium and the extra `docs`."""

import functools
import http.server
import json
import posixpath
import random
import re
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from browsing import browsing, same_ids, unseen
from building import figures, live, records
from building.records import ROOT
from entrgi_ref import (
    GuidanceConfig,
    SamplingConfig,
    approximation_error,
    discreteness_error,
    entropy,
    entropy_weight,
    generate,
    hard_embedding,
    interpolate,
    soft_embedding,
    token_distribution,
)
from entrgi_ref.watching import trace_pages, weight_colour

SITE = ROOT / "site"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.glob("**/*.html")) or ["none"]

pytestmark = [
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="no site: make docs"),
    pytest.mark.xdist_group("site"),
]


class Page(HTMLParser):
    """What a page links to, what can be linked to in it, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images, self.sources = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found)
        for key in ("src", "href"):
            if tag in ("img", "script", "link") and found.get(key):
                self.sources.append((found.get("rel"), found[key]))


@functools.cache
def parsed(name):
    return Page((SITE / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PAGES)
def test_links_anchors_and_files_are_there(name):
    if name == "404.html":  # its links are absolute, to where the site will stand
        return
    page = parsed(name)
    for target in [*page.links, *(source for _, source in page.sources)]:
        url = urlparse(target)
        if url.scheme or url.netloc:
            continue
        # Not above the site, which may stand below the root of its host.
        folder = posixpath.dirname(name)
        path = posixpath.normpath(posixpath.join(folder, unquote(url.path))) if url.path else name
        assert not path.startswith(("..", "/")), f"{name} -> {target}"
        file = SITE / path
        file = file / "index.html" if file.is_dir() else file
        assert file.is_file(), f"{name} -> {target}"
        if url.fragment.startswith("run:"):  # settings of the live page
            assert path == "live.html"
        elif url.fragment and file.suffix == ".html":
            there = parsed(file.relative_to(SITE).as_posix()).ids
            assert unquote(url.fragment) in there, f"{name} -> {target}"


def test_every_row_of_the_ledger_that_a_page_speaks_of_is_a_link():
    linked = set()
    for name in PAGES:
        text = (SITE / name).read_text(encoding="utf-8")
        text = re.sub(r"<(pre|code|script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
        bare = re.sub(r"<a\b.*?</a>|<[^>]*>", " ", text, flags=re.DOTALL)
        # Of several rows, the numbers are links: "rows , and" is left.
        assert not re.search(r"\brows?\s+\d", bare, re.IGNORECASE), name
        linked |= {name for _ in re.findall(r'href="[^"]*ledger\.html#row-\d+b?"', text)}
    assert linked >= {"ledger.html", "api/protocols.html", "settings.html", "faq.html"}


@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_words_and_nothing_comes_from_elsewhere(name):
    page = parsed(name)
    assert all(image.get("alt") for image in page.images)
    for rel, source in page.sources:
        assert rel == "canonical" or not urlparse(source).netloc, source


@pytest.fixture(scope="module")
def server():
    """The site below the root of its host, as on GitHub Pages."""
    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}/entrgi_ref"
        http_server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def translate_path(self, path):
        below = path.removeprefix("/entrgi_ref")
        return super().translate_path(below if below != path else "/nowhere")


def below(url):
    """Where the server keeps a file of the host's root."""
    parsed_url = urlparse(url)
    return parsed_url._replace(path=f"/entrgi_ref{parsed_url.path}").geturl()


FEWER_LETTERS = """
    () => {
        for (const unseen of document.querySelectorAll("details:not([open]) > :not(summary)")) {
            unseen.remove();
        }
        const looks = new Map([[null, ""]]), known = new Set();
        const lookOf = e => {
            if (!looks.has(e)) {
                const own = `${e.localName}.${e.className}[${e.getAttribute("style")}]`;
                looks.set(e, `${lookOf(e.parentElement)} > ${own}`);
            }
            return looks.get(e);
        };
        const again = [...document.querySelectorAll(".highlight pre *, .katex *, article code")]
            .filter(e => known.size === known.add(lookOf(e)).size);
        for (const e of again) {
            if (e.matches(".highlight code span:not([id])")) e.replaceWith(...e.childNodes);
            else e.dataset.again = "";
        }
        document.body.normalize();
        axe.configure({ rules: [{ id: "color-contrast", selector: ":not([data-again])" }] });
    }
"""
"""What takes axe a second instead of ten on a page of thousands of tokens: what is in a closed fold
is not checked anyway, and of the tokens of listings and formulas whose classes are the same, up to
the root of the page, the first one's contrast is checked.
"""
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
"""The rules that ask for colours: all that another palette can break."""


def serious(page, **options):
    """What axe complains of."""
    found = page.evaluate("o => axe.run(document, {resultTypes: ['violations'], ...o})", options)
    return [
        (v["id"], [n["html"][:120] for n in v["nodes"][:3]])
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]


def settle(page):
    page.evaluate("document.fonts.ready.then(() => null)")
    page.wait_for_timeout(50)


NARROW = pytest.mark.xdist_group("narrow")  # by the other worker, in its own browser
VIEWS = [("light", 1280), pytest.param("dark", 390, marks=NARROW)]
PALETTES = {"light": "default", "dark": "slate"}
SHOWS = "palette => document.body.dataset.mdColorScheme === palette"


@pytest.fixture(scope="module")
def views(browser):
    """One window for each view, which all pages are opened in: what they share is fetched once."""

    @functools.cache
    def window(scheme, width):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, reduced_motion="reduce", bypass_csp=True
        )
        page = context.new_page()
        complaints, requested = [], []
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        return page, complaints, requested

    return window


@browsing
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_every_page_in_a_browser(views, server, axe, name, scheme, width):
    """Opened in one of the system's colours, which then change to the other ones."""
    page, complaints, requested = views(scheme, width)
    complaints.clear()
    requested.clear()
    page.emulate_media(color_scheme=scheme)
    page.unroute_all()
    if name == "404.html":  # at the root, see above
        server = server.removesuffix("/entrgi_ref")
        page.route("**/*", lambda route: route.continue_(url=below(route.request.url)))
    page.goto(f"{server}/{name}", wait_until="load")
    settle(page)
    for shown in (scheme, *PALETTES.keys() - {scheme}):
        page.emulate_media(color_scheme=shown)
        page.wait_for_function(SHOWS, arg=PALETTES[shown])
        if shown == scheme:
            shown_as_meant(page)
            assert same_ids(page) == []
            page.evaluate(axe)
            page.evaluate(FEWER_LETTERS)
        assert unseen(page) == []
        assert serious(page, **(COLOURS if shown != scheme else {})) == []
    assert complaints == []
    assert [url for url in requested if not url.startswith((server, "data:", "blob:"))] == []


BOX = '<div style="width: 100px; white-space: nowrap; {style}">{text}</div>'
LONG = "a line that is wider than its box"
BUTTON = (
    "<style>nav { position: absolute; right: 0; top: 0; width: 20px; height: 20px }</style>"
    '<pre style="position: relative; width: 100px"><nav class="md-code__nav"></nav>'
)


@browsing
@pytest.mark.parametrize(
    ("body", "found"),
    [
        (BOX.format(style="overflow: auto; box-shadow: inset 0 0 2px", text=LONG), None),
        (BOX.format(style="overflow: hidden", text="short"), None),
        (BOX.format(style="overflow: hidden; width: 1px; height: 1px", text="for readers"), None),
        (BOX.format(style="overflow: auto", text=LONG), "scrolls without a hint"),
        (BOX.format(style="overflow: hidden", text=LONG), "cut"),
        (BOX.format(style="overflow: clip; height: 8px", text="low"), "cut"),
        (BOX.format(style="margin-left: 380px", text=LONG), "cut"),
        (BOX.format(style="height: 5px; margin-left: 390px", text=""), "the page is"),
        (
            BUTTON + f"<code>{LONG[:12]}</code></pre>",
            "below the copy button",
        ),
    ],
)
def test_what_cannot_be_seen_is_found(views, body, found):
    page, *_ = views(*VIEWS[0])
    page.set_viewport_size({"width": 400, "height": 300})
    page.goto("about:blank")
    page.set_content(f"<body style='margin: 0; font: 14px monospace'>{body}</body>")
    assert [fault.startswith(found) for fault in unseen(page)][:1] == ([True] if found else [])
    page.set_viewport_size({"width": VIEWS[0][1], "height": 900})


@browsing
def test_two_elements_with_one_id_are_found(views):
    page, *_ = views(*VIEWS[0])
    page.goto("about:blank")
    page.set_content("<p id=a></p><p id=b></p>")
    page.evaluate("document.body.append(Object.assign(document.createElement('p'), {id: 'a'}))")
    assert same_ids(page) == ["a"]


def luminance(colour):
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def contrast(colour, background):
    low, high = sorted((luminance(colour), luminance(background)))
    return (high + 0.05) / (low + 0.05)


BACKGROUNDS = {"light": "#ffffff", "dark": "#1e2129"}
SVG = "{http://www.w3.org/2000/svg}"


def curves(group):
    """Colours and opacities of a drawn picture's lines, marks, error bars; no axes, no grid."""
    for element in group:
        name = element.get("id", "")
        if name.startswith(("matplotlib.axis", "legend", "text")):
            continue
        if name.startswith(("line2d", "LineCollection")):
            for mark in element.iter():
                style = mark.get("style", "")
                opacity = re.search(r"(?<!fill-)opacity: ([\d.]+)", style)
                for colour in re.findall(r"stroke: (#\w{6})", style):
                    yield colour, float(opacity[1]) if opacity else 1.0
        else:
            yield from curves(element)


@pytest.mark.parametrize("picture", sorted(figures.DRAWN))
@pytest.mark.parametrize("mode", BACKGROUNDS)
def test_every_curve_is_told_apart_from_the_page(picture, mode):
    drawn = ElementTree.parse(SITE / "assets" / "drawn" / f"{picture}-{mode}.svg").getroot()
    below = np.array(to_rgb(BACKGROUNDS[mode]))
    for colour, opacity in set(curves(drawn)):
        seen = opacity * np.array(to_rgb(colour)) + (1 - opacity) * below
        assert contrast(seen, below) >= 3, (colour, opacity)


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_has_a_caption(name):
    text = (SITE / name).read_text(encoding="utf-8")
    captions = re.findall(r'<figure class="drawn">.*?<figcaption>(.*?)</figcaption>', text, re.S)
    assert len(captions) == text.count('<figure class="drawn">')
    for caption in captions:
        assert re.search(r"\b[Bb]ars\b|A drawing, not data", caption), caption
    outside = re.sub(r'<figure class="drawn">.*?</figure>', "", text, flags=re.S)
    assert not re.search(r'assets/drawn/|id="(dial|stepper)"', outside)


def shown_as_meant(page):
    """Formulas are set, no figure stands in a heading, nothing is left of the site's source."""
    assert page.locator(":is(h1, h2, h3, h4, h5, h6) :is(svg, input, select)").count() == 0
    bare = "[...document.querySelectorAll('.arithmatex')].filter(e => !e.querySelector('.katex'))"
    assert page.evaluate(f"{bare}.length") == 0
    visible = page.evaluate("document.querySelector('article, main').innerText")
    assert not re.search(r"\\\(|\\\[|\{\{|\$\$", visible)


@pytest.fixture
def opened(browser, server):
    contexts = []

    def open_page(name, **options):
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{server}/{name}", wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()


def python_step(js, logits, temperature, sampled, method):
    """The same numbers from the package's functions; the gradients by autograd."""
    table = torch.tensor(js["EMBEDDINGS"], dtype=torch.float64)
    psi = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    q = token_distribution(psi, temperature)
    soft, hard = soft_embedding(q, table), hard_embedding(torch.tensor([sampled]), table)
    constant = {"expectation": 0.0, "aps": 1.0, "entrgi": 0.0}.get(method, method)
    w = entropy_weight(psi) if method == "entrgi" else torch.full((1,), constant, dtype=psi.dtype)
    mixed = interpolate(soft, hard, w)
    mixed.retain_grad()
    reward = sum(
        h["height"]
        * torch.exp(
            -((mixed - torch.tensor(h["at"], dtype=table.dtype)).square().sum())
            / (2 * h["width"] ** 2)
        )
        for h in js["HILLS"]
    )
    reward.backward()
    return {
        "q": q[0].tolist(),
        "soft": soft[0].tolist(),
        "hard": hard[0].tolist(),
        "weight": w.item(),
        "mixed": mixed[0].tolist(),
        "gradient": mixed.grad[0].tolist(),
        "entropy": entropy(psi).item(),
        "reward": reward.item(),
        "E": approximation_error(mixed, soft).item(),
        "D": discreteness_error(mixed, hard).item(),
        "logitGradient": psi.grad[0].tolist(),
    }


@browsing
def test_the_figures_arithmetic_is_pythons(opened):
    page, rng = opened("algorithm.html"), random.Random(0)
    js = page.evaluate("({EMBEDDINGS: EntRGi.EMBEDDINGS, HILLS: EntRGi.HILLS})")
    inputs = []
    for i in range(200):
        scale = rng.choice([0.1, 1, 4, 30])
        method = rng.choice(["entrgi", "expectation", "aps", round(rng.random(), 3)])
        logits = [rng.gauss(0, scale) for _ in range(5)] if i else [0.0] * 5
        inputs.append([logits, rng.uniform(0.1, 3), rng.randrange(5), method])
    found = page.evaluate("inputs => inputs.map(i => EntRGi.step(...i))", inputs)
    for given, mine in zip(inputs, found, strict=True):
        expected = python_step(js, *given)
        assert mine.keys() == expected.keys()
        for name, number in expected.items():
            assert mine[name] == pytest.approx(number, abs=1e-9), (name, given)


@browsing
def test_the_figure_starts_with_the_pages_example(opened):
    page = opened("algorithm.html")
    text = page.inner_text(".playground .live")
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0]], dtype=torch.float64)
    assert f"H = {entropy(logits).item():.2f} nats" in text
    assert f"w = {entropy_weight(logits).item():.2f}" in text


@browsing
def test_the_figure_works_by_keyboard(opened):
    page = opened("algorithm.html", reduced_motion="reduce")
    before = page.inner_text(".playground .live")
    page.focus(".playground input[type=range]")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".playground output >> nth=0") == "2.10"
    assert page.inner_text(".playground .live") != before
    climb = page.get_by_role("button", name="One gradient step")
    reward = lambda: float(re.search(r"R\(ê\) = (\S+)\.", page.inner_text(".playground .live"))[1])  # noqa: E731
    page.select_option(".playground select >> nth=0", "expectation")
    rewards = [reward()]
    for _ in range(2):  # the steps are large, a third one may jump over the hill
        climb.press("Enter")
        rewards.append(reward())
    assert rewards == sorted(set(rewards))
    page.get_by_role("button", name="Reset").press("Enter")
    assert page.inner_text(".playground output >> nth=0") == "2.00"


def line_through(values, places):
    """The straight line from numbers to places in a picture; it must fit."""
    slope, start = np.polyfit(values, places, 1)
    assert places == pytest.approx(np.multiply(values, slope) + start, abs=0.05)
    return slope, lambda value: slope * value + start


ATTRIBUTES = """
    marks => marks.map(mark => Object.fromEntries(mark.getAttributeNames().map(
        name => [name, isNaN(mark.getAttribute(name)) ? mark.getAttribute(name)
                                                      : Number(mark.getAttribute(name))])))
"""


def marks(page, selector):
    """The attributes of all marks of a picture."""
    return page.eval_on_selector_all(selector, ATTRIBUTES)


@browsing
def test_the_figure_draws_what_it_computes(opened):
    page = opened("algorithm.html")
    page.select_option(".playground select >> nth=1", "4")  # another token
    step = page.evaluate("EntRGi.step(EntRGi.LOGITS, 0.7, 4, 'entrgi')")
    table = page.evaluate("EntRGi.EMBEDDINGS")
    plane, bars = ".playground svg[aria-label^=Soft]", ".playground svg[aria-label^=Prob]"
    tokens = marks(page, f"{plane} circle[opacity='0.55']")
    right, x = line_through([e[0] for e in table], [mark["cx"] for mark in tokens])
    up, y = line_through([e[1] for e in table], [mark["cy"] for mark in tokens])
    assert (right > 0, up < 0) == (True, True)
    sizes = [mark["r"] for mark in tokens]
    assert np.argsort(sizes).tolist() == np.argsort(step["q"]).tolist()

    (soft,) = marks(page, f"{plane} rect")
    centre = soft["x"] + soft["width"] / 2, soft["y"] + soft["height"] / 2
    assert centre == pytest.approx((x(step["soft"][0]), y(step["soft"][1])))
    (mixed,) = marks(page, f"{plane} circle[fill='var(--mixed)']")
    assert (mixed["cx"], mixed["cy"]) == pytest.approx((x(step["mixed"][0]), y(step["mixed"][1])))
    (hard,) = marks(page, f"{plane} > g > polygon[fill='var(--hard)']")
    corners = [tuple(map(float, corner.split(","))) for corner in hard["points"].split()]
    assert np.mean(corners, 0)[0] == pytest.approx(x(step["hard"][0]))
    assert np.mean(corners, 0)[1] == pytest.approx(y(step["hard"][1]), abs=3)
    pull = np.array([step["gradient"][0], -step["gradient"][1]])  # down is positive in a picture
    arrows = marks(page, f"{plane} g[stroke-width='2'] line")
    for arrow, start in zip(arrows, (step["soft"], step["mixed"]), strict=True):
        assert (arrow["x1"], arrow["y1"]) == pytest.approx((x(start[0]), y(start[1])))
        along = np.array([arrow["x2"] - arrow["x1"], arrow["y2"] - arrow["y1"]])
        assert along / np.hypot(*along) == pytest.approx(pull / np.hypot(*pull))

    q = marks(page, f"{bars} rect[fill='var(--soft)']")
    scale, _ = line_through(step["q"], [mark["height"] for mark in q])
    assert [mark["height"] for mark in q] == pytest.approx([scale * p for p in step["q"]])
    slopes = marks(page, f"{bars} rect[fill='var(--mixed)']")
    middle = max(mark["y"] for mark in slopes)
    signed = [mark["height"] * (1 if mark["y"] < middle else -1) for mark in slopes]
    assert np.sign(signed).tolist() == np.sign(step["logitGradient"]).tolist()


@browsing
def test_the_dial_draws_the_records_numbers(opened):
    page = opened("dial.html")
    rows = json.loads((ROOT / "docs" / "records" / "dial.json").read_text())["rows"]
    titles = {"top1": "Reward of the best", "gold_best": "Gold of the best"}
    titles |= {"gold_mean": "Gold, mean", "valid": "Valid answers"}
    for key, w in (("", "entropy"), ("Home", 0)):
        page.focus("#dial input")
        if key:
            page.keyboard.press(key)
        mine = sorted((r for r in rows if r["w"] == w and r["M"]), key=lambda r: r["M"])
        (none,) = [r for r in rows if r["M"] == 0]
        for measure, title in titles.items():
            chart = f"#dial svg[aria-label^='{title}']"
            dots = marks(page, f"{chart} circle")
            right, _ = line_through([r["M"] for r in mine], [dot["cx"] for dot in dots])
            means = [r["measures"][measure]["mean"] for r in mine]
            up, y = line_through(means, [dot["cy"] for dot in dots])
            assert (right > 0, up < 0) == (True, True)
            bars = marks(page, f"{chart} line[stroke='var(--mixed)']")
            for row, bar in zip(mine, bars, strict=True):
                ends = row["measures"][measure]
                assert (bar["y1"], bar["y2"]) == pytest.approx((y(ends["low"]), y(ends["high"])))
            (flat,) = marks(page, f"{chart} line[stroke-dasharray]")
            assert flat["y1"] == flat["y2"] == pytest.approx(y(none["measures"][measure]["mean"]))
            lines = [
                tuple(float(point.split(",")[1]) for point in mark["points"].split())
                for mark in marks(page, f"{chart} polyline")
            ]
            assert len(set(lines)) == len({r["w"] for r in rows if r["M"]})
            assert lines[-1] == pytest.approx([dot["cy"] for dot in dots])


@browsing
def test_the_stepper_shows_the_recorded_frames(opened):
    page = opened("dial.html", reduced_motion="reduce")
    panels = json.loads((ROOT / "docs" / "records" / "trajectory.json").read_text())["panels"]
    last = len(panels[0]["frames"]) - 1
    number = lambda x: f"{x:.2f}".replace("-", "\u2212")  # noqa: E731
    for at in (0, 1, 7, last):
        page.evaluate(
            """at => {
                const slider = document.querySelector("#stepper input");
                slider.value = at;
                slider.dispatchEvent(new Event("input"));
            }""",
            at,
        )
        for p, panel in enumerate(panels):
            frame = panel["frames"][at]
            slots = page.locator(f"#stepper section >> nth={p} >> ol.slots > li")
            texts = slots.evaluate_all("all => all.map(li => [...li.childNodes].map("
                                       "node => node.textContent))")  # fmt: skip
            classes = slots.evaluate_all("all => all.map(li => li.className)")
            colours = slots.evaluate_all("all => all.map(li => li.style.background)")
            new = panel["frames"][at - 1]["committed"] if at else []
            for position, token in enumerate(frame["tokens"]):
                if position not in frame["positions"]:
                    mark = "new" if position in new else "\u00a0"
                    assert texts[position] == [token, mark]
                    assert classes[position] == ""
                    continue
                i = frame["positions"].index(position)
                weight = frame["weight"][i]
                assert texts[position] == [frame["candidates"][i], f"w {number(weight)}"]
                chosen = position in frame["committed"]
                assert classes[position] == ("masked chosen" if chosen else "masked")
                colour = ", ".join(map(str, weight_colour(weight)))
                assert colours[position] == f"rgb({colour})"
                label = slots.nth(position).get_attribute("aria-label")
                assert label.startswith(f"position {position + 1}, candidate ")
                assert f"entropy {number(frame['entropy'][i])} nats" in label
                if frame["E"]:
                    assert f"E = {number(frame['E'][i])}, D = {number(frame['D'][i])}" in label
        links = page.locator("#stepper .lines a").all_inner_texts()
        assert links == (["predict", "guide", "draw", "commit"] if at < last else ["score"])
        where = page.inner_text("#stepper output")
        step = panels[0]["frames"][at]["step"]
        assert where.startswith("the answer" if at == last else f"denoising step {step + 1},")

    guided = panels[1]["frames"][:-1]
    charts = "#stepper section >> nth=1 >> figure >> nth="
    for chart, colour, name in (
        (0, "var(--text)", "rewards"),
        (1, "var(--E)", "mean_E"),
        (1, "var(--D)", "mean_D"),
    ):
        dots = page.locator(f"{charts}{chart} >> circle[fill='{colour}']")
        dots = dots.evaluate_all(ATTRIBUTES)
        numbers = [
            (s + (m + 0.5) / len(frame[name]), value)
            for s, frame in enumerate(guided)
            for m, value in enumerate(frame[name])
        ]
        right, _ = line_through([x for x, _ in numbers], [dot["cx"] for dot in dots])
        up, _ = line_through([y for _, y in numbers], [dot["cy"] for dot in dots])
        assert (right > 0, up < 0) == (True, True)


@browsing
def test_the_dial_shows_the_records_numbers(opened):
    page = opened("dial.html")
    rows = json.loads((ROOT / "docs" / "records" / "dial.json").read_text())["rows"]
    (entropy_row,) = [r for r in rows if r["w"] == "entropy" and r["M"] == 3]
    shown = page.inner_text("#dial .live").replace("\u2212", "-")
    for measure in ("top1", "gold_best", "gold_mean", "valid"):
        estimate = entropy_row["measures"][measure]
        assert "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**estimate) in shown
    page.focus("#dial input")
    page.keyboard.press("Home")
    assert "w = 0 (Expectation)" in page.inner_text("#dial output")
    (first,) = [r for r in rows if r["w"] == 0 and r["M"] == 3]
    assert f"{first['measures']['top1']['mean']:.2f}" in page.inner_text("#dial .live")
    assert page.locator("#dial svg").count() == 4


@browsing
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_stepper_steps_by_keyboard_and_points_into_generate(opened, scheme):
    page = opened("dial.html", color_scheme=scheme, reduced_motion="reduce")
    assert ("dark" in page.get_attribute("#stepper", "class")) == (scheme == "dark")
    page.focus("#stepper")
    where = lambda: page.inner_text("#stepper output")  # noqa: E731
    start = where()
    page.keyboard.press("ArrowRight")
    assert where() != start
    page.keyboard.press("End")
    assert where() == "the answer"
    assert page.locator("#stepper .masked").count() == 0
    page.keyboard.press("Home")
    assert where() == start
    links = page.locator("#stepper .lines a")
    assert links.all_inner_texts() == ["predict", "guide", "draw", "commit"]
    for link, start_of_line in zip(
        links.all(),
        (
            "logits = predict(",
            "guided_logits = climb(",
            "drawn = draw_",
            "committed = commit(",
        ),
        strict=True,
    ):
        anchor = link.get_attribute("href").removeprefix("#")
        line = page.locator(f"[id='{anchor.replace('codelineno', 'span')}']")
        assert line.count() == 1
        assert line.inner_text().strip().startswith(start_of_line)


@browsing
@pytest.mark.parametrize("name", ["algorithm.html", "dial.html"])
def test_pages_open_from_a_folder(browser, name):
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((SITE / name).as_uri(), wait_until="load")
    assert complaints == []
    for figure in page.locator(".interactive, #stepper").all():
        assert figure.locator("svg").count()
    page.close()


BUSY = 3
"""By so much a machine that runs other tests at the same time may be slower."""
BOTH_WRITTEN = "document.querySelector('#live .status').textContent.startsWith('Both written')"


def words_of_panel(page, side):
    """The words of an answer on the live page; a dot is an end of sequence."""
    slots = page.locator(f"#live section >> nth={side} >> ol.slots > li")
    return slots.evaluate_all("all => all.map(li => li.firstChild.textContent)")


@browsing
def test_the_live_page_writes_what_python_writes(opened):
    page = opened("live.html", reduced_motion="reduce")
    page.wait_for_selector("#live[data-ready]")
    page.select_option("#live [name=weight]", "constant")
    page.fill("#live [name=w]", "0.6")
    page.fill("#live [name=K]", "2")
    page.focus("#live [name=seed]")
    page.keyboard.type("7")  # after the 0 that stands there, or before it
    seed = int(page.input_value("#live [name=seed]"))
    page.keyboard.press("Enter")
    page.wait_for_function(BOTH_WRITTEN)
    config = SamplingConfig(
        guidance=GuidanceConfig(dtype="float64", weight=lambda psi: psi.new_full((len(psi),), 0.6)),
        trajectories=2,
        new_tokens=16,
        denoising_steps=16,
        seed=seed,
    )
    for side, settings in enumerate((config.guided(steps=0), config)):
        found = generate(*live.networks(), ["sea castle gloomy"], settings)
        for k in range(2):
            page.locator("#live .answers button").nth(k).click()
            words = [w.replace("\u00b7", "<eos>") for w in words_of_panel(page, side)]
            assert (
                " ".join(words).removesuffix(" <eos>" * words.count("<eos>"))
                == (found.responses[0][k])
            )
            shown = page.inner_text(f"#live section >> nth={side} >> dd >> nth=0")
            reward = f"{found.rewards[0, k]:.2f}".replace("-", "\u2212")
            assert shown == reward

    linked = opened(f"live.html#{urlparse(page.url).fragment}")
    linked.wait_for_function(BOTH_WRITTEN)  # a link runs by itself, with all settings
    page.locator("#live .answers button").nth(0).click()
    assert all(words_of_panel(linked, side) == words_of_panel(page, side) for side in (0, 1))


@browsing
def test_the_live_page_is_quick_and_responsive(opened):
    page = opened("live.html")
    page.wait_for_selector("#live[data-ready]")
    page.evaluate(
        """() => {
            globalThis.longest = 0;
            let last = performance.now();
            setInterval(() => {
                const now = performance.now();
                longest = Math.max(longest, now - last);
                last = now;
            }, 10);
        }"""
    )
    first = page.evaluate(
        """async () => {
            const began = performance.now();
            document.querySelector("#live button[type=submit]").click();
            const soon = () => new Promise(resume => setTimeout(resume, 5));
            while (!document.querySelector("#live .masked")) await soon();
            return performance.now() - began;
        }"""
    )
    page.wait_for_function(BOTH_WRITTEN)
    seconds = float(re.search(r"in ([\d.]+) s", page.inner_text("#live .status"))[1])
    assert first < 700 * BUSY
    assert seconds < 6 * BUSY
    assert page.evaluate("longest") < 1000
    slider = page.locator("#live .scrub input")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator("#live section >> nth=1 >> .masked").count() == 16
    page.keyboard.press("End")
    assert page.locator("#live .masked").count() == 0


STILL = """() => document.getAnimations().every(
    a => a.playState !== "running" || a.effect.getComputedTiming().endTime === Infinity)"""


@browsing
@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_the_live_page_is_readable_while_it_writes(opened, axe, scheme, width):
    page = opened("live.html", color_scheme=scheme, bypass_csp=True)
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_selector("#live[data-ready]")
    page.click("#live button[type=submit]")
    page.wait_for_function(BOTH_WRITTEN)
    page.select_option("#live .state select >> nth=0", "commit")
    page.wait_for_selector("#live .state[data-shown^='commit ']")
    page.evaluate(axe)
    for key in ("End", "Home"):
        page.focus("#live .scrub input")
        page.keyboard.press(key)
        page.wait_for_function(STILL)  # the title of the page fades while one scrolls
        assert serious(page) == []
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0


@browsing
def test_the_live_page_opens_from_a_folder(browser):
    page = browser.new_page()
    page.goto((SITE / "live.html").as_uri(), wait_until="load")
    page.wait_for_selector("#live[data-ready]")
    page.click("#live button[type=submit]")
    page.wait_for_function(BOTH_WRITTEN)
    page.close()


@browsing
def test_a_trace_page_of_several_prompts_shows_one_at_a_time(browser, tmp_path):
    trajectory = records.read("trajectory")
    panels = trajectory["panels"]
    traces = [("one prompt", panels), ("another </script> prompt", panels[:1])]
    (tmp_path / "trace.html").write_text(trace_pages(traces), encoding="utf-8")
    page = browser.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "trace.html").as_uri(), wait_until="load")
    sections = page.locator("#trace section")
    assert page.inner_text("#trace strong") == "one prompt"
    assert sections.count() == len(panels)
    page.keyboard.press("End")
    assert page.inner_text("#trace output") == "the answer"
    page.select_option("#prompts select", label="2. another </script> prompt")
    assert page.inner_text("#trace strong") == "another </script> prompt"
    assert sections.count() == 1
    assert page.inner_text("#trace output").startswith("denoising step")
    page.locator("#trace .controls button").first.focus()
    page.keyboard.press("End")
    assert page.inner_text("#trace output") == "the answer"
    assert complaints == []
    (tmp_path / "one.html").write_text(trace_pages(traces[:1]), encoding="utf-8")
    page.goto((tmp_path / "one.html").as_uri(), wait_until="load")
    assert page.locator("#prompts").is_hidden()
    page.close()


@browsing
def test_colours_follow_the_system_until_the_reader_chooses(opened):
    page = opened("dial.html", color_scheme="light")

    def shows(mode):
        page.wait_for_function(SHOWS, arg=PALETTES[mode])
        assert ("dark" in page.get_attribute("#stepper", "class")) == (mode == "dark")
        strokes = page.eval_on_selector_all(
            "#dial polyline", "all => [...new Set(all.map(e => getComputedStyle(e).stroke))]"
        )
        assert len(strokes) == 2
        for stroke in strokes:
            colour = np.divide([int(x) for x in re.findall(r"\d+", stroke)], 255)
            assert contrast(colour, BACKGROUNDS[mode]) >= 3, stroke

    def choose():
        page.click("label[for^=__palette_]:visible")

    for mode in ("light", "dark", "light"):
        page.emulate_media(color_scheme=mode)
        shows(mode)
    choose()  # light, whatever the system's are
    page.emulate_media(color_scheme="dark")
    shows("light")
    page.reload()
    shows("light")
    choose()
    page.emulate_media(color_scheme="light")
    shows("dark")
    choose()  # the system's again
    shows("light")
    page.emulate_media(color_scheme="dark")
    page.reload()
    shows("dark")


SHOWN = """
    image => ({width: image.getBoundingClientRect().width, of: image.naturalWidth,
               box: image.closest(".scroll").clientWidth})
"""


@browsing
def test_the_text_of_the_start_pages_figure_is_large_enough(opened):
    page = opened("index.html")
    drawn = (SITE / "assets" / "drawn" / "demo-light.svg").read_text(encoding="utf-8")
    size = min(map(float, re.findall(r"font(?:-size)?: ([\d.]+)px", drawn)))
    inside = float(re.search(r'viewBox="0 0 ([\d.]+)', drawn)[1])
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        shown = page.eval_on_selector("figure.drawn img:visible", SHOWN)
        assert size * shown["width"] / inside >= 12
        assert (shown["width"] > shown["box"]) == (width == 390)


LINES = """
    lines => lines.map(line => {
        const range = document.createRange(), text = line.textContent;
        range.selectNodeContents(line);
        const rows = [...range.getClientRects()].filter(box => box.width > 1);
        const first = rows[0]?.top, below = rows.filter(box => box.top > first + 5);
        const start = line.getBoundingClientRect().left;
        const letter = parseFloat(getComputedStyle(line).fontSize) * 0.6;
        return [text.match(/^ */)[0].length, ...below.map(box => (box.left - start) / letter)];
    }).filter(([, ...below]) => below.length)
"""


@browsing
def test_wrapped_code_stays_indented_and_is_copied_as_it_was(opened):
    page = opened("algorithm.html", permissions=["clipboard-read", "clipboard-write"])
    wrapped = page.eval_on_selector_all(".beside pre > code > [id^=__span]", LINES)
    assert len(wrapped) > 3
    for indent, *rows in wrapped:
        assert min(rows) > indent + 3
    page.locator(".beside pre .md-code__button").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == page.locator(".beside pre > code").first.text_content().strip()


@browsing
def test_identifiers_tell_what_they_are(opened):
    page = opened("symbols.html")
    title = page.get_attribute("code:text-is('guided_logits')", "title")
    assert title.startswith("ψ [n V]: The guided logits.")


@browsing
def test_search_finds_without_a_server(opened):
    page = opened("index.html")
    page.click("[data-md-component=search-query]")
    page.keyboard.type("interpolate", delay=20)
    page.get_by_text("matching documents").wait_for()
    assert "interpolate" in page.inner_text(".md-search__output")
