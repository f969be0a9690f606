"""The measures of memory themselves, on tensors whose bytes are known."""

from __future__ import annotations

import torch

from tests.support.memory import LiveTensors, saved_bytes


def test_the_peak_is_what_was_alive_at_one_time() -> None:
    """1,000 and 500 numbers together, then 1,000 and 700 after the 500 are gone: 6,800 bytes. A view takes nothing."""
    before = torch.zeros(10_000)
    with LiveTensors([before]) as live:
        first = torch.zeros(1000)
        second = torch.zeros(500)
        assert live.now == 6000
        view = first[:10]
        before.add_(1)
        del second
        assert live.now == 4000
        third = torch.zeros(700)
        assert (live.now, live.peak) == (6800, 6800)
        del first
        assert live.now == 6800  # its view holds it
        del view, third
        assert (live.now, live.peak) == (0, 6800)


def test_what_a_product_saves() -> None:
    """x * y keeps both for the backward; of these y was there before. exp keeps its own result: 2 x 400 bytes in all."""
    x, y = torch.ones(100, requires_grad=True), torch.ones(100, requires_grad=True)
    assert saved_bytes(lambda: ((x * y) * y).exp(), [y]) == 3 * 400
