"""The page as a whole: all parts, one file without addresses, a policy that fits, hostile files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from r1_lightning.review.bands import Band, Outside
from r1_lightning.review.page.document import look, page, write_page
from r1_lightning.types.errors import InvalidInput
from tests.review.page.examples import make_run, write_hostile
from tests.support.example_records import write_example_records

ADDRESSES = ("src", "action", "data", "poster", "background", "srcset", "ping", "formaction", "xlink:href")
VOID = {"meta", "br", "input"}


class _Read(HTMLParser):
    """Tags with their attributes; text; whether every element is closed in its turn."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and tag not in ("polyline", "polygon", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path)
    write_example_records(folder, range(0, 10, 2), groups=2, samples=4, evaluated=[10])
    return folder


def test_the_verdict_comes_first_and_every_part_is_there(run: Path) -> None:
    read = _Read(page(look(run)))
    assert read.open == []
    sentence = look(run).review.verdict.sentence
    assert read.text.index(sentence) < read.text.index("Curves")
    for words in ("rollout/reward_mean", "rollout after 8 steps", "held-out evaluation val after 10 steps", "optim.lr"):
        assert words in read.text
    for words in ("base:  pretrain", "sampling and judging", "platformLinux <x>", "pass_at_1  0.25  <b>0.75</b>"):
        assert words in read.text


def test_it_needs_no_network_and_its_policy_allows_its_own_script_alone(run: Path) -> None:
    source = page(look(run))
    read = _Read(source)
    assert not re.search(r"https?:|url\(|@import", re.sub(r"<pre.*?</pre>", "", source, flags=re.S))
    assert [tag for tag, attributes in read.tags if set(attributes) & {*ADDRESSES, "style"}] == []
    assert all(name.startswith("#") for _, attributes in read.tags if (name := attributes.get("href") or "#"))
    assert [name for _, attributes in read.tags for name in attributes if name.startswith("on")] == []
    (policy,) = [
        attributes["content"]
        for _, attributes in read.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    for kind, pattern in (("script", r"<script>(.*?)</script>"), ("style", r"<style>(.*?)</style>")):
        (content,) = re.findall(pattern, source, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert source.index("charset") < source.index("Content-Security-Policy") < source.index("<title>")


def test_numbers_of_all_samples_stand_in_the_page(run: Path) -> None:
    source = page(look(run))
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', source)
    data = json.loads(block)
    assert len(data["samples"]) == source.count("<article") == 5 * 8 + 8
    assert len(data["curves"]) == 5


def test_what_lies_outside_the_band_is_told(run: Path) -> None:
    seen = look(run)
    left = Outside("rollout/reward_mean", 5, 0.25, 0.5, 0.75)
    told = replace(seen.review, outside=[left], unlike=["optim.lr=<i>0.1"], band=Band("x", (0, 1, 2), {}))
    source = page(replace(seen, review=told))
    text = _Read(source).text
    assert "rollout/reward_mean50.250.5 to 0.75" in text and "Other settings than the band's: optim.lr=<i>0.1." in text
    assert source.count('class="left"') == 1


def test_two_runs(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path, "grpo-x-0000000002", gain=0.5, optim={"lr": 3e-4})
    write_example_records(other, [4], groups=2, samples=4, reward=0.0)
    read = _Read(page(look(run), look(other)))
    assert (
        "grpo-x-seed0 grpo-x-0000000001 beside grpo-x-seed0 grpo-x-0000000002" in read.text
        and "The other run: " in read.text
    )
    assert "optim.lr0.00010.0003" in read.text and "2 of 2 prompts that both have records of" in read.text
    assert sum(attributes.get("class") == "other" and tag == "polyline" for tag, attributes in read.tags) >= 1


def test_hostile_completions_are_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "grpo-<script>-0000000001", steps=200)
    write_hostile(folder, every=100)
    source = page(look(folder))
    assert [match for match in re.findall(r"<(?:script|style|img|svg)[^>]*", source) if "viewBox" not in match] == [
        "<style", '<script type="application/json" id="data"', "<script",
    ]  # fmt: skip
    assert "window.HIT" in source and "\0" not in source and "\u202e" not in source
    assert len(source.encode()) < 10_000_000


def test_records_with_a_bad_line_are_shown_up_to_it(run: Path) -> None:
    path = run / "rollouts.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:9], '{"step": "<x>"}\n', *lines[9:]]))
    read = _Read(page(look(run)))
    assert "The records end early: " in read.text and "rollouts.jsonl, line 10" in read.text
    assert "8 of 8 recorded completions" in read.text


def test_a_run_without_records_or_curves(tmp_path: Path) -> None:
    folder = make_run(tmp_path, steps=0)
    text = _Read(page(look(folder))).text
    assert "This run left no records of its completions." in text and "This run logged nothing that moves." in text


def test_writing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert write_page(look(run), None, out) == out.stat().st_size
    with pytest.raises(InvalidInput, match="it must be the folder of a run"):
        look(tmp_path)
