"""The cost of PPO's value model: what it holds by hand, and FLOPs beside those of GRPO's step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import DictConfig

from r1_lightning.model import cost
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import resolved
from r1_lightning.run.cost.stage_cost import EmptyStage
from tests.support.commands import SMALL_MODEL

ROLLOUT = ("rollout.prompts_per_rollout=4", "rollout.group_size=4", "rollout.minibatches_per_rollout=2")


@pytest.fixture(autouse=True)
def with_configs() -> Iterator[None]:
    with composing():
        yield


def empty(*overrides: str) -> EmptyStage:
    config: DictConfig = resolved(compose_stage([*SMALL_MODEL, *ROLLOUT, *overrides]).config)
    return EmptyStage.of(config, None)


def sizes(lines: list[Any]) -> dict[str, int]:
    return {line.name: line.size for line in lines}


def test_memory_is_grpos_and_a_second_network() -> None:
    """Weights once; gradients and AdamW's two moments for what the values go through: no MTP module, no output head (300 x 16)."""
    grpo, ppo = empty("stage=grpo"), empty("stage=ppo")
    held, more = sizes(grpo.lasting_memory()), sizes(ppo.lasting_memory())
    value_model = more.pop("value model")
    assert more == held
    counts = ppo.network.parameters()
    trained = 4 * (counts.total - counts.mtp - counts.head + 16)  # the scalar head: 16 weights
    buffers = cost.tensor_bytes(ppo.critic) - cost.parameter_bytes(ppo.critic)
    assert value_model == 4 * (counts.total + 16) + buffers + 3 * trained
    update, with_values = sizes(grpo.update_memory()), sizes(ppo.update_memory())
    assert with_values.pop("activations, value model") == update["activations, update"]
    assert with_values == update


def test_a_checkpoints_copy_holds_both() -> None:
    line = "checkpoint, while it is written"
    grpo, ppo = (empty(f"stage={stage}", "trainer=cpu", "trainer.checkpoint_async=true") for stage in ("grpo", "ppo"))
    counts = ppo.network.parameters()
    theirs = cost.tensor_bytes(ppo.critic) + 2 * 4 * (counts.total - counts.mtp - counts.head + 16)
    assert sizes(ppo.lasting_memory())[line] == sizes(grpo.lasting_memory())[line] + theirs


def test_recomputed_and_in_bf16() -> None:
    grpo, ppo = (empty(f"stage={stage}", "trainer.recompute=true", "precision=bf16") for stage in ("grpo", "ppo"))
    update, with_values = sizes(grpo.update_memory()), sizes(ppo.update_memory())
    assert with_values.pop("activations, value model") == update["activations, update"]
    assert with_values.pop("value model in BF16") == update["weights in BF16, update"]
    assert with_values == update


def test_flops_beside_grpos() -> None:
    """Values once and an update three times a forward without the head's 2 x 300 x 16 per completion token; the rest is GRPO's."""
    grpo, ppo = empty("stage=grpo"), empty("stage=ppo")
    load = ppo.load()
    work, more = ({line.name: line.flops for line in stage.work(load)} for stage in (grpo, ppo))
    values, update = more.pop("values"), more.pop("value model's update")
    assert more == work
    assert values == pytest.approx(work["reference"] - 2 * 300 * 16 * load.targets)
    assert update == pytest.approx(3 * values)


def test_other_stages_have_none() -> None:
    stage = empty("stage=grpo")
    assert stage.critic is None and "value model" not in sizes(stage.lasting_memory())
