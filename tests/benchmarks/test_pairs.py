"""Pairs, medians and ratios on measurements that only count: no clock is involved."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.pairs import FILLS, Contest, compare, deterministic
from r1_lightning.types.errors import InvalidInput


@pytest.fixture(autouse=True)
def _nothing_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeping a test process that holds all of torch takes a second each time."""
    monkeypatch.setattr("benchmarks.pairs.gc.collect", lambda: 0)


def contest(ours, theirs, unit="tokens/s"):
    return Contest("work", unit, "they", ours, theirs)


def replay(log, name, values):
    """A measurement that gives `values` one after the other and says when it was called."""
    remaining = iter(values)

    def measure():
        log.append(name)
        return float(next(remaining))

    return measure


def test_pairs_alternate_and_warm_up_calls_do_not_count():
    log: list[str] = []
    ours = {"only": replay(log, "a", [1, 30, 20, 50])}  # the first value is the warm-up's
    theirs = {"only": replay(log, "b", [1, 10, 10, 10])}
    result = compare(contest(ours, theirs), pairs=3, say=lambda line: None)
    assert log == list("abababab")
    assert result.ours.values == (30.0, 20.0, 50.0)
    assert result.ours.median == 30.0
    assert result.speed_ups == (3.0, 2.0, 5.0)
    assert result.speed_up == 3.0


def test_the_phases_of_the_chosen_setting_are_measured_once_after_the_pairs():
    log: list[str] = []

    def phases(name):
        def measure():
            log.append(name)
            assert torch.are_deterministic_algorithms_enabled()  # as our side runs
            return {"all": 2.0}

        return measure

    ours = {"fast": replay(log, "a", [9, 9, 9]), "slow": replay(log, "s", [5, 5])}
    both = {name: phases(f"phases of {name}") for name in ours}
    told = replace(contest(ours, {"x": replay(log, "b", [1, 1])}), phases=both)
    result = compare(told, pairs=1, say=lambda line: None)
    assert log == ["a", "a", "s", "s", "b", "a", "b", "phases of fast"] and result.phases == {"all": 2.0}
    assert compare(contest({"x": replay([], "a", [1, 1])}, {"x": replay([], "b", [1, 1])}), 1, str).phases == {}


def test_the_speed_up_is_the_median_of_ratios_not_the_ratio_of_medians():
    # ratios 1/1, 4/2, 9/8: median 9/8; medians 4 and 2 would give 2
    ours, theirs = {"x": replay([], "a", [0, 1, 4, 9])}, {"x": replay([], "b", [0, 1, 2, 8])}
    assert compare(contest(ours, theirs), pairs=3, say=lambda line: None).speed_up == 9 / 8


def test_seconds_are_better_when_fewer():
    ours, theirs = {"x": replay([], "a", [9, 2])}, {"x": replay([], "b", [9, 8])}
    assert compare(contest(ours, theirs, "s/step"), pairs=1, say=lambda line: None).speed_up == 4.0


@pytest.mark.parametrize(("unit", "chosen"), [("tokens/s", "fast"), ("s/step", "slow")])
def test_each_side_is_represented_by_its_best_candidate(unit, chosen):
    theirs = {"fast": replay([], "f", [9, 9, 9]), "slow": replay([], "s", [5, 5, 5])}  # 9 tokens/s win, 5 seconds win
    result = compare(contest({"x": replay([], "a", [1, 1])}, theirs, unit), pairs=1, say=lambda line: None)
    assert result.theirs.setting == chosen
    assert result.theirs.trials == {"fast": 9.0, "slow": 5.0}


@pytest.mark.parametrize(("unit", "kept"), [("tokens/s", 7.0), ("s/step", 5.0)])
def test_the_better_of_two_runs_is_a_candidates_trial(unit, kept):
    # Disturbed once, in either run; equals run twice more.
    theirs = {"a": replay([], "a", [5, 7, 6, 6, 1]), "b": replay([], "b", [7, 5, 6, 6, 1])}
    result = compare(contest({"x": replay([], "x", [1, 1])}, theirs, unit), pairs=1, say=lambda line: None)
    assert result.theirs.trials == {"a": kept, "b": kept}


def test_a_hopeless_candidate_of_theirs_runs_once_and_ours_twice():
    """6 against 9 is half as slow again: no second run. Ours may have been compiling in its first."""
    log: list[str] = []
    theirs = {"a": replay(log, "a", [9, 9, 9]), "b": replay(log, "b", [6, 99])}
    ours = {"c": replay(log, "c", [7, 7]), "d": replay(log, "d", [1, 10, 10])}
    result = compare(contest(ours, theirs), pairs=1, say=lambda line: None)
    assert log == list("ccddaab") + list("da")
    assert (result.ours.setting, result.theirs.trials) == ("d", {"a": 9.0, "b": 6.0})


def test_the_best_three_close_candidates_run_twice_more_in_turn():
    """8.5 is within 1.25 times of 9.9 and wins by the final alone; 8 is the fourth, 7 is not within."""
    log: list[str] = []
    values = {"a": [9, 9, 9, 9], "b": [9.9, 9.9, 9, 9], "c": [8.5, 8.5, 9, 9.1, 9.1], "d": [8, 8], "e": [7, 7]}
    ours = {name: replay(log, name, its) for name, its in values.items()}
    result = compare(contest(ours, {"x": replay(log, "x", [1, 1])}), pairs=1, say=lambda line: None)
    assert log == list("aabbccddee") + list("bacbac") + list("x") + list("cx")
    assert (result.ours.setting, result.ours.trials) == ("c", {"a": 9.0, "b": 9.9, "c": 8.5, "d": 8.0, "e": 7.0})


def test_only_our_side_runs_with_deterministic_algorithms():
    seen = []

    def note():
        seen.append(torch.are_deterministic_algorithms_enabled())
        return 1.0

    before = torch.are_deterministic_algorithms_enabled()
    compare(contest({"x": note}, {"x": note}), pairs=1, say=lambda line: None)
    assert seen == [True, before, True, before]
    assert torch.are_deterministic_algorithms_enabled() is before


def test_fresh_memory_is_not_filled_as_in_our_runs():
    """torch fills it with NaN where algorithms are deterministic; `set_up_torch` says no, which is put back afterwards."""
    before = getattr(torch.utils.deterministic, FILLS)
    for filled in (True, False):
        setattr(torch.utils.deterministic, FILLS, filled)
        with deterministic():
            assert not getattr(torch.utils.deterministic, FILLS)
        assert getattr(torch.utils.deterministic, FILLS) is filled
    setattr(torch.utils.deterministic, FILLS, before)


def test_bad_input_is_refused():
    with pytest.raises(InvalidInput, match="unit"):
        contest({"x": float}, {"x": float}, "furlongs")
    with pytest.raises(InvalidInput, match="candidates"):
        contest({"x": float}, {})
    with pytest.raises(InvalidInput, match="pairs=0"):
        compare(contest({"x": float}, {"x": float}), pairs=0)
