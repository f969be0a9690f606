"""Draws against numbers by hand, in both ways of summing a distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from r1_lightning.rollout import drawing
from r1_lightning.rollout.drawing import in_shares, inverse_cdf, nucleus


@pytest.fixture(params=[False, True], ids=["floating sums", "a GPU's whole numbers"])
def summed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of summing a distribution; only the tensors of a GPU say that they are there."""
    if request.param:
        monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True), raising=False)


@pytest.mark.parametrize(
    ("probabilities", "top_p", "expected"),
    [
        ([0.5, 0.3, 0.15, 0.05], 0.7, [0.625, 0.375, 0.0, 0.0]),  # 0.5 is short of 0.7, 0.8 is not
        ([0.5, 0.3, 0.15, 0.05], 0.9, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0]),
        ([0.05, 0.5, 0.15, 0.3], 0.7, [0.0, 0.625, 0.0, 0.375]),  # whatever the order
        ([0.5, 0.3, 0.15, 0.05], 0.01, [1.0, 0.0, 0.0, 0.0]),  # one token is always left
        ([0.25, 0.25, 0.25, 0.25], 0.4, [0.5, 0.5, 0.0, 0.0]),  # among equals the first
        ([0.5, 0.25, 0.125, 0.125], 0.5, [1.0, 0.0, 0.0, 0.0]),  # 0.5 has reached 0.5
        ([0.5, 0.25, 0.125, 0.125], 1.0, [0.5, 0.25, 0.125, 0.125]),
    ],
)
@pytest.mark.usefixtures("summed")
def test_nucleus_by_hand(probabilities: list[float], top_p: float, expected: list[float]) -> None:
    torch.testing.assert_close(nucleus(torch.tensor([probabilities]), top_p), torch.tensor([expected]))


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(seed: int, top_p: float) -> None:
    probabilities = torch.randn(1, 9, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    kept = nucleus(probabilities, top_p)[0] > 0
    mass = float(probabilities[0, kept].sum())
    least = float(probabilities[0, kept].min())
    assert mass > top_p - 1e-6
    assert mass - least < top_p + 1e-6
    assert least >= float(probabilities[0, ~kept].max()) if bool((~kept).any()) else True


def logits_of(kind: str) -> Tensor:
    """20 rows over 9,000 tokens: a trained model's, an untrained one's, few values (many ties), all ties, and some of each."""
    drawn = torch.randn(20, 9000, generator=torch.Generator().manual_seed(1))
    made = {"sharp": 6 * drawn, "flat": 0.01 * drawn, "ties": (2 * drawn).round() * 2, "even": 0 * drawn}
    made["mixed"] = torch.cat([made["sharp"][:10], made["ties"][10:]])
    return made[kind]


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.97])
@pytest.mark.parametrize(
    ("kind", "is_sorted"),
    [("sharp", False), ("flat", True), ("ties", True), ("even", True), ("mixed", True)],
)
def test_candidates_keep_what_the_sort_keeps(
    kind: str, is_sorted: bool, top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; and the sort is spared where the model is sure."""
    probabilities, sorts = logits_of(kind).softmax(-1), []
    sort = Tensor.sort
    monkeypatch.setattr(Tensor, "sort", lambda self, **how: sorts.append(1) or sort(self, **how))
    found = nucleus(probabilities, top_p)
    assert bool(sorts) is is_sorted
    monkeypatch.setattr(drawing, "SORTED_AT_MOST", 10**9)
    expected = nucleus(probabilities, top_p)
    assert torch.equal(found, expected) and sorts


@pytest.mark.parametrize(
    ("probabilities", "uniform", "token"),
    [
        ([0.25, 0.25, 0.5], 0.0, 0),
        ([0.25, 0.25, 0.5], 0.2499, 0),
        ([0.25, 0.25, 0.5], 0.25, 1),  # token i has the half-open interval from the mass before it to the mass up to it
        ([0.25, 0.25, 0.5], 0.4999, 1),
        ([0.25, 0.25, 0.5], 0.5, 2),
        ([0.25, 0.25, 0.5], 1 - 2**-24, 2),  # the largest uniform number there is
        ([0.0, 0.5, 0.0, 0.5], 0.0, 1),  # what has no mass is never drawn: not in front,
        ([0.0, 0.5, 0.0, 0.5], 0.5, 3),  # not between,
        ([0.5, 0.5, 0.0, 0.0], 1 - 2**-24, 1),  # and not at the end
        ([0.5, 0.25], 0.9, 1),  # rounding may leave a total other than 1: the last token keeps its share
    ],
)
@pytest.mark.usefixtures("summed")
def test_inverse_cdf_by_hand(probabilities: list[float], uniform: float, token: int) -> None:
    assert inverse_cdf(torch.tensor([probabilities]), torch.tensor([uniform])).tolist() == [token]


def by_definition(shares: Tensor, uniforms: Tensor) -> Tensor:
    """The first token whose running sum of whole numbers passes the threshold."""
    cumulative = shares.cumsum(-1)
    return (cumulative <= (uniforms.double().unsqueeze(-1) * cumulative[:, -1:]).long()).sum(-1)


@pytest.mark.parametrize("vocabulary", [1, 511, 512, 513, 1280, 1312])
def test_blocks_of_tokens_find_the_token_of_the_running_sum(vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with all mass on few tokens, so that whole blocks are empty."""
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True), raising=False)
    generator = torch.Generator().manual_seed(vocabulary)
    for width in (0.1, 3.0, 60.0):
        probabilities = (width * torch.randn(200, vocabulary, generator=generator)).softmax(-1)
        uniforms = torch.rand(200, generator=generator)
        assert torch.equal(inverse_cdf(probabilities, uniforms), by_definition(in_shares(probabilities), uniforms))


def test_whole_numbers_draw_what_floating_sums_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """32,000 tokens: shares are exact to 2^-40 each, so a draw differs only where a floating sum has rounded past the number."""
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(64, 32_000, generator=generator)).softmax(-1)
    uniforms = torch.rand(64, generator=generator)
    exact = probabilities.double().cumsum(-1)
    expected = (exact <= uniforms.double().unsqueeze(-1) * exact[:, -1:]).sum(-1)
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda _: True), raising=False)
    assert torch.equal(inverse_cdf(probabilities, uniforms), expected)
    edges = torch.tensor([0.0, 1 - 2**-24, 0.5, 0.25]).repeat(16)
    assert torch.equal(inverse_cdf(probabilities, edges), by_definition(in_shares(probabilities), edges))
    shares = in_shares(probabilities)
    assert torch.equal(shares.flip(-1).cumsum(-1)[:, -1], shares.cumsum(-1)[:, -1])  # in any order of summing
