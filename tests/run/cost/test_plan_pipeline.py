"""The command that simulates pipeline schedules: its table, its drawings, its one line for what cannot be."""

from __future__ import annotations

import sys

import pytest

from r1_lightning.functional.pipeline import ChunkTimes
from r1_lightning.functional.pipeline_schedules import SCHEDULES
from r1_lightning.run.cost.plan_pipeline import drawing, main


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["r1 plan-pipeline", *arguments])
    code = main()
    out, err = capsys.readouterr()
    return code, out, err


def test_the_table(capsys, monkeypatch):
    """16 ranks, 60 micro-batches, F = I = W = 1: 45 of 225 are 20 %, 15 of 195 are 7.69 %, 14 of 194 are 7.22 %."""
    code, out, _ = said(capsys, monkeypatch, "--ranks", "16", "--micro-batches", "60", "--columns", "0")
    rows = [" ".join(line.split()) for line in out.splitlines()[3:6]]
    assert code == 0
    assert rows == [
        "1F1B (PP-1)(F+B) = 45 45 20.00% 1x 16",
        "ZB1P (PP-1)(F+B-2W) = 15 15 7.69% 1x 16",
        "DualPipe (PP/2-1)(F&B+B-3W) = 14 14 7.22% 2x 17",
    ]


def test_the_durations_are_those_given(capsys, monkeypatch):
    """4 ranks, F = 2, B = 5, W = 2, F&B = 7 by default: 3 x 7 = 21 of 8 x 7 + 21 = 77 are 27.27 %."""
    arguments = ("--ranks", "4", "--micro-batches", "8", "--forward", "2", "--backward", "5", "--weights", "2")
    _, out, _ = said(capsys, monkeypatch, *arguments, "--schedule", "1f1b")
    assert "F=2 B=5 W=2 F&B=7" in out and "(PP-1)(F+B) = 21" in out and "27.27%" in out
    assert "DualPipe" not in out
    _, out, _ = said(capsys, monkeypatch, *arguments, "--overlapped", "5.5", "--columns", "0")
    assert "F&B=5.5" in out


def test_a_drawing_by_hand():
    """2 ranks, 2 micro-batches, F = 1, B = 2: a chunk of 1 is two characters wide, the end at 9 is the 18th."""
    timeline = SCHEDULES["1f1b"].run(2, 2, ChunkTimes())
    assert list(drawing(timeline, 80)) == ["rank 0 F0F1....B0--..B1--", "rank 1 ..F0B0--F1B1--...."]
    assert list(drawing(timeline, 12)) == ["rank 0 F0F1…", "rank 1 ..F0…"]


def test_what_overlaps_is_joined_and_the_other_direction_is_small():
    rank_0, rank_1 = drawing(SCHEDULES["dualpipe"].run(2, 4, ChunkTimes()), 80)
    assert rank_0 == "rank 0 F0f0F1b0--f1&B0-b1--I1W1"
    assert rank_1 == "rank 1 f0F0f1B0--F1&b0-B1--i1w1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--ranks", "3"), "error: ranks=3 is not allowed: DualPipe needs an even number"),
        (
            ("--micro-batches", "15"),
            "error: micro_batches=15 is not allowed: DualPipe needs an even number of at least 16",
        ),
        (("--weights", "3"), "error: weights=3.0 is not allowed: it must be a number of at least 0.0 and at most 2.0"),
        (("--columns", "-1"), "error: --columns=-1 is not allowed: it must be a whole number of at least 0"),
    ],
)
def test_bad_input_is_one_line(arguments, says, capsys, monkeypatch):
    code, out, err = said(capsys, monkeypatch, *arguments)
    assert code == 2 and out == "" and err.startswith(says) and err.count("\n") == 1
