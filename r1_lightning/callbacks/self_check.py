"""Self-checks before the first update: log-probs that must be equal are computed in two ways and compared.

Every stage that trains on packed rows checks rows of its first step: a document in a packed row must get the log-probs that it
gets alone, and left-padded prompts followed by cached steps, which is how completions are sampled, must get those of the full
forward (`rollout.agreement`).

GRPO checks, at every start, a small rollout made by the sampler that the run will use:
- The log-probs that the sampler stored equal those of a training forward over the same completions, batched anew and shuffled,
  within the tolerances of the compute type (`Precision.logprob_tolerance`; 1e-4 in FP32; in BF16 it is the mean that tells). Then
  the sampler holds the current weights, its cache is right, and temperature and top-p mean the same on both sides. Tokens that were
  routed to other experts (two affinities equal to within rounding) are counted: in FP32 they must be below 0.1 %, in BF16 their
  share is only reported.
- The KL to the reference, if the objective needs one, is exactly 0 while the reference is the policy: same numbers, same path.
- It warns if no completion ends, and if the rewards are equal within every group: then there is nothing to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from r1_lightning.functional.kl import k3
from r1_lightning.model.precision import PlainPrecision, Precision
from r1_lightning.model.whole_copy import whole_model
from r1_lightning.rollout.agreement import RowAgreement, row_agreement
from r1_lightning.rollout.collate import collate, minibatch_rows
from r1_lightning.rollout.groups import RolloutMaker
from r1_lightning.rollout.packing import PackedRows
from r1_lightning.rollout.results import Rollout
from r1_lightning.rollout.sampler import device_of
from r1_lightning.rollout.scoring import completion_index, score_completions
from r1_lightning.types.errors import InvalidInput, require_int, require_number
from r1_lightning.types.tensors import Backbone, GRPOBatch, TokenBatch
from r1_lightning.types.text import ProblemSource

# The check's rollout number, which keys its draws: no training rollout ever has it.
CHECK_ROLLOUT = 2**31 + 1


class SelfCheckFailed(InvalidInput):
    """Sampler, training forward and reference disagree: the policy would learn from wrong log-probs."""


@dataclass(frozen=True)
class Agreement:
    """How well sampler, training forward and reference agree.

    `max_difference` and `mean_difference` (nats) are taken over the tokens that, like all tokens before them, were routed to the
    same experts in both; `flipped_fraction` is the share of tokens routed to other experts; `kl_ref_max` is the largest k3 against
    the reference, None without one.
    """

    max_difference: float
    mean_difference: float
    flipped_fraction: float
    kl_ref_max: float | None


class SelfCheck(L.Callback):
    """Runs the checks when training starts, in GRPO on `prompts` x `group_size` completions; raises `SelfCheckFailed`.

    `tolerance` (nats) and `max_flipped_fraction` default to those of the backbone's `precision`.
    """

    def __init__(
        self, prompts: int = 8, tolerance: float | None = None, max_flipped_fraction: float | None = None
    ) -> None:
        require_int("callbacks.self_check.prompts", prompts, 1)
        if tolerance is not None:
            require_number("callbacks.self_check.tolerance", tolerance, 0.0, open_minimum=True)
        if max_flipped_fraction is not None:
            require_number("callbacks.self_check.max_flipped_fraction", max_flipped_fraction, 0.0, 1.0)
        self.prompts = prompts
        self.tolerance = tolerance
        self.max_flipped_fraction = max_flipped_fraction

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        dataset: Any = getattr(getattr(trainer, "datamodule", None), "dataset", None)
        if not hasattr(dataset, "maker"):
            self._check_rows(trainer, module)
            return
        rollout = small_rollout(dataset.maker, dataset.source, dataset.seed, self.prompts, trainer.global_step)
        # On another device (trainer.role_devices.reference) equal weights give other roundings.
        fresh_reference = trainer.global_step == 0 and getattr(module.reference, "device", None) is None
        agreement = measure_agreement(
            rollout,
            dataset.maker,
            dataset.seed,
            module.backbone,
            module.reference.backbone,
            module.sampling_temperature,
        )
        # A backbone that names no precision is held to FP32.
        precision = getattr(module.backbone, "precision", None) or PlainPrecision()
        rank_zero_only(print)(self.judge(agreement, fresh_reference, precision), flush=True)
        warn_of_nothing_to_learn(rollout)

    def _check_rows(self, trainer: L.Trainer, module: Any) -> None:
        """Check a stage without rollouts, on its own next rows and with its backbone's cache."""
        tokens = first_tokens(trainer)
        line = None if tokens is None else self.of_rows(getattr(module, "backbone", None), tokens)
        if line is not None:
            rank_zero_only(print)(line, flush=True)

    def of_prompts(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> str | None:
        """`of_rows` on prompts, for a model that only samples."""
        return self.of_rows(model, PackedRows(prompts, 2 * max(map(len, prompts)), pad_id).trimmed())

    def of_rows(self, model: Any, tokens: TokenBatch) -> str | None:
        """Return the line on how well the rows `tokens` agree in `model`, a language model or a reward model; None if unchecked.

        All processes call it if the model is in shares; each checks its own rows.
        """
        backbone = backbone_in(model)
        precision = getattr(backbone, "precision", None) or PlainPrecision()
        if backbone is None or precision.static_shapes:  # a compiler would build graphs for the check's shapes alone
            return None
        with whole_model(model) as whole:  # as many calls as these rows take
            found = row_agreement(backbone_in(whole), tokens.to(device_of(model)))
        return self.judge_rows(found, precision)

    def judge_rows(self, found: RowAgreement, precision: Precision) -> str:
        """Return the line that reports how well rows agree; raise `SelfCheckFailed` if a difference is above the tolerance."""
        tolerance = precision.logprob_tolerance if self.tolerance is None else self.tolerance
        both = (("a text in a packed row and alone", found.packed), ("cached steps and the forward", found.cached))
        for what, difference in both:
            if not difference <= tolerance:
                raise SelfCheckFailed(
                    f"self-check: {what} differ by {difference:.2e} nats, more than {tolerance:.0e}: this model's output "
                    "for a text depends on other texts in its row, batch or cache; it cannot be trained or sampled here"
                )
        return (
            f"self-check: packed rows agree with texts alone to {found.packed:.1e} nats, cached steps with the forward to "
            f"{found.cached:.1e}"
        )

    def judge(self, agreement: Agreement, reference_is_policy: bool, precision: Precision) -> str:
        """Return the line that reports the agreement; raise `SelfCheckFailed` if a number is out of bounds."""
        tolerance, mean_tolerance = precision.logprob_tolerance, precision.mean_logprob_tolerance
        if self.tolerance is not None:
            tolerance = mean_tolerance = self.tolerance
        allowed_flips = self.max_flipped_fraction
        if allowed_flips is None:
            allowed_flips = precision.max_flipped_fraction
        found = ((agreement.max_difference, tolerance, ""), (agreement.mean_difference, mean_tolerance, " on average"))
        for difference, allowed, how in found:
            if not difference <= allowed:
                raise SelfCheckFailed(
                    f"self-check: sampler and training forward differ by {difference:.2e} nats{how}, more than "
                    f"{allowed:.0e}: stale weights in the sampler, or another temperature"
                )
        if agreement.flipped_fraction > allowed_flips:
            raise SelfCheckFailed(
                f"self-check: {agreement.flipped_fraction:.2%} of tokens chose other experts in the training forward"
            )
        kl = agreement.kl_ref_max
        if reference_is_policy and kl is not None and kl != 0.0:
            raise SelfCheckFailed(f"self-check: the KL to a fresh reference is {kl:.2e}, not exactly 0")
        compared = "no reference" if kl is None else f"KL to the reference {kl:g}"
        return (
            f"self-check: sampler and training forward agree to {agreement.max_difference:.1e} nats "
            f"(mean {agreement.mean_difference:.0e}), "
            f"{agreement.flipped_fraction:.2%} of tokens routed differently, {compared}"
        )


def backbone_in(model: Any) -> Any:
    """Return the language model that `model` is, or of a reward model the one under its head; None for anything else."""
    found = getattr(model, "backbone", model)
    return found if isinstance(found, Backbone) else None


def first_tokens(trainer: L.Trainer) -> TokenBatch | None:
    """Return the rows of the next step; None if the loader is not one of ours, or is at its end."""
    loader: Any = trainer.train_dataloader
    dataset, place = getattr(loader, "dataset", None), getattr(loader, "cursor", None)
    if dataset is None or place is None or place >= len(dataset):
        return None
    batch = dataset[place]
    return batch if isinstance(batch, TokenBatch) else getattr(batch, "tokens", None)


def small_rollout(maker: RolloutMaker, source: ProblemSource, seed: int, prompts: int, version: int) -> Rollout:
    """Sample a rollout of `prompts` training problems, with the routes recorded if the sampler can record them."""
    problems = [source.train_problem(seed, index) for index in range(prompts)]
    generate: Any = maker.generate
    recording = getattr(generate, "record_routes", None)
    if recording is not None:
        generate.record_routes = True
    try:
        return maker(CHECK_ROLLOUT, version, problems)
    finally:
        if recording is not None:
            generate.record_routes = recording


@torch.no_grad()
def measure_agreement(
    rollout: Rollout,
    maker: RolloutMaker,
    seed: int,
    policy: Any,
    reference: Backbone | None,
    sampling_temperature: float,
) -> Agreement:
    """Compare the rollout's stored log-probs with a training forward over the same completions, shuffled and packed anew."""
    rows = minibatch_rows(seed, rollout.number, rollout.rewards.numel(), 1)[0]
    config = maker.config
    packed = collate(rollout, rows, config.row_tokens, maker.tokenizer.pad_id, share_from=config.share_prompts_from)
    batch = packed.to(device_of(policy))
    was_training = policy.training
    policy.train()
    try:
        scored = score_completions(policy, batch, sampling_temperature)
    finally:
        policy.train(was_training)
    index_C = completion_index(batch)
    difference_C = (scored.logprobs - batch.old_logprobs.flatten()[index_C]).abs()
    flipped_C = flipped_tokens(rollout, rows, batch, scored.output.routes)
    touched_C = touched_tokens(flipped_C, batch)
    untouched = difference_C[~touched_C]
    largest, average = (float(untouched.max()), float(untouched.mean())) if untouched.numel() else (float("nan"),) * 2
    kl = None
    if reference is not None:
        here = scored.logprobs.device
        there = device_of(reference) if isinstance(reference, torch.nn.Module) else here
        own = score_completions(reference, batch.to(there), sampling_temperature).logprobs.to(here)
        kl = float(k3(scored.logprobs, own).abs().max())
    return Agreement(largest, average, float(flipped_C.float().mean()), kl)


def flipped_tokens(rollout: Rollout, rows: Tensor, batch: GRPOBatch, routes_LBTK: Tensor) -> Tensor:
    """C booleans: True where the position that predicts a completion token was routed to other experts."""
    index_C = completion_index(batch)
    stored = rollout.generation.routes.to(routes_LBTK.device)
    if stored.numel() == 0:
        return torch.zeros_like(index_C, dtype=torch.bool)
    layers = stored.shape[0]
    here = routes_LBTK[:layers].flatten(1, 2)[:, index_C - 1].sort(-1).values
    sequence_C = batch.sequence_ids.flatten()[index_C]
    flipped = torch.zeros_like(index_C, dtype=torch.bool)
    for sequence, row in enumerate(rows.tolist()):
        places = (sequence_C == sequence).nonzero().squeeze(1)
        there = stored[:, row, : len(places)].sort(-1).values
        flipped[places] = (here[:, places] != there).any(-1).any(0)
    return flipped


def touched_tokens(flipped_C: Tensor, batch: GRPOBatch) -> Tensor:
    """C booleans: True from the first flip of a completion to its end.

    A flip changes the cached latents of its position, and with them the log-prob of every later token.
    """
    sequence_C = batch.sequence_ids.flatten()[completion_index(batch)]
    touched = torch.zeros_like(flipped_C)
    for sequence in range(batch.n_sequences):
        places = (sequence_C == sequence).nonzero().squeeze(1)
        touched[places] = flipped_C[places].cumsum(0) > 0
    return touched


def warn_of_nothing_to_learn(rollout: Rollout) -> None:
    """Warn if no completion reached EOS, and if the rewards are equal within every group."""
    if not bool(rollout.generation.finished.any()):
        rank_zero_warn(
            "self-check: no completion ended with EOS; has the model learned it, is max_new_tokens too small?"
        )
    if rollout.zero_variance_fraction == 1.0:
        rank_zero_warn(
            "self-check: in every group all rewards are equal, so every advantage is 0 and nothing is learned"
        )
