"""Measures of samples written by hand, with the numbers they must give and the intervals around them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from r1_lightning.evaluation.metrics import Measure, measure_samples
from r1_lightning.functional.intervals import bootstrap_mean_interval, share_interval, wilson_interval
from r1_lightning.rewards.math_reward import MathReward
from r1_lightning.types.text import Completion, Problem

PROBLEMS = [Problem("What is 2+3", "5", "2,3"), Problem("2+3+4等于多少", "9", "2,3,4", "zh")]


def done(text: str, n_tokens: int = 10) -> Completion:
    return Completion(text, n_tokens, finished=True)


def cut(text: str, n_tokens: int = 64) -> Completion:
    return Completion(text, n_tokens, finished=False)


RIGHT_5 = "<think>2+3=5.</think><answer>5</answer>"
WRONG_5 = "<think>2+3=6.</think><answer>6</answer>"
SAMPLES = [
    [done(RIGHT_5), done("It is 5."), done(WRONG_5, 12), cut(RIGHT_5)],
    [
        done("<answer>9</answer>", 4),  # right in its place, but not well formed
        done("<think>先算 well 9.</think><answer>9</answer>", 20),
        done("<think></think><answer>9</answer>", 5),
        done("...", 1),
    ],
]
# One line per sample of SAMPLES: strict, lenient, well formed, mixed, finished.
BY_HAND = {
    "pass_at_1": [[1, 0, 0, 0], [0, 1, 0, 0]],
    "pass_at_1_lenient": [[1, 1, 0, 1], [1, 1, 1, 0]],
    "format_rate": [[1, 0, 1, 0], [0, 1, 0, 0]],
    "mixed_language_rate": [[0, 0, 0, 0], [0, 1, 0, 0]],
    # No words but in "It is 5." (English, no think block: all of it counts) and "先算 well 9." (two Han characters of three words).
    "language_consistency": [[1, 1, 1, 1], [1, 2 / 3, 1, 1]],
    "wordless_thinking_rate": [[1, 0, 1, 1], [1, 0, 1, 1]],
    "finished_rate": [[1, 1, 1, 0], [1, 1, 1, 1]],
    "completion_tokens_mean": [[10, 10, 12, 64], [4, 20, 5, 1]],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_means_by_hand_with_intervals_over_problems(name: str) -> None:
    measure = measure_samples(PROBLEMS, SAMPLES)[name]
    flat = [value for row in BY_HAND[name] for value in row]
    assert measure.value == pytest.approx(sum(flat) / 8)
    clusters = [0, 0, 0, 0, 1, 1, 1, 1]
    expected = share_interval(flat, clusters) if max(flat) <= 1 else bootstrap_mean_interval(flat, clusters)
    assert measure.interval == expected
    if sum(flat[:4]) == sum(flat[4:]):
        return  # no spread between the two: Wilson's interval, in test_intervals
    # Two problems: a resample is one of them twice, or both, so the bounds are the two problems' own means.
    means = sorted(sum(row) / 4 for row in BY_HAND[name])
    assert [measure.interval.low, measure.interval.high] == pytest.approx(means)


def test_the_names_and_the_vote() -> None:
    """Votes are 5 5 6 5 and 9 9 9 none: both majorities are right, Wilson's interval of 2 of 2 is 0.342 to 1."""
    measures = measure_samples(PROBLEMS, SAMPLES)
    assert set(measures) == {*BY_HAND, "cons_at_4", "pass_at_2", "pass_at_4"}
    vote = measures["cons_at_4"]
    assert (vote.value, vote.interval) == (1.0, wilson_interval(2, 2))
    assert vote.interval.low == pytest.approx(0.342, abs=0.001)


def test_the_vote_may_be_wrong_or_empty_and_spellings_count_as_one() -> None:
    """5.0, 05 and 5 are one answer with three votes against two for 6; the second problem has no answer at all."""
    samples = [
        [done(f"<answer>{answer}</answer>") for answer in ("6", "5.0", "6", "05", "5")],
        [done("none") for _ in range(5)],
    ]
    measures = measure_samples(PROBLEMS, samples)
    assert measures["cons_at_5"].value == 0.5
    assert measures["pass_at_1_lenient"].value == pytest.approx(0.3)


def test_an_empty_think_counts_as_form_only_where_it_was_forced() -> None:
    plain, forced = (measure_samples(PROBLEMS, SAMPLES, allow) for allow in (False, True))
    assert (plain["format_rate"].value, forced["format_rate"].value) == (0.375, 0.5)
    assert (plain["pass_at_1"].value, forced["pass_at_1"].value) == (0.25, 0.375)
    assert plain["pass_at_1_lenient"].value == forced["pass_at_1_lenient"].value


def test_samples_of_one_problem_are_not_independent() -> None:
    """16 problems of which half are always right: sd of the mean is 0.5 / sqrt(16) = 0.125, not 0.5 / sqrt(256)."""
    problems = [Problem("q", "5", f"p{number}") for number in range(16)]
    samples = [[done(RIGHT_5 if number < 8 else WRONG_5)] * 16 for number in range(16)]
    interval = measure_samples(problems, samples)["pass_at_1"].interval
    assert 0.2 < interval.low < 0.32 and 0.68 < interval.high < 0.8


def test_one_problem_has_no_spread_and_says_so() -> None:
    """A share has Wilson's interval of one trial, p = 1/4, z^2 = 3.841459: the centre (0.25 + z^2/2) / (1 + z^2) = 0.448363 and
    half the width z sqrt(0.1875 + z^2/4) / (1 + z^2) = 0.433728; a mean length has none."""
    measures = measure_samples(PROBLEMS[:1], SAMPLES[:1])
    assert measures["pass_at_1"].value == 0.25
    interval = measures["pass_at_1"].interval
    assert (interval.low, interval.high) == pytest.approx((0.014635, 0.882091), abs=1e-6)
    assert math.isnan(measures["completion_tokens_mean"].interval.low)


def test_every_problem_needs_its_samples() -> None:
    with pytest.raises(ValueError, match="zip"):
        measure_samples(PROBLEMS, SAMPLES[:1])


def test_a_measure_is_a_value_with_its_interval() -> None:
    for measure in measure_samples(PROBLEMS, SAMPLES).values():
        assert isinstance(measure, Measure)
        assert measure.interval.low <= measure.value <= measure.interval.high
        assert measure.interval.estimate == pytest.approx(measure.value)


def test_a_family_s_tasks_are_also_measured_one_by_one() -> None:
    problems = [
        replace(problem, metadata={"task": name}) for problem, name in zip(PROBLEMS, ("sums", "words"), strict=True)
    ]
    # 2 + 3: strict 1 of 4 (another is right and cut off), lenient 3 of 4.
    samples = [SAMPLES[0], [done(RIGHT_5)] * 4]
    together = measure_samples(problems, samples)
    apart = [measure_samples([problem], [row]) for problem, row in zip(PROBLEMS, samples, strict=True)]
    for name, alone in zip(("sums", "words"), apart, strict=True):
        for measure in ("pass_at_1", "pass_at_1_lenient"):
            assert together[f"{measure}_{name}"] == alone[measure]
    assert together["pass_at_1_sums"].value == 0.25 and together["pass_at_1_lenient_sums"].value == 0.75
    assert together["pass_at_1_words"].value == 0.0
    assert list(apart[0]) == [
        name for name in together if not name.endswith(("_sums", "_words"))
    ]  # one task alone adds nothing


def test_the_form_that_is_asked_for_decides() -> None:
    """Of a summary, an answer block and a bare box the first is right in R1's form, the second in R1-Zero's."""
    texts = ["<think>2+3</think>It is \\boxed{5}.", RIGHT_5, "\\boxed{5}"]
    measured = {
        form: measure_samples(PROBLEMS[:1], [[done(text) for text in texts]], form=form) for form in ("r1", "r1_zero")
    }
    for form in measured:
        assert measured[form]["pass_at_1"].value == measured[form]["format_rate"].value == pytest.approx(1 / 3)
        assert measured[form]["pass_at_1_lenient"].value == 1.0
    assert measure_samples(PROBLEMS[:1], [[done(texts[0])]], form="r1")["pass_at_1"].value == 1.0
    assert measure_samples(PROBLEMS[:1], [[done(texts[0])]])["pass_at_1"].value == 0.0


def test_the_vote_is_by_the_accuracy_s_own_equality() -> None:
    """Sixty-four boxes of 42 are right one by one, so their vote is, too; numbers are decided without any process."""
    problem, reward = Problem("6*7", "42", "p"), MathReward()
    measures = measure_samples(
        [problem], [[done(r"<think>a</think><answer>\boxed{42}</answer>")] * 64], accuracy=reward
    )
    assert measures["pass_at_1"].value == measures["cons_at_64"].value == 1.0
    assert reward.pool.process_ids() == []


def test_no_answer_is_never_right_and_programs_have_no_vote() -> None:
    empty = [Problem("q", "", f"p{number}") for number in range(20)]
    samples = [[done("blah blah nothing here")] * 8 for _ in empty]
    assert measure_samples(empty, samples)["cons_at_8"].value == 0.0
    programs = [replace(problem, metadata={"tests": "{}"}) for problem in empty]
    assert "cons_at_8" not in measure_samples(programs, samples)
    # Beside programs the vote is that of the other problems: one of one.
    mixed = measure_samples([*programs, PROBLEMS[0]], [*samples, [done(RIGHT_5)] * 8])
    assert mixed["cons_at_8"].value == 1.0 and mixed["pass_at_1"].value == pytest.approx(1 / 21)


def test_pass_at_k_is_the_chance_that_one_of_k_is_right() -> None:
    """One of 4 is right in each problem: 2 of 4 miss it in C(3,2) of C(4,2) draws, 3 of 6, so pass@2 is 1/2; all 4 hold it."""
    measures = measure_samples(PROBLEMS, SAMPLES)
    assert (measures["pass_at_1"].value, measures["pass_at_2"].value, measures["pass_at_4"].value) == (0.25, 0.5, 1.0)
    # Of 3 and 0 right among 6: k = 2 gives 1 - 3/15 = 0.8 and 0; with 3 wrong ones k = 4 never misses; the mean is half.
    rows = [[done(RIGHT_5)] * 3 + [done(WRONG_5)] * 3, [done("none")] * 6]
    found = {name: m.value for name, m in measure_samples(PROBLEMS, rows).items() if name.startswith("pass_at_")}
    expected = {"pass_at_1": 0.25, "pass_at_1_lenient": 0.25, "pass_at_2": 0.4, "pass_at_4": 0.5, "pass_at_6": 0.5}
    assert found == pytest.approx(expected)
    once = measure_samples(PROBLEMS, [[done(RIGHT_5)], [done("none")]])
    assert [name for name in once if name.startswith("pass_at_")] == ["pass_at_1", "pass_at_1_lenient"]


def test_nothing_right_of_8_problems_is_no_certainty() -> None:
    """Wilson of 0 of 8: [0, z^2 / (8 + z^2)] = 3.841459 / 11.841459 = 0.324408; lengths in tokens keep the bootstrap."""
    measures = measure_samples(PROBLEMS[:1] * 8, [[done("none", 7)] * 2] * 8)
    for name in ("pass_at_1", "pass_at_1_lenient", "pass_at_2", "format_rate"):
        interval = measures[name].interval
        assert (interval.low, interval.high) == (0.0, pytest.approx(0.324408, abs=1e-6)), name
    assert measures["finished_rate"].interval.low == pytest.approx(1 - 0.324408, abs=1e-6)
    tokens = measures["completion_tokens_mean"].interval
    assert (tokens.low, tokens.high) == (7.0, 7.0)
