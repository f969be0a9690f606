"""PPO's advantage estimator: rewards, penalties and values of a rollout become advantages and returns, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1_lightning.rollout.advantage_estimators import AdvantageEstimator, Estimate, estimate_of
from r1_lightning.rollout.results import JudgedSamples
from r1_lightning.rollout.value_baseline import ValueBaseline
from r1_lightning.types.errors import InvalidInput
from tests.rollout.test_completion_scores import MASK, PROMPTS, generation


def judged(rewards: list[list[float]] | None = None) -> JudgedSamples:
    """Four completions of 3, 1, 2 and 3 tokens; the policy's log-probs are -1 each."""
    drawn = replace(generation(), policy_logprobs=-torch.ones(4, 3))
    given: dict[str, Any] = {"problems": (), "prompts": PROMPTS, "texts": ("",) * 4, "generation": drawn, "parts": {}}
    return JudgedSamples(**given, rewards=torch.tensor(rewards or [[1.0, 0.0], [0.0, 1.0]]))


def lent(baseline: ValueBaseline, values: Tensor, reference: Tensor | None = None) -> ValueBaseline:
    baseline.lend(lambda _: (values, reference))
    return baseline


def test_advantages_and_returns_by_hand() -> None:
    """lambda 1, no discount, beta 1/2. The reference's log-prob is -1.5 everywhere: k1 is 1/2, a penalty of 1/4 per token.

    Completion 0, reward 1: rewards -1/4 -1/4 3/4, to go 1/4 1/2 3/4, values 1/2: advantages -1/4 0 1/4.
    Completion 1, reward 0: to go -1/4, advantage -3/4. Completion 2: to go -1/2 -1/4: -1 -3/4. Completion 3 as 0.
    """
    values = torch.full((4, 3), 0.5) * MASK
    found = estimate_of(
        lent(ValueBaseline(kl_coef=0.5, whiten=False), values, torch.full((4, 3), -1.5) * MASK), judged()
    )
    one = [-0.25, 0.0, 0.25]
    assert found.advantages.tolist() == [one, [-0.75, 0.0, 0.0], [-1.0, -0.75, 0.0], one]
    assert found.targets is not None
    assert found.targets.returns.tolist() == [[0.25, 0.5, 0.75], [-0.25, 0, 0], [-0.5, -0.25, 0], [0.25, 0.5, 0.75]]
    assert found.metrics["rollout/kl_ref"] == 0.5 and found.metrics["value/mean"] == 0.5
    assert found.metrics["value/return_mean"] == pytest.approx(2.0 / 9)
    assert found.metrics["value/explained_variance"] == 0.0  # of a constant


def test_whitening_changes_advantages_and_no_return() -> None:
    values = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) * MASK
    plain, white = (estimate_of(lent(ValueBaseline(whiten=whiten), values), judged()) for whiten in (False, True))
    assert plain.targets is not None and white.targets is not None
    assert torch.equal(plain.targets.returns, white.targets.returns) and white.targets.ref_logprobs is None
    inside = white.advantages[MASK]
    assert float(inside.mean()) == pytest.approx(0.0, abs=1e-6) and float(inside.std()) == pytest.approx(1.0, abs=1e-4)
    assert "rollout/kl_ref" not in white.metrics


def test_lambda_decides_how_far_a_reward_reaches_back() -> None:
    """Values 0: with lambda 0 only the last token of a rewarded completion is credited, with 1/2 half as much each token before."""
    for gae_lambda, row in ((0.0, [0.0, 0.0, 1.0]), (0.5, [0.25, 0.5, 1.0]), (1.0, [1.0, 1.0, 1.0])):
        found = estimate_of(lent(ValueBaseline(gae_lambda, whiten=False), torch.zeros(4, 3)), judged())
        assert found.advantages[0].tolist() == row and not found.advantages[1:3].any()


def test_a_group_that_could_not_be_judged_teaches_nothing() -> None:
    """Its advantages are 0 and its values are to stay; it counts in no mean either."""
    values = torch.full((4, 3), 0.5) * MASK
    found = estimate_of(lent(ValueBaseline(), values), judged([[float("nan"), 0.0], [0.0, 1.0]]))
    assert found.targets is not None
    assert not found.advantages[:2].any() and torch.equal(found.targets.returns[:2], values[:2])
    assert found.metrics["value/return_mean"] == pytest.approx(3 / 5)
    assert float(found.advantages[2:][MASK[2:]].mean()) == pytest.approx(0.0, abs=1e-6)


def test_an_estimator_may_return_advantages_alone() -> None:
    class Ones:
        def __call__(self, samples: JudgedSamples) -> Tensor:
            return torch.ones(4, 3)

    found = estimate_of(Ones(), judged())
    assert isinstance(Ones(), AdvantageEstimator) and isinstance(found, Estimate)
    assert torch.equal(found.advantages, MASK.float()) and found.targets is None and found.metrics == {}


def test_without_a_stage_that_lends_a_value_model_it_is_refused() -> None:
    with pytest.raises(InvalidInput, match="only stage=ppo has a value model"):
        ValueBaseline()(judged())


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"gae_lambda": 1.5}, r"rollout\.advantages\.gae_lambda=1\.5"),
        ({"discount": -0.1}, r"rollout\.advantages\.discount=-0\.1"),
        ({"kl_coef": -1.0}, r"rollout\.advantages\.kl_coef=-1\.0"),
        ({"whiten": 1}, r"rollout\.advantages\.whiten=1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], refused: str) -> None:
    with pytest.raises(InvalidInput, match=refused):
        ValueBaseline(**settings)
