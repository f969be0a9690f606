"""What a wave keeps of its draws: those that count, in their places."""

from __future__ import annotations

import torch

from r1_lightning.rollout.collected import Collected

PAD = 9
YES, NO = True, False


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_only_what_counts_is_written() -> None:
    """Rows 2 and 0 of three stand in the batch; row 0 has ended before its second token."""
    out = Collected.empty(3, 3, PAD, torch.device("cpu"))
    rows = torch.tensor([2, 0])
    first = (torch.tensor([4, 5]), numbers(-0.5, -1.0), numbers(-0.25, -0.75))
    out.write(rows, 0, torch.tensor([YES, YES]), first, torch.tensor([NO, YES]))
    second = (torch.tensor([6, 7]), numbers(-2.0, -3.0), numbers(-1.5, -2.5))
    out.write(rows, 1, torch.tensor([YES, NO]), second, torch.tensor([YES, NO]))
    found = out.generation()
    assert found.completion_ids.tolist() == [[5, PAD], [PAD, PAD], [4, 6]]
    assert found.completion_mask.tolist() == [[YES, NO], [NO, NO], [YES, YES]]
    assert found.policy_logprobs.tolist() == [[-1.0, 0.0], [0.0, 0.0], [-0.5, -2.0]]
    assert found.sampler_logprobs.tolist() == [[-0.75, 0.0], [0.0, 0.0], [-0.25, -1.5]]
    assert found.finished.tolist() == [YES, NO, YES]
    assert found.routes.numel() == found.prompt_routes.numel() == 0


def test_what_does_not_count_leaves_what_was_there() -> None:
    """With places of their own, as with drafts: row 1 is full, and its last token is not overwritten."""
    out = Collected.empty(2, 2, PAD, torch.device("cpu"))
    rows, drawn = torch.tensor([0, 1]), (torch.tensor([4, 5]), numbers(-1.0, -2.0), numbers(-3.0, -4.0))
    out.write(rows, torch.tensor([0, 1]), torch.tensor([YES, YES]), drawn, torch.tensor([NO, YES]))
    again = (torch.tensor([6, 7]), numbers(-5.0, -6.0), numbers(-7.0, -8.0))
    out.write(rows, torch.tensor([1, 1]), torch.tensor([YES, NO]), again, torch.tensor([NO, NO]))
    found = out.generation()
    assert found.completion_ids.tolist() == [[4, 6], [PAD, 5]]
    assert found.policy_logprobs.tolist() == [[-1.0, -5.0], [0.0, -2.0]]
    assert found.completion_mask.tolist() == [[YES, YES], [NO, YES]]
    assert found.finished.tolist() == [NO, YES]


def test_routes_stand_beside_their_tokens() -> None:
    """Two layers, two rows, one expert of each: L x R x T x K."""
    out = Collected.empty(2, 2, PAD, torch.device("cpu"))
    rows, drawn = torch.tensor([0, 1]), (torch.tensor([4, 5]), numbers(-1.0, -2.0), numbers(-3.0, -4.0))
    for position, counts in enumerate(([YES, YES], [NO, YES])):
        routes = torch.tensor([[[[1]], [[2]]], [[[3]], [[4]]]]) + 10 * position
        out.write(rows, position, torch.tensor(counts), drawn, torch.tensor([NO, NO]))
        out.write_routes(rows, position, torch.tensor(counts), routes)
    assert out.generation().routes.squeeze(-1).tolist() == [[[1, 0], [2, 12]], [[3, 0], [4, 14]]]
