"""The benchmark of saving: a rehearsal on a small state."""

from __future__ import annotations

import pytest

from benchmarks.saving import main, run


def test_it_saves_as_often_as_asked() -> None:
    """Four of five steps: after the last one nothing is saved."""
    assert [run(kind, 5, 5, 1, 1)[2] for kind in ("none", "sync", "async")] == [0, 4, 4]


@pytest.mark.slow
def test_a_rehearsal_prints_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", "1", "--mb", "5", "--steps", "3", "--every", "1", "--rows", "1", "--busy-disk"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["load", "warm-up: a step", "a step"]
    names += [f"{what}, {kind}: median" for what in ("waits", "costs") for kind in ("sync", "async")]
    assert [line.startswith(name) for line, name in zip(lines, names, strict=True)] == [True] * len(names)
