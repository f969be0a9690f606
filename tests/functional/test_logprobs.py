"""Log-probs and entropies are those of softmax(logits / sampling_temperature)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from r1_lightning.functional import logprobs as module
from r1_lightning.functional.logprobs import entropy, linear_argmax, linear_token_logprobs, tile_shape, token_logprobs


def _random_logits(n: int = 6, v: int = 11, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, v, generator=generator), torch.randint(v, (n,), generator=generator)


def test_literal_numbers():
    # logits 0, ln 3: probabilities 1/4 and 3/4. At temperature 2 the logits are 0, ln sqrt(3): the second has
    # sqrt(3) / (1 + sqrt(3)) = 1.7320508 / 2.7320508 = 0.6339746.
    logits, target = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([1])
    assert token_logprobs(logits, target, 1.0).item() == pytest.approx(math.log(0.75), abs=1e-6)
    assert token_logprobs(logits, target, 2.0).item() == pytest.approx(math.log(0.6339746), abs=1e-6)
    # H(1/4, 3/4) = 1/4 ln 4 + 3/4 ln 4/3 = 0.3465736 + 0.2157616
    assert entropy(logits, 1.0).item() == pytest.approx(0.5623351, abs=1e-6)


@pytest.mark.parametrize("sampling_temperature", [0.7, 1.0, 1.3])
def test_against_numpy_in_double_precision(sampling_temperature):
    logits, targets = _random_logits()
    scaled = logits.numpy().astype(np.float64) / sampling_temperature
    probabilities = np.exp(scaled) / np.exp(scaled).sum(-1, keepdims=True)
    expected = np.log(probabilities[np.arange(len(scaled)), targets.numpy()])
    np.testing.assert_allclose(token_logprobs(logits, targets, sampling_temperature).numpy(), expected, atol=1e-6)
    expected_entropy = -(probabilities * np.log(probabilities)).sum(-1)
    np.testing.assert_allclose(entropy(logits, sampling_temperature).numpy(), expected_entropy, atol=1e-6)


def test_probabilities_over_the_vocabulary_sum_to_one():
    logits, _ = _random_logits(n=1)
    every_token = torch.arange(11)
    total = token_logprobs(logits.expand(11, -1), every_token, 0.7).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-6)


def test_adding_a_constant_to_the_logits_changes_nothing():
    logits, targets = _random_logits()
    torch.testing.assert_close(
        token_logprobs(logits + 50.0, targets, 0.7), token_logprobs(logits, targets, 0.7), atol=1e-5, rtol=0
    )


def test_entropy_lies_between_zero_and_ln_v_and_grows_with_temperature():
    logits, _ = _random_logits(n=50)
    cold, warm, hot = (entropy(logits, temperature) for temperature in (0.5, 1.0, 2.0))
    assert ((cold > 0) & (cold < warm) & (warm < hot) & (hot < math.log(11))).all()
    assert entropy(torch.zeros(1, 11), 1.0).item() == pytest.approx(math.log(11), abs=1e-6)


def test_gradient_is_one_hot_minus_probability_over_temperature():
    # d log p_y / d z_i = ([i = y] - p_i) / T
    logits, targets = _random_logits()
    logits.requires_grad_()
    token_logprobs(logits, targets, 0.7).sum().backward()
    one_hot = torch.nn.functional.one_hot(targets, 11)
    expected = (one_hot - (logits.detach() / 0.7).softmax(-1)) / 0.7
    torch.testing.assert_close(logits.grad, expected, atol=1e-6, rtol=0)
    assert not entropy(logits, 0.7).requires_grad


def test_bf16_logits_are_treated_in_fp32():
    logits, targets = _random_logits()
    rounded = logits.bfloat16()
    result = token_logprobs(rounded, targets, 0.7)
    assert result.dtype == torch.float32
    assert torch.equal(result, token_logprobs(rounded.float(), targets, 0.7))


def test_two_halves_equal_the_whole_and_leading_shapes_are_free():
    logits, targets = _random_logits()
    whole = token_logprobs(logits, targets, 0.7)
    halves = torch.cat([token_logprobs(logits[i : i + 3], targets[i : i + 3], 0.7) for i in (0, 3)])
    assert torch.equal(whole, halves)
    assert torch.equal(token_logprobs(logits.view(2, 3, 11), targets.view(2, 3), 0.7), whole.view(2, 3))


# ------------------------------------------------------------------------------------------------- without making the logits


def _random_head(
    n: int = 13, v: int = 29, d: int = 7, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden, head = (torch.randn(rows, d, generator=generator).requires_grad_() for rows in (n, v))
    return hidden, head, torch.randint(v, (n,), generator=generator)


def test_from_hidden_states_literal_numbers():
    # One hidden state (1), head rows 0 and ln 3: the logits of the first test.
    hidden, head = torch.tensor([[1.0]]), torch.tensor([[0.0], [math.log(3.0)]])
    logprobs, entropies = linear_token_logprobs(hidden, head, torch.tensor([1]), 2.0)
    assert logprobs.item() == pytest.approx(math.log(0.6339746), abs=1e-6)
    assert linear_token_logprobs(hidden, head, torch.tensor([1]))[1].item() == pytest.approx(0.5623351, abs=1e-6)
    assert entropies.item() == pytest.approx(entropy(torch.tensor([[0.0, math.log(3.0)]]), 2.0).item(), abs=1e-6)


@pytest.mark.parametrize("sampling_temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("tokens", "vocabulary", "on_cpu"),
    [(1024, 16_384, 1024), (1, 29, 29), (4, 10, 29), (1, 1, 29), (5, 28, 28), (13, 30, 29), (4, 99, 10), (5, 99, 28)],
)
def test_any_tiles_give_the_numbers_and_gradients_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, tokens: int, vocabulary: int, on_cpu: int, sampling_temperature: float
) -> None:
    monkeypatch.setattr(module, "TILE_TOKENS", tokens)
    monkeypatch.setattr(module, "TILE_VOCABULARY", vocabulary)
    monkeypatch.setattr(module, "CPU_TILE_VOCABULARY", on_cpu)
    hidden, head, targets = _random_head()
    weights = torch.linspace(-2.0, 3.0, 13)
    logprobs, entropies = linear_token_logprobs(hidden, head, targets, sampling_temperature)
    (logprobs * weights).sum().backward()
    found = logprobs.detach(), entropies, hidden.grad, head.grad
    hidden, head, targets = _random_head()
    logits = hidden @ head.T
    whole = token_logprobs(logits, targets, sampling_temperature)
    (whole * weights).sum().backward()
    expected = whole.detach(), entropy(logits, sampling_temperature), hidden.grad, head.grad
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    assert not entropies.requires_grad


@pytest.mark.parametrize(("tokens", "on_cpu"), [(1024, 1024), (4, 10), (5, 28), (1, 1)])
def test_the_likeliest_token_of_any_tiles_is_that_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, tokens: int, on_cpu: int
) -> None:
    """Of equal logits the first: entries 3 and 17 of the head are the same, and give 0 + 1 + 4 + 9 + 16 + 25 + 36 = 91 exactly."""
    monkeypatch.setattr(module, "TILE_TOKENS", tokens)
    monkeypatch.setattr(module, "CPU_TILE_VOCABULARY", on_cpu)
    hidden, head, _ = _random_head()
    with torch.no_grad():
        head[3] = head[17] = hidden[5] = torch.arange(7.0)
    found = linear_argmax(hidden, head)
    assert torch.equal(found, (hidden @ head.T).argmax(1)) and int(found[5]) == 3
    assert linear_argmax(hidden[:0], head).shape == (0,)


def test_tiles_of_a_cpu_fit_its_caches() -> None:
    """2**24 entries on a GPU and 2**20 on a CPU, 4 MB; a vocabulary that is no wider than a CPU's tile is cut into tokens alone."""
    assert tile_shape(8192, 129_280, "cuda") == (1024, 16_384)
    assert tile_shape(8192, 129_280, "cpu") == tile_shape(8192, 1025, "cpu") == (1024, 1024)
    assert tile_shape(99_999, 1024, "cpu") == (16_384, 1024)
    assert tile_shape(700, 4096, "cuda") == (700, 4096) and tile_shape(700, 4096, "cpu") == (700, 1024)


def test_logits_too_large_for_exp_are_no_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits 0, 1000 and 2000, each in a tile of its own: the last has probability 1, the others 0."""
    monkeypatch.setattr(module, "TILE_TOKENS", 1)
    monkeypatch.setattr(module, "TILE_VOCABULARY", 1)
    hidden = torch.tensor([[1000.0]] * 3, requires_grad=True)
    logprobs, entropies = linear_token_logprobs(hidden, torch.tensor([[0.0], [1.0], [2.0]]), torch.arange(3))
    assert logprobs.tolist() == [-2000.0, -1000.0, 0.0]
    assert entropies.tolist() == [0.0, 0.0, 0.0]
    logprobs.sum().backward()
    assert bool(hidden.grad.isfinite().all())


def test_gradient_of_the_function_against_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """In FP32, so by hand: the slope along a random direction."""
    monkeypatch.setattr(module, "TILE_TOKENS", 3)
    monkeypatch.setattr(module, "TILE_VOCABULARY", 8)
    hidden, head, targets = _random_head()
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(5))
    linear_token_logprobs(hidden, head, targets, 0.9)[0].sum().backward()
    with torch.no_grad():
        ahead, back = (
            linear_token_logprobs(hidden + step * direction, head, targets, 0.9)[0].double().sum()
            for step in (1e-2, -1e-2)
        )
    slope = (ahead - back) / 2e-2
    assert float((hidden.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-3)


def test_no_tokens_at_all():
    hidden, head, _ = _random_head()
    logprobs, entropies = linear_token_logprobs(hidden[:0], head, torch.zeros(0, dtype=torch.long))
    assert logprobs.shape == entropies.shape == (0,)
    logprobs.sum().backward()
    assert float(head.grad.abs().sum()) == 0.0
