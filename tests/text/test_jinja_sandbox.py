"""What a hostile template may not do, how long it may take, and that a published one is rendered as transformers does."""

from __future__ import annotations

import time

import pytest
from jinja2 import Environment

from r1_lightning.text import jinja_sandbox, jinja_values
from r1_lightning.text.jinja_sandbox import MAX_TEMPLATE_CHARS, rendered
from r1_lightning.types.errors import InvalidInput

GROWS = "{%% set ns = namespace(x='aaaaaaaa') %%}{%% for i in range(60) %%}{%% set ns.x = %s %%}{%% endfor %%}"


def test_loops_macros_and_filters_by_hand() -> None:
    text = (
        "{% for i in range(3) if i != 1 %}{{ loop.index }}/{{ loop.length }}{{ '!' if loop.last }} {% endfor %}"
        "{% macro twice(x) %}{{ x ~ x }}{% endmacro %}{{ twice('ab') }} {{ ['a', 'b'] | join('-') }} {{ {'a': 'ä'} | tojson }} "
        "{% generation %}said{% endgeneration %} {{ 'aXb'.replace('X', '+') }} {{ 7 % 4 }}"
    )
    assert rendered(text, {}, "x") == '1/2 2/2! abab a-b {"a": "ä"} said a+b 3'


@pytest.mark.parametrize(
    "grows",
    ["ns.x ~ ns.x", "ns.x + ns.x", "ns.x.replace('a', ns.x)", "ns.x | replace('a', ns.x)", "[ns.x, ns.x] | join",
     "ns.x.join([ns.x, ns.x])"],
)  # fmt: skip
def test_a_text_that_doubles_is_stopped(grows: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"^x is not allowed: the template fails: it writes more than 4000000 characters$"
    ):
        rendered(GROWS % grows, {}, "x")


@pytest.mark.parametrize(
    "endless",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}",
    ],
)
def test_a_template_that_does_not_end_is_stopped(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja_sandbox, "MAX_SECONDS", 0.2)
    start_s = time.monotonic()
    with pytest.raises(InvalidInput, match=r"it takes more than 0\.2 s"):
        rendered(endless, {}, "x")
    assert time.monotonic() - start_s < 2


@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        ("{{ 'a' * 1000000000 }}", "uses . on values that are no numbers"),
        ("{{ '%999999999d' % 3 }}", "uses % on values that are no numbers"),
        ("{{ 2 ** 3 }}", r"the template fails: it uses \*\*, which is not allowed$"),
        ("{{ 'a'.ljust(999999999) }}", "unsafe"),
        ("{{ '{:>999999999}'.format(1) }}", "str.format"),
        ("{{ 'a' | center(999999999) }}", "No filter named 'center'"),
        ("{{ range(999999999) }}", "Range too big"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception.__globals__['x'] }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include 'x' %}", "no loader"),
        ("{{ raise_exception('no\n  system') }}", "no system$"),
        ("{% if %}", "Expected an expression"),
        ("{{ a.b.c }}", "'a' is undefined"),
        ("{{ [1] | slice(100000000) | list | length }}", "No filter named 'slice'"),
        ("{{ [1] | batch(100000000, 'x') | list | length }}", "No filter named 'batch'"),
        ("{{ [[1]] | map('batch', 100000000) | map('list') | list }}", "No filter named 'batch'"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ (1).to_bytes(999999999, 'big') }}", "unsafe"),
        ("{{ dict.update(messages[0], x=1) }}", "unsafe"),
        ("{{ 'a'.encode('utf-8') }}", "unsafe"),
        ("{{ 1.5 | round(999999999, 'ceil') }}", "rounds to more than"),
        ("{{ ('f' * 1) | int(0, 16) }}", "on values that are no numbers"),
        ("{% autoescape [1] | map('upper') | list %}{% endautoescape %}", "autoescape"),
        ("{{ [1] | tojson(separators=('aaaaaaaa', 'b')) }}", "separators"),
        ("{{ 'a'.rfind('" + "a" * 101 + "') }}", "strips or seeks more than 100"),
        ("{{ 'a'.rsplit(sep='" + "a" * 101 + "') }}", "strips or seeks more than 100"),
        ("{{ 'a' | trim(chars='" + "a" * 101 + "') }}", "strips or seeks more than 100"),
        ("{{ [1] | map('string') }}", "writes a value of the type generator"),
        ("{{ raise_exception | string }}", "writes a value of the type method"),
        ("{{ [range] ~ 'a' }}", "writes a value of the type function"),
        ("{{ [1] | checked_items }}", "No filter named 'checked_items'"),
        ("{{ environment.items([1]) }}", "'environment' is undefined"),
        ("{{ messages | map('check') | list }}", "No filter named 'check'"),
        ("x" * (MAX_TEMPLATE_CHARS + 1), "has more than 200000 characters"),
    ],
)
def test_what_is_refused_is_one_line(hostile: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        rendered(hostile, {"messages": [{"role": "user"}]}, "task.template=checkpoint")
    assert str(caught.value).startswith("task.template=checkpoint is not allowed: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("grows", "why"),
    [
        ("[ns.x, ns.x]", "2000 parts"),
        ("(ns.x, ns.x)", "2000 parts"),
        ("{'a': ns.x, 'b': ns.x}.items()", "2000 parts"),
        ("dict(a=ns.x, b=ns.x)", "2000 parts"),
        ("both(ns.x, ns.x)", "2000 parts"),
        ("[ns.x]", "50 levels"),
        ("ns.n * ns.n", "integer of more than 4096 bits"),
        ("[ns.n, ns.n] | sum", "integer of more than 4096 bits"),
        ("[ns.x * 1]", "no numbers"),
    ],
)
def test_a_value_that_doubles_is_stopped(grows: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten lists in each other have 2 + 4 + ... + 1024 = 2046 > 2000 parts; 2^(2^12) has 4,097 bits, and sums double 4,096 times.
    monkeypatch.setattr(jinja_values, "MAX_PARTS", 2000)
    text = (
        "{% set ns = namespace(x='a', n=2) %}{% macro both() %}{% set ns.x = varargs %}{% endmacro %}"
        "{% for i in range(5000) %}" + ("{{ " + grows + " }}" if "both" in grows else "{% set ns."
        + ("n" if "ns.n" in grows else "x") + " = " + grows + " %}") + "{% endfor %}"
    )  # fmt: skip
    with pytest.raises(InvalidInput, match=why):
        rendered(text, {}, "x")


def test_a_text_that_doubles_in_a_block_is_stopped() -> None:
    block = "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"
    with pytest.raises(InvalidInput, match="it writes more than 4000000 characters"):
        rendered(GROWS.replace("{%% set ns.x = %s %%}", block).replace("%%", "%"), {}, "x")


def test_a_namespace_in_itself_has_a_constant_text() -> None:
    text = "{% set ns = namespace() %}{% set ns.a = [ns, ns] %}{% set ns.b = [ns.a, ns.a] %}{{ ns }} {{ ns.a }}"
    assert rendered(text, {}, "x") == "<namespace> [<namespace>, <namespace>]"


@pytest.mark.parametrize(
    "many",
    [
        "{% set big = 'a' | replace('a', pad) %}{{ range(100000) | map('default', big) | map('replace', 'a', 'b') | list }}",
        "{% for i in range(99999) %}{% set it = [1] | map('string') %}{% endfor %}",
        "{{ [pad, pad] | map('upper') | map('lower') | list }}",
    ],
)
def test_many_values_together_are_stopped(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja_sandbox, "MAX_ALL", 1_000_000)
    with pytest.raises(InvalidInput, match=r"it makes more than (1000000 characters|2000 iterators)$"):
        rendered(many, {"pad": "a" * 300_000}, "x")


def test_time_counts_inside_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja_sandbox, "MAX_SECONDS", 0.0)
    with pytest.raises(InvalidInput, match="it takes more than 0 s"):
        rendered("{{ range(100000) | map('string') | select | list | length }}", {}, "x")


def test_what_published_templates_use_gives_jinja_s_text() -> None:
    text = (
        "{% set ns = namespace(n=0, said='') %}{% for m in messages | selectattr('role', 'equalto', 'user') %}"
        "{% set ns.n = ns.n + 1 %}"
        "{{ loop.index }}{{ loop.length }}{{ loop.previtem }}{{ m.content.split('b')[-1].strip('\n') }}{% endfor %}"
        "{% set block %}{{ ns.n }}{% endset %}{{ block }}{% set up | upper %}x{{ ns.n }}{% endset %}{{ up }}"
        "{% filter lower | trim %} A{% endfilter %}"
        "{% macro f(a) %}<{{ a }}{{ caller() if caller }}>{% endmacro %}{{ f(1) }}{% call f(2) %}in{% endcall %}"
        "{{ messages[1:] | map(attribute='role') | list }}{{ messages[::-1][0].content }}"
        "{{ {'b': 1, 'a': [none, true]} | dictsort }}"
        "{% for k, v in messages[0].items() %}{{ k ~ '=' ~ v }}{% endfor %}{{ ('x', 1.5) }}{{ 7 // 2 }}{{ 7 - 2 }}{{ 'a' in 'ab' }}"
        "{{ messages | map(attribute='content') | join(', ') }}{{ [3, 1] | sort | first }}{{ [1, 2] | sum }}{{ 2.567 | round(1) }}"
        "{{ (messages | last)['content'] if messages is iterable and 1 is not none }}{{ undefined_one }}"
        "{{ '' | default('d', true) }}"
        "{% for a in range(5) %}{% if a == 1 %}{% continue %}{% elif a > 2 %}{% break %}{% endif %}{{ a }}"
        "{% else %}none{% endfor %}"
        "{{ messages | map('length') | list }}{{ [1, 1] | unique | list }}{{ ['a'] | reject('equalto', 'a') | list }}{{ [] + [1] }}"
    )
    messages = [{"role": "user", "content": "ab\n"}, {"role": "assistant", "content": "B"}]
    plain = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    assert rendered(text, {"messages": messages}, "x") == plain.from_string(text).render(messages=messages)
