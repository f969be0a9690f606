"""Pre-training tokens/s: our backbone and pre-training loss against `transformers`' DeepseekV3ForCausalLM.

Equal on both sides: the weights; the token rows (text of the task, cut into rows without padding, one document each, so that
HuggingFace's causal attention and our document mask mean the same); the next-token loss over all positions but the last
(checked to agree before anything is measured); no MTP; gradient clipping; the same AdamW (fused, decay on matrices only);
a plain loop on both sides, without Lightning and without HuggingFace's Trainer; the compute type.
Not equal: ours computes the sequence-wise balance loss as well, which HuggingFace's class does not have, and builds a
document mask; HuggingFace's may choose how it runs experts (both ways are tried) and uses causal attention without a mask.
The expert-bias update is left out on both sides. Tokens are all tokens of the rows.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from benchmarks.floor import training_parts
from benchmarks.pairs import Contest, Measurement
from benchmarks.setting import EXPERTS, World
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.types.errors import require
from r1_lightning.types.tensors import TokenBatch

WORK = "pre-training"
SAME_LOSS = {"fp32": 1e-4, "bf16": 1e-2}  # nats; other rows, other weights or another shift differ by far more


def contest(world: World) -> Contest:
    """tokens/s of `train_steps` optimizer steps."""
    batches = token_batches(world)
    ours = {candidate.name: _ours(candidate) for candidate in world.ours()}
    theirs = {f"{other.name}, experts={e}": _theirs(other, e) for other in world.theirs() for e in EXPERTS}
    losses = {name: float(loss(batches[0])) for name, (_, loss) in {**ours, **theirs}.items()}
    _check_same_loss(losses)
    return Contest(
        work=f"{WORK}, {world.size.train_rows} rows x {world.size.train_row_tokens} tokens per step",
        unit="tokens/s",
        opponent="transformers",
        ours={setting: _timed(step, batches) for setting, (step, _) in ours.items()},
        theirs={setting: _timed(step, batches) for setting, (step, _) in theirs.items()},
        floors={
            candidate.name: training_parts(candidate, batches[0].token_ids.numel(), world.size.train_row_tokens)
            for candidate in world.ours()
        },
        phases={setting: _phases(step, batches) for setting, (step, _) in ours.items()},
        step_tokens=batches[0].token_ids.numel(),
    )


def measurement(world: World) -> Measurement:
    """Our side of the contest alone."""
    return _timed(_ours(world)[0], token_batches(world))


def token_batches(world: World) -> list[TokenBatch]:
    """`train_steps` batches of rows without padding, one document per row."""
    size, tokenizer = world.size, world.parts["tokenizer"]
    shape = (size.train_steps, size.train_rows, size.train_row_tokens)
    wanted = size.train_steps * size.train_rows * size.train_row_tokens
    ids: list[int] = []
    while len(ids) < wanted:  # a document has about 40 tokens
        texts = list(world.parts["source"].documents(world.config.seed, len(ids), 1000))
        ids += chain.from_iterable([*row, tokenizer.eos_id] for row in tokenizer.encode_batch(texts))
    token_ids = torch.tensor(ids[:wanted]).view(shape)
    positions = torch.arange(size.train_row_tokens).expand(shape[1:]).contiguous()
    return [TokenBatch(batch, positions, torch.ones_like(positions)) for batch in token_ids]


Lap = Callable[[str], None]  # told the name of a phase that has ended
Step = Callable[[TokenBatch, Lap], None]
Loss = Callable[[TokenBatch], Tensor]


def _ours(world: World) -> tuple[Step, Loss]:
    backbone = world.backbone().train()
    optim = instantiate(world.pretrain_config.optim)
    module = PretrainModule(backbone, optim, max_steps=1, mtp_loss_weight=0.0, bias_update_speed=0.0)
    warnings.filterwarnings("ignore", message=".*trainer.* reference is not registered.*")  # a plain loop, see above

    def next_token_loss(batch: TokenBatch) -> Tensor:
        with torch.no_grad():
            return module.training_step(batch, 0) - backbone.hidden(batch, with_mtp=False).balance_loss

    return _optimizer_step(backbone, optim, lambda batch: module.training_step(batch, 0)), next_token_loss


def _theirs(world: World, experts: str) -> tuple[Step, Loss]:
    model = world.hf_model(experts).train()

    def loss(batch: TokenBatch) -> Tensor:
        with world.autocast():
            return model(input_ids=batch.token_ids, labels=batch.token_ids, use_cache=False).loss

    return _optimizer_step(model, instantiate(world.pretrain_config.optim), loss), loss


def _optimizer_step(model: nn.Module, optim: Any, loss: Loss) -> Step:
    require(type(optim) is AdamWConfig, "optim", type(optim).__name__, "both sides train with AdamWConfig")
    optimizer = optim.build(model)

    def step(batch: TokenBatch, lap: Lap) -> None:
        optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        lap("forward")
        value.backward()
        lap("backward")
        nn.utils.clip_grad_norm_(model.parameters(), optim.max_grad_norm)
        optimizer.step()
        lap("clipping and optimizer")

    return step


def _timed(step: Step, batches: list[TokenBatch]) -> Measurement:
    tokens = sum(batch.token_ids.numel() for batch in batches)

    def measure() -> float:
        start_s = time.perf_counter()
        for batch in batches:
            step(batch, lambda _: None)
        return tokens / (time.perf_counter() - start_s)

    return measure


def _phases(step: Step, batches: list[TokenBatch]) -> Callable[[], Mapping[str, float]]:
    """Seconds of a step by phase, the mean over `batches`."""

    def measure() -> Mapping[str, float]:
        seconds: Counter[str] = Counter()
        last_s = time.perf_counter()

        def lap(phase: str) -> None:
            nonlocal last_s
            now_s = time.perf_counter()
            seconds[phase] += now_s - last_s
            last_s = now_s

        for batch in batches:
            step(batch, lap)
        return {phase: total / len(batches) for phase, total in seconds.items()}

    return measure


def _check_same_loss(losses: Mapping[str, float]) -> None:
    first = next(iter(losses.values()))
    for name, loss in losses.items():
        difference, allowed = abs(loss - first), SAME_LOSS["bf16" if name.startswith("bf16") else "fp32"]
        require(difference <= allowed, f"loss of {name}", loss, f"within {allowed} of {first}: not the same work")
