"""The rules of rejection sampling: they keep a sample or drop it for one reason.

DeepSeek-R1 keeps correct and readable samples of its RL checkpoint (arXiv:2501.12948, section 2.3.3 of v1, B.3 of v2);
rejection-sampling fine-tuning (Yuan et al. 2023, arXiv:2308.01825, Algorithm 1) keeps one path per distinct list of equations:
of two with the same list, the one with the larger sum of Levenshtein distances to the other chosen paths. Both apply here, in
this order, and the first reason counts:

1. unfinished, badly formed, not judged (the verifier ran out of time), wrong;
2. mixed languages, endless paragraph, stray code, repeats itself (`text.readability`); thinking in another language than the
   question's;
3. contaminated: it shares a run of ten words with a benchmark's question (`tasks.decontaminate`);
4. same equations as another; then too near to one that is kept, by edit distance; then over the limit per problem.

Departures: a sample without any equation (a program, a puzzle) has no list to compare, so only its distance counts; and
RFT has no minimum distance and no limit. The samples are examined in order, so the result depends on their texts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rapidfuzz.distance import Levenshtein

from r1_lightning.rewards.language import thinking_of
from r1_lightning.text import readability
from r1_lightning.text.code_tests import TESTS
from r1_lightning.text.equations import equations
from r1_lightning.text.language import language_share
from r1_lightning.text.readability import Readability
from r1_lightning.types.errors import require, require_int, require_number
from r1_lightning.types.text import Completion, Problem

KEPT = "kept"
UNFINISHED = "unfinished"
BADLY_FORMED = "badly formed"
NOT_JUDGED = "not judged"
WRONG = "wrong"
OTHER_LANGUAGE = "in another language"
CONTAMINATED = "contaminated"
SAME_EQUATIONS = "same equations"
TOO_NEAR = "too near"
OVER_LIMIT = "over the limit per problem"
# In the order of the checks.
REASONS = (
    *(UNFINISHED, BADLY_FORMED, NOT_JUDGED, WRONG),
    *readability.FAULTS,
    *(OTHER_LANGUAGE, CONTAMINATED, SAME_EQUATIONS, TOO_NEAR, OVER_LIMIT),
)


@dataclass(frozen=True)
class JudgedSample:
    """A completion with its verdicts: right, in the required form; `is_judged` is False if the verifier timed out."""

    completion: Completion
    is_right: bool
    is_well_formed: bool = True
    is_judged: bool = True


@dataclass(frozen=True)
class KeepRules:
    """Settings: which of the right samples are kept.

    With `question_language` the thinking must be in the question's language, which the reader of a response understands, except for
    the share of words that `readable` tolerates. `one_per_equations` is RFT's rule. `min_edit_distance` is the minimum Levenshtein
    distance to every kept sample of the problem, as a share (0..1) of the longer text; 0 keeps all texts that differ.
    `max_per_problem` null is no limit.
    """

    readable: Readability = field(default_factory=Readability)
    question_language: bool = True
    one_per_equations: bool = True
    min_edit_distance: float = 0.05
    max_per_problem: int | None = 4

    def __post_init__(self) -> None:
        for name in ("question_language", "one_per_equations"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        require_number("min_edit_distance", self.min_edit_distance, 0.0, 1.0)
        if self.max_per_problem is not None:
            require_int("max_per_problem", self.max_per_problem, 1)

    def decide(
        self, problem: Problem, samples: Sequence[JudgedSample], leak: Callable[[str], str | None] = lambda text: None
    ) -> list[str]:
        """Return `KEPT` or one of `REASONS` for each sample; `leak` returns the benchmark that a text overlaps with, or None."""
        fates = [self._alone(problem, sample, leak) or KEPT for sample in samples]
        texts = [sample.completion.text for sample in samples]
        if self.one_per_equations:
            chosen = distinct_by_equations(texts, _kept(fates))
            fates = [SAME_EQUATIONS if fate == KEPT and i not in chosen else fate for i, fate in enumerate(fates)]
        taken: list[int] = []
        for number in _kept(fates):
            if any(self._is_near(texts[number], texts[other]) for other in taken):
                fates[number] = TOO_NEAR
            elif self.max_per_problem is not None and len(taken) == self.max_per_problem:
                fates[number] = OVER_LIMIT
            else:
                taken.append(number)
        return fates

    def _alone(self, problem: Problem, sample: JudgedSample, leak: Callable[[str], str | None]) -> str | None:
        """Return the reason to drop a sample that does not depend on the other samples; None if there is none."""
        if not sample.completion.finished:
            return UNFINISHED
        if not sample.is_well_formed:
            return BADLY_FORMED
        if not sample.is_judged:
            return NOT_JUDGED
        if not sample.is_right:
            return WRONG
        fault = self.readable.fault(sample.completion.text, asks_for_code=TESTS in problem.metadata)
        if fault is None and self.question_language:
            own = language_share(thinking_of(sample.completion), problem.language)
            fault = OTHER_LANGUAGE if own < 1 - self.readable.mixed_tolerance else None
        return fault or (CONTAMINATED if leak(sample.completion.text) else None)

    def _is_near(self, text: str, other: str) -> bool:
        return text == other or Levenshtein.normalized_distance(text, other) < self.min_edit_distance


def distinct_by_equations(texts: Sequence[str], numbers: Sequence[int]) -> set[int]:
    """RFT's Algorithm 1 over the texts with these `numbers`, in their order; those without equations are all chosen."""
    chosen: list[int] = []
    place_of: dict[tuple[str, ...], int] = {}
    for number in numbers:
        path = equations(texts[number])
        if not path or path not in place_of:
            if path:
                place_of[path] = len(chosen)
            chosen.append(number)
            continue
        place = place_of[path]
        others = [texts[other] for other in chosen if other != chosen[place]]
        if _total_distance(texts[number], others) > _total_distance(texts[chosen[place]], others):
            chosen[place] = number
    return set(chosen)


def _total_distance(text: str, others: Sequence[str]) -> int:
    return sum(Levenshtein.distance(text, other) for other in others)


def _kept(fates: Sequence[str]) -> list[int]:
    return [number for number, fate in enumerate(fates) if fate == KEPT]
