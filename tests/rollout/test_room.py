"""Prompts without room for an answer: which are replaced, by what, and how they are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from r1_lightning.rollout.room import STRIDE, PromptRoom
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem
from tests.rollout.letters import Letters


class Source:
    """Problem `index` is asked in `length(index)` letters; those of the second walk are all short."""

    content_version = "1"

    def __init__(self, long: set[int], places: bool = True, always: bool = False) -> None:
        self.long, self.always, self.asked = long, always, []
        if places:
            self.place_of = lambda problem: f"x.jsonl, line {problem.problem_id}"

    def train_problem(self, seed: int, index: int) -> Problem:
        self.asked.append(index)
        walk, place = divmod(index, STRIDE)
        letters = "aaaaaaaa" if place in self.long and (walk == 0 or self.always) else "ab"
        return Problem(letters[: 8 - place % 2] if len(letters) > 2 else letters, "", str(index))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        return []

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        return iter(())


def room(**changes: Any) -> PromptRoom:
    tokenizer: Any = Letters()
    return PromptRoom(tokenizer, PLAIN, **{"setting": "rollout.row_tokens", "value": 10, "new_tokens": 4} | changes)


def test_long_problems_are_replaced_and_named() -> None:
    """Six tokens are left for a prompt: those of 8 and 7 letters do not fit, and are asked for a second time elsewhere."""
    source, made = Source({2, 5}), room()
    found = made.problems(source, 0, range(6))
    assert [problem.problem_id for problem in found] == ["0", "1", str(2 + STRIDE), "3", "4", str(5 + STRIDE)]
    assert made.check(source) == (
        "prompts: 2 problems leave no room for 4 tokens of an answer (rollout.row_tokens=10) and are left out; "
        "the first: x.jsonl, line 2, 8 tokens"
    )
    assert found == room().problems(Source({2, 5}), 0, range(6))  # a function of the indices alone


def test_where_all_fit_nothing_is_said_and_nothing_else_is_asked() -> None:
    source, made = Source(set()), room()
    made.problems(source, 0, range(4))
    assert source.asked == [0, 1, 2, 3] and made.check(source) == "" and made.text(source) == ""


def test_the_border_is_exact() -> None:
    assert room(value=11).problems(Source({1}), 0, [1])[0].problem_id == "1"  # 7 letters, and 4 tokens of an answer
    assert room(value=10).problems(Source({1}), 0, [1])[0].problem_id == str(1 + STRIDE)


def test_earlier_turns_count() -> None:
    """Two letters and EOS of the reply, and two of the first question."""
    made = room(value=10)
    talk = Problem("ab", "", "p", earlier=(("ab", "b"),))

    class Tokens(Letters):
        begins_with_bos = False

        def encode(self, text: str) -> list[int]:
            return super().encode(text.strip())

    made.tokenizer = Tokens()  # type: ignore[assignment]
    assert made.kept([talk, Problem("ab", "", "q")]) == [talk, Problem("ab", "", "q")]  # 2 + 1 + 1 + 2 = 6
    made = room(value=9)
    made.tokenizer = Tokens()  # type: ignore[assignment]
    assert made.kept([talk, Problem("ab", "", "q")]) == [Problem("ab", "", "q")]


def test_a_problem_met_twice_counts_once() -> None:
    source, made = Source({2}, places=False), room()
    for _ in range(2):
        made.problems(source, 0, range(5))
    assert made.text(source) == (
        "prompts: 1 problem leaves no room for 4 tokens of an answer (rollout.row_tokens=10) and is left out; "
        "the first: 2, 8 tokens"
    )


@pytest.mark.parametrize(("long", "is_refused"), [({0, 1}, False), ({0, 1, 2}, True)])
def test_more_than_half_is_a_wrong_setting(long: set[int], is_refused: bool) -> None:
    source, made = Source(long), room()
    made.problems(source, 0, range(4))
    if not is_refused:
        assert made.check(source).startswith("prompts: 2 problems leave no room")
        return
    with pytest.raises(InvalidInput) as refused:
        made.check(source)
    assert str(refused.value) == (
        "rollout.row_tokens=10 is not allowed: 3 of 4 prompts leave no room: a prompt of 8 tokens with max_new_tokens = 4 "
        "needs a row of 12 (the first: x.jsonl, line 0, 8 tokens)"
    )


def test_a_source_of_long_prompts_alone_comes_to_an_end() -> None:
    with pytest.raises(InvalidInput, match=r"hardly any prompt fits: a prompt of 8 tokens .* needs a row of 12"):
        room().problems(Source({0}, always=True), 0, [0])
