"""Packed against alone and cached against the forward: right models agree to rounding, and each fault is seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.rollout import agreement
from r1_lightning.rollout.agreement import most_telling_rows, row_agreement
from r1_lightning.types.tensors import TokenBatch
from tests.model.tiny import backbone, pack, random_documents, tiny

VOCABULARY = 32


def rows(*lengths: tuple[int, ...], width: int = 24) -> TokenBatch:
    return pack([random_documents(row, VOCABULARY, seed) for seed, row in enumerate(lengths)], width)


def made(**changes: Any) -> DeepSeekBackbone:
    return backbone(tiny(vocab_size=VOCABULARY, **changes))


PACKED = [(5, 9, 7), (20,), (3, 2, 1)]


@pytest.mark.parametrize("lengths", [PACKED, [(20,)], [(2, 2, 2, 2, 2)], [(1, 1)], [(23, 1)], [(4, 12), (12, 4)]])
def test_our_own_model_agrees_to_rounding(lengths: list[tuple[int, ...]]) -> None:
    found = row_agreement(made(), rows(*lengths))
    assert 0.0 <= found.packed < 1e-5 and 0.0 <= found.cached < 1e-5
    longest = max(length for row in lengths for length in row)
    assert found.cached > 0.0 or longest < 4  # there was something to compare


def test_the_backbone_is_left_as_it_was() -> None:
    model = made()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    for mode in (True, False):
        model.train(mode)
        row_agreement(model, rows(*PACKED))
        assert model.training == mode
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_rows_that_tell_most_by_hand() -> None:
    """Row 2 has the most documents, row 1 the longest; of one that is both there is one."""
    batch = rows((9, 9), (22,), (4, 4, 4))
    assert torch.equal(most_telling_rows(batch).token_ids, batch.token_ids[1:])
    assert len(most_telling_rows(rows((2, 20), (9,))).token_ids) == 1


def test_long_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "MOST_COLUMNS", 7)
    assert most_telling_rows(rows(*PACKED)).token_ids.shape == (2, 7)
    assert row_agreement(made(), rows(*PACKED)).packed < 1e-5


class Neighbourly(DeepSeekBackbone):
    """A model with one fault: its rows see each other's documents, or lengths, or its cache something of its own."""

    fault = ""

    def hidden(self, batch: TokenBatch, *arguments: Any, **keywords: Any) -> Any:
        if self.fault == "documents":
            batch = TokenBatch(batch.token_ids, batch.position_ids, batch.is_token.long())
        output = super().hidden(batch, *arguments, **keywords)
        if self.fault == "longest":
            output = dataclasses.replace(output, hidden=output.hidden * (1 + 0.01 * int(batch.position_ids.max())))
        elif self.fault == "nan":
            output = dataclasses.replace(output, hidden=output.hidden * float("nan"))
        return output

    def step(self, token_ids: Any, is_token: Any, cache: Any) -> Any:
        if self.fault == "padding":
            is_token = torch.ones_like(is_token)
        output = super().step(token_ids, is_token, cache)
        if self.fault == "cache":
            output = dataclasses.replace(output, hidden=output.hidden * 1.01)
        return output


@pytest.mark.parametrize(
    ("fault", "packed", "cached"),
    [
        ("documents", True, False),
        ("longest", True, True),
        ("padding", False, True),
        ("cache", False, True),
    ],
)
def test_each_fault_is_seen(fault: str, packed: bool, cached: bool) -> None:
    model = Neighbourly(made().config)
    model.load_state_dict(made().state_dict())
    assert row_agreement(model, rows(*PACKED)).packed < 1e-5
    model.fault = fault
    found = row_agreement(model, rows(*PACKED))
    assert (found.packed > 1e-3) == packed and (found.cached > 1e-3) == cached


def test_no_number_is_no_agreement() -> None:
    model = Neighbourly(made().config)
    model.fault = "nan"
    found = row_agreement(model, rows(*PACKED))
    assert found.packed != found.packed
