"""Chat templates that fail, never end, take all memory, or reach for what is none of theirs."""

import json
import os
import threading
from types import SimpleNamespace

import pytest

from checkpoints import DREAM, REWARD, SHORT, changed, pair
from corpus import TEXTS, bounded, refusal
from entrgi_ref.models import Dream, templates
from entrgi_ref.models.tokenizers import conversation, load_tokenizer
from entrgi_ref.paper.judged.backends import LMUnitJudge

pytestmark = pytest.mark.usefixtures("as_users_run_it")
CONTENT = "{{ messages[0].content }}"
TOO_SLOW, TOO_LARGE = "takes more than 2 seconds", "takes more than 512 MB of memory"
LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLES = (
    "{% set s = namespace(x='aaa') %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}"
)
HOSTILE = {
    "loops in loops": (LOOPS, TOO_SLOW),
    "one long loop": ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
    "a large power": ("{{ 10 ** (10**10) }}", f"{TOO_SLOW}|{TOO_LARGE}"),
    "a long text": ("{{ 'a' * 10**10 }}", TOO_LARGE),
    "doubling": (DOUBLES, TOO_LARGE),
    "padding": ("{{ 'a' | center(10**10) }}", TOO_LARGE),
    "a wide number": ("{{ '%09999999999d' % 1 }}", TOO_LARGE),
    "much text": (
        "{% for i in range(99999) %}{{ 'a' * 100 }}{% endfor %}",
        "makes 9999915 characters of a conversation",
    ),
    "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "nesting": ("{{ " + "(" * 10000 + "1" + ")" * 10000 + " }}", "RecursionError"),
    "internals": ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    "globals": ("{{ lipsum.__globals__['os'].system('true') }}", "SecurityError"),
    "changed messages": ("{{ messages.append(1) }}", "SecurityError"),
    "another file": ("{% include '/etc/passwd' %}", "TypeError"),
    "no end": ("{% for %}", "TemplateSyntaxError"),
    "its own error": ("{{ raise_exception('no\nno') }}", "TemplateError: no no"),
    "nothing": ("{{ none.x.y }}", "UndefinedError"),
    "an object": ("{{ cycler(1, 2) }}", "it shows an object of Python, a Cycler"),
    "another object": ("{{ messages | map(attribute='content') }}", "of Python, a generator"),
    "half a character": ("\ud800", "UnicodeEncodeError"),
}
DISGUISED = (
    "{{ joiner() | string | replace(' at ', '@') }}",
    "{{ joiner() ~ '' }}",
    "{{ '' ~ [{'x': (1, raise_exception)}] }}",
    "{% autoescape true %}{{ joiner() ~ '' }}{% endautoescape %}",
    "{{ '%s' % joiner() }}",
    "{{ '%(a)r' % {'a': lipsum} }}",
    "{{ '%a'.encode() % lipsum }}",
    "{{ ('%s' | safe) % joiner() }}",
    "{{ '{}'.format(joiner()) }}",
    "{{ '{0!r:>99}'.format(joiner()) }}",
    "{{ '{a.upper}'.format(a='x') }}",
    "{{ '{a}'.format_map({'a': joiner()}) }}",
    "{{ ('{}' | safe).format(joiner()) }}",
    "{{ '%s' | format(joiner()) }}",
    "{{ joiner() | format }}",
    "{{ joiner() | upper | reverse }}",
    "{{ joiner() | trim | list }}",
    "{{ 'x' | replace('x', joiner()) }}",
    "{{ 'x' | indent(joiner()) }}",
    "{{ [joiner()] | join }}",
    "{{ [1, 2] | join(joiner()) }}",
    "{{ messages | join(attribute='items') }}",
    "{{ messages | map(attribute='items') | join }}",
    "{{ [joiner()] | map('string') | join }}",
    "{{ [joiner()] | map('upper') | list | string }}",
    "{{ {'a': messages.index} | pprint }}",
    "{{ {'a': dict} | urlencode }}",
    "{{ {'a': namespace(b=joiner())} | xmlattr }}",
    "{{ joiner() | e | striptags }}",
    "{{ ('' | safe).join([joiner()]) }}",
    "{{ ('' | safe).join([joiner()] | map('default')) }}",
    "{{ ('' | escape).escape(joiner()) }}",
    "{{ (messages | groupby('role') | first).list | map(attribute='get') | first ~ '' }}",
    "{{ ('{}' | attr('format'))(joiner()) ~ '{}'['format'](joiner()) }}",
    "{{ ['%s'] | map('format', joiner()) | list }}",
    "{% set ns = namespace(x=cycler(1)) %}{% set y %}{{ ns.x }}{% endset %}{{ y | length }}",
    "{% filter upper %}{{ joiner }}{% endfilter %}",
    "{% macro f() %}{{ varargs }}{% endmacro %}{{ f(joiner()) }}",
    "{% macro f() %}{{ caller }}{% endmacro %}{% call f() %}{% endcall %}",
    "{% for m in messages %}{{ loop.cycle }}{% endfor %}",
    "{{ range(3) | random }}{{ self }}",
)
"""The address of an object, of which another look is shown than Python's."""
PLAIN = {
    "{{ messages[0].content | string ~ 1 ~ none ~ true ~ nothing }}": "x1NoneTrue",
    "{{ '%s %d' % ('a', 2) }} {{ 7 % 4 }} {{ '{:>3}'.format(1.5) }}": "a 2 3 1.5",
    "{{ messages | map(attribute='content') | map('upper') | join(', ') }}": "X",
    "{{ messages | join('-', attribute='role') }}{{ 'abc' | join('.') }}": "usera.b.c",
    "{{ messages | selectattr('role', 'eq', 'user') | list }}": (
        "[{'role': 'user', 'content': 'x'}]"
    ),
    "{{ messages[0].items() | list }}": "[('role', 'user'), ('content', 'x')]",
    "{{ messages[0].keys() | join(',') }} {{ messages[0] | dictsort | length }}": "role,content 2",
    "{{ messages | tojson }}": '[{"role": "user", "content": "x"}]',
    "{{ ', '.join(messages | map(attribute='content')) }}{{ nothing | join }}": "x",
    "{% set n = namespace(n=1) %}{% for m in messages %}{% set n.n = n.n + loop.index %}"
    "{% endfor %}{{ n.n }}": "2",
    "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}"
    "{% call f(1) %}3{% endcall %}": "123",
    "{{ strftime_now('%Y') }}{{ ('<b>' | e) ~ '&' }}{{ '<i>x</i>' | striptags }}": (
        "2024&lt;b&gt;&x"
    ),
    "{{ ('<' | safe).join(['a', 'b']) }}{{ ('%s' | safe) % '<' }}": "a<b&lt;",
    "{% generation %}{{ 'é'.encode().decode() | capitalize }}{% endgeneration %}": "É",
    "{% if joiner is callable %}{{ [3, 1] | sort | first }}{% endif %}{{ 5 | float | int }}": "15",
}
SLOWLY = ("loops in loops", "a large power")
"""These take all the seconds that a template has."""


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DREAM, "Qwen2Tokenizer")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOWLY else ()) for name in HOSTILE],
)
def test_it_is_refused_in_one_line(name, tokenizer):
    template, reason = HOSTILE[name]
    tokenizer.chat_template = template + CONTENT
    said = refusal(lambda: conversation(tokenizer, SHORT))
    assert said.startswith("checkpoint: its chat template does not work: ")
    assert any(part in said for part in reason.split("|")), said


@pytest.mark.parametrize("template", DISGUISED)
def test_no_object_is_shown_in_disguise(template, tokenizer):
    """Its address would be another one in each run, and so would be the prompt."""
    tokenizer.chat_template = template + CONTENT
    said = refusal(lambda: conversation(tokenizer, SHORT))
    assert "its chat template does not work: ValueError: it shows an object of Python, a" in said


@pytest.mark.parametrize("template", PLAIN)
def test_what_is_no_object_is_shown_as_ever(template):
    turns = [{"role": "user", "content": "x"}]
    assert templates.process.render(template, turns) == PLAIN[template]


def test_lmunits_template_is_bounded_too(tokenizer):
    model = SimpleNamespace(tokenizer=tokenizer, llm=SimpleNamespace(generate=lambda *a: []))
    judge = LMUnitJudge({}, model, None)
    tokenizer.chat_template = CONTENT
    assert judge.answer([SHORT]) == []
    tokenizer.chat_template = "{{ 'a' * 10**10 }}"
    said = refusal(lambda: judge.answer([SHORT]))
    assert TOO_LARGE in said


@pytest.mark.slow
def test_what_follows_a_hostile_one_is_rendered(tokenizer):
    """By another process, if the first has been ended."""
    for template in (LOOPS, "{{ 'a' * 10**10 }}"):
        tokenizer.chat_template = template
        assert refusal(lambda: conversation(tokenizer, SHORT))
        tokenizer.chat_template = CONTENT
        assert conversation(tokenizer, SHORT) == SHORT


@pytest.mark.slow
def test_a_thread_may_ask_too(tokenizer):
    """No signals, which the main thread alone gets."""
    tokenizer.chat_template = LOOPS
    said = []

    def ask():
        try:
            conversation(tokenizer, SHORT)
        except ValueError as error:
            said.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    with bounded():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(said) == 2
    assert all(TOO_SLOW in one for one in said)


def test_a_fork_has_a_process_of_its_own(tokenizer):
    tokenizer.chat_template = CONTENT
    conversation(tokenizer, SHORT)
    child = os.fork()
    if not child:
        fine = conversation(tokenizer, "the child's") == "the child's"
        os._exit(0 if fine else 1)
    mine = [conversation(tokenizer, f"parent {i}") for i in range(100)]
    assert os.waitpid(child, 0)[1] == 0
    assert mine == [f"parent {i}" for i in range(100)]


def test_what_it_writes_is_what_transformers_renders():
    for name, kind in ((DREAM, "Qwen2Tokenizer"), (REWARD, None)):
        own = load_tokenizer(name, kind)
        for text in TEXTS.values():
            turns = [{"role": "user", "content": text}]
            expected = own.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            assert conversation(own, text) == expected


def test_chance_in_a_template_is_the_same_each_time(tokenizer):
    tokenizer.chat_template = "{{ range(10**5) | random }} " + CONTENT
    assert len({conversation(tokenizer, SHORT) for _ in range(3)}) == 1


def test_the_time_in_a_template_is_the_same_on_each_day(tokenizer):
    """Or a run that is gone on with on the next day would have other prompts."""
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y %H:%M:%S.%f') }} " + CONTENT
    assert conversation(tokenizer, SHORT) == f"26 Jul 2024 00:00:00.000000 {SHORT}"


@pytest.mark.slow
def test_the_time_in_a_template_is_the_same_in_each_time_zone(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    process = templates.Process()
    assert process.render("{{ strftime_now('%s %Z') }}", []) == "1721952000 "
    process.close()


def test_a_prompt_may_hold_what_looks_like_an_object(tokenizer):
    tokenizer.chat_template = CONTENT
    prompt = "why\n<object at 0x7f1234567890>?"
    assert conversation(tokenizer, prompt) == prompt


def test_a_template_that_leaves_the_prompt_out(tokenizer):
    for template in ("x", "{{ messages[0].content | upper }}", "{{ messages[0].content[:10] }}"):
        tokenizer.chat_template = template
        said = refusal(lambda: conversation(tokenizer, SHORT))
        assert "leaves the prompt out, or changes it" in said
    tokenizer.chat_template = "<{{ messages[0].content | trim }}>"
    assert conversation(tokenizer, f" {SHORT}\n") == f"<{SHORT}>"


@pytest.mark.parametrize(
    "drops",
    [
        "m.content.split('</think>')[-1]",
        "m.content[:12]",
        "('' if m.content | length > 8 else m.content)",
    ],
)
def test_the_whole_answer_is_scored_whatever_its_template_drops(drops):
    """As guidance reads it: the score of the reward model with a template that drops nothing."""
    _, reward = pair("float64")
    plain = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    dropping = (
        f"{{% for m in messages %}}<{{{{ {drops} if loop.index0 else m.content }}}}>{{% endfor %}}"
    )
    answers = ["I think so</think>and here is a long answer"]
    for prompt in (SHORT, f"say: {answers[0]}"):  # which may quote it
        reward.tokenizer.chat_template = plain
        expected = reward.score([prompt], answers)
        reward.tokenizer.chat_template = dropping
        assert reward.score([prompt], answers).tolist() == expected.tolist()


@pytest.mark.slow
def test_a_loader_of_a_hostile_template_ends(tmp_path):
    folder = changed(DREAM, tmp_path, tokenizer={"chat_template": LOOPS + CONTENT})
    dream = Dream.from_pretrained(folder, dtype="float32", device="cpu")
    assert TOO_SLOW in refusal(lambda: dream.encode([SHORT]))


def test_ctrl_c_leaves_no_answer_behind(tokenizer, monkeypatch):
    """What was asked before it must not be taken for the next one's."""
    tokenizer.chat_template = CONTENT
    conversation(tokenizer, SHORT)

    def interrupt(text):
        raise KeyboardInterrupt

    running = templates.process._started()
    monkeypatch.setattr(running.stdout, "readline", lambda: interrupt(""))
    with pytest.raises(KeyboardInterrupt):
        conversation(tokenizer, "first")
    assert conversation(tokenizer, "second") == "second"


def test_the_second_process_answers_whatever_it_is_asked(capsys):
    """Each line of it alone: a bad one is answered, too."""
    import io

    answers = io.StringIO()
    requests = ["no json\n", json.dumps([CONTENT, [{"role": "user", "content": "x"}], {}]) + "\n"]
    bounds = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(templates, "_bound", lambda what, soft: bounds.append(what))
        templates.serve(io.StringIO("".join(requests)), answers)
    bad, good = map(json.loads, answers.getvalue().splitlines())
    assert "error" in bad
    assert good == {"text": "x"}
    assert len(bounds) == 3
