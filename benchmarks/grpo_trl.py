"""TRL's side of the GRPO contests (see `grpo_step.py`)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    PrinterCallback,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from benchmarks.grpo_work import STEPS, Witness, Work, check_moved, movement
from benchmarks.pairs import Measurement
from benchmarks.setting import EXPERTS, World
from r1_lightning.types.errors import require


class _TrlClock(TrainerCallback):
    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.witness.step_ended()


def measurement(world: World, work: Work, batch: int, experts: str, device_type: str = "cpu") -> Measurement:
    """Seconds per step with a per-device batch of `batch` rows and transformers' `experts`, on the CPU or TRL's own choice."""

    def measure() -> float:
        witness = Witness()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            world.save_hf(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
            _check_same_prompts(world, tokenizer)
            model = world.load_hf(folder, experts)
            _force_lengths(model, work, tokenizer.eos_token_id)
            trainer = _trl_trainer(
                world, model, tokenizer, witness, _grpo_config(world, batch, folder / "out", device_type)
            )
            trainer.ref_model.set_experts_implementation(experts)
            _check_same_weights(world, model, trainer.ref_model)
            has_moved = movement(model)
            trainer.train()
            check_moved(has_moved())
        return witness.seconds_per_step(work)

    return measure


class _EndAt(LogitsProcessor):
    """Allows the end of sequence to row i at its `lengths[i]`-th new token, and then nothing else."""

    def __init__(self, lengths: Tensor, prompt_tokens: int, eos_id: int) -> None:
        self.lengths, self.prompt_tokens, self.eos_id = lengths, prompt_tokens, eos_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ends = self.lengths.to(scores.device) == input_ids.shape[1] - self.prompt_tokens + 1
        is_end = torch.arange(scores.shape[1], device=scores.device) == self.eos_id
        return scores.masked_fill(ends[:, None] != is_end, -torch.inf)


def _force_lengths(model: Any, work: Work, eos_id: int) -> None:
    """Give `model.generate`, which TRL calls with the whole rollout, a processor that ends each row at its length."""
    generate, lengths = model.generate, torch.tensor(work.lengths)

    def forced(input_ids: Tensor, **arguments: Any) -> Any:
        require(len(input_ids) == len(lengths), "rows per call", len(input_ids), f"{len(lengths)} were expected")
        processor = LogitsProcessorList([_EndAt(lengths, input_ids.shape[1], eos_id)])
        return generate(input_ids=input_ids, logits_processor=processor, **arguments)

    model.generate = forced


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


def _grpo_config(world: World, batch: int, folder: Path, device_type: str) -> GRPOConfig:
    size, optim, objective = world.size, world.parts["optim"], world.config.stage.objective
    return GRPOConfig(
        output_dir=str(folder),
        use_cpu=device_type == "cpu",
        bf16=world.precision == "bf16",
        gradient_checkpointing=False,
        seed=world.config.seed,
        max_steps=STEPS,
        # what is drawn
        num_generations=size.group_size,
        generation_batch_size=size.completions,
        max_completion_length=size.new_tokens,
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
        differ = [name for name, tensor in wanted.items() if name not in state or not state[name].cpu().equal(tensor)]
        require(not differ, "weights", differ[:1], "TRL's models must hold the shared ones")


def _check_same_prompts(world: World, tokenizer: Any) -> None:
    theirs = tokenizer(text=world.prompts(STEPS))["input_ids"]
    require(theirs == world.prompt_ids(STEPS), "prompts", "different token ids", "both sides must see the same ones")
