"""R1-Zero's accuracy reward, and the counts (accurate, well formed, strict, lenient) of an evaluation.

Reward_acc is 1 if the answer in the specified place equals the reference by rule, else 0 (DeepSeek-R1, arXiv:2501.12948, section
2.2 and B.3.1). The place is the single closed answer block, or in R1's form (`form: r1`) the place that
`text.reasoning_format.parse_r1` finds. Two decisions of ours:

- **The think block is not required.** The format reward checks the format; if this reward did so, too, the two rewards of
  equation 4 would not be separate.
- **An unfinished completion may be right**: if the length limit cuts it off after the answer block is closed, the answer counts.
  If the block is not closed, there is no answer.

An uncomputed fraction from the question that is not the reference's own ("48/2" for 24) scores 0 (`text.copied`). Numbers are
compared exactly, other answers as normalised text; see `r1_lightning.text.answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from r1_lightning.rewards.combine import judge_all
from r1_lightning.text.answers import (
    answer_key,
    final_answer,
    last_number,
    lenient_answer,
    parse_number,
    same_answer,
    same_number,
)
from r1_lightning.text.copied import is_copied
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM, FormName
from r1_lightning.types.errors import require_choice
from r1_lightning.types.text import AccuracyFunction, Completion, JudgeName, Problem, RewardFunction, Verdict

# The length at which a wrong answer is cut in a log line.
SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Grade:
    """The evaluation's judgement of one completion.

    `accurate`: the accuracy reward is 1. `well_formed`: the format reward is 1. `strict`: both ("format and answer" in a table).
    `lenient`: the right answer is at the end in any format. strict implies accurate, and accurate implies lenient. `verdict` is the
    last one on it: the lenient form's, unless it was accurate already.
    """

    strict: bool
    lenient: bool
    well_formed: bool
    accurate: bool
    verdict: Verdict = field(default=Verdict(0.0, ""), compare=False)


@dataclass(slots=True)
class AccuracyReward:
    """1.0 if the answer is right, else 0.0. `strict=False` accepts the right answer at the end in any format."""

    name: str = "accuracy"
    strict: bool = True
    form: FormName = R1_ZERO_FORM
    judges: ClassVar[tuple[JudgeName, ...]] = ("exact",)

    def __post_init__(self) -> None:
        require_choice("form", self.form, FORMS)

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        given = final_answer(completion.text, self.form) if self.strict else lenient_answer(completion.text)
        if given is None:
            return Verdict(0.0, "no answer in its place" if self.strict else "no answer")
        right = same_answer(given, problem.answer) if self.strict else leniently_right(given, problem)
        if right and "/" in given and is_copied(given, problem.answer, problem.question):
            return Verdict(0.0, f"answered {shorten(given)}, which the question says and which is not worked out")
        if right:
            return Verdict(1.0, "right")
        return wrong(given, problem)

    def leniently(self) -> AccuracyReward:
        return replace(self, strict=False)

    def ballot(self, problem: Problem, completion: Completion) -> str | None:
        """Return the answer at the end, in any format; if a number is asked for, the number with which the answer ends."""
        return answer_key(counted_answer(lenient_answer(completion.text), problem))

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """True for each pair of equal texts: ballots have one canonical spelling, so equal answers are equal texts."""
        return [first == second for first, second in pairs]


def grades(
    pairs: Sequence[tuple[Problem, Completion]],
    accuracy: RewardFunction,
    allow_empty_think: bool = False,
    form: str = R1_ZERO_FORM,
) -> list[Grade]:
    """Grade each completion with `accuracy`, the reward function that training would use.

    The lenient form of a reward judges only completions that are not right already, because running programs twice doubles the
    time; a reward without a lenient form is its own. Partial credit does not count as accurate. `allow_empty_think` is for prompts
    that force an empty think block; `form` is the required format.
    """
    strictly = judge_all(accuracy, pairs)
    accurate = [verdict.score >= 1 for verdict in strictly]
    last = list(strictly)
    if isinstance(accuracy, AccuracyFunction):
        others = [row for row, is_right in enumerate(accurate) if not is_right]
        for row, verdict in zip(others, judge_all(accuracy.leniently(), [pairs[row] for row in others]), strict=True):
            last[row] = verdict
    parse = FORMS[form].parse
    formed = [sample.finished and parse(sample.text, allow_empty_think).well_formed for _, sample in pairs]
    rows = zip(accurate, last, formed, strict=True)
    return [Grade(right and well_formed, end.score >= 1, well_formed, right, end) for right, end, well_formed in rows]


def leniently_right(given: str, problem: Problem) -> bool:
    """True if `given` is the answer or, if the answer is a number, ends with it: "it is 42 apples" answers 42."""
    if same_answer(given, problem.answer):
        return True
    if parse_number(problem.answer) is None:
        return False
    number = last_number(given)
    return number is not None and same_number(number, problem.answer)


def counted_answer(given: str | None, problem: Problem) -> str | None:
    """Return the part of a lenient answer that `leniently_right` compares: 41 of "it is 41 apples" if the answer is a number."""
    if given is None or parse_number(problem.answer) is None or parse_number(given) is not None:
        return given
    return last_number(given) or given


def wrong(given: str, problem: Problem) -> Verdict:
    """Return the verdict on a wrong answer; its reason shows both answers in one short line."""
    return Verdict(0.0, f"answered {shorten(given)}, expected {shorten(problem.answer)}")


def shorten(text: object) -> str:
    """Return the first `SHOWN_CHARS` characters for a reason: quoted, on one line, white space collapsed."""
    one_line = " ".join(str(text)[: 2 * SHOWN_CHARS].split())
    return repr(one_line if len(one_line) <= SHOWN_CHARS else one_line[:SHOWN_CHARS] + "...")
