"""The page in a browser: fast, from a file without a network; hostile text is text; its tools work by mouse and key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from r1_lightning.review.page.document import look, write_page
from tests.review.page.examples import HOSTILE, make_run, write_hostile
from tests.support.chromium import PROGRAM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (Debian: apt-get install chromium)"),
]

OPENS_IN_S = 2.0
SHOWN = "document.querySelectorAll('#rollouts article:not(.out)').length"
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
AT = "document.querySelector('article.at')?.id"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 200 steps beside another, as large as a page gets, with a group of hostile completions at step 0."""
    root = tmp_path_factory.mktemp("runs")
    own, other = make_run(root, steps=200), make_run(root, "grpo-x-0000000002", steps=200, gain=0.5)
    write_hostile(own, every=1)
    write_hostile(other, every=100)
    out = root / "page.html"
    size = write_page(look(own), look(other), out)
    assert 4_000_000 < size < 10_000_000
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def opened(page: Path, browser: Browser) -> Browser:
    browser.go("about:blank")
    browser.requests.clear()
    browser.said.clear()
    browser.go(page.as_uri())
    return browser


def test_it_opens_within_two_seconds_and_asks_for_nothing_else(page: Path, browser: Browser) -> None:
    """The text is painted in time, and all of the page takes less than that of a processor, however busy the machine is."""
    painted, busy = [], []
    for _ in range(3):
        browser.go("about:blank")
        browser.requests.clear()
        painted_s, busy_s = browser.open(page.as_uri())
        painted.append(painted_s)
        busy.append(busy_s)
    assert 0 < min(painted) < OPENS_IN_S and 0 < min(busy) < OPENS_IN_S / 2, (painted, busy)
    assert browser.requests == [page.as_uri()] and browser.said == []


def test_hostile_completions_are_inert_text(opened: Browser) -> None:
    for sample, text in enumerate(HOSTILE):
        name = f"step-0-prompt-99-sample-{sample}"
        opened.ask(f"location.hash = '#{name}'")
        opened.ask(TWO_FRAMES)
        node = f"document.getElementById('{name}')"
        shown = opened.ask(f"{node}.querySelector('pre.text').textContent")
        for mark in "\0\r\x1b\u202e\u2066":
            text = text.replace(mark, f"U+{ord(mark):04X}")
        assert shown == text
        assert opened.ask(f"{node}.querySelector('pre.text').checkVisibility() && {node}.offsetHeight > 50")
    assert opened.ask("window.HIT") is None
    assert (
        opened.ask("document.querySelectorAll('img, iframe, object, article svg, main style, main script').length") == 0
    )
    assert opened.said == []


def test_markup_that_got_in_would_neither_load_nor_run(opened: Browser) -> None:
    """The policy, by itself: a script, a handler and an image put into the page do nothing."""
    attack = "<img src='https://example.org/x.png' onerror='window.HIT = 5'><a onclick='window.HIT = 6'>a</a>"
    opened.ask(f"document.querySelector('h1').innerHTML = `{attack}`")
    opened.ask("const s = document.createElement('script'); s.textContent = 'window.HIT = 7'; document.body.append(s)")
    opened.ask("document.querySelector('h1 a').click()")
    opened.ask("new Promise(done => setTimeout(done, 100))")
    assert opened.ask("window.HIT") is None
    assert any("Content Security Policy" in line for line in opened.said)


def test_filters_by_choice_and_search(opened: Browser) -> None:
    whole = opened.ask(SHOWN)
    opened.choose("#filter", "mixed")
    mixed = opened.ask(SHOWN)
    assert 0 < mixed < whole
    assert opened.ask(
        "[...document.querySelectorAll('#rollouts article:not(.out) header')].every(h => h.textContent.includes('mixed'))"
    )
    opened.choose("#filter", "wrong")
    assert opened.ask(
        "[...document.querySelectorAll('#rollouts article:not(.out)')].every(a => a.textContent.includes('accuracy 0'))"
    )
    opened.choose("#filter", "longest")
    lengths = "[...document.querySelectorAll('#hits li')].map(li => Number(/([0-9]+) tokens/.exec(li.textContent)[1]))"
    found = opened.ask(lengths)
    assert len(found) == 50 and found == sorted(found, reverse=True)
    opened.choose("#filter", "high")
    advantages = "[...document.querySelectorAll('#hits li')].map(li => Number(/advantage (-?[0-9.e-]+)/.exec(li.textContent)[1]))"
    assert opened.ask(f"(a => a.every((x, i) => i === 0 || a[i - 1] >= x))({advantages})")
    opened.choose("#filter", "all")
    opened.ask(
        "(n => { n.value = 'WINDOW.hit = 3'; n.dispatchEvent(new Event('input')) })(document.getElementById('search'))"
    )
    opened.ask("new Promise(done => setTimeout(done, 400))")
    assert opened.ask(SHOWN) == 1 and opened.ask("document.getElementById('count').textContent") == "1 samples"
    opened.key("Escape")
    assert opened.ask(SHOWN) == whole


def test_a_hit_leads_to_its_sample_in_its_group(opened: Browser) -> None:
    opened.choose("#filter", "wrong")
    name = opened.ask("document.querySelector('#hits a').textContent")
    opened.click("#hits a")
    opened.ask(TWO_FRAMES)
    assert opened.ask("location.hash") == f"#{name}" and opened.ask(AT) == name
    box = opened.ask(f"(b => [b.top, b.bottom])(document.getElementById('{name}').getBoundingClientRect())")
    covered = opened.ask("document.getElementById('tools').getBoundingClientRect().bottom")
    assert covered <= box[0] < box[1] <= 900, "in sight, below the tools with their list of hits"


def test_a_group_opens_by_click_and_its_samples_stand_side_by_side(opened: Browser) -> None:
    opened.click("#step-196 > summary")
    opened.ask(TWO_FRAMES)
    assert opened.ask("document.getElementById('step-196').open")
    box = "(b => [b.left, b.top])(a.getBoundingClientRect())"
    places = opened.ask(f"[...document.querySelectorAll('#step-196-prompt-0 article')].map(a => {box})")
    assert len(places) == 4 and len({top for _, top in places}) == 1
    lefts = [left for left, _ in places]
    assert lefts == sorted(lefts) and len(set(lefts)) == 4


def test_tokens_are_coloured_and_the_text_stays(opened: Browser) -> None:
    name = "step-0-prompt-99-sample-2"
    opened.ask(f"location.hash = '#{name}'")
    before = opened.ask(f"document.querySelector('#{name} pre.text').textContent")
    colours = {}
    for mode in ("ratio", "d", "s", "A", "none"):
        opened.choose("#colour", mode)
        opened.ask(TWO_FRAMES)
        colours[mode] = opened.ask(
            f"[...document.querySelectorAll('#{name} .token')].map(t => t.style.backgroundColor)"
        )
        assert opened.ask(f"document.querySelector('#{name} pre.text').textContent") == before
    # Differences +0.1 and -0.1, which is beyond the full colour of 0.05: blue, then orange. No advantages of tokens are known.
    blue, orange = "rgba(40, 110, 220, 0.75)", "rgba(235, 130, 20, 0.75)"
    assert colours["d"][0] == blue and colours["d"][-1] == orange and set(colours["d"]) == {blue, orange}
    assert set(colours["A"]) == set(colours["none"]) == {""}
    assert colours["ratio"][0].startswith("rgba(40, 110, 220") and colours["s"][0] != colours["s"][-1]
    opened.choose("#colour", "d")
    assert "trainer minus sampler 0.1\nratio 1.105" in str(
        opened.ask(f"document.querySelector('#{name} .token').title")
    )
    shown = opened.ask(
        f"[...document.querySelectorAll('#{name} .token')].filter(t => t.dataset.t === '0').map(t => t.textContent).join('')"
    )
    assert shown == HOSTILE[2][:3]


def test_keys(opened: Browser) -> None:
    for key, name in (("j", 0), ("j", 1), ("k", 0)):
        opened.key(key)
        assert opened.ask(AT) == opened.ask(f"document.querySelectorAll('#rollouts article')[{name}].id")
    step = opened.ask("document.querySelector('article.at').closest('.step').id")
    opened.key("n")
    assert opened.ask("document.querySelector('article.at').closest('.step').id") != step
    opened.key("t")
    assert opened.ask("document.getElementById('colour').value") == "A"
    opened.key("/")
    assert opened.ask("document.activeElement.id") == "search"


def test_values_under_the_pointer(opened: Browser) -> None:
    box = opened.ask(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('figure svg').getBoundingClientRect())"
    )
    # The middle of steps 0 to 199 lies at (44 + 125) / 300 of the width; step 100 or 99, where the rewards are about 0.5 and 0.25.
    opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] * 169.5 / 300, y=box[1] + box[3] / 2)
    assert opened.ask("document.querySelector('figcaption span').textContent") == "step 100: 0.5, the other 0.25"


def test_without_javascript_all_text_is_there(page: Path, browser: Browser) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.go("about:blank")
        browser.go(f"{page.as_uri()}#step-0-prompt-99-sample-0")
        assert browser.ask("document.getElementById('tools').childElementCount") == 0, "no script has run"
        assert browser.ask("document.getElementById('step-0').open"), "a link opens the step that it leads into"
        assert browser.ask("document.querySelector('#step-0-prompt-99-sample-0 pre').textContent") == HOSTILE[0]
        assert not browser.ask("document.getElementById('step-196').open")
        browser.click("#step-196 > summary")
        assert browser.ask("document.querySelector('#step-196 article pre').checkVisibility()")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
