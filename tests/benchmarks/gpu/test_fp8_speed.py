"""The rows of FP8's speed by hand, the width where it breaks even, and that what is timed is the whole work."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.gpu import fp8_speed
from benchmarks.gpu.device import Limits, Meter
from benchmarks.gpu.formulas import training_flops_per_token
from benchmarks.gpu.fp8_speed import break_even
from benchmarks.gpu.parts import tiny_plan
from r1_lightning.model.fp8_precision import FP8Precision

PLAN = tiny_plan()
CPU = Meter(torch.device("cpu"))
SIZE, CONFIGS = PLAN.fp8_size, PLAN.fp8_widths


def limits() -> Limits:
    return Limits(bf16_flops_per_s=1e9, bytes_per_s=1e6, source="a test")


def timed(monkeypatch: pytest.MonkeyPatch, *seconds: float | Exception) -> None:
    """Each measurement is said to have taken so long, of works of 1,000 FLOPs per token; nothing is computed."""
    left = list(seconds)

    def measured(self: Meter, call: Any, warm_up: int, repeats: int) -> float:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(Meter, "seconds_per_call", measured)
    monkeypatch.setattr(fp8_speed.gc, "collect", lambda: 0)  # slow among so many modules
    for prepare in ("block_pass", "step_pass"):
        monkeypatch.setattr(fp8_speed, prepare, lambda *given: (None, 1000.0))


def test_rows_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 tokens. Blocks: BF16 0.5 s, FP8 1 s, then 0.5 and 0.25; steps: 0.5 s each. BF16 comes first."""
    timed(monkeypatch, 0.5, 1.0, 0.5, 0.25, 0.5, 0.5, 0.5, 0.5)
    narrow, wide, even, step, _, even_steps = fp8_speed.measure("emulate", CONFIGS, SIZE, CPU, limits)
    assert narrow.work == "FP8 by emulate beside BF16, dense, 2 rows x 16 tokens: block, width 64"
    assert (narrow.value, wide.value) == (32.0, 128.0)
    assert narrow.details["bf16_tokens_per_s"] == 64.0 and narrow.beside.endswith(": 0.50x")
    assert (even.value, even.unit) == (2.0, "x BF16 at width 128")
    # from 0.5 at 64 to 2 at 128: a third of the way, 64 x 2^(1/3) = 80.6
    assert even.details["break_even_width"] == pytest.approx(80.635, abs=1e-3)
    assert even.beside == "not slower from width 81 on; others report 1.41x"
    assert narrow.details["mfu"] == pytest.approx(32 * 1000 / 1e9) and narrow.beside.startswith("MFU 0.0%; BF16 64 tok")
    assert step.details["mfu"] == pytest.approx(64 * 1000 / 1e9) == step.details["bf16_mfu"]
    assert even_steps.beside == "not slower from width 64 on; others report 1.28x at most"


def test_useful_work_of_a_block_by_hand() -> None:
    """Width 64: MLA as in test_attention_row_by_hand; feed-forward of 3 x 64 x 192 (18432 x 64 / 7168 = 164.6, in steps of 64)."""
    run, flops = fp8_speed.block_pass(CONFIGS[0], SIZE, CPU.device, FP8Precision("emulate"))
    weights = 64 * 64 + 64 * 192 + 64 * 80 + 16 * 256 + 128 * 64 + 3 * 64 * 192
    assert flops == 6 * (weights + (16 + 1) / 2 * (192 + 128))
    run()


@pytest.mark.slow
def test_a_step_is_one_of_pre_training_in_fp8() -> None:
    run, flops = fp8_speed.step_pass(CONFIGS[0], SIZE, CPU.device, FP8Precision("emulate"))
    assert flops == training_flops_per_token(CONFIGS[0], SIZE.row_tokens)
    run()


def test_a_pass_reaches_every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = fp8_speed.draw_weights

    def remembered(module: Any, std: float) -> None:
        made.append(module)
        original(module, std)

    monkeypatch.setattr(fp8_speed, "draw_weights", remembered)
    run, _ = fp8_speed.block_pass(CONFIGS[0], SIZE, CPU.device, FP8Precision("emulate"))
    run()
    assert all(p.grad is not None and bool(p.grad.any()) for p in made[0].parameters())
    assert {type(part).__name__ for part in made[0].modules()} >= {"FP8Linear"}


def test_widths_without_memory_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 0.5, 0.5, torch.OutOfMemoryError("x"), 0.5, 1.0, torch.OutOfMemoryError("x"))
    rows = list(fp8_speed.measure("emulate", CONFIGS, SIZE, CPU, limits))
    assert [row.not_run for row in rows] == ["", "out of memory", "", "", "out of memory", ""]
    assert rows[2].unit == "x BF16 at width 64" and rows[5].beside.startswith("slower at the widest")


def test_break_even() -> None:
    assert break_even({1024: 1.1, 2048: 1.2}) == 1024.0
    assert break_even({1024: 0.8, 2048: 0.9}) is None
    # a dip after the first gain counts: half way between 2048 and 4096 in log2
    assert break_even({1024: 1.1, 4096: 1.1, 2048: 0.9}) == pytest.approx(2048 * 2**0.5)


def test_a_backend_that_cannot_be_had_says_why() -> None:
    (row,) = fp8_speed.measure("te", CONFIGS, SIZE, CPU, limits)
    assert row.value is None and "no GPU" in row.not_run
