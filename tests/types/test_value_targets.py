"""Value targets: all tensors of a rollout change alike, and a missing reference stays missing."""

from __future__ import annotations

import torch

from r1_lightning.types.value_targets import ValueTargets


def test_every_field_that_is_there_is_changed() -> None:
    values, returns, reference = torch.tensor([[1.0], [2.0], [3.0]]).unbind()
    found = ValueTargets(values, returns, reference).map(lambda numbers: numbers + 1)
    assert found.ref_logprobs is not None
    assert [float(found.old_values), float(found.returns), float(found.ref_logprobs)] == [2.0, 3.0, 4.0]
    assert ValueTargets(values, returns).map(torch.neg).ref_logprobs is None


def test_it_moves_as_a_batch_does() -> None:
    moved = ValueTargets(torch.ones(1), torch.ones(1), torch.ones(1)).to("meta")
    assert moved.ref_logprobs is not None and moved.ref_logprobs.is_meta and moved.old_values.is_meta
