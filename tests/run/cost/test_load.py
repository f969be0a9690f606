"""Sizes of a step and of a wave."""

from __future__ import annotations

from r1_lightning.run.cost.load import StepLoad, Wave


def test_by_hand() -> None:
    assert StepLoad(0, 0, 0, prompts=1.5, group_size=4, new_tokens=10).sampled_tokens == 60
    assert Wave(rows=8, prompts=2, prompt_tokens=30, new_tokens=10).length == 40
