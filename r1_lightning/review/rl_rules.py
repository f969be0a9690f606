"""Rules for RL: what is sampled, how it is rewarded, how the policy moves, and whether sampler and trainer are one policy."""

from __future__ import annotations

import math

from r1_lightning.review.facts import (
    ACCURACY,
    FEWEST,
    LENGTH,
    REWARD,
    Facts,
    Finding,
    chosen,
    lasting,
    mean_above,
    means_of,
    median_above,
    medians_of,
    width_of,
)
from r1_lightning.review.rules import Rule
from r1_lightning.review.run_files import number_of
from r1_lightning.review.series import rolling

SOLVED = 0.8  # share of the highest reward above which groups agree because they are right
ENTROPY, KL_OLD, FINISHED = "policy/entropy", "policy/kl_old", "rollout/finished_fraction"
ZERO_VARIANCE, MIXED = "rollout/zero_variance_fraction", "rollout/mixed_language_fraction"
ROUNDING = 0.02  # nats per token between sampler and trainer that half precision or another engine may give
EVALUATIONS = (
    3  # to a mean: one of 100 problems has a standard error of 0.05, and the best of several lies far above the last
)
MINIBATCHES = "rollout.minibatches_per_rollout"


def _solved(facts: Facts) -> bool:
    share = facts.reward_share()
    return share is not None and share >= SOLVED


def _zero_variance(facts: Facts, threshold: float) -> Finding | None:
    return None if _solved(facts) else mean_above(facts, ZERO_VARIANCE, threshold)


def _truncated(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(FINISHED)
    found = lasting(series, means_of(series), lambda value: 1 - value > threshold)
    return None if found is None else Finding(1 - found.value, found.from_step)


def _collapsed(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(ENTROPY)
    means = means_of(series)
    if _solved(facts) or len(means) < 2:
        return None
    return lasting(series, means, lambda value: value < threshold * means[0])


def _scattered(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of(ENTROPY)
    means = means_of(series)
    return lasting(series, means, lambda value: value > 2 * means[0] and value > means[0] + threshold)


def _longer(facts: Facts, threshold: float) -> Finding | None:
    lengths, rewards = facts.of(LENGTH), means_of(facts.of(REWARD))
    means = means_of(lengths)
    if len(means) < 2 or len(rewards) != len(means) or not means[0] > 0:
        return None
    # Length that pays is what R1-Zero learns: only growth without a better reward counts.
    gain = rewards[-1] - rewards[0]
    pays = gain > 0.05 * (facts.highest_reward or max(map(abs, rewards)))
    found = lasting(lengths, means, lambda value: value > threshold * means[0])
    return None if found is None or pays else Finding(found.value / means[0], found.from_step)


def _no_divergence(facts: Facts, threshold: float) -> Finding | None:
    series = facts.of("policy/kl_ref")
    moves = any(value > 0 for value in facts.of("train/grad_norm").values[-width_of(series) :])
    if len(series) < FEWEST or not moves:
        return None
    return lasting(series, [max(series.values[-width_of(series) :])], lambda value: value <= threshold)


def _mismatch(facts: Facts, threshold: float) -> Finding | None:
    """At the first minibatch of a rollout no weight has changed since sampling: the log-probs of both must agree."""
    count = number_of(facts.settings, MINIBATCHES)
    if count is None or not 1 <= count < math.inf:
        return None
    exact = (
        facts.settings.get("precision.compute") == "fp32" and facts.settings.get("rollout._target_") == "RolloutConfig"
    )
    firsts = chosen(facts.of(KL_OLD), lambda step: step % int(count) == 0)
    return lasting(firsts, medians_of(firsts), lambda value: value > (threshold if exact else ROUNDING))


def _big_steps(facts: Facts, threshold: float) -> Finding | None:
    """Only minibatches after the first show how far a step went; the first shows the mismatch above."""
    count = number_of(facts.settings, MINIBATCHES) or 1.0
    later = chosen(facts.of(KL_OLD), lambda step: count > 1 and step % int(count) != 0)
    means = medians_of(later)
    wrong = [place for place, value in enumerate(means) if value > threshold]
    return Finding(max(means), later.steps[wrong[0]]) if wrong else None


def _hacked(facts: Facts, threshold: float) -> Finding | None:
    """Accuracy that falls while the reward does not: in training, in periodic evaluations, or from the base to the end."""
    rewards = facts.of(REWARD)
    means = means_of(rewards)
    if not means:
        return None
    names = [
        ACCURACY,
        *sorted(name for name in facts.series if name.startswith("val/") and name.endswith("/pass_at_1")),
    ]
    for name in names:
        series = facts.of(name)
        values = means_of(series) if name == ACCURACY else rolling(series.values, EVALUATIONS)
        if len(values) < 2:
            continue
        best = max(range(len(values)), key=values.__getitem__)
        begins = series.steps[best]
        before = [mean for step, mean in zip(rewards.steps, means, strict=False) if step <= begins]
        if values[best] - values[-1] > threshold and means[-1] >= (before or means)[-1]:
            return Finding(values[-1] - values[best], begins)
    for name, value in facts.final.items():
        base = facts.final.get(name.replace("eval/", "eval_base/", 1))
        if name.startswith("eval/") and name.endswith("/pass_at_1") and base is not None and base - value > threshold:
            if means[-1] > means[0]:
                return Finding(value - base, rewards.steps[0])
    return None


def _flat(facts: Facts, threshold: float) -> Finding | None:
    series, share = facts.of(REWARD), facts.reward_share()
    if len(series) < FEWEST or (share is not None and share > 0.99):
        return None
    last = series.values[-width_of(series) :]
    if max(last) - min(last) <= 1e-9:
        return lasting(series, series.values, lambda value: value == last[-1])
    highest = facts.highest_reward
    return None if highest is None else lasting(series, means_of(series), lambda value: value < threshold * highest)


def _fallen(facts: Facts, threshold: float) -> Finding | None:
    series, highest = facts.of(REWARD), facts.highest_reward
    means = means_of(series)
    if highest is None or not means or max(means) < 0.05 * highest:
        return None
    best = means.index(max(means))
    found = lasting(series, means, lambda value: value < threshold * means[best])
    return None if found is None or found.from_step < series.steps[best] else Finding(found.value, found.from_step)


RL_RULES = (
    Rule(
        "reward flat",
        "the reward is the same at each of the last 10 steps, or its mean is below {threshold:.0%} of the highest possible",
        0.01,
        _flat,
        "read completions with their reasons: nothing is rewarded, or everything alike; look at task.template and reward",
        is_failure=True,
    ),
    Rule(
        "reward fallen",
        "the mean reward of 10 steps is below {threshold:.0%} of the best such mean before",
        0.5,
        _fallen,
        "lower optim.lr, or raise stage.objective.kl_coef; go on from before that step",
        REWARD,
        is_failure=True,
    ),
    Rule(
        "zero-variance groups",
        "more than {threshold:.0%} of the groups have one reward for all (mean of 10 steps) and a reward below 80 % of the highest",
        0.5,
        _zero_variance,
        "choose problems that are neither too hard nor too easy, a larger rollout.group_size, or rollout.sampling_temperature=1",
        ZERO_VARIANCE,
    ),
    Rule(
        "truncated completions",
        "more than {threshold:.0%} of the completions end at the length limit (mean of 10 steps)",
        0.25,
        _truncated,
        "raise rollout.max_new_tokens, or look whether the model has learned to end a completion",
        FINISHED,
    ),
    Rule(
        "entropy collapse",
        "the entropy is below {threshold:.0%} of that of the first 10 steps, and the reward below 80 % of the highest",
        0.1,
        _collapsed,
        "lower optim.lr, raise stage.objective.clip_eps_high or kl_coef: the policy explores no longer",
        ENTROPY,
    ),
    Rule(
        "entropy explosion",
        "the entropy is more than twice that of the first 10 steps, and more than {threshold:g} nats above it",
        0.5,
        _scattered,
        "lower optim.lr: the policy forgets what it was trained on",
        ENTROPY,
    ),
    Rule(
        "length explosion",
        "completions are more than {threshold:g} times as long as in the first 10 steps, and the reward has not risen",
        2.0,
        _longer,
        "read the longest completions: they may repeat themselves; look whether a reward pays for length",
        LENGTH,
    ),
    Rule(
        "KL drift",
        "the median KL divergence from the reference of 10 steps is above {threshold:g} nats per token",
        1.0,
        lambda facts, threshold: median_above(facts, "policy/kl_ref", threshold),
        "raise stage.objective.kl_coef, or lower optim.lr",
        "policy/kl_ref",
    ),
    Rule(
        "no KL divergence",
        "the KL divergence from the reference is {threshold:g} at each of the last 10 steps, although the policy moves",
        0.0,
        _no_divergence,
        "the reference follows the policy: look at stage.reference_refresh_steps",
    ),
    Rule(
        "clipped share",
        "more than {threshold:.0%} of the tokens are clipped (mean of 10 steps)",
        0.2,
        lambda facts, threshold: mean_above(facts, "policy/clip_fraction", threshold),
        "lower optim.lr, or rollout.minibatches_per_rollout: most of a rollout teaches nothing",
        "policy/clip_fraction",
    ),
    Rule(
        "steps too large",
        "the median KL divergence of a rollout's later minibatches from its sampler is above {threshold:g} nats per token",
        0.1,
        _big_steps,
        "lower optim.lr",
        KL_OLD,
    ),
    Rule(
        "stale or mismatched log-probs",
        "at a rollout's first minibatch sampler and trainer differ by over {threshold:g} nats per token (0.02 unless all is FP32)",
        1e-4,
        _mismatch,
        "the sampler has other weights, another precision or another temperature than the trainer",
    ),
    Rule(
        "language mixing",
        "more than {threshold:.0%} of the completions mix languages (mean of 10 steps)",
        0.2,
        lambda facts, threshold: mean_above(facts, MIXED, threshold),
        "give reward.weights.language a weight",
        MIXED,
    ),
    Rule(
        "verifier timeouts",
        "the verifier ran out of time at more than {threshold:.0%} of the completions (mean of 10 steps)",
        0.01,
        lambda facts, threshold: mean_above(facts, "rollout/verifier_timeouts", threshold),
        "raise the verifier's time limit, or look at what it hangs on: each of these got a reward of 0",
    ),
    Rule(
        "unjudged completions",
        "more than {threshold:.0%} of the completions got no finite reward (mean of 10 steps)",
        0.05,
        lambda facts, threshold: mean_above(facts, "rollout/unjudged_fraction", threshold),
        "look at the reasons in the records of rollouts: a reward function gives no finite score",
    ),
    Rule(
        "reward without accuracy",
        "accuracy (mean of 10 steps, or of 3 evaluations) has fallen by more than {threshold:g} from its best, the reward has not",
        0.1,
        _hacked,
        "the reward pays for something else: read the completions with the highest rewards",
    ),
)
