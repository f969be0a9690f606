"""Every rule and every verdict by hand. The 0.975 quantiles of Student's t for 1, 2 and 3 degrees: 12.706, 4.3027, 3.1824."""

from __future__ import annotations

import math

import pytest

from r1_lightning.functional.intervals import Interval
from r1_lightning.run.commands.tables.claims import (
    CANNOT_TELL,
    KINDS,
    NOT_MEASURED,
    NOT_SUPPORTED,
    SUPPORTED,
    Region,
    check_rule,
    judge,
    verdict_of,
    words_of,
)
from r1_lightning.run.commands.tables.values import Cell
from r1_lightning.types.errors import InvalidInput

T_2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # its closed form for two degrees: 4.3027


def values(**arms: dict[str, list[float]]) -> dict[tuple[str, str], dict[str, Cell]]:
    """Cells of seeds 0, 1, ... by arm and measure."""
    return {
        (arm, measure): {str(seed): Cell(value) for seed, value in enumerate(own)}
        for arm, measures in arms.items()
        for measure, own in measures.items()
    }


TWO = values(a={"m": [0.6, 0.7, 0.8]}, b={"m": [0.5, 0.5, 0.5]})


@pytest.mark.parametrize(
    ("by", "word"),
    [
        # Differences 0.1, 0.2, 0.3: mean 0.2, s = 0.1, half width 4.3027 * 0.1 / sqrt(3) = 0.24841: [-0.04841, 0.44841].
        (-0.05, SUPPORTED),
        (-0.048, CANNOT_TELL),
        (0.448, CANNOT_TELL),
        (0.449, NOT_SUPPORTED),
    ],
)
def test_above_by_hand(by: float, word: str) -> None:
    verdict = verdict_of({"kind": "above", "arm": "a", "than": "b", "measure": "m", "by": by}, TWO)
    assert verdict.word == word
    assert verdict.of_seeds == pytest.approx({"0": 0.1, "1": 0.2, "2": 0.3}, abs=1e-12)
    assert verdict.interval is not None
    half = T_2 * 0.1 / math.sqrt(3)
    assert (verdict.interval.low, verdict.interval.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-12)


def test_above_compares_two_measures_of_two_arms() -> None:
    both = values(a={"m": [3.0, 4.0, 5.0]}, b={"n": [1.0, 2.0, 3.0]})
    verdict = verdict_of(
        {"kind": "above", "arm": "a", "than": "b", "measure": "m", "than_measure": "n", "by": 1.9}, both
    )
    assert verdict.word == SUPPORTED and verdict.of_seeds == {"0": 2.0, "1": 2.0, "2": 2.0}


def test_arms_that_are_equal_are_not_above_each_other() -> None:
    same = values(a={"m": [0.5, 0.6, 0.7]}, b={"m": [0.5, 0.6, 0.7]})
    assert verdict_of({"kind": "above", "arm": "a", "than": "b", "measure": "m"}, same).word == NOT_SUPPORTED


@pytest.mark.parametrize(
    ("percent", "word"),
    [
        # 100 (a - b) / b = 1, 2, 3: mean 2, s = 1, half 4.3027 / sqrt(3) = 2.4841: [-0.4841, 4.4841].
        (4.49, SUPPORTED),
        (4.4, CANNOT_TELL),
        (0.25, CANNOT_TELL),
    ],
)
def test_within_by_hand(percent: float, word: str) -> None:
    near = values(a={"m": [1.01, 2.04, 4.12]}, b={"m": [1.0, 2.0, 4.0]})
    rule = {"kind": "within", "arm": "a", "than": "b", "measure": "m", "percent": percent}
    verdict = verdict_of(rule, near)
    assert verdict.word == word and verdict.of_seeds == pytest.approx({"0": 1.0, "1": 2.0, "2": 3.0}, abs=1e-9)


def test_within_fails_on_both_sides() -> None:
    # Always 10 % above, and always 10 % below.
    for factor in (1.1, 0.9):
        far = values(a={"m": [factor, 2 * factor, 4 * factor]}, b={"m": [1.0, 2.0, 4.0]})
        rule = {"kind": "within", "arm": "a", "than": "b", "measure": "m", "percent": 5}
        assert verdict_of(rule, far).word == NOT_SUPPORTED


CURVE = values(a={"start": [1.0, 2.0, 4.0], "end": [3.0, 6.0, 12.0]})


@pytest.mark.parametrize(
    ("kind", "limit", "word"),
    [
        # end - start = 2, 4, 8: mean 14/3, s = sqrt(28/3) = 3.05505, half = 4.3027 s / sqrt(3) = 7.58916: [-2.9225, 12.2558]
        ("rises", {"by": -2.93}, SUPPORTED),
        ("rises", {"by": 0}, CANNOT_TELL),
        ("rises", {"by": 12.3}, NOT_SUPPORTED),
        ("falls", {"by": -12.3}, SUPPORTED),  # start - end: [-12.2558, 2.9225]
        ("falls", {"by": 2.93}, NOT_SUPPORTED),
        ("falls", {}, CANNOT_TELL),
        ("grows", {"factor": 3}, SUPPORTED),  # end / start is 3 in every seed: [3, 3]
        ("grows", {"factor": 3.01}, NOT_SUPPORTED),
    ],
)
def test_changes_by_hand(kind: str, limit: dict[str, float], word: str) -> None:
    assert verdict_of({"kind": kind, "arm": "a", "start": "start", "end": "end", **limit}, CURVE).word == word


@pytest.mark.parametrize(("factor", "word"), [(2.0, SUPPORTED), (2.5, NOT_SUPPORTED)])
def test_times_by_hand(factor: float, word: str) -> None:
    doubled = values(a={"m": [2.0, 4.0, 8.0]}, b={"m": [1.0, 2.0, 4.0]})
    rule = {"kind": "times", "arm": "a", "than": "b", "measure": "m", "factor": factor}
    assert verdict_of(rule, doubled).word == word


@pytest.mark.parametrize(
    ("kind", "bound", "word"),
    [
        # 0.6, 0.7, 0.8: mean 0.7, half 0.24841: [0.45159, 0.94841].
        ("at_least", 0.45, SUPPORTED),
        ("at_least", 0.5, CANNOT_TELL),
        ("at_least", 0.95, NOT_SUPPORTED),
        ("at_most", 0.95, SUPPORTED),
        ("at_most", 0.9, CANNOT_TELL),
        ("at_most", 0.45, NOT_SUPPORTED),
    ],
)
def test_bounds_by_hand(kind: str, bound: float, word: str) -> None:
    assert verdict_of({"kind": kind, "arm": "a", "measure": "m", "bound": bound}, TWO).word == word


def test_every_kind_has_a_test_by_hand() -> None:
    assert list(KINDS) == ["above", "within", "rises", "falls", "grows", "times", "at_least", "at_most"]


def test_fewer_than_three_seeds_tell_nothing() -> None:
    one, two = {"0": 1.0}, {"0": 1.0, "1": 1.0}
    everything = Region()
    assert judge(one, everything).word == CANNOT_TELL and judge(one, everything).interval is None
    assert judge(two, everything).word == CANNOT_TELL and judge(two, everything).interval == Interval(1.0, 1.0, 1.0)
    assert judge({**two, "2": 1.0}, everything).word == SUPPORTED


def test_seeds_are_paired_and_those_that_one_side_lacks_are_left_out() -> None:
    uneven = values(a={"m": [1.0, 2.0, 3.0, 9.0]}, b={"m": [0.0, 1.0, 2.0]})
    verdict = verdict_of({"kind": "above", "arm": "a", "than": "b", "measure": "m"}, uneven)
    assert verdict.of_seeds == {"0": 1.0, "1": 1.0, "2": 1.0} and verdict.word == SUPPORTED


def test_what_has_no_rows_is_not_measured() -> None:
    assert verdict_of({"kind": "above", "arm": "a", "than": "gone", "measure": "m"}, TWO).word == NOT_MEASURED
    nan = values(a={"m": [math.nan]}, b={"m": [1.0]})
    assert verdict_of({"kind": "above", "arm": "a", "than": "b", "measure": "m"}, nan).word == NOT_MEASURED


def test_a_seed_that_diverged_is_not_left_out_of_a_verdict() -> None:
    """Without it the others would support the claim: the runs that survive are not those that were made."""
    diverged = values(a={"m": [1.0, 2.0, 3.0, math.nan]}, b={"m": [0.0, 1.0, 2.0, 3.0]})
    verdict = verdict_of({"kind": "above", "arm": "a", "than": "b", "measure": "m"}, diverged)
    assert verdict.word == CANNOT_TELL and verdict.of_seeds == {"0": 1.0, "1": 1.0, "2": 1.0}
    assert verdict.lost == ("3",) and verdict.interval == Interval(1.0, 1.0, 1.0)
    assert verdict_of({"kind": "at_most", "arm": "a", "measure": "m", "bound": 9}, diverged).word == CANNOT_TELL


def test_a_ratio_to_zero_tells_nothing() -> None:
    none = values(a={"m": [1.0, 1.0, 1.0]}, b={"m": [0.0, 1.0, 1.0]})
    assert verdict_of({"kind": "times", "arm": "a", "than": "b", "measure": "m", "factor": 1}, none).word == CANNOT_TELL


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_is_said_in_words_with_its_limit(kind: str) -> None:
    limit = {"within": "percent", "grows": "factor", "times": "factor", "at_least": "bound", "at_most": "bound"}
    rule = {"kind": kind, **{key: key.upper() for key in KINDS[kind].needs}, limit.get(kind, "by"): 0.125}
    said = words_of(rule)
    assert "0.125" in said and all(key.upper() in said for key in KINDS[kind].needs if key not in limit.values())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "eval", "arm": "a"}, "kind='eval' is not allowed: it must be one of above, within, "),
        ({"kind": "above", "arm": "a", "than": "b", "measure": "m", "b": 1}, r"\['b'\] is not allowed: a rule of this"),
        ({"kind": "above", "arm": "a", "measure": "m"}, r"\['than'\] is not allowed: these keys are missing"),
        ({"kind": "above", "arm": "c", "than": "b", "measure": "m"}, "arm='c' is not allowed: it must be one of a, b"),
        ({"kind": "above", "arm": "a", "than": "b", "measure": "n"}, "measure='n' is not allowed"),
        (
            {"kind": "at_most", "arm": "a", "measure": "m", "bound": "1"},
            "limit='1' is not allowed: it must be a number",
        ),
        ({"kind": "at_most", "arm": "a", "measure": "m", "bound": math.nan}, "the limit=nan is not allowed"),
    ],
)
def test_a_mistyped_rule_is_refused(rule: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_rule("claims[0].rule", rule, {"a": 1, "b": 2}, {"m": 1})
