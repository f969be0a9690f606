r"""The accuracy reward for mathematical answers: formulas, sets, intervals, units.

Reward_acc of DeepSeek-R1 (arXiv:2501.12948, section 2.2): 1 if the answer in the specified place equals the reference by rule. The
place is that of `rewards.accuracy`; within it, the answer is the last `\boxed{...}` or the text after the last `####`, if there is
one. Answers that text and exact fractions can decide (plain numbers, units, multiple choice, words) are judged in this process; all
others go to the processes of `rewards.verifiers.pool`, a whole rollout at a time.

An answer that only repeats the question's expression ("Compute 139+27+23+11") is not computed and scores 0 (`text.copied`).

An answer that the verifier cannot judge within its time and memory limits scores 0, with the reason. Timeouts are counted
(`rollout/verifier_timeouts`), because they are the only verdicts that may differ on another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar

from r1_lightning.rewards.accuracy import counted_answer, leniently_right, shorten, wrong
from r1_lightning.rewards.equality.quick import quick_comparison
from r1_lightning.rewards.verifiers.pool import VerifierPool
from r1_lightning.text.answers import (
    answer_key,
    final_answer,
    lenient_answer,
    marked_answer,
    parse_number,
    same_number,
)
from r1_lightning.text.copied import is_copied
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM, FormName
from r1_lightning.types.errors import require_choice
from r1_lightning.types.text import Completion, JudgeName, Problem, Verdict

_RIGHT = Verdict(1.0, "right")


class MathReward:
    """1.0 if the answer is mathematically the reference, else 0.0.

    Args:
        name: the name of its metric.
        strict: whether the answer must be in the single closed answer block, as in `AccuracyReward`.
        workers, cpu_limit_s, memory_limit_mb: settings of the `VerifierPool`, which starts when the first answer needs it.
        form: the completions' format, which says where the answer is (`text.reasoning_format.FORMS`).
    """

    judges: ClassVar[tuple[JudgeName, ...]] = ("exact", "math")

    def __init__(
        self,
        name: str = "accuracy",
        strict: bool = True,
        workers: int | None = None,
        cpu_limit_s: float = 2.0,
        memory_limit_mb: int = 1024,
        form: FormName = R1_ZERO_FORM,
    ) -> None:
        require_choice("form", form, FORMS)
        self.name = name
        self.strict = strict
        self.form = form
        self.pool = VerifierPool(workers, cpu_limit_s, memory_limit_mb)

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        """Return the verdicts in order; answers that need the verifier are distributed over all of its processes."""
        given = [self._answer(completion) for _, completion in pairs]
        verdicts = [self._at_once(answer, problem) for answer, (problem, _) in zip(given, pairs, strict=True)]
        hard = [row for row, verdict in enumerate(verdicts) if verdict is None]
        compared = self.pool.compare_many([(str(given[row]), pairs[row][0].answer) for row in hard])
        judged = dict(zip(hard, compared, strict=True))
        return [
            verdict or self._verdict(str(given[row]), pairs[row][0], judged[row])
            for row, verdict in enumerate(verdicts)
        ]

    def leniently(self) -> MathReward:
        """Return the lenient form, which shares this reward's pool of processes."""
        lenient = copy(self)
        lenient.strict = False
        return lenient

    def ballot(self, problem: Problem, completion: Completion) -> str | None:
        """Return the answer at the end, in any format, as written; a number in its canonical spelling."""
        answer = lenient_answer(completion.text)
        given = counted_answer(None if answer is None else marked_answer(answer), problem)
        return answer_key(given) if given is not None and parse_number(given) is not None else given

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """True for each pair of mathematically equal answers, by the comparison that also scores them."""
        quick = [quick_comparison(given, other) for given, other in pairs]
        compared = iter(
            self.pool.compare_many([pair for pair, at_once in zip(pairs, quick, strict=True) if not at_once])
        )
        return [at_once.same if at_once else next(compared).same for at_once in quick]

    def close(self) -> None:
        """Kill the verifier's processes; they would also end with this process."""
        self.pool.close()

    def _answer(self, completion: Completion) -> str | None:
        body = final_answer(completion.text, self.form) if self.strict else lenient_answer(completion.text)
        return None if body is None else marked_answer(body)

    def _at_once(self, given: str | None, problem: Problem) -> Verdict | None:
        if given is None:
            return Verdict(0.0, "no answer in its place" if self.strict else "no answer")
        if parse_number(given) is not None and parse_number(problem.answer) is not None:
            if not same_number(given, problem.answer):
                return wrong(given, problem)
            return _right(given, problem) if "/" in given + problem.answer else _RIGHT  # a plain number is never a copy
        if not self.strict and leniently_right(given, problem):
            return _right(given, problem)
        quick = quick_comparison(given, problem.answer)
        if quick is None:
            return None
        return _right(given, problem) if quick.same else wrong(given, problem)

    def _verdict(self, given: str, problem: Problem, compared: Any) -> Verdict:
        if compared.same:
            return _right(given, problem)
        reason = wrong(given, problem).reason
        return Verdict(0.0, f"{reason} ({compared.why})", timed_out=compared.timed_out)


def _right(given: str, problem: Problem) -> Verdict:
    """Return the verdict on an answer that equals the reference: right, unless it only repeats the question's expression."""
    if is_copied(given, problem.answer, problem.question):
        return Verdict(0.0, f"answered {shorten(given)}, which the question says and which is not worked out")
    return _RIGHT
