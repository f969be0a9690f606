"""A bar for a person, lines for a log."""

from __future__ import annotations

import io
import sys

import pytest

from r1_lightning.artefacts import progress as module
from r1_lightning.artefacts.progress import Lines, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, every_s: float = 20.0, total: int = 50) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module, "EVERY_S", every_s)
    with progress(total, "evaluating base", "completion") as bar:
        for _ in range(total):
            bar.update()
    return stream.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = work(monkeypatch, Terminal())
    assert "\r" in text and "evaluating base: 100%|" in text and "50/50" in text


def test_a_log_gets_its_first_and_last_line_and_no_carriage_return(monkeypatch: pytest.MonkeyPatch) -> None:
    text = work(monkeypatch, io.StringIO())
    lines = text.splitlines()
    assert "\r" not in text and text.endswith("\n") and len(lines) == 2
    assert lines[0].startswith("evaluating base: 0/50, 0%") and lines[-1].startswith("evaluating base: 50/50, 100%")


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = work(monkeypatch, io.StringIO(), every_s=0.0).splitlines()
    assert len(lines) == len(set(lines)) > 10 and all("elapsed" in line and "left" in line for line in lines)


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (["\ra", "\rb"], "a\nb\n"),
        (["\ra  ", "\ra"], "a\n"),
        (["\n", "", "\r"], ""),
        (["a\n", "b\n", "a\n"], "a\nb\na\n"),
        (["\r     ", "\rend", "\n"], "end\n"),
    ],
)
def test_lines(written: list[str], lines: str) -> None:
    stream = io.StringIO()
    one = Lines(stream)
    for text in written:
        one.write(text)
    one.flush()
    assert stream.getvalue() == lines


def test_work_that_was_begun_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(10, "sampling", "completion", 4) as bar:
        bar.update(6)
    assert stream.getvalue().startswith("sampling: 4/10, 40%")
