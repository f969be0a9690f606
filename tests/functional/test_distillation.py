"""Distillation: numbers by hand, both ends of alpha, the limit of large T, what lumping and chunks may change, and TRL's loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from r1_lightning.functional import distillation
from r1_lightning.functional.distillation import (
    Distillation,
    ForwardKL,
    FullTeacher,
    GeneralisedJS,
    ReverseKL,
    StudentTokens,
    TopKTeacher,
    lumped,
    top_k_logprobs,
)
from r1_lightning.types.errors import InvalidInput

DIVERGENCES = [ForwardKL(), ReverseKL(), GeneralisedJS(0.5), GeneralisedJS(0.1)]
NAMES = ["forward", "reverse", "js", "js_0.1"]


def log(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


def normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------- divergences


def test_literal_numbers() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2).
    # KL(p, q) = 3/4 ln 1.5 + 1/4 ln 0.5 = 0.3040988 - 0.1732868 = 0.1308120
    # KL(q, p) = 1/2 ln 2/3 + 1/2 ln 2   = -0.2027326 + 0.3465736 = 0.1438410
    # m = (5/8, 3/8): KL(p, m) = 3/4 ln 1.2 + 1/4 ln 2/3 = 0.0353749, KL(q, m) = 1/2 ln 0.8 + 1/2 ln 4/3 = 0.0322693, mean 0.0338221
    # beta 1/4, m = (9/16, 7/16): 1/4 (3/4 ln 4/3 + 1/4 ln 4/7) + 3/4 (1/2 ln 8/9 + 1/2 ln 8/7)
    #   = 1/4 (0.2157616 - 0.1399039) + 3/4 (-0.0588915 + 0.0667657) = 0.0189644 + 0.0059056 = 0.0248700
    p, q = log(0.75, 0.25), log(0.5, 0.5)
    assert ForwardKL()(p, q).item() == pytest.approx(0.1308120, abs=2e-7)
    assert ReverseKL()(p, q).item() == pytest.approx(0.1438410, abs=2e-7)
    assert GeneralisedJS(0.5)(p, q).item() == pytest.approx(0.0338221, abs=2e-7)
    assert GeneralisedJS(0.25)(p, q).item() == pytest.approx(0.0248700, abs=2e-7)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=NAMES)
def test_never_negative_and_zero_where_both_agree(divergence: Any) -> None:
    p, q = (normal(50, 7, seed=seed, scale=2.0).log_softmax(-1) for seed in (0, 1))
    assert (divergence(p, q) > 1e-3).all()
    assert divergence(p, p).abs().max() < 1e-6


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=NAMES)
def test_tokens_that_neither_gives_any_mass_do_no_harm(divergence: Any) -> None:
    # e^-300 is 0 in FP32; the log-probs themselves are finite.
    p, q = (torch.tensor([[0.0, -300.0, -1.0 - 300 * i]]).log_softmax(-1).requires_grad_() for i in (0, 1))
    value = divergence(p, q)
    value.sum().backward()
    assert value.isfinite().all() and q.grad is not None and q.grad.isfinite().all()


def test_js_is_symmetric_at_a_half_only_and_mirrors_elsewhere() -> None:
    p, q = (normal(20, 5, seed=seed, scale=2.0).log_softmax(-1) for seed in (2, 3))
    torch.testing.assert_close(GeneralisedJS(0.5)(p, q), GeneralisedJS(0.5)(q, p), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(GeneralisedJS(0.2)(p, q), GeneralisedJS(0.8)(q, p), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(GeneralisedJS(0.2)(p, q), GeneralisedJS(0.2)(q, p), rtol=1e-2)


def test_js_at_its_ends_becomes_the_two_kls() -> None:
    """D / beta -> KL(p, q) and D / (1 - beta) -> KL(q, p), by how much with d = p / q - 1 and a sum over q written E.

    m = q (1 + beta d) and E d = 0, so D / beta = KL(p, q) - beta E d^2 / 2 + beta^2 E d^3 / 6 - ...: of the first correction the
    second is a share of beta E d^3 / (3 E d^2), at most beta max |d| / 3, and so are, taken together, those behind it.
    """
    p, q = (normal(20, 5, seed=seed).double().log_softmax(-1) for seed in (4, 5))
    for beta in (1e-4, 1e-5):
        for limit, found, a, b in (
            (ForwardKL(), GeneralisedJS(beta), p, q),
            (ReverseKL(), GeneralisedJS(1 - beta), q, p),
        ):
            d = (a - b).expm1()
            correction = (limit(p, q) - found(p, q) / beta) / beta
            expected = (b.exp() * d**2).sum(-1) / 2
            torch.testing.assert_close(correction, expected, rtol=float(beta * d.abs().max()), atol=0)


def test_js_is_at_most_the_entropy_of_the_coin() -> None:
    # Disjoint p and q: D = beta ln 1/beta + (1 - beta) ln 1/(1 - beta); ln 2 at a half.
    p, q = torch.tensor([[0.0, -80.0]]).log_softmax(-1), torch.tensor([[-80.0, 0.0]]).log_softmax(-1)
    assert GeneralisedJS(0.5)(p, q).item() == pytest.approx(math.log(2), abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- lumping


def test_lumped_literal() -> None:
    # (0.5, 0.3, 0.15, 0.05), tokens 0 and 2: 0.5, 0.15, and 0.35 for the two others.
    found = lumped(log(0.5, 0.3, 0.15, 0.05), torch.tensor([[0, 2]]))
    torch.testing.assert_close(found.exp(), torch.tensor([[0.5, 0.15, 0.35]]))


def test_the_likeliest_in_the_order_of_their_ids() -> None:
    # Logits 0, 3, 1, 2 with k = 2: tokens 1 and 3. At T = 2 e^(z/2) = 1, 4.4817, 1.6487, 2.7183, sum 9.8487.
    ids, logprobs = top_k_logprobs(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), 2, 2.0)
    assert ids.tolist() == [[1, 3]]
    torch.testing.assert_close(logprobs.exp(), torch.tensor([[4.4817, 2.7183, 2.6487]]) / 9.8487, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=NAMES)
def test_lumping_lowers_a_divergence_and_all_tokens_change_nothing(divergence: Any) -> None:
    teacher, student = normal(30, 9, seed=6, scale=2.0), normal(30, 9, seed=7, scale=2.0)
    full = FullTeacher(teacher, lambda x: x).compare(0, student, 1.7)
    values = [divergence(*full)]
    for top_k in (9, 5, 1):
        ids, logprobs = top_k_logprobs(teacher, top_k, 1.7)
        values.append(divergence(*TopKTeacher(ids, logprobs).compare(0, student, 1.7)))
    assert torch.equal(values[0], values[1]), "K = V is the full divergence, to the bit"
    for larger, smaller in pairwise(values[1:]):
        assert (smaller <= larger + 1e-6).all() and smaller.mean() < larger.mean()


# --------------------------------------------------------------------------------------------------------- the whole


def case(
    n: int = 12, d: int = 6, v: int = 11, seed: int = 0, **changes: Any
) -> tuple[StudentTokens, FullTeacher, dict[str, Tensor]]:
    """A student and a teacher of another width, with heads of their own; and what has gradients."""
    hidden, head = normal(n, d, seed=seed).requires_grad_(), normal(v, d, seed=seed + 1).requires_grad_()
    teacher_hidden, teacher_head = normal(n, 4, seed=seed + 2), normal(v, 4, seed=seed + 3)
    targets = torch.arange(n) * 5 % v
    settings = {"vocabulary": v, "n_tokens": n, **changes}
    student = StudentTokens(hidden, targets, lambda x: x @ head.T, **settings)
    return student, FullTeacher(teacher_hidden, lambda x: x @ teacher_head.T), {"hidden": hidden, "head": head}


def by_loops(student: StudentTokens, teacher: FullTeacher, alpha: float, t: float, beta: float | None) -> float:
    """alpha T^2 D + (1 - alpha) CE in float64, token by token; beta None is KL(p, q)."""
    z = student.unembed(student.hidden_ND).detach().double().numpy()
    v = teacher.unembed(teacher.hidden_ND).double().numpy()

    def softmax(x: np.ndarray) -> np.ndarray:
        powers = np.exp(x - x.max())
        return powers / powers.sum()

    total = 0.0
    for row, target in enumerate(student.targets_N.tolist()):
        p, q = softmax(v[row] / t), softmax(z[row] / t)
        if beta is None:
            d = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        else:
            m = beta * p + (1 - beta) * q
            d = beta * sum(a * math.log(a / c) for a, c in zip(p, m, strict=True))
            d += (1 - beta) * sum(b * math.log(b / c) for b, c in zip(q, m, strict=True))
        total += alpha * t * t * d - (1 - alpha) * math.log(softmax(z[row])[target])
    return total / student.n_tokens


@pytest.mark.parametrize(("alpha", "t"), [(0.7, 2.0), (1.0, 0.5), (0.3, 1.0)])
@pytest.mark.parametrize(("divergence", "beta"), [(ForwardKL(), None), (GeneralisedJS(0.3), 0.3)])
def test_the_mixed_loss_by_loops(alpha: float, t: float, divergence: Any, beta: float | None) -> None:
    student, teacher, _ = case()
    found = Distillation(divergence, alpha, t)(student, teacher)
    assert found.loss.item() == pytest.approx(by_loops(student, teacher, alpha, t, beta), rel=1e-5)
    assert float(found.metrics["train/divergence"]) == pytest.approx(
        by_loops(student, teacher, 1, t, beta) / t**2, rel=1e-5
    )
    assert float(found.metrics["train/cross_entropy"]) == pytest.approx(
        by_loops(student, teacher, 0, t, beta), rel=1e-5
    )


def gradients(loss: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), retain_graph=True), strict=True))


def test_alpha_0_is_cross_entropy_and_its_gradient() -> None:
    student, teacher, leaves = case()
    loss = Distillation(ForwardKL(), 0.0, 3.0)(student, teacher).loss
    plain = torch.nn.functional.cross_entropy(leaves["hidden"] @ leaves["head"].T, student.targets_N)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradients(loss, leaves), gradients(plain, leaves))


@pytest.mark.parametrize("n_tokens", [1, 2, 5, 40])
@pytest.mark.parametrize("divergence", [ForwardKL(), ReverseKL(), GeneralisedJS(0.3)])
def test_alpha_0_on_the_students_own_text_is_a_loss_of_0_with_a_gradient_of_0(divergence: Any, n_tokens: int) -> None:
    """L = alpha T^2 D is 0 whatever D is: backward must find 0 and no error."""
    generator = torch.Generator().manual_seed(n_tokens)
    hidden = torch.randn(n_tokens, 4, generator=generator).requires_grad_()
    head = torch.randn(6, 4, generator=generator)
    targets = torch.randint(6, (n_tokens,), generator=generator)
    own = StudentTokens(hidden, targets, lambda h: h @ head.T, 6, n_tokens, is_on_policy=True)
    teacher = FullTeacher(torch.randn(n_tokens, 4, generator=generator), lambda h: h @ head.T)
    output = Distillation(divergence, alpha=0.0)(own, teacher)
    output.loss.backward()
    assert output.loss.item() == 0.0 and hidden.grad is not None and hidden.grad.abs().max() == 0.0
    assert output.metrics["train/divergence"] > 0.01


def test_alpha_1_does_not_look_at_the_text() -> None:
    student, teacher, leaves = case()
    pure = Distillation(ReverseKL(), 1.0, 2.0)
    other = StudentTokens(student.hidden_ND, (student.targets_N + 3) % 11, student.unembed, 11, 12)
    losses = [pure(tokens, teacher).loss for tokens in (student, other)]
    assert torch.equal(*losses) and losses[0].item() > 0
    torch.testing.assert_close(gradients(losses[0], leaves), gradients(losses[1], leaves), rtol=0, atol=0)


def test_the_students_own_text_has_no_right_token() -> None:
    student, teacher, leaves = case(is_on_policy=True)
    loss = Distillation(ReverseKL(), 0.25, 2.0)(student, teacher).loss
    pure = Distillation(ReverseKL(), 1.0, 2.0)(student, teacher).loss
    torch.testing.assert_close(loss, 0.25 * pure)
    torch.testing.assert_close(gradients(loss, leaves)["head"], 0.25 * gradients(pure, leaves)["head"])


@pytest.mark.parametrize(
    ("divergence", "factor"), [(ForwardKL(), 1.0), (ReverseKL(), 1.0), (GeneralisedJS(0.3), 0.21)], ids=NAMES[:3]
)
def test_large_t_matches_logits(divergence: Any, factor: float) -> None:
    """Hinton eq 4: for logits of mean 0, dD/dz = (z - v) / (V T^2), here times T^2; JS has beta (1 - beta) = 0.21 of it."""
    z, v = (normal(5, 8, seed=seed) for seed in (8, 9))
    z, v = z - z.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True)
    z.requires_grad_()
    student = StudentTokens(z, torch.zeros(5, dtype=torch.long), lambda x: x, 8, 1)
    loss = Distillation(divergence, 1.0, 1000.0)(student, FullTeacher(v, lambda x: x)).loss
    (found,) = torch.autograd.grad(loss, z)
    # What is left out is of the order of max z^2 / (V T): 2.5^2 / 8000 = 8e-4, beside gradients of up to 0.5.
    torch.testing.assert_close(found, factor * (z - v).detach() / 8, rtol=0, atol=1e-3)
    assert found.abs().max() > 0.04


def test_soft_gradients_keep_their_size() -> None:
    """T^2 is there so that gradients at T = 10 and T = 20 are alike; without it they would differ by four."""
    sizes = []
    for t in (10.0, 20.0):
        student, teacher, leaves = case()
        sizes.append(gradients(Distillation(ForwardKL(), 1.0, t)(student, teacher).loss, leaves)["head"].norm())
    assert 0.8 < float(sizes[0] / sizes[1]) < 1.25


def split(student: StudentTokens, teacher: FullTeacher, rows: slice) -> tuple[StudentTokens, FullTeacher]:
    part = StudentTokens(student.hidden_ND[rows], student.targets_N[rows], student.unembed, 11, student.n_tokens)
    return part, FullTeacher(teacher.hidden_ND[rows], teacher.unembed)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=NAMES)
def test_two_micro_batches_are_one_batch(divergence: Any) -> None:
    student, teacher, leaves = case()
    objective = Distillation(divergence, 0.6, 2.0)
    whole = objective(student, teacher)
    parts = [objective(*split(student, teacher, rows)) for rows in (slice(0, 3), slice(3, 12))]
    loss = parts[0].loss + parts[1].loss
    torch.testing.assert_close(loss, whole.loss)
    torch.testing.assert_close(gradients(loss, leaves), gradients(whole.loss, leaves))
    for name, value in whole.metrics.items():
        torch.testing.assert_close(parts[0].metrics[name] + parts[1].metrics[name], value)


@pytest.mark.parametrize("kind", ["full", "top_k"])
def test_chunks_change_nothing_and_bound_the_logits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, leaves = case()
    known: Any = teacher
    if kind == "top_k":
        known = TopKTeacher(*top_k_logprobs(teacher.unembed(teacher.hidden_ND), 3, 2.0))
    objective = Distillation(GeneralisedJS(), 0.6, 2.0)
    whole = objective(student, known).loss
    expected = gradients(whole, leaves)
    widest: list[int] = []

    def watched(unembed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            widest.append(len(x))
            return unembed(x)

        return call

    monkeypatch.setattr(distillation, "CHUNK_LOGITS", 5 * 11)  # 12 tokens as 5, 5 and 2
    watching = StudentTokens(student.hidden_ND, student.targets_N, watched(student.unembed), 11, 12)
    if kind == "full":
        known = FullTeacher(teacher.hidden_ND, watched(teacher.unembed))
    loss = objective(watching, known).loss
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(gradients(loss, leaves), expected)
    assert max(widest) == 5
    # Each chunk's logits are made in forward and once more in backward, and nothing of them is kept between.
    assert len(widest) == (12 if kind == "full" else 6)


def test_rows_beyond_the_vocabulary_are_left_out_of_the_comparison() -> None:
    student, teacher, leaves = case()
    more = torch.cat([leaves["head"], normal(3, 6, seed=20)])
    padded = StudentTokens(student.hidden_ND, student.targets_N, lambda x: x @ more.T, 11, 12)
    wide = FullTeacher(teacher.hidden_ND, lambda x: torch.cat([teacher.unembed(x), x @ normal(4, 5, seed=21)], dim=1))
    objective = Distillation(ForwardKL(), 1.0, 2.0)
    torch.testing.assert_close(objective(padded, wide).loss, objective(student, teacher).loss)


def test_no_token_at_all_is_a_loss_of_0_with_a_gradient_of_0() -> None:
    student, teacher, leaves = case(n=0)
    loss = Distillation(ForwardKL())(student, teacher).loss
    assert loss.item() == 0.0
    assert float(gradients(loss, leaves)["head"].abs().max()) == 0.0


def test_without_gradients_it_is_the_same_number() -> None:
    student, teacher, _ = case()
    with torch.no_grad():
        found = Distillation(ForwardKL())(student, teacher).loss
    assert torch.equal(found, Distillation(ForwardKL())(student, teacher).loss.detach())


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("t", [1.0, 0.9, 3.0])
def test_loss_and_gradient_are_those_of_trl(beta: float, t: float) -> None:
    """GKDTrainer.generalized_jsd_loss on the same tensors, which has no T^2; its ends 0 and 1 are the two KLs."""
    from trl.experimental.gkd import GKDTrainer

    z, v = normal(3, 7, 13, seed=10, scale=2.0).requires_grad_(), normal(3, 7, 13, seed=11, scale=2.0)
    labels = torch.where(torch.rand(3, 7, generator=torch.Generator().manual_seed(12)) < 0.6, 1, -100)
    theirs = GKDTrainer.generalized_jsd_loss(z, v, labels, beta, t)
    picked = labels != -100
    n_tokens = int(picked.sum())
    assert 3 < n_tokens < 20
    student = StudentTokens(z[picked], labels[picked], lambda x: x, 13, n_tokens)
    divergence = ForwardKL() if beta == 0 else ReverseKL() if beta == 1 else GeneralisedJS(beta)
    ours = Distillation(divergence, 1.0, t)(student, FullTeacher(v[picked], lambda x: x)).loss / t**2
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    found, expected = (torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Distillation(ForwardKL(), alpha=1.1), "stage.objective.alpha=1.1 is not allowed"),
        (lambda: Distillation(ForwardKL(), distill_temperature=0.0), "distill_temperature=0.0 is not allowed"),
        (lambda: GeneralisedJS(0.0), "divergence.beta=0.0 is not allowed"),
        (lambda: GeneralisedJS(1.0), "divergence.beta=1.0 is not allowed: it must be below 1"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], line: str) -> None:
    with pytest.raises(InvalidInput, match=line):
        make()
