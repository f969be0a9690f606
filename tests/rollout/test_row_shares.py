"""The rows of a batch that each process computes: all of them once, with the whole batch's denominators."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout.chat_rows import ChatRow, collate_chat
from r1_lightning.rollout.collate import collate
from r1_lightning.rollout.distill_rows import DistillRow, collate_distill
from r1_lightning.rollout.packing import PackedRows
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.types.processes import Processes
from r1_lightning.types.value_targets import ValueTargets
from tests.support.miniature import PAD, Miniature, Sums, rollout_config

DOCUMENTS = [(1, 2, 3, 4), (5, 6, 7), (8, 9), (1, 1, 1, 1, 1)]  # rows of 8 hold 4 + 3, 2 + 5


def _tokens() -> Any:
    return PackedRows(DOCUMENTS, 8, PAD).batch(slice(None))


def _chat() -> Any:
    return collate_chat([[ChatRow(row[:1], row[1:]) for row in DOCUMENTS]], 0, 8, PAD)


def _distill() -> Any:
    batch = collate_distill([DistillRow(row, 1) for row in DOCUMENTS], 8, PAD, 99)
    count = int(batch.target_mask.sum())
    ids = torch.arange(count).unsqueeze(1)
    return replace(batch, top_ids=ids, top_logprobs=-ids.float())


def _grpo() -> Any:
    mini = Miniature(rollout=rollout_config())
    sampler = mini.sampler()
    sampler.record_routes = True
    rollout = mini.maker(sampler)(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    return collate(rollout, torch.arange(12), 24, PAD)


def _ppo() -> Any:
    batch = _grpo()
    numbers = torch.rand(batch.advantages.shape, generator=torch.Generator().manual_seed(0))
    return replace(batch, targets=ValueTargets(numbers, numbers + 1, numbers + 2))


BATCHES = {"tokens": _tokens, "chat": _chat, "distill": _distill, "grpo": _grpo, "ppo": _ppo}
BY_ROW_AT_1 = ("routes",)  # L x B x T x K; everything else that is shared begins with the rows, or with the targets
OF_ALL = ("step_lengths", "completion_tokens", "n_sequences", "n_tokens", "policy_version", "is_on_policy")


def _flat(batch: Any) -> dict[str, Any]:
    found = {item.name: getattr(batch, item.name) for item in fields(batch)}
    if found.get("prefix_ids", "") is None:  # rows without shared prompts have none
        del found["prefix_ids"]
    inner = [found.pop(name, None) for name in ("tokens", "targets")]
    return found | {name: value for batch in inner if batch is not None for name, value in _flat(batch).items()}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", BATCHES)
def test_shares_together_are_the_batch(kind: str, count: int) -> None:
    batch = BATCHES[kind]()
    whole, shares = _flat(batch), [_flat(share_of_rows(batch, Processes(rank, count))) for rank in range(count)]
    assert len(whole["token_ids"]) >= count
    for name, value in whole.items():
        if name in OF_ALL:
            assert all(torch.equal(torch.as_tensor(share[name]), torch.as_tensor(value)) for share in shares)
        else:
            assert torch.equal(torch.cat([share[name] for share in shares], int(name in BY_ROW_AT_1)), value), name


@pytest.mark.parametrize("kind", BATCHES)
def test_a_process_without_a_row_gets_a_position_of_padding(kind: str) -> None:
    batch = BATCHES[kind]()
    rows = len(_flat(batch)["token_ids"])
    whole, share = _flat(batch), _flat(share_of_rows(batch, Processes(rows, rows + 1)))
    assert share["token_ids"].shape == (1, 1) and share["document_ids"].tolist() == [[0]]
    for name, value in share.items():
        if name in OF_ALL:
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(whole[name]))
        elif isinstance(value, Tensor) and value.dtype == torch.bool:
            assert value.tolist() == [[False]], name
        elif name.startswith("top_"):
            assert value.shape == (0, whole[name].shape[1])


def test_other_batches_are_refused() -> None:
    class Other:
        tokens = _tokens()

    with pytest.raises(TypeError, match="Other has no packed rows"):
        share_of_rows(Other(), Processes())  # type: ignore[type-var]
