"""Seconds per GRPO step: our Lightning stage against TRL's GRPOTrainer.

A step is everything: prompts out of the data, sampling, decoding, rewards, group-relative advantages, log-probs of a frozen
reference, the clipped objective with k3 KL, backward, gradient clipping, AdamW, and each trainer's own bookkeeping.

Equal on both sides: the weights, of the policy and of the reference, and their type (FP32; with BF16 each side's own mixed
precision); the problems, in the same order, and their token ids; `prompts` x `group_size` completions of exactly `new_tokens`
tokens; temperature 1, the whole vocabulary; one optimizer step per rollout; the objective of DeepSeekMath eq 3 (TRL:
loss_type=grpo, beta=0.001, KL not reweighted), clip 0.2; learning rate, betas, weight decay, gradient norm; the rewarding rule;
no logger, no progress bar, no checkpoint. Each measurement starts from the same weights, and its first step warms up.
Checked, not only asked for: the weights, the prompts, the number of completions judged, their lengths, that weights moved.
Not equal: the end of sequence never comes, here because no token is called so, there because `min_new_tokens` forbids it;
the ratio's old log-probs are the sampler's here, TRL takes the training forward's own (detached), which is right for one update;
TRL divides advantages by the sample standard deviation. TRL's gradient checkpointing is off (it only costs time at this size).
Tried, the best taken: ours, the length of packed rows; theirs, the per-device batch (gradient accumulation makes up the rest)
and how transformers runs experts, in the reference, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
from datasets import Dataset
from hydra.utils import instantiate
from torch import Tensor, nn
from transformers import AutoTokenizer, DeepseekV3ForCausalLM, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.pairs import Contest, Measurement
from benchmarks.setting import EXPERTS, NEVER, World
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.types.errors import require
from r1_lightning.types.text import Completion, Problem, Verdict

WORK = "GRPO step"
WARM_UP_STEPS = 1
MEASURED_STEPS = 1
STEPS = WARM_UP_STEPS + MEASURED_STEPS


def contest(world: World) -> Contest:
    """Seconds per GRPO step."""
    size = world.size
    return Contest(
        work=f"{WORK}, {size.prompts} prompts x {size.group_size} completions x {size.new_tokens} tokens",
        precision=world.precision,
        unit="s/step",
        opponent="TRL",
        ours={f"rows of {row_tokens}": _ours(world, row_tokens) for row_tokens in _long_enough(world)},
        theirs={
            f"batch {batch}, experts={experts}": _theirs(world, batch, experts)
            for batch in size.trl_batches
            for experts in EXPERTS
        },
    )


@dataclass
class Witness:
    """What happened during a measurement: when steps ended, how many completions were judged, how many had what length."""

    step_ends_s: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def reward(self, text: str, n_tokens: int) -> float:
        """The rewarding rule of both sides: 1 for a text of an even number of characters, which half of them have."""
        self.lengths.append(n_tokens)
        return float(len(text) % 2 == 0)

    def seconds_per_step(self, world: World) -> float:
        """Mean time from the end of the warm-up to the end of the last step, after checking that the work was done."""
        size = world.size
        require(len(self.step_ends_s) == STEPS, "optimizer steps", len(self.step_ends_s), f"{STEPS} were asked for")
        wanted = [size.new_tokens] * size.completions * STEPS
        require(self.lengths == wanted, "judged completions", len(self.lengths), f"{len(wanted)} of full length")
        return (self.step_ends_s[-1] - self.step_ends_s[WARM_UP_STEPS - 1]) / MEASURED_STEPS


# ------------------------------------------------------------------------------------------------------------------ ours


@dataclass
class _Reward:
    """The rule as a reward function of ours."""

    witness: Witness
    name: str = "rule"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(self.witness.reward(completion.text, completion.n_tokens), "number of characters")


class _LightningClock(L.Callback):
    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def on_train_batch_end(self, *_: Any) -> None:
        self.witness.step_ends_s.append(time.perf_counter())


def _ours(world: World, row_tokens: int) -> Measurement:
    def measure() -> float:
        witness, backbone, parts, seed = Witness(), world.backbone(), world.parts, world.config.seed
        rollout, tokenizer = replace(parts["rollout"], row_tokens=row_tokens), parts["tokenizer"]
        sampler = Sampler(backbone, rollout.sampling, NEVER, tokenizer.pad_id, seed, rollout.max_rows)
        data = GroupedRolloutsDataModule(
            parts["source"],
            tokenizer,
            parts["template"],
            sampler,
            WeightedSum([_Reward(witness)]),
            rollout,
            seed,
            STEPS,
        )
        objective = instantiate(world.config.stage.objective)
        module = GRPOModule(
            backbone, parts["optim"], objective, STEPS, rollout.sampling_temperature, reference_refresh_steps=0
        )
        has_moved = _movement(backbone)
        _lightning_trainer(witness).fit(module, datamodule=data)
        _check_moved(has_moved())
        return witness.seconds_per_step(world)

    return measure


def _lightning_trainer(witness: Witness) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        max_epochs=1,
        logger=False,
        callbacks=[_LightningClock(witness)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def _long_enough(world: World) -> list[int]:
    """The candidates for the length of packed rows that hold the longest prompt with its completion."""
    longest = max(map(len, world.prompt_ids(STEPS))) + world.size.new_tokens
    return [row_tokens for row_tokens in world.size.row_tokens if row_tokens >= longest]


# ---------------------------------------------------------------------------------------------------------------- theirs


class _TrlClock(TrainerCallback):
    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.witness.step_ends_s.append(time.perf_counter())


def _theirs(world: World, batch: int, experts: str) -> Measurement:
    def measure() -> float:
        witness = Witness()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            world.save_hf(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
            _check_same_prompts(world, tokenizer)
            model = DeepseekV3ForCausalLM.from_pretrained(folder)
            model.set_experts_implementation(experts)
            trainer = _trl_trainer(world, model, tokenizer, witness, _grpo_config(world, batch, folder / "out"))
            trainer.ref_model.set_experts_implementation(experts)
            _check_same_weights(world, model, trainer.ref_model)
            has_moved = _movement(model)
            trainer.train()
            _check_moved(has_moved())
        return witness.seconds_per_step(world)

    return measure


def _trl_trainer(world: World, model: Any, tokenizer: Any, witness: Witness, config: GRPOConfig) -> GRPOTrainer:
    def rule(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [witness.reward(text, len(ids)) for text, ids in zip(completions, completion_ids, strict=True)]

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=rule,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": world.prompts(STEPS)}),
        processing_class=tokenizer,
        callbacks=[_TrlClock(witness)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _grpo_config(world: World, batch: int, folder: Path) -> GRPOConfig:
    size, optim, objective = world.size, world.parts["optim"], world.config.stage.objective
    return GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=world.precision == "bf16",
        gradient_checkpointing=False,
        seed=world.config.seed,
        max_steps=STEPS,
        # what is drawn
        num_generations=size.group_size,
        generation_batch_size=size.completions,
        max_completion_length=size.new_tokens,
        generation_kwargs={"min_new_tokens": size.new_tokens},
        temperature=world.parts["rollout"].sampling_temperature,
        shuffle_dataset=False,
        # what is learnt
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=size.completions // batch,
        num_iterations=1,
        loss_type="grpo",
        beta=objective.kl_coef,
        epsilon=objective.clip_eps,
        use_bias_correction_kl=False,
        scale_rewards="group",
        learning_rate=optim.lr,
        lr_scheduler_type="constant",
        adam_beta1=optim.beta1,
        adam_beta2=optim.beta2,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        optim="adamw_torch_fused",
        # what is shown and kept: nothing
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )


def _check_same_weights(world: World, *models: Any) -> None:
    """Policy and reference have gone through a file, in which experts lie apart."""
    wanted = world.hf_model(EXPERTS[0]).state_dict()
    for model in models:
        state = model.state_dict()
        differ = [name for name, tensor in wanted.items() if name not in state or not state[name].equal(tensor)]
        require(not differ, "weights", differ[:1], "TRL's models must hold the shared ones")


def _check_same_prompts(world: World, tokenizer: Any) -> None:
    theirs = tokenizer(text=world.prompts(STEPS))["input_ids"]
    require(theirs == world.prompt_ids(STEPS), "prompts", "different token ids", "both sides must see the same ones")


# ---------------------------------------------------------------------------------------------------------- both sides


def _movement(model: nn.Module) -> Callable[[], bool]:
    """Call it after training: whether any weight differs from what it is now."""
    before: list[Tensor] = [parameter.detach().clone() for parameter in model.parameters()]

    def has_moved() -> bool:
        return any(not after.equal(then) for after, then in zip(model.parameters(), before, strict=True))

    return has_moved


def _check_moved(moved: bool) -> None:
    require(moved, "weights", "unchanged", "an optimizer step must move them")
