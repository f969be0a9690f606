"""The lines of `r1 plan-pipeline --gpus`: the numbers of the arithmetic, in their units."""

from __future__ import annotations

import sys

import pytest

from r1_lightning.run.cost.plan_pipeline import main


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["r1 plan-pipeline", *arguments])
    code = main()
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), err


def test_v3s_own_layout(capsys, monkeypatch):
    """A step of 15,360 x 4,096 = 62.9 M tokens at 180,000 h per 1e12: 0.648 GPU s per 1,000 tokens, 40,768 GPU s, 19.9 s on 2,048.

    All-to-all: 4 layers x 4,096 tokens x 86,912 B = 1.42 GB a chunk, 28.5 ms at 50 GB/s; 240 chunks are 6.84 s, 34 % of a step.
    Bubble: 7 x (3 + 2 - 3) = 14 of 120 x 3 + 14 = 374.
    """
    code, out, _ = said(
        capsys, monkeypatch, "--gpus", "2048", "--ranks", "16", "--weights-type", "fp8", "--gpu-hours", "180000"
    )
    assert code == 0
    for part in (
        "2,048 GPUs: 16 stages (DualPipe) x 64 ranks of experts x 2 replicas",
        "120 micro-batches of one sequence",
        "bubble 3.74%",
        "dispatch 29,568 B",
        "combine 57,344 B",
        "a forward chunk 1.42 GB per GPU; 28.5 ms at 50 GB/s",
        "per GPU; 6.84 s",
        "13 experts per token",  # V3 section 3.2.2: 4 nodes x 3.2 experts
        "a step 19.91 s",
        "34% of a step",
        "cache 70,272 B per token",
    ):
        assert part in out


def test_another_model_and_schedule(capsys, monkeypatch):
    """Moonlight has 64 experts in 26 layers and no limit of nodes; 8 ranks of experts are one node, and nothing is sent."""
    arguments = (
        "--model",
        "moonlight_16b",
        "--gpus",
        "16",
        "--ranks",
        "2",
        "--expert-ranks",
        "8",
        "--schedule",
        "1f1b",
    )
    code, out, _ = said(capsys, monkeypatch, *arguments, "--sequences", "64")
    assert code == 0 and "moonlight_16b on 16 GPUs: 2 stages (1F1B)" in out and "dispatch 0 B" in out
    assert "8 micro-batches" in out and "(PP-1)(F+B)" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--gpus", "100"), "error: gpus=100 is not allowed: it must be a multiple of 512"),
        (("--gpus", "2048", "--micro-batches", "8"), "error: --micro-batches=8 is not allowed: with --gpus it follows"),
        (
            ("--gpus", "2048", "--schedule", "1f1b", "--schedule", "zb1p"),
            "error: --schedule=['1f1b', 'zb1p'] is not allowed: with --gpus it is one",
        ),
        (
            ("--model", "moonlight_16b", "--gpus", "2048", "--sampling-gpus", "0", "--ranks", "4"),
            "error: --sampling-gpus=0 is not allowed",
        ),
        (
            ("--model", "moonlight_16b", "--gpus", "2048", "--gpu-hours", "0", "--ranks", "4"),
            "error: --gpu-hours=0.0 is not allowed",
        ),
    ],
)
def test_bad_input_is_one_line(arguments, says, capsys, monkeypatch):
    code, _, err = said(capsys, monkeypatch, *arguments)
    assert code == 2 and err.startswith(says) and err.count("\n") == 1
