"""The layout of curves: the reward first, no chart without a curve, no curve without a chart."""

from __future__ import annotations

import re

from r1_lightning.run.stages.board_layout import CHARTS, high_name, layout, low_name

NAMES = [
    "format/missing_think",
    "moe/max_violation",
    "mine/own",
    "optim/lr",
    "perf/step_s",
    "policy/kl_ref",
    "rollout/accuracy_mean",
    "rollout/format_mean",
    "rollout/policy_logprob_mean",
    "rollout/reward_mean",
    "rollout/reward_std",
    "train/loss",
]


def curves(content: object) -> set[str]:
    kind, tags = content  # type: ignore[misc]
    if kind == "Margin":
        return {tags[0]}
    return {name for name in NAMES for tag in tags if re.match(tag, name)}  # as TensorBoard's plugin matches them


def test_every_curve_is_in_one_chart_and_no_chart_is_empty() -> None:
    charts = [content for category in layout(NAMES).values() for content in category.values()]
    shown = [curves(content) for content in charts]
    assert all(shown) and sorted(name for names in shown for name in names) == sorted(NAMES)


def test_the_order_is_that_of_questions() -> None:
    made = layout(NAMES)
    assert list(made) == ["Reward", "Completions", "Policy", "Loss and optimiser", "Experts", "Speed", "More"]
    assert list(made["Reward"]) == ["reward", "reward by part", "spread of the reward (standard deviation)"]
    assert curves(made["Reward"]["reward by part"]) == {"rollout/accuracy_mean", "rollout/format_mean"}
    assert list(made["More"]) == ["mine/own"]


def test_curves_of_later_evaluations_have_their_charts() -> None:
    """In RL of completions, in other stages of a loss: names such as these come from the evaluation, long after the layout."""
    later = ["val/arithmetic/pass_at_1", "val/arithmetic/cons_at_16", "val/arithmetic/completion_tokens_mean"]
    later += ["val/arithmetic/format_rate", "val/arithmetic/language_consistency", "val/loss"]

    def where(names: list[str]) -> list[list[str]]:
        new = [content for charts in layout(names, evaluates=True).values() for content in charts.values()]
        old = [content for charts in layout(names).values() for content in charts.values()]
        tags = [content[1][0] for content in new if content not in old]
        return [[name for name in later if re.match(tag, name)] for tag in tags]

    assert where(NAMES) == [later[:2], later[2:3], later[3:5]]
    assert where(["train/loss"]) == [later]


def test_a_band_is_drawn_under_its_curve_before_all_else() -> None:
    banded = ["rollout/format_mean", "rollout/reward_mean", "absent"]
    edges = [edge(name) for name in banded[:2] for edge in (low_name, high_name)]
    made = layout([*NAMES, *edges], banded=banded)
    first, *_ = made
    name = "rollout/reward_mean"
    assert list(made[first].items()) == [  # which TensorBoard shows from the last to the first
        ("rollout/format_mean", ["Margin", [banded[0], low_name(banded[0]), high_name(banded[0])]]),
        ("reward", ["Margin", [name, "expected/rollout/reward_mean/low", "expected/rollout/reward_mean/high"]]),
    ]
    assert {key: made[key] for key in made if key != first} == layout(
        NAMES
    )  # so that runs with and without a band agree


def test_patterns_are_regular_expressions_that_never_meet() -> None:
    patterns = [pattern for charts in CHARTS.values() for pattern in charts.values()]
    for name in [
        *NAMES,
        "policy/ratio_mean",
        "rollout/sampler_logprob_mean",
        "perf/step_tokens",
    ]:
        assert sum(re.fullmatch(pattern, name) is not None for pattern in patterns) == (name != "mine/own")
