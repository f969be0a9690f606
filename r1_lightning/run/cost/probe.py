"""Measures the speed of this machine for a stage, by a short sampling run and a few micro-batches with the stage's real parts.

Both begin with a small untimed one (the first call in a process is slow) and grow to the real size, or until they have taken
`BUDGET_S`, so that a slow machine still answers after about ten seconds. Micro-batches go through Lightning's Trainer with clipping
and optimizer; the real size is repeated while there is time, and the median counts, so that one disturbed reading does no harm. The
rest of a run (start, checkpoints) is not measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from r1_lightning.artefacts.store import Artefact
from r1_lightning.data.pretrain_data import PretrainDataModule
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.rollout.collate import minibatches, split_rows
from r1_lightning.rollout.results import Rollout
from r1_lightning.run.build.parts import build_parts, trainer_settings
from r1_lightning.run.build.torch_setup import set_up_for
from r1_lightning.run.config.declarations import line_of
from r1_lightning.run.config.inject import inject
from r1_lightning.types.tensors import GenerateFn, Generation, GRPOBatch, TokenBatch

BUDGET_S = 3.0  # each for sampling and training; the size in progress is finished, so up to twice as much
WARM_UP_TOKENS, FIRST_NEW_TOKENS = 2, 8
PARTS = (32, 32, 16, 8, 4, 2, *[1] * 8)  # divisors of the micro-batch's size; the first warms up
READINGS = 3  # minimum, so that the median ignores one that other work on the machine disturbed


@dataclass(frozen=True)
class Speed:
    """Seconds on this machine.

    `training_s` and `data_s` (rewards, packing, tokenizing) are per trained token, with the time of padding included; `sampling_s`
    is per sampled token, 0 for a stage that does not sample. `new_tokens` is the mean length of completions in the probe, None if
    the probe stopped before the length limit; `probe_s` is the duration of the probe.
    """

    training_s: float
    optimizer_s: float
    data_s: float
    sampling_s: float
    new_tokens: float | None
    probe_s: float


def measure(config: DictConfig, base: Artefact | None) -> Speed:
    """Probe the stage of `config` (resolved), with the weights of `base`, or with fresh ones."""
    start_s = time.perf_counter()
    set_up_for(config)
    L.seed_everything(config.seed, verbose=False)
    parts = build_parts(config, base)
    module = inject(config.stage, parts)
    trainer_for = _trainers(config)
    device = trainer_for(1).strategy.root_device
    module.to(device)
    datamodule = inject(config.data, {**parts, "max_steps": 1})
    probe = line_of(PROBES, type(datamodule))
    assert probe is not None, "`stage_cost` has refused data that are not counted"
    batch, data_s, sampling_s, new_tokens = probe.first(datamodule)
    clock = _Clock(device)
    batches = [probe.share(batch, parts) for parts in PARTS]
    trainer_for(len(batches), clock).fit(module, _Batches(batches))
    training_s, optimizer_s = clock.medians()
    probe_s = time.perf_counter() - start_s
    return Speed(training_s, optimizer_s, data_s, sampling_s, new_tokens, probe_s)


def _trainers(config: DictConfig) -> Any:
    def make(steps: int, *callbacks: L.Callback) -> L.Trainer:
        silent = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        settings = {**trainer_settings(config), **silent, "max_steps": steps, "max_epochs": 1, "logger": False}
        return instantiate(settings, callbacks=list(callbacks), _convert_="object")

    return make


@dataclass(frozen=True)
class _Batches:
    """A loader of given batches, because Lightning takes a bare list for a list of loaders."""

    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class _Clock(L.Callback):
    """Times the micro-batches of a fit, except the first, and ends the fit when the budget is spent."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.began_s = self.backward_s = self.spent_s = 0.0
        self.readings: list[tuple[int, float, float]] = []  # tokens, seconds per token, seconds of the optimizer

    def now_s(self) -> float:
        if self.device.type == "cuda":  # kernels run asynchronously
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        self.began_s = self.now_s()

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.backward_s = self.now_s()

    def on_train_batch_end(self, trainer: L.Trainer, _: Any, __: Any, batch: Any, index: int) -> None:
        if index == 0:
            return
        now_s, tokens = self.now_s(), int(getattr(batch, "tokens", batch).is_token.sum())
        self.readings.append((tokens, (self.backward_s - self.began_s) / tokens, now_s - self.backward_s))
        self.spent_s += now_s - self.began_s
        if self.spent_s > BUDGET_S and len(self.readings) >= READINGS:
            trainer.should_stop = True

    def medians(self) -> tuple[float, float]:
        """Return the median seconds per token and of the optimizer.

        Per token, over the readings of the largest size (the last three if there are fewer); the optimizer's time is the same for
        every size.
        """
        largest = max(tokens for tokens, *_ in self.readings)
        alike = [reading for reading in self.readings if reading[0] == largest]
        used = alike if len(alike) >= READINGS else self.readings[-READINGS:]
        return median(seconds for _, seconds, _ in used), median(seconds for *_, seconds in self.readings)


class First(NamedTuple):
    """A micro-batch, and the seconds of making it, as in `Speed`."""

    batch: Any
    data_s: float
    sampling_s: float = 0.0
    new_tokens: float | None = None


class Probe(NamedTuple):
    """The timing of one kind of data: `first` makes a micro-batch, `share` takes the first of so many parts of its rows."""

    first: Callable[[Any], First]
    share: Callable[[Any, int], Any]


def _first_rows(batch: TokenBatch, parts: int) -> TokenBatch:
    rows = math.ceil(len(batch.token_ids) / parts)
    return batch.map(lambda ids_BT: ids_BT[:rows])


def _first_part(batch: GRPOBatch, parts: int) -> GRPOBatch:
    return split_rows(batch, parts)[0]


def _packed(datamodule: PretrainDataModule) -> First:
    """Return the first batch, and the seconds of tokenizing and packing per token of all rows that they made."""
    start_s = time.perf_counter()
    dataset = datamodule.train_dataloader().dataset
    batch = dataset[0]
    rows: Any = dataset
    return First(batch, (time.perf_counter() - start_s) / (len(rows.rows) * datamodule.row_tokens))


class _Timed:
    """A `GenerateFn` that records the seconds of its latest call."""

    def __init__(self, generate: GenerateFn) -> None:
        self.generate, self.seconds = generate, 0.0

    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation:
        start_s = time.perf_counter()
        generation = self.generate(prompts, copies, keys, max_new_tokens)
        self.seconds = time.perf_counter() - start_s
        return generation


def _sampled(datamodule: GroupedRolloutsDataModule) -> First:
    """Return a micro-batch from one wave of sampling, seconds of data per trained token, seconds per sampled token, mean length.

    Every completion token gets an advantage, because training costs the same for a model that is never right yet.
    """
    dataset = datamodule.dataset
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
    limits = [WARM_UP_TOKENS, FIRST_NEW_TOKENS]
    while limits[-1] < config.max_new_tokens:
        limits.append(2 * limits[-1])
    spent_s = 0.0
    for turn, limit in enumerate(min(limit, config.max_new_tokens) for limit in limits):
        small = replace(one_wave, max_new_tokens=limit)
        generate = _Timed(dataset.maker.generate)
        start_s = time.perf_counter()
        rollout = replace(dataset.maker, generate=generate, config=small)(0, 0, problems)
        judging_s = time.perf_counter() - start_s - generate.seconds
        spent_s += generate.seconds if turn else 0.0
        if spent_s > BUDGET_S:
            break
    lengths = rollout.generation.completion_mask.sum(1).float()
    sampling_s = generate.seconds / float(lengths.sum())
    new_tokens = float(lengths.mean()) if limit == config.max_new_tokens else None
    if new_tokens is None:
        rollout = _lengthened(rollout, config.max_new_tokens)
    start_s = time.perf_counter()
    (batch,) = minibatches(rollout, small, dataset.seed, dataset.maker.tokenizer.pad_id)
    packing_s = time.perf_counter() - start_s
    prompt_tokens = sum(map(len, rollout.prompts)) * config.group_size
    trained = float(rollout.generation.completion_mask.sum()) + prompt_tokens
    data_s = judging_s / (float(lengths.sum()) + prompt_tokens) + packing_s / trained
    per_micro_batch = rows / (config.minibatches_per_rollout * config.micro_batches)
    batch = split_rows(batch, max(1, round(len(lengths) / per_micro_batch)))[0]
    batch = replace(batch, advantages=torch.ones_like(batch.advantages) * batch.completion_mask)
    return First(batch, data_s, sampling_s, new_tokens)


def _lengthened(rollout: Rollout, limit: int) -> Rollout:
    """Return the rollout with every unfinished completion extended to `limit` tokens by repeating its own.

    If sampling is too slow to reach the limit, training is still timed on rows as full as those of a run.
    """
    old = rollout.generation
    width = old.completion_mask.shape[1]
    lengths = torch.where(old.finished, old.completion_mask.sum(1), limit)
    mask = torch.arange(limit) < lengths.unsqueeze(1)
    columns = torch.arange(limit) % width

    def longer(x: Tensor) -> Tensor:
        return x[:, columns] * mask

    generation = replace(
        old,
        completion_ids=longer(old.completion_ids),
        completion_mask=mask,
        policy_logprobs=longer(old.policy_logprobs),
        sampler_logprobs=longer(old.sampler_logprobs),
        routes=old.routes[:, :, columns] if old.routes.numel() else old.routes,
    )
    targets = rollout.targets and rollout.targets.map(longer)
    return replace(rollout, generation=generation, advantages=longer(rollout.advantages), targets=targets)


# By the class of the data module, as `counted.COUNTED`.
PROBES: dict[type, Probe] = {
    PretrainDataModule: Probe(_packed, _first_rows),
    GroupedRolloutsDataModule: Probe(_sampled, _first_part),
}
