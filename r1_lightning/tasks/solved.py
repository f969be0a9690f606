"""A problem with its solution, and the corpus documents that generated tasks write about it.

A task draws a `Solved`: the problem, the steps that lead to its answer, and typical mistakes. This one value gives a training
problem, the corpus's answers of every kind (with or without reasoning, right or wrong, well or half formatted), and the clean
traces of a cold start (`tasks/clean_traces.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from r1_lightning.tasks.step_text import WAIT, Manner, join_steps, thinking_language
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.text.reasoning_format import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE, THINK_OPEN, reasoned
from r1_lightning.types.text import Problem

_SAY = {"en": "The answer is {}.", "zh": "答案是{}。"}
# Shares of answers, not of documents; about one in three is reasoned and well formatted, as in the arithmetic corpus.
ANSWER_SHARES: Mapping[str, float] = {"straight": 0.52, "reasoned": 0.26, "half_formatted": 0.12, "slip_noticed": 0.10}


@dataclass(frozen=True, slots=True)
class Solved:
    """A problem and its solution.

    `steps` are lines such as `3*x=21`, joined by `join_steps`; with `is_prose` they are whole sentences in the question's language.
    `wrong_answers` are typical wrong answers; `slips` maps a step's number to a wrong version of it. `summary` is the text for the
    reader if that is more than the answer.
    """

    problem: Problem
    steps: tuple[str, ...]
    wrong_answers: tuple[str, ...] = ()
    slips: tuple[tuple[int, str], ...] = ()
    is_prose: bool = False
    summary: str | None = None

    def thinking(self, rng: random.Random, language: str, manner: Manner) -> str:
        """Return the steps as one line of reasoning that begins in `language`."""
        return " ".join(self.steps) if self.is_prose else join_steps(rng, self.steps, language, manner)


@runtime_checkable
class SolvedSource(Protocol):
    """A problem source that can also give the solution of its training problem number `index`."""

    def solved_problem(self, seed: int, index: int) -> Solved: ...


class VersionedSolvedSource(SolvedSource, Protocol):
    """A `SolvedSource` with a `content_version` (see `ProblemSource`)."""

    @property
    def content_version(self) -> str: ...


def question_document(rng: random.Random, solved: Solved, manner: Manner, wrong_share: float) -> str:
    """Return a question in R1-Zero's template with an answer of one of the kinds in `ANSWER_SHARES`."""
    kind = rng.choices(list(ANSWER_SHARES), list(ANSWER_SHARES.values()))[0]
    if kind == "straight":
        answer = _straight(rng, solved, wrong_share)
    elif kind == "half_formatted":
        answer = _half_formatted(rng, solved, manner)
    else:
        answer = _reasoned(rng, solved, manner, with_slip=kind == "slip_noticed")
    return r1_zero_prompt(solved.problem.question) + answer


def reply_document(rng: random.Random, question: str, thought: str, reply: str) -> str:
    """Return a request in R1-Zero's template with a reply in words: bare, in an answer block, or after a thought."""
    forms = (f" {reply}", f" {ANSWER_OPEN}{reply}{ANSWER_CLOSE}", reasoned(thought, reply))
    return r1_zero_prompt(question) + rng.choices(forms, (0.5, 0.2, 0.3))[0]


def straight_answer(rng: random.Random, answer: str, said: str) -> str:
    """Return an answer without thinking: after an empty thought, in an answer block alone, or as the sentence `said`."""
    forms = (
        f" {THINK_OPEN}{THINK_CLOSE}{ANSWER_OPEN}{answer}{ANSWER_CLOSE}",
        f" {ANSWER_OPEN}{answer}{ANSWER_CLOSE}",
        f" {said}",
    )
    return rng.choices(forms, (0.3, 0.2, 0.5))[0]


def half_formatted_answer(rng: random.Random, thinking: str, answer: str, said: str) -> str:
    """Return thinking and an answer, with tags around at most one of them."""
    return rng.choice(
        (
            f" {thinking} {said}",
            f" {THINK_OPEN}{thinking}{THINK_CLOSE} {said}",
            f" {thinking}{ANSWER_OPEN}{answer}{ANSWER_CLOSE}",
        )
    )


def _straight(rng: random.Random, solved: Solved, wrong_share: float) -> str:
    answer = solved.problem.answer
    if solved.wrong_answers and rng.random() < wrong_share:
        answer = rng.choice(solved.wrong_answers)
    return straight_answer(rng, answer, _SAY[solved.problem.language].format(answer))


def _reasoned(rng: random.Random, solved: Solved, manner: Manner, with_slip: bool) -> str:
    language, steps = solved.problem.language, list(solved.steps)
    if with_slip and solved.slips:
        number, wrong = rng.choice(solved.slips)
        steps[number] = f"{wrong}{WAIT[language]}{steps[number]}"
    elif not solved.is_prose:
        return reasoned(solved.thinking(rng, thinking_language(rng, language, manner), manner), solved.problem.answer)
    thinking = " ".join(steps) if solved.is_prose else join_steps(rng, steps, language, manner)
    return reasoned(thinking, solved.problem.answer)


def _half_formatted(rng: random.Random, solved: Solved, manner: Manner) -> str:
    language, answer = solved.problem.language, solved.problem.answer
    return half_formatted_answer(rng, solved.thinking(rng, language, manner), answer, _SAY[language].format(answer))
