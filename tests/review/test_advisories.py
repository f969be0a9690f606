"""All rules together: failures come first, what an experiment is like is no complaint, curves of real runs break none."""

from __future__ import annotations

from r1_lightning.review.advisories import RULES, advisories
from r1_lightning.review.facts import Facts
from r1_lightning.review.series import Series
from tests.golden.bands import SOURCES, curves_of
from tests.review.rule_cases import RL, STEPS, found, names


def test_every_rule_says_all() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES) >= 20
    for rule in RULES:
        assert "{" not in rule.rule and rule.text and rule.advice and "\n" not in rule.rule + rule.advice, rule.name


def test_nothing_logged_breaks_none() -> None:
    assert advisories(Facts({})) == []


def test_failures_come_first_then_the_earliest() -> None:
    told = found(
        RL,
        {
            "rollout/mixed_language_fraction": [0.9] * STEPS,
            "rollout/finished_fraction": [1.0] * 20 + [0.0] * 20,
            "rollout/reward_mean": [0.9] * 20 + [0.0] * 20,
        },
    )
    assert names(told)[0] in ("reward flat", "reward fallen")
    assert [one.is_failure for one in told] == sorted((one.is_failure for one in told), reverse=True)
    assert names(told)[-2:] == ["language mixing", "truncated completions"]


def test_what_ended_the_run_comes_before_what_was_wrong_earlier() -> None:
    nan = {"train/loss": [0.0] * (STEPS - 1) + [float("nan")]}
    assert names(found(RL, {"rollout/reward_mean": [0.0] * STEPS, **nan}))[:2] == ["not finite", "reward flat"]


def test_a_curve_within_its_band_is_no_complaint() -> None:
    mixed = Facts({"rollout/mixed_language_fraction": Series(tuple(range(20)), (0.35,) * 20)})
    assert names(advisories(mixed)) == ["language mixing"]
    assert advisories(mixed, ["rollout/mixed_language_fraction"]) == []
    assert names(advisories(mixed, ["rollout/reward_mean"])) == ["language mixing"]


def test_curves_of_healthy_runs_break_none() -> None:
    """Every run of three seeds of the committed reports; mixing of languages is what some of them are about."""
    healthy = {
        name: source for name, source in SOURCES.items() if source.report != "reward_hacking"
    }  # a fault is its subject
    runs = 0
    for name, source in healthy.items():
        curves = curves_of(source)
        for seed in sorted(next(iter(curves.values()))):
            series = {metric: one[seed] for metric, one in curves.items()}
            assert advisories(Facts(series), ["rollout/mixed_language_fraction"]) == [], (name, seed)
            runs += 1
    assert runs >= 3 * len(healthy) > 0


def test_reward_hacking_is_named() -> None:
    """The committed run against the reward model's score: accuracy falls while the score rises (points are means of 10 steps)."""
    curves = curves_of(SOURCES["reward_hacking"])
    for seed in curves["rollout/score_mean"]:
        series = {metric: one[seed] for metric, one in curves.items()}
        series["rollout/reward_mean"] = series["rollout/score_mean"]  # its weight is 1, that of all others 0
        assert "reward without accuracy" in names(advisories(Facts(series)))
