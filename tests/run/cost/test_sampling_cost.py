"""Sampling by hand: what takes turns, and stages that cannot be counted. `test_measured.py` compares with real tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r1_lightning.artefacts.hf_folder import import_model
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from r1_lightning.run.cost.sampling_cost import EmptySampling, Memory, sampling_bytes
from r1_lightning.types.errors import InvalidInput
from tests.support.hf_folders import dense_folder


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


def test_a_comparison_asks_a_checkpoint_as_the_run_does(tmp_path: Path) -> None:
    """With the task's instruction, or in the checkpoint's own template; one that has none is refused, as in the run."""
    found = {"qwen": import_model(dense_folder(tmp_path / "qwen", "qwen2"))}
    with composing():
        plain, boxed, own = (
            resolved(compose_stage(["stage=compare", *more]).config)
            for more in ((), ("+task.instruction=boxed",), ("task.template=checkpoint",))
        )
    lengths = [max(map(len, EmptySampling.of(config, None, found).prompts)) for config in (plain, boxed)]
    assert lengths[0] < lengths[1]
    assert EmptySampling.of(own, None, found).prompts
    settings = tmp_path / "qwen" / "tokenizer_config.json"
    without = {key: value for key, value in json.loads(settings.read_text()).items() if key != "chat_template"}
    settings.write_text(json.dumps(without))
    with pytest.raises(InvalidInput, match=r"task\.template=checkpoint is not allowed: .* hold no chat template"):
        EmptySampling.of(own, None, found)


def test_nothing_to_compare() -> None:
    config = OmegaConf.create({"stage": {"_target_": "r1_lightning.evaluation.comparison.Comparison"}})
    with pytest.raises(InvalidInput, match=r"stage\.inputs=\{\} is not allowed: it needs a model"):
        EmptySampling.of(config, None, {})
