"""What a hostile template may not do, how long it may take, and that a published one is rendered as transformers does."""

from __future__ import annotations

import time

import pytest

from r1_lightning.text import jinja_sandbox
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
        ("{{ 2 ** 999999999 }}", r"uses \*\* on values"),
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
        ("x" * (MAX_TEMPLATE_CHARS + 1), "has more than 200000 characters"),
    ],
)
def test_what_is_refused_is_one_line(hostile: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        rendered(hostile, {"messages": []}, "task.template=checkpoint")
    assert str(caught.value).startswith("task.template=checkpoint is not allowed: ") and "\n" not in str(caught.value)
