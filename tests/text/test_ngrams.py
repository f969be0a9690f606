"""Units and their runs: what counts as the same text."""

from __future__ import annotations

from r1_lightning.text.ngrams import ngrams, units, without_tags


def test_units_by_hand() -> None:
    assert units("Compute（３）+ 4, don't!") == ["compute", "3", "4", "don", "t"]
    assert units("从33开始，add it") == ["从", "33", "开", "始", "add", "it"]
    assert units(" <think>a b</think><answer>c</answer>") == ["a", "b", "c"]
    assert units("+-*/ 。") == []


def test_case_width_and_punctuation_do_not_count() -> None:
    assert units("The SUM, of (x_1)") == units("the sum of ｘ 1")


def test_every_run_once_in_order() -> None:
    assert list(ngrams(["a", "b", "a", "b"], 2)) == [("a", "b"), ("b", "a"), ("a", "b")]
    assert list(ngrams(["a"], 2)) == [] and list(ngrams(["a", "b"], 2)) == [("a", "b")]


def test_tags_become_spaces() -> None:
    assert without_tags("a<think>b</answer>") == "a b "
