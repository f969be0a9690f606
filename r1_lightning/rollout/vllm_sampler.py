"""Sampling with vLLM behind the same Protocol as our own sampler: `rollout=vllm`.

vLLM draws the tokens, and the trainer scores them. An engine with its own kernels, batches and compute type does not compute the
trainer's log-probs, so a completion's two log-probs come from two places:
- vLLM returns `sampler_logprobs`, those of the distribution drawn from (with temperature and top-p);
- the trainer's backbone computes `policy_logprobs`, the old log-probs of GRPO, with its current weights, in packed rows, as in
  the training forward.
Importance sampling corrects the difference: use `objective=truncated_is` with this sampler. Its size is logged as
`rollout/sampler_mismatch` (mean) and `rollout/sampler_mismatch_max`; the self-check at step 0 does not show it, because it
compares the trainer with itself.

Before each rollout the trainer's weights are hashed. If the engine holds others, all weights except those of the MTP modules are
sent, and the engine's checksum is compared with ours: a stale engine ends the run. A checksum proves what arrived, not what the
engine makes of it (vLLM on a CPU spoiled all experts with the right checksum), so after every hand-over the log-probs of both
sides are compared, too, on the completions just drawn, or, as top-p renormalises those, on a few drawn without it. If their mean
difference is above the tolerance of the compute types (`model/precision.py:AGREEMENT`), `HandOverFailed` ends the run.

A key gives each row its own seed, so its random numbers do not depend on other rows; its logits may still depend, in their last
bits, on the rows in vLLM's batch. vLLM's routes are not recorded (`stage.router=replay` is refused).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from r1_lightning.model.precision import AGREEMENT, PlainPrecision
from r1_lightning.rollout.completion_scores import SCORED_TOKENS, completion_scores
from r1_lightning.rollout.engine_model import engine_model
from r1_lightning.rollout.generations import mismatch, no_rows
from r1_lightning.rollout.keyed_random import keyed_seeds
from r1_lightning.rollout.sampler import SamplerSettings, device_of
from r1_lightning.rollout.scoring import reference_logprobs
from r1_lightning.rollout.vllm_engine import VLLMEngine, require_vllm
from r1_lightning.rollout.vllm_worker import tensor_digest, weights_digest
from r1_lightning.rollout.weight_stream import Tensors
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_number
from r1_lightning.types.tensors import Backbone, Generation

# Shape legend: P prompts, R = P * copies rows, T new positions, C completion tokens.

TEMPERATURES = (0.01, 2.0)  # vLLM raises lower values to 0.01 and refuses higher ones
PROOF_PROMPTS, PROOF_TOKENS = 16, 32  # drawn without top-p to compare log-probs

Score = Callable[[Sequence[Sequence[int]], Generation], Tensor]


class HandOverFailed(InvalidInput):
    """The engine does not compute the policy's log-probs with the weights that it was handed."""


class Engine(Protocol):
    """The engine that draws tokens: `VLLMEngine`, or a fake of it."""

    def generate(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> Sequence[Any]: ...

    def load_weights(self, tensors: Tensors) -> Sequence[str]: ...


class VLLMSampler:
    """A `GenerateFn` over an `Engine`.

    `weights()` returns the policy's current tensors under the engine's names, `score(prompts, generation)` the policy's
    log-probs of a generation's tokens, R x T. `tolerance` (nats) bounds the mean difference of both sides' log-probs after a
    hand-over.
    """

    def __init__(
        self,
        engine: Engine,
        weights: Callable[[], Tensors],
        score: Score,
        settings: SamplerSettings,
        tolerance: float,
    ) -> None:
        self.engine = engine
        self.weights = weights
        self.score = score
        self.config = settings.sampling
        self.eos_ids = list(settings.eos_ids)
        self.pad_id, self.seed = settings.pad_id, settings.seed
        self.tolerance = tolerance
        self.handed_over: str | None = None  # checksum of the weights that the engine holds
        self.is_proven = False  # log-probs have been compared since the last hand-over

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation:
        """Return `copies` completions of each of the P prompts, on the CPU; `keys` (P * copies) x 3 determine the seeds.

        Raises HandOverFailed if the engine computes other log-probs than the policy or its weights are not the policy's,
        RuntimeError if its output is malformed.
        """
        self.hand_over_weights()
        if not prompts:
            return no_rows()
        limit = max_new_tokens or self.config.max_new_tokens
        if not self.is_proven and self.config.top_p < 1.0:
            few = min(len(prompts), PROOF_PROMPTS)
            self.prove(self._drawn(prompts[:few], 1, keys[::copies][:few], min(limit, PROOF_TOKENS), top_p=1.0))
        drawn = self._drawn(prompts, copies, keys, limit, self.config.top_p)
        if not self.is_proven:
            self.prove(drawn)
        return drawn

    def _drawn(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, limit: int, top_p: float
    ) -> Generation:
        settings = [self.row_settings(seed, limit, top_p) for seed in keyed_seeds(self.seed, keys)]
        rows = [prompt for prompt in prompts for _ in range(copies)]
        outputs = self.engine.generate(rows, settings)
        if len(outputs) != len(rows):
            raise RuntimeError(f"vLLM returned {len(outputs)} completions for {len(rows)} rows")
        drawn = generation_of_outputs(outputs, self.eos_ids, self.pad_id)
        return replace(drawn, policy_logprobs=self.score(prompts, drawn))

    def row_settings(self, seed: int, max_new_tokens: int, top_p: float) -> dict[str, Any]:
        """Return a row's `SamplingParams`. `logprobs` 0 asks for the drawn token's log-prob and no others."""
        return {
            "n": 1,
            "temperature": self.config.sampling_temperature,
            "top_p": top_p,
            "max_tokens": max_new_tokens,
            "seed": seed,
            "stop_token_ids": self.eos_ids,
            "logprobs": 0,
            "detokenize": False,
        }

    def hand_over_weights(self) -> None:
        """Send the policy's current weights to the engine, unless it has them already."""
        weights = self.weights()
        mine = weights_digest({name: tensor_digest(name, make()) for name, make in weights.items()})
        if mine == self.handed_over:
            return
        self.handed_over, self.is_proven = None, False  # unknown until the engine's checksum is back
        theirs = self.engine.load_weights(weights)
        if not theirs or set(theirs) != {mine}:
            raise HandOverFailed(
                "rollout=vllm is not allowed: the engine holds other weights than the policy: "
                f"checksum {', '.join(theirs) or 'none'}, not {mine}"
            )
        self.handed_over = mine

    def prove(self, drawn: Generation) -> None:
        """Compare both log-probs of completions drawn without top-p; raises HandOverFailed if they differ too much."""
        mean, largest = mismatch(drawn)
        if not mean <= self.tolerance:
            raise HandOverFailed(
                f"rollout=vllm is not allowed: after the hand-over of weights its log-probs differ from the policy's by {mean:.1e} "
                f"nats on average (largest {largest:.1e}), more than {self.tolerance:.0e}: vLLM computes another model"
            )
        self.is_proven = True


def generation_of_outputs(outputs: Sequence[Any], eos_ids: Sequence[int], pad_id: int) -> Generation:
    """Return vLLM's `RequestOutput`s of R rows as a `Generation` whose policy log-probs are still 0.

    vLLM keeps the token that ended a row in `token_ids`, also if it leaves it out of the text. A row with `finish_reason` "stop"
    must end with one of `eos_ids`, a row with "length" must contain none; else RuntimeError names the row.
    """
    ids: list[list[int]] = []
    logprobs: list[list[float]] = []
    finished: list[bool] = []
    for row, request in enumerate(outputs):
        (output,) = request.outputs
        tokens, reason = list(output.token_ids), output.finish_reason
        is_end = reason == "stop"
        if reason not in ("stop", "length") or not tokens or (tokens[-1] in eos_ids) != is_end:
            last = tokens[-1] if tokens else None
            ends = " or ".join(map(str, eos_ids))
            raise RuntimeError(f"vLLM ended row {row} for {reason!r} with token {last}, and EOS is {ends}")
        if not set(eos_ids).isdisjoint(tokens[:-1]):
            raise RuntimeError(f"vLLM went on after EOS in row {row}")
        places = list(output.logprobs or ())
        if len(places) != len(tokens) or any(token not in place for token, place in zip(tokens, places, strict=True)):
            raise RuntimeError(f"vLLM returned no log-prob for each of the {len(tokens)} tokens of row {row}")
        ids.append(tokens)
        logprobs.append([place[token].logprob for token, place in zip(tokens, places, strict=True)])
        finished.append(is_end)
    width = max(map(len, ids))
    mask = torch.tensor([[column < len(tokens) for column in range(width)] for tokens in ids])
    sampler = torch.tensor([[*row, *[0.0] * (width - len(row))] for row in logprobs])
    no_routes = torch.zeros((0, 0, 0, 0), dtype=torch.long)
    return Generation(
        completion_ids=torch.tensor([[*tokens, *[pad_id] * (width - len(tokens))] for tokens in ids]),
        completion_mask=mask,
        policy_logprobs=torch.zeros_like(sampler),
        sampler_logprobs=sampler,
        finished=torch.tensor(finished),
        routes=no_routes,
        prompt_routes=no_routes,
    )


@torch.no_grad()
def policy_logprobs(
    backbone: Backbone,
    sampling_temperature: float,
    pad_id: int,
    prompts: Sequence[Sequence[int]],
    generation: Generation,
    scored_tokens: int = SCORED_TOKENS,
) -> Tensor:
    """Return the backbone's log-probs of a generation's tokens, R x T on the CPU, 0 on padding.

    The rows pass through `collate` and `score_completions`, as in training, at most `scored_tokens` tokens at a time.
    """
    module = backbone if isinstance(backbone, nn.Module) else nn.Identity()
    was_training = module.training
    module.eval()
    try:
        return completion_scores(
            lambda batch: reference_logprobs(backbone, batch.to(device_of(backbone)), sampling_temperature),
            prompts,
            generation,
            pad_id,
            scored_tokens,
        )
    finally:
        module.train(was_training)


def tolerance_of(dtype: str, backbone: Backbone) -> float:
    """Return the mean difference (nats) allowed between log-probs of an engine that computes in `dtype` and of `backbone`."""
    precision = getattr(backbone, "precision", None) or PlainPrecision()
    return max(AGREEMENT["fp32" if dtype == "float32" else "bf16"][1], float(precision.mean_logprob_tolerance))


@dataclass(frozen=True)
class VLLM:
    """Settings of sampling with vLLM, for the leaf `rollout.sampler`. `dtype` is the compute type of vLLM's copy of the model.

    `gpu_memory_utilization`, 0..1, is vLLM's share of the GPU's memory; the trainer needs the rest.
    """

    dtype: str = "bfloat16"
    gpu_memory_utilization: float = 0.4
    is_engine = True  # in memory of its own; it takes nothing of the trainer's while it samples
    check_installed = staticmethod(require_vllm)

    def __post_init__(self) -> None:
        require_choice("rollout.sampler.dtype", self.dtype, ("bfloat16", "float16", "float32"))
        share = self.gpu_memory_utilization
        require_number("rollout.sampler.gpu_memory_utilization", share, 0.0, 1.0, open_minimum=True)

    def __call__(self, backbone: Backbone, settings: SamplerSettings) -> VLLMSampler:
        """A `SamplerMaker`. vLLM itself starts at the first rollout."""
        temperature = settings.sampling.sampling_temperature
        require(not settings.record_routes, "stage.router", "replay", "vLLM's choice of experts is not recorded")
        require_number("rollout.sampling_temperature", temperature, *TEMPERATURES)
        model = engine_model(backbone, settings.eos_ids, settings.pad_id)
        return VLLMSampler(
            VLLMEngine(model, settings.max_rows, self.dtype, self.gpu_memory_utilization),
            model.tensors,
            partial(policy_logprobs, backbone, temperature, settings.pad_id),
            settings,
            tolerance_of(self.dtype, backbone),
        )
