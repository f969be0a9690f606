"""Sampling with vLLM behind the same Protocol as our own sampler: `rollout=vllm`.

vLLM draws the tokens, and the trainer scores them. An engine with its own kernels, batches and compute type does not compute the
trainer's log-probs, so a completion's two log-probs come from two places:
- vLLM returns `sampler_logprobs`, those of the distribution drawn from (with temperature and top-p);
- the trainer's backbone computes `policy_logprobs`, the old log-probs of GRPO, with its current weights, in packed rows, as in
  the training forward.
Importance sampling corrects the difference: use `objective=truncated_is` with this sampler. The metrics
`rollout/sampler_logprob_mean` and `rollout/policy_logprob_mean` show the difference; the self-check at step 0 does not, because it
compares the trainer with itself.

Before each rollout the trainer's weights are hashed. If the engine holds others, all weights except those of the MTP modules are
sent, and the engine's checksum is compared with ours: a stale engine ends the run.

A key gives each row its own seed, so its random numbers do not depend on other rows; its logits may still depend, in their last
bits, on the rows in vLLM's batch. vLLM's routes are not recorded (`stage.router=replay` is refused).

Tested against a fake of vLLM's published interface and run on no hardware (see `rollout/vllm_engine.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.hf_weights import state_to_hf
from r1_lightning.rollout.completion_scores import SCORED_TOKENS, completion_scores
from r1_lightning.rollout.generations import no_rows
from r1_lightning.rollout.keyed_random import keyed_seeds
from r1_lightning.rollout.sampler import SamplerSettings, device_of
from r1_lightning.rollout.scoring import reference_logprobs
from r1_lightning.rollout.vllm_engine import VLLMEngine, require_vllm, tensor_digest, weights_digest
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int, require_number
from r1_lightning.types.tensors import Backbone, Generation

# Shape legend: P prompts, R = P * copies rows, T new positions, C completion tokens.

CHUNK_BYTES = 2**30  # of weights copied to the CPU at a time
TEMPERATURES = (0.01, 2.0)  # vLLM raises lower values to 0.01 and refuses higher ones

Weights = Callable[[], Mapping[str, Tensor]]
Score = Callable[[Sequence[Sequence[int]], Generation], Tensor]


class Engine(Protocol):
    """The engine that draws tokens: `VLLMEngine`, or a fake of it."""

    def generate(self, prompts: Sequence[Sequence[int]], settings: Sequence[Mapping[str, Any]]) -> Sequence[Any]: ...

    def load_weights(self, chunks: Iterator[Mapping[str, Tensor]]) -> Sequence[str]: ...


class VLLMSampler:
    """A `GenerateFn` over an `Engine`.

    `weights()` returns the policy's current tensors under the engine's names, `score(prompts, generation)` the policy's
    log-probs of a generation's tokens, R x T.
    """

    def __init__(
        self,
        engine: Engine,
        weights: Weights,
        score: Score,
        settings: SamplerSettings,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        require_int("chunk_bytes", chunk_bytes, 1)
        self.engine = engine
        self.weights = weights
        self.score = score
        self.config = settings.sampling
        self.eos_ids = list(settings.eos_ids)
        self.pad_id, self.seed = settings.pad_id, settings.seed
        self.chunk_bytes = chunk_bytes
        self.handed_over: str | None = None  # checksum of the weights that the engine holds

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[Sequence[int]], copies: int, keys: Tensor, max_new_tokens: int | None = None
    ) -> Generation:
        """Return `copies` completions of each of the P prompts, on the CPU; `keys` (P * copies) x 3 determine the seeds.

        Raises RuntimeError if the engine's weights are not the policy's, or if its output is malformed.
        """
        self.hand_over_weights()
        if not prompts:
            return no_rows()
        limit = max_new_tokens or self.config.max_new_tokens
        settings = [self.row_settings(seed, limit) for seed in keyed_seeds(self.seed, keys)]
        rows = [prompt for prompt in prompts for _ in range(copies)]
        outputs = self.engine.generate(rows, settings)
        if len(outputs) != len(rows):
            raise RuntimeError(f"vLLM returned {len(outputs)} completions for {len(rows)} rows")
        drawn = generation_of_outputs(outputs, self.eos_ids, self.pad_id)
        return replace(drawn, policy_logprobs=self.score(prompts, drawn))

    def row_settings(self, seed: int, max_new_tokens: int) -> dict[str, Any]:
        """Return a row's `SamplingParams`. `logprobs` 0 asks for the drawn token's log-prob and no others."""
        return {
            "n": 1,
            "temperature": self.config.sampling_temperature,
            "top_p": self.config.top_p,
            "max_tokens": max_new_tokens,
            "seed": seed,
            "stop_token_ids": self.eos_ids,
            "logprobs": 0,
            "detokenize": False,
        }

    def hand_over_weights(self) -> None:
        """Send the policy's current weights to the engine, unless it has them already."""
        weights = self.weights()
        mine = weights_digest({name: tensor_digest(name, tensor) for name, tensor in weights.items()})
        if mine == self.handed_over:
            return
        self.handed_over = None  # unknown until the engine's checksum is back
        theirs = self.engine.load_weights(in_chunks(weights, self.chunk_bytes))
        if not theirs or set(theirs) != {mine}:
            raise RuntimeError(
                f"the engine holds other weights than the policy: checksum {', '.join(theirs) or 'none'}, not {mine}"
            )
        self.handed_over = mine


def in_chunks(weights: Mapping[str, Tensor], chunk_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors in order, in chunks of at most `chunk_bytes`, at least one tensor each."""
    chunk: dict[str, Tensor] = {}
    held = 0
    for name, tensor in weights.items():
        if chunk and held + tensor.nbytes > chunk_bytes:
            yield chunk
            chunk, held = {}, 0
        chunk[name] = tensor
        held += tensor.nbytes
    if chunk:
        yield chunk


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


def engine_weights(backbone: DeepSeekBackbone) -> dict[str, Tensor]:
    """Return the backbone's current weights under the names of HuggingFace's files, without the MTP modules."""
    return state_to_hf(backbone.state_dict(), backbone.config, stacked=False)


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
        if not isinstance(backbone, DeepSeekBackbone):
            raise InvalidInput(f"model={type(backbone).__name__} is not allowed: rollout=vllm takes our own backbone")
        return VLLMSampler(
            VLLMEngine(backbone.config, settings, self.dtype, self.gpu_memory_utilization),
            partial(engine_weights, backbone),
            partial(policy_logprobs, backbone, temperature, settings.pad_id),
            settings,
        )
