"""Each rule for RL names its fault and since when, and keeps silent about what looks like it and is none."""

from __future__ import annotations

import pytest

from tests.review.rule_cases import RL, STEPS, found, line, names

STUCK = {"rollout/reward_mean": line(0.6, 0.7), "rollout/accuracy_mean": line(0.3, 0.35)}


def test_a_reward_that_is_always_the_same() -> None:
    told = found(RL, {"rollout/reward_mean": [0.0] * STEPS})
    assert told[0].name == "reward flat" and told[0].from_step == 0 and told[0].is_failure
    late = found(RL, {"rollout/reward_mean": [0.5] * 20 + [0.25] * 20})
    assert late[0].name == "reward flat" and late[0].from_step == 20
    assert found(RL, {"rollout/reward_mean": [2.0] * STEPS}) == []  # the highest: solved


def test_a_reward_that_is_hardly_ever_given() -> None:
    told = found(RL, {"rollout/reward_mean": [0.0, 0.02, 0.0, 0.01] * 10})
    assert told[0].name == "reward flat" and told[0].from_step == 0


def test_a_reward_that_falls() -> None:
    """1.8 for 20 steps, then 0.2: below half of the best mean from the window of steps 16 to 25 on (4 * 1.8 + 6 * 0.2 = 8.4)."""
    told = found(RL, {"rollout/reward_mean": [1.79, 1.81] * 10 + [0.2, 0.21] * 10})
    assert told[0].name == "reward fallen" and told[0].from_step == 16 and told[0].is_failure
    assert told[0].value == pytest.approx(0.205)


def test_zero_variance_groups() -> None:
    (told,) = found(RL, {**STUCK, "rollout/zero_variance_fraction": [0.6] * STEPS})
    assert (told.name, told.from_step) == ("zero-variance groups", 0) and told.value == pytest.approx(0.6)
    assert found(RL, {"rollout/zero_variance_fraction": [0.6] * STEPS}) == []  # they are right: 1.7 of 2 at the end
    assert found(RL, {**STUCK, "rollout/zero_variance_fraction": [0.49] * STEPS}) == []


def test_truncated_completions() -> None:
    (told,) = found(RL, {"rollout/finished_fraction": [1.0] * 20 + [0.0] * 20})
    assert (told.name, told.value, told.from_step) == ("truncated completions", 1.0, 13)  # 3 of 10
    assert found(RL, {"rollout/finished_fraction": [0.2] * 20 + [0.9] * 20}) == []  # it has learned to end


def test_entropy_collapse_and_explosion() -> None:
    (told,) = found(RL, {**STUCK, "policy/entropy": [0.3] * 10 + [0.02] * 30})
    assert told.name == "entropy collapse" and told.from_step == 10
    assert found(RL, {"policy/entropy": [0.3] * 10 + [0.02] * 30}) == []  # certain and right
    (told,) = found(RL, {"policy/entropy": [0.3] * 10 + [2.0] * 30})
    assert told.name == "entropy explosion"


def test_length_explosion() -> None:
    longer = {"rollout/completion_tokens_mean": [20.0] * 20 + [60.0] * 20}
    (told,) = found(RL, {**STUCK, **longer, "rollout/reward_mean": [0.6, 0.62] * 20})
    assert told.name == "length explosion" and told.value == 3.0
    assert found(RL, longer) == []  # thinking that pays


def test_drift_from_the_reference() -> None:
    (told,) = found(RL, {"policy/kl_ref": [0.1] * 20 + [3.0] * 20})
    assert told.name == "KL drift" and told.value == 3.0
    assert found(RL, {"policy/kl_ref": [0.1] * 38 + [20.0, 0.1]}) == []  # one token, as FP8 runs have them


def test_no_divergence_although_the_policy_moves() -> None:
    (told,) = found(RL, {"policy/kl_ref": [0.0] * STEPS})
    assert told.name == "no KL divergence"
    without = {name: values for name, values in RL.items() if name != "policy/kl_ref"}
    assert found(without) == []  # an objective without the term logs none


def test_clipped_share_and_steps_too_large() -> None:
    (told,) = found(RL, {"policy/clip_fraction": [0.0, 0.6] * 20})
    assert told.name == "clipped share" and told.value == pytest.approx(0.3)
    (told,) = found(RL, {"policy/kl_old": [1e-13, 0.001] * 10 + [1e-13, 0.5] * 10})
    assert told.name == "steps too large" and told.value == 0.5


def test_stale_or_mismatched_logprobs() -> None:
    """At even steps no weight has changed since sampling."""
    stale = {"policy/kl_old": [0.001, 0.001] * 20}
    (told,) = found(RL, stale)
    assert (told.name, told.value, told.from_step) == ("stale or mismatched log-probs", 0.001, 0)
    assert found(RL, stale, {"precision.compute": "bf16"}) == []  # rounding
    assert found(RL, stale, {"rollout._target_": "VLLMRollout"}) == []  # another engine's rounding
    assert names(found(RL, {"policy/kl_old": [0.05, 0.05] * 20}, {"precision.compute": "bf16"})) == [told.name]
    assert found(RL, stale, {"rollout.minibatches_per_rollout": "x"}) == []  # not known which minibatch is the first


def test_language_mixing_timeouts_and_unjudged() -> None:
    assert names(found(RL, {"rollout/mixed_language_fraction": [0.3] * STEPS})) == ["language mixing"]
    assert names(found(RL, {"rollout/verifier_timeouts": [0.02] * STEPS})) == ["verifier timeouts"]
    assert names(found(RL, {"rollout/unjudged_fraction": [0.06] * STEPS})) == ["unjudged completions"]


def test_a_reward_that_rises_while_accuracy_falls() -> None:
    """The best mean accuracy is that of the first ten steps."""
    (told,) = found(RL, {"rollout/accuracy_mean": line(0.6, 0.1)})
    assert told.name == "reward without accuracy" and told.from_step == 0 and told.value < -0.1
    # Means of 3 evaluations: 0.5, 0.6, 0.5, 0.4; the best from the second on.
    (told,) = found(RL, {"val/arithmetic/pass_at_1": [0.3, 0.6, 0.6, 0.6, 0.3, 0.3]})
    assert told.name == "reward without accuracy" and told.value == pytest.approx(-0.2) and told.from_step == 1
    (told,) = found(RL, None, None, {"eval/x/pass_at_1": 0.3, "eval_base/x/pass_at_1": 0.5})
    assert told.name == "reward without accuracy" and told.value == pytest.approx(-0.2)
    assert found(RL, None, None, {"eval/x/pass_at_1": 0.45, "eval_base/x/pass_at_1": 0.5}) == []


def test_a_single_good_evaluation_is_no_lost_accuracy() -> None:
    """100 problems have a standard error of 0.05: of 8 evaluations of one policy the best is 0.1 above the last in 29 % of runs."""
    assert found(RL, {"val/arithmetic/pass_at_1": [0.5, 0.62, 0.48, 0.5, 0.47]}) == []
    assert found(RL, {"val/arithmetic/pass_at_1": [0.7, 0.5, 0.5]}) == []  # too few


def test_completions_without_tokens_have_no_length_that_grows() -> None:
    assert found(RL, {"rollout/completion_tokens_mean": [0.0] * 15 + [9.0] * 25}) == []
