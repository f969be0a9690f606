"""How fast this machine is at a stage: a short sampling run and a few micro-batches with the real parts, then thrown away.

Both begin small and double until they are of the real size or have taken `BUDGET_S`, so that a machine which is slow at a stage
still answers after some ten seconds. Micro-batches go through Lightning's Trainer, clipping and optimizer included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from r1_lightning.artefacts.store import Artefact
from r1_lightning.data.pretrain_data import PretrainDataModule
from r1_lightning.data.rollout_data import RolloutDataset
from r1_lightning.rollout.collate import minibatches, split_rows
from r1_lightning.run.parts import build_parts, inject, set_up_torch, trainer_settings
from r1_lightning.types.tensors import GenerateFn, Generation, GRPOBatch, TokenBatch

BUDGET_S = 3.0  # what was begun is finished: doubling makes it up to twice as much, for sampling and for training
FIRST_NEW_TOKENS = 8
PARTS = (32, 8, 4, 2, 1, 1)  # of the micro-batch, from warming up to the real size


@dataclass(frozen=True)
class Speed:
    """Seconds on this machine. `training_s` and `data_s` are per token trained on (data: rewards, packing, tokenizing).

    `sampling_s` is per sampled token, 0 for a stage that samples nothing; `new_tokens` is the mean length of completions in
    the probe, None where it had to stop before the length limit; `probe_s` is what the probe itself took.
    """

    training_s: float
    optimizer_s: float
    data_s: float
    sampling_s: float
    new_tokens: float | None
    probe_s: float


def measure(config: DictConfig, base: Artefact | None) -> Speed:
    """Probe the stage of `config` (resolved), from the weights of `base`, or from fresh ones."""
    start_s = time.perf_counter()
    set_up_torch(config.trainer.get("threads"))
    L.seed_everything(config.seed, verbose=False)
    parts = build_parts(config, base)
    module = inject(config.stage, parts)
    trainer_for = _trainers(config)
    module.to(trainer_for(1).strategy.root_device)
    datamodule = inject(config.data, {**parts, "max_steps": 1})
    batch: GRPOBatch | TokenBatch
    sampling_s, new_tokens = 0.0, None
    if isinstance(datamodule, PretrainDataModule):
        batch, data_s = _packed(datamodule)
    else:
        batch, data_s, sampling_s, new_tokens = _sampled(datamodule.dataset)
    clock = _Clock()
    batches = [_share(batch, parts) for parts in PARTS]
    trainer_for(len(batches), clock).fit(module, _Batches(batches))
    probe_s = time.perf_counter() - start_s
    return Speed(clock.training_s, clock.optimizer_s, data_s, sampling_s, new_tokens, probe_s)


def _trainers(config: DictConfig) -> Any:
    def make(steps: int, *callbacks: L.Callback) -> L.Trainer:
        silent = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        settings = {**trainer_settings(config), **silent, "max_steps": steps, "max_epochs": 1, "logger": False}
        return instantiate(settings, callbacks=list(callbacks), _convert_="object")

    return make


@dataclass(frozen=True)
class _Batches:
    """Batches as a loader: Lightning takes a bare list for a list of loaders."""

    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class _Clock(L.Callback):
    """Times the micro-batches of a fit, the last one counting, and ends it when the budget is spent."""

    def __init__(self) -> None:
        self.began_s = self.backward_s = self.spent_s = 0.0
        self.training_s = self.optimizer_s = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.began_s = time.perf_counter()

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.backward_s = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, _: Any, __: Any, batch: Any, ___: int) -> None:
        now_s = time.perf_counter()
        tokens = int(getattr(batch, "tokens", batch).is_token.sum())
        self.training_s = (self.backward_s - self.began_s) / tokens
        self.optimizer_s = now_s - self.backward_s
        self.spent_s += now_s - self.began_s
        if self.spent_s > BUDGET_S:
            trainer.should_stop = True


def _share(batch: GRPOBatch | TokenBatch, parts: int) -> Any:
    """The first of `parts` parts of a micro-batch, by its rows."""
    if isinstance(batch, GRPOBatch):
        return split_rows(batch, parts)[0]
    rows = math.ceil(len(batch.token_ids) / parts)
    return TokenBatch(*(getattr(batch, item.name)[:rows] for item in fields(TokenBatch)))


def _packed(datamodule: PretrainDataModule) -> tuple[TokenBatch, float]:
    """The first batch, and what tokenizing and packing took per token of what they made (more than that batch)."""
    start_s = time.perf_counter()
    dataset = datamodule.train_dataloader().dataset
    batch = dataset[0]
    rows: Any = dataset
    return batch, (time.perf_counter() - start_s) / (len(rows.rows) * datamodule.row_tokens)


class _Timed:
    """A `GenerateFn` that notes how long it took."""

    def __init__(self, generate: GenerateFn) -> None:
        self.generate, self.seconds = generate, 0.0

    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation:
        start_s = time.perf_counter()
        generation = self.generate(prompts, copies, keys, max_new_tokens)
        self.seconds = time.perf_counter() - start_s
        return generation


def _sampled(dataset: RolloutDataset) -> tuple[GRPOBatch, float, float, float | None]:
    """A micro-batch from one wave of sampling; seconds per trained token of judging and packing, per sampled token, length.

    Every completion token gets an advantage: a model that is right nowhere yet costs no less.
    """
    config = dataset.maker.config
    rows = config.prompts_per_rollout * config.group_size
    prompts = max(1, min(config.max_rows, rows) // config.group_size)
    problems = dataset.problems(0)[:prompts]
    one_wave = replace(
        config,
        prompts_per_rollout=prompts,
        minibatches_per_rollout=1,
        micro_batches=1,
        longer_from_step=None,
        longer_max_new_tokens=None,
    )
    limit, spent_s = min(FIRST_NEW_TOKENS, config.max_new_tokens), 0.0
    while True:
        small = replace(one_wave, max_new_tokens=limit)
        generate = _Timed(dataset.maker.generate)
        start_s = time.perf_counter()
        rollout = replace(dataset.maker, generate=generate, config=small)(0, 0, problems)
        (batch,) = minibatches(rollout, small, dataset.seed, dataset.maker.tokenizer.pad_id)
        took_s = time.perf_counter() - start_s
        spent_s += took_s
        if limit == config.max_new_tokens or spent_s > BUDGET_S:
            break
        limit = min(2 * limit, config.max_new_tokens)
    lengths = rollout.generation.completion_mask.sum(1).float()
    mean = float(lengths.mean()) if limit == config.max_new_tokens else None
    per_micro_batch = rows / (config.minibatches_per_rollout * config.micro_batches)
    batch = split_rows(batch, max(1, round(len(lengths) / per_micro_batch)))[0]
    batch = replace(batch, advantages=torch.ones_like(batch.advantages) * batch.completion_mask)
    trained = float(lengths.sum()) + sum(map(len, rollout.prompts)) * config.group_size
    return batch, (took_s - generate.seconds) / trained, generate.seconds / float(lengths.sum()), mean
