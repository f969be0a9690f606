"""The most memory at one time that is said of each stage, against the tensors of the same stage in two real steps on the CPU.

Nothing here shares a formula with `run/cost`: every storage that a step makes is counted when it is made and when it is freed
(`tests/support/memory.py`). Nobody ends early, because completions are counted at their limit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from r1_lightning.evaluation import runner
from r1_lightning.evaluation.runner import EvaluationConfig, Evaluator
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.run.build.models import make_backbone
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.stage_config import resolved
from r1_lightning.run.cost.beside import described
from r1_lightning.run.cost.sampling_cost import EmptySampling
from r1_lightning.run.cost.stage_cost import EmptyStage
from r1_lightning.run.graph.node import Node
from tests.support.commands import SMALL_MODEL
from tests.support.memory import LiveTensors
from tests.support.miniature import trainer

WITHIN = 0.25
OWN = (*SMALL_MODEL, "model.d_model=64", "model.n_layers=4", "model.d_ff_dense=64", "model.d_ff_expert=32", "seed=0")
THEIRS = {
    "model_type": "qwen2",
    "vocab_size": 432,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
SMALL_TASK = ("task.tokenizer.vocab_size=300", "task.tokenizer.training_documents=50")
LORA = ("+model.lora.target_modules=[q_proj,v_proj]", "stage.reference_refresh_steps=0")
ROLLOUT = ("rollout.prompts_per_rollout=4", "rollout.group_size=8", "rollout.max_new_tokens=60")
SAMPLED = ("rollout=default", "rollout.max_new_tokens=60")
STAGES: dict[str, tuple[str, ...]] = {
    "pretrain": ("stage=pretrain", "data.rows_per_batch=16"),
    "sft": ("stage=sft", "data.examples_per_batch=16", "stage.max_steps=2", "data.row_tokens=128"),
    "sft in parts": ("stage=sft", "data.examples_per_batch=16", "data.micro_batches=4", "stage.max_steps=2"),
    "grpo": ("stage=grpo", *ROLLOUT, "rollout.micro_batches=1"),
    "grpo in parts": ("stage=grpo", *ROLLOUT, "rollout.micro_batches=4"),
    "grpo without a reference": ("stage=grpo", *ROLLOUT, "objective=dapo"),
    "ppo": ("stage=ppo", *ROLLOUT, "rollout.micro_batches=1"),
    "ppo in parts": ("stage=ppo", *ROLLOUT, "rollout.micro_batches=4"),
    "distill": ("stage=distill", "data.items_per_batch=24"),
    "distill a mixture": ("stage=distill", "objective=js", "data.items_per_batch=24"),
    "distill from a cache": ("stage=distill", "data=teacher_cache", "data.items_per_batch=24"),
    "distill on policy": ("stage=distill", "data=on_policy", "data.items_per_batch=24", *SAMPLED),
    "reward model": ("stage=reward_model", "data.items_per_batch=16"),
    "dpo": ("stage=dpo", "data.items_per_batch=16"),
    "safety model": ("stage=reward_model", "data=safety_labels", "objective=safety", "data.items_per_batch=16"),
}


QUICK = ("pretrain", "sft", "grpo", "distill", "distill on policy", "reward model")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STAGES]


@pytest.fixture(autouse=True)
def with_configs() -> Iterator[None]:
    with composing():
        yield


def examples(folder: Path) -> Path:
    rows = [{"question": f"What is {n} + {n}?", "completion": f"It is {2 * n}, " * (1 + n % 5)} for n in range(40)]
    path = folder / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def node_of(*overrides: str) -> Node:
    return Node(compose_stage(overrides), "0", {})


def config_of(node: Node, folder: Path, model: str) -> DictConfig:
    config = node.stage.config.copy()
    config.paths.root = str(folder)
    if config.get("data"):
        config.stage.max_steps = 2
    if config.get("data") and "examples" in config.data:
        config.data.examples.file = str(examples(folder))
    if model != "own":
        config.model.hf_config = THEIRS
    return resolved(config)


def models_of(model: str) -> tuple[str, ...]:
    """The overrides that choose the network."""
    if model == "own":
        return OWN
    return (f"model={model}", *SMALL_TASK, *(["model.lora.rank=4"] if model == "hf_lora" else []))


def real_parts(config: DictConfig, inputs: dict[str, Node]) -> dict[str, Any]:
    """The parts of a run, with a teacher that is loaded at its first use."""
    parts = build_parts(config, None)
    if "teacher" in inputs:
        rows = {"vocab_size": parts["tokenizer"].vocab_size}
        shape, precision = inject(described(inputs["teacher"]), rows), parts["backbone"].precision
        parts["teacher"] = Teacher(lambda: make_backbone(shape, precision), "t", rows["vocab_size"], "fp32")
    if "generate" in parts:
        parts["generate"].eos_id = -1  # nobody ends early
        unembed, size = parts["backbone"].unembed, parts["tokenizer"].vocab_size
        parts["backbone"].unembed = lambda hidden: _only(
            unembed(hidden), size
        )  # fresh weights draw rows that are no tokens
    return parts


def _only(logits: torch.Tensor, size: int) -> torch.Tensor:
    logits[..., size:] = -1e4
    return logits


def said_and_measured(name: str, model: str, folder: Path) -> tuple[int, int]:
    own = STAGES[name]
    lora = LORA[1:] if model == "hf_lora" and "stage=grpo" in own else ()
    config = config_of(node_of(*models_of(model), *own, *lora), folder, model)
    inputs = {"teacher": node_of(*OWN, "stage=pretrain", "model.n_layers=6")} if "stage=distill" in own else {}
    stage = EmptyStage.of(config, None, inputs)
    parts = real_parts(config, inputs)
    module, data = inject(config.stage, parts), inject(config.data, parts)
    before = [*module.parameters(), *module.buffers()]
    there = sum(tensor.numel() * tensor.element_size() for tensor in before)
    with LiveTensors(before) as live:
        trainer(2, folder, accumulate_grad_batches=getattr(data, "micro_batches", 1)).fit(module, data)
    return stage.peak_bytes(), live.peak + there


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_of_our_own_backbone(name: str, tmp_path: Path) -> None:
    said, measured = said_and_measured(name, "own", tmp_path)
    assert said == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_of_a_model_of_transformers(name: str, tmp_path: Path) -> None:
    said, measured = said_and_measured(name, "hf", tmp_path)
    assert said == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("model", ["own", "hf"])
def test_recomputed_blocks(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "sft", (*STAGES["sft"], "trainer.recompute=true"))
    said, measured = said_and_measured("sft", model, tmp_path)
    assert said == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("model", ["hf", pytest.param("hf_lora", marks=pytest.mark.slow)])
def test_bf16_of_a_model_of_transformers(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens and wide layers, so that the weights' copies in BF16 are a fifth of the peak."""
    if model == "hf_lora":
        pytest.importorskip("peft")
    monkeypatch.setattr(sys.modules[__name__], "THEIRS", {**THEIRS, "hidden_size": 256, "intermediate_size": 768})
    few = ("stage=sft", "data.examples_per_batch=4", "stage.max_steps=2", "data.row_tokens=128", "precision=bf16")
    monkeypatch.setitem(STAGES, "sft", few)
    said, measured = said_and_measured("sft", model, tmp_path)
    assert said == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("name", ["sft", *(pytest.param(x, marks=pytest.mark.slow) for x in ("grpo", "reward model"))])
def test_adapters(name: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    said, measured = said_and_measured(name, "hf_lora", tmp_path)
    assert said == pytest.approx(measured, rel=WITHIN)


@pytest.mark.parametrize("model", ["own", "hf"])
def test_a_stage_that_only_samples(model: str, tmp_path: Path) -> None:
    """A block of 16 problems with 8 samples each."""
    settings = ("stage=sample", "stage.problems=16", "rollout.max_new_tokens=60", "reward=r1_zero")
    config = config_of(node_of(*models_of(model), *settings), tmp_path, model)
    stage = EmptySampling.of(config, None, {"base": node_of(*models_of(model), "stage=pretrain")})
    parts = real_parts(config, {})
    backbone = parts["backbone"].eval()
    before = [*backbone.parameters(), *backbone.buffers()]
    with LiveTensors(before) as live:
        parts["generate"](stage.prompts, 8, rollout_keys(0, len(stage.prompts), 8))
    there = sum(tensor.numel() * tensor.element_size() for tensor in before)
    assert stage.peak_bytes() == pytest.approx(live.peak + there, rel=WITHIN)


@pytest.mark.slow
def test_a_comparison_is_its_largest_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deeper model's weights and its wave of 256 rows; the other is not there at the same time.

    The steps that are counted are the model's own; the native decoder takes less here.
    """
    monkeypatch.setattr(runner, "NativeSampler", Sampler)
    evaluation = "stage.evaluation={problems: 32, samples: 8, max_new_tokens: 60}"
    config = config_of(node_of(*SMALL_TASK, "stage=compare", evaluation), tmp_path, "own")
    inputs = {"small": node_of(*OWN, "stage=pretrain"), "deep": node_of(*OWN, "stage=pretrain", "model.n_layers=6")}
    stage = EmptySampling.of(config, None, inputs)
    parts = build_parts(config_of(inputs["deep"], tmp_path, "own"), None)
    backbone = parts["backbone"].eval()
    before = [*backbone.parameters(), *backbone.buffers()]
    problems = parts["source"].held_out_problems(32)
    settings = EvaluationConfig(32, 8, max_new_tokens=60)
    parts["tokenizer"].eos_ids  # noqa: B018 - read before the count begins
    evaluator = Evaluator(problems, parts["tokenizer"], parts["template"], settings, 0)
    with LiveTensors(before) as live:
        evaluator.completions(backbone)
    there = sum(tensor.numel() * tensor.element_size() for tensor in before)
    assert stage.peak_bytes() == pytest.approx(live.peak + there, rel=WITHIN)
    assert torch.is_grad_enabled()
