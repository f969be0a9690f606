"""Sampling by hand: what takes turns, and stages that cannot be counted. `test_measured.py` compares with real tensors."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from r1_lightning.run.cost.sampling_cost import EmptySampling, Memory, sampling_bytes
from r1_lightning.types.errors import InvalidInput


def test_reading_prompts_and_drawing_take_turns() -> None:
    cache, step = Memory("latent cache, sampling", 100, ""), Memory("decoding step, sampling", 7, "")
    reading, drawing = Memory("prefill, sampling", 30, ""), Memory("logits, sampling", 20, "")
    assert sampling_bytes([cache, reading, drawing]) == 130 and sampling_bytes([cache, step, reading, drawing]) == 130
    assert sampling_bytes([cache, step, drawing]) == 127 and sampling_bytes([]) == 0


class Other:
    """Somebody's own stage."""


def test_a_stage_that_is_not_ours_is_refused_in_one_line() -> None:
    config = OmegaConf.create({"stage": {"_target_": f"{__name__}.Other"}})
    with pytest.raises(InvalidInput, match=r"what .*Other takes is not known"):
        EmptySampling.of(config, None, {})


def test_nothing_to_compare() -> None:
    config = OmegaConf.create({"stage": {"_target_": "r1_lightning.evaluation.comparison.Comparison"}})
    with pytest.raises(InvalidInput, match=r"stage\.inputs=\{\} is not allowed: it needs a model"):
        EmptySampling.of(config, None, {})
