"""Rows in which completions share their prompt: by hand, by reconstruction, and in a GRPO step against separate documents."""

from __future__ import annotations

import dataclasses
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.rollout.collate import collate, minibatches, split_rows
from r1_lightning.rollout.groups import RolloutConfig
from r1_lightning.rollout.results import Rollout
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.rollout.scoring import completion_index, score_completions
from r1_lightning.rollout.shared_prompts import Place, Unit, packed_completions, units_of
from r1_lightning.types.processes import Processes
from r1_lightning.types.tensors import GRPOBatch
from tests.model.tiny import random_documents
from tests.rollout.fakes import rollout_of
from tests.support.miniature import Miniature, Sums, backbone, backwards, grad_of, rollout_config

PAD = 0


def test_a_row_by_hand() -> None:
    """Two completions of the prompt 5 6 7 8 and one of 9 9: the first two tokens of the first stand there once."""
    prompts, completions = [[5, 6, 7, 8], [9, 9], [5, 6, 7, 8]], [[1], [2], [3, 4]]
    packed = packed_completions(prompts, completions, [0, 1, 0], 14, PAD, share_from=4)
    assert packed.tokens.token_ids.tolist() == [[5, 6, 7, 8, 1, 7, 8, 3, 4, 9, 9, 2, PAD, PAD]]
    assert packed.tokens.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3, 4, 5, 0, 1, 2, 0, 0]]
    assert packed.tokens.document_ids.tolist() == [[1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 0, 0]]
    assert packed.tokens.prefix_ids is not None
    assert packed.tokens.prefix_ids.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]]
    assert packed.places == (Place(0, 2, 2), Place(0, 9, 2), Place(0, 5, 2)) and packed.prefixes == ((0, 0, 0),)
    assert [place.start for place in packed.places] == [4, 11, 7]


@pytest.mark.parametrize(
    ("row_tokens", "share_from", "expected"),
    [
        (40, 10, [Unit(8, (0, 2, 3)), Unit(0, (1,))]),  # 8 + (2 + 3) + (2 + 9) + (2 + 6) = 32
        (
            28,
            10,
            [Unit(8, (0, 2)), Unit(0, (1,)), Unit(0, (3,))],
        ),  # the longest first: 8 + 11 + 8 = 27, and 5 do not fit
        (40, 11, [Unit(0, (0,)), Unit(0, (1,)), Unit(0, (2,)), Unit(0, (3,))]),
        (40, None, [Unit(0, (0,)), Unit(0, (1,)), Unit(0, (2,)), Unit(0, (3,))]),
    ],
)
def test_who_stands_together(row_tokens: int, share_from: int | None, expected: list[Unit]) -> None:
    """Completions of 6, 3, 9 and 3 tokens; the second has a prompt of its own."""
    prompts = [[1] * 10, [2] * 10, [1] * 10, [1] * 10]
    assert units_of(prompts, [6, 3, 9, 3], [0, 1, 0, 0], row_tokens, share_from) == expected


def test_prompts_that_are_too_short_or_not_shared_leave_the_rows_as_they_are() -> None:
    prompts, completions = [[5, 6], [5, 6], [7, 8, 9]], [[1], [2, 3], [4]]
    packed = packed_completions(prompts, completions, [0, 0, 1], 10, PAD, share_from=3)
    assert packed.tokens.prefix_ids is None and packed.prefixes == ()
    assert packed.tokens.token_ids.tolist() == [[5, 6, 1, 5, 6, 2, 3, PAD, PAD, PAD], [7, 8, 9, 4, *[PAD] * 6]]


def random_rollout(prompt_tokens: int = 9, groups: int = 4, group_size: int = 5) -> Rollout:
    """A rollout of random prompts of about this length, and completions of 1 to 8 tokens."""
    prompts = random_documents([prompt_tokens + i % 3 for i in range(groups)], 15, seed=1)
    lengths = [1 + (7 * i) % 8 for i in range(groups * group_size)]
    completions = random_documents(lengths, 15, seed=2)
    advantages = torch.linspace(-1, 1, groups * group_size).view(groups, group_size)
    return rollout_of(prompts, completions, advantages)


@pytest.mark.parametrize("row_tokens", [20, 31, 64, 300])
def test_every_sequence_is_whole_and_beside_its_own_numbers(row_tokens: int) -> None:
    """What a completion's document and its prefix say together is its prompt and itself; numbers are those of the plain layout."""
    rollout = random_rollout()
    rows = torch.tensor([3, 17, 0, 1, 4, 9, 8, 5, 12, 2])
    shared, plain = (collate(rollout, rows, row_tokens, PAD, share_from=share) for share in (5, None))
    prefix_ids = shared.tokens.prefix_ids
    assert prefix_ids is not None and plain.tokens.prefix_ids is None
    for sequence in range(len(rows)):
        own, whole = shared.sequence_ids == sequence, plain.sequence_ids == sequence
        row = int(own.nonzero()[0, 0])
        prefix = int(prefix_ids[own][0])
        before = shared.tokens.document_ids[row] == prefix if prefix else torch.zeros_like(own[row])
        for name in ("token_ids", "position_ids"):
            ids = getattr(shared.tokens, name)
            assert ids[row][before].tolist() + ids[own].tolist() == getattr(plain.tokens, name)[whole].tolist()
        for name in ("old_logprobs", "sampler_logprobs", "advantages", "completion_mask"):
            assert torch.equal(getattr(shared, name)[own], getattr(plain, name)[whole][-int(own.sum()) :])
    assert (shared.n_tokens, shared.n_sequences) == (plain.n_tokens, plain.n_sequences)
    assert int(shared.tokens.is_token.sum()) < int(plain.tokens.is_token.sum())
    assert torch.equal(shared.completion_tokens, plain.completion_tokens)


def stage_parts(
    share_from: int | None, micro_batches: int = 1, **changes: Any
) -> tuple[Miniature, Rollout, list[GRPOBatch]]:
    """A miniature, a rollout of its own sampler with routes, and the micro-batches of a minibatch."""
    settings = {"share_prompts_from": share_from, "row_tokens": 64, "minibatches_per_rollout": 1, **changes}
    mini = Miniature(rollout=rollout_config(micro_batches=micro_batches, **settings))
    sampler = mini.sampler()
    sampler.record_routes = True
    rollout = mini.maker(sampler)(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    spread = torch.linspace(-1, 1, rollout.advantages.numel()).view_as(rollout.advantages)
    rollout = dataclasses.replace(rollout, advantages=spread * rollout.generation.completion_mask)
    (whole,) = minibatches(rollout, mini.rollout, 0, PAD)
    return mini, rollout, split_rows(whole, micro_batches)


def step(share_from: int | None, folder: Path, parts: int = 1, **settings: Any) -> tuple[Any, torch.Tensor]:
    """What a GRPO step with a KL did, and the expert biases after it; the rollout comes from the same weights either way."""
    mini, _, batches = stage_parts(share_from, parts)
    module = mini.grpo(objective=TokenLevelGRPO(kl_coef=0.3), **settings)
    module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())
    (done,) = backwards(module, batches, folder, accumulate_grad_batches=parts)
    assert any(batch.tokens.prefix_ids is not None for batch in batches) == (share_from is not None)
    return done, mini.model.expert_bias()


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"router": "update", "bias_update_speed": 0.1},
        {"router": "replay"},
        {"mtp_loss_weight": 0.3},
        {"mtp_loss_weight": 0.3, "mtp_trunk": "detached"},
    ],
    ids=["update", "replay", "mtp", "mtp detached"],
)
def test_a_step_is_that_of_separate_documents(settings: dict[str, Any], parts: int, tmp_path: Path) -> None:
    """Loss, every metric, every gradient, and the update of the experts' biases."""
    found, bias = step(3, tmp_path / "shared", parts, **settings)
    expected, expected_bias = step(None, tmp_path / "plain", parts, **settings)
    assert found.metrics.keys() == expected.metrics.keys() and len(found.metrics) > 5
    if (
        "mtp_loss_weight" in settings
    ):  # at a document's end an MTP module reads the next document's token, whichever it is
        del expected.metrics["moe/max_violation"]
    for name, value in expected.metrics.items():
        assert found.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert found.gradients.keys() == expected.gradients.keys() and len(found.gradients) > 10
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=2e-4, atol=2e-6, msg=name)
    assert max(float(gradient.abs().max()) for gradient in expected.gradients.values()) > 0.01
    assert torch.equal(bias, expected_bias)


@torch.no_grad()
def test_log_probs_of_every_token_are_those_of_separate_documents() -> None:
    """Of the policy in a training forward, with the sampler's routes and without."""
    mini, rollout, (shared,) = stage_parts(3)
    plain = collate(rollout, torch.arange(12), 64, PAD)
    shared = collate(rollout, torch.arange(12), 64, PAD, share_from=3)
    for replay in (False, True):
        by_sequence = []
        for batch in (shared, plain):
            scored = score_completions(mini.model.train(), batch, 0.7, replay=replay)
            order = batch.sequence_ids.flatten()[completion_index(batch)].argsort(stable=True)
            by_sequence.append(scored.logprobs[order])
        torch.testing.assert_close(*by_sequence, rtol=1e-5, atol=1e-5)
    assert by_sequence[0].std() > 0.1


def test_shares_of_processes_add_up_to_the_batch(tmp_path: Path) -> None:
    """Two processes take their rows, prefixes included; the sums of their gradients are the gradient of one."""
    mini, _, (whole,) = stage_parts(3, row_tokens=32)
    (expected,) = backwards(mini.grpo(objective=TokenLevelGRPO(kl_coef=0.0)), [whole], tmp_path)
    shares = [share_of_rows(whole, Processes(rank, 2)) for rank in range(2)]
    assert all(share.tokens.prefix_ids is not None for share in shares)
    mini, _, _ = stage_parts(3, row_tokens=32)
    module = mini.grpo(objective=TokenLevelGRPO(kl_coef=0.0))
    for share in shares:
        module.training_step(share, 0).backward()
    for name, gradient in grad_of(mini.model).items():
        torch.testing.assert_close(gradient, expected.gradients[name], rtol=2e-4, atol=2e-6)


def test_routes_of_a_shared_prompt_are_replayed_where_it_stands() -> None:
    _, rollout, _ = stage_parts(3)
    rows = torch.arange(12)
    shared, plain = (collate(rollout, rows, 64, PAD, share_from=share) for share in (3, None))
    assert shared.routes is not None and plain.routes is not None and shared.tokens.prefix_ids is not None
    for sequence in rows.tolist():
        own, whole = shared.sequence_ids == sequence, plain.sequence_ids == sequence
        row = int(own.nonzero()[0, 0])
        before = shared.tokens.document_ids[row] == int(shared.tokens.prefix_ids[own][0])
        found = torch.cat([shared.routes[:, row, before], shared.routes[:, own]], 1)
        assert torch.equal(found, plain.routes[:, whole]) and bool((found >= 0).any())


def test_whole_groups_make_up_a_minibatch_if_so_configured() -> None:
    """Two groups of three in each of two minibatches; otherwise completions are dealt one by one."""
    rollout = random_rollout(groups=4, group_size=3)
    for kind, whole in (("groups", True), ("completions", False)):
        config = RolloutConfig(4, 3, 2, row_tokens=200, max_new_tokens=8, minibatch_of=kind, share_prompts_from=5)
        batches = minibatches(rollout, config, 0, PAD)
        prefixes = [batch.tokens.prefix_ids for batch in batches]
        counts = [0 if ids is None else len(set(zip(*torch.where(ids > 0), strict=True))) for ids in prefixes]
        dealt = list(chain.from_iterable([len(batch.completion_tokens)] for batch in batches))
        assert dealt == [6, 6] and all(counts)
        tokens = sum(int(batch.tokens.is_token.sum()) for batch in batches)
        fewest = sum(len(prompt) - 2 + 3 * 2 for prompt in rollout.prompts) + int(
            rollout.generation.completion_mask.sum()
        )
        assert (tokens == fewest) == whole
