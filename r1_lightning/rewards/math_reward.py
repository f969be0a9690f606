r"""Is the mathematics right? The accuracy reward for answers that are more than numbers.

Reward_acc of DeepSeek-R1 (arXiv:2501.12948, section 2.2): 1 if the answer in its place equals the reference by rule. The place
is that of `rewards.accuracy`; within it, the last `\boxed{...}`, or what follows the last `####`, is the answer if there is one.
An answer that text and exact fractions can decide (plain numbers, units, multiple choice, words) is judged here and at once; any
other goes to the processes of `rewards.verifiers.pool`, a whole rollout at a time.

An answer that is only the question's own expression ("Compute 139+27+23+11") is not worked out and scores 0 (`text.copied`).

What the verifier cannot judge in its limits of time and memory scores 0, with the reason, and a timeout is counted
(`rollout/verifier_timeouts`): it is the only verdict that another machine might give otherwise.
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
        strict: whether the answer must stand in the one, closed answer block, as `AccuracyReward` has it.
        workers, cpu_limit_s, memory_limit_mb: of the `VerifierPool`, which starts when the first answer needs it.
        form: of the completions, which says where the answer stands (`text.reasoning_format.FORMS`).
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
        """The verdicts in order; what needs the verifier is given to all of its processes together."""
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
        """The lenient form, with the same pool of processes."""
        lenient = copy(self)
        lenient.strict = False
        return lenient

    def ballot(self, problem: Problem, completion: Completion) -> str | None:
        """The answer at the end, in any form, as it is written; a number in one spelling."""
        answer = lenient_answer(completion.text)
        given = counted_answer(None if answer is None else marked_answer(answer), problem)
        return answer_key(given) if given is not None and parse_number(given) is not None else given

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the answers of each pair are the same mathematics, by the comparison that also scores them."""
        quick = [quick_comparison(given, other) for given, other in pairs]
        compared = iter(
            self.pool.compare_many([pair for pair, at_once in zip(pairs, quick, strict=True) if not at_once])
        )
        return [at_once.same if at_once else next(compared).same for at_once in quick]

    def close(self) -> None:
        """End the verifier's processes; they would also end with this one."""
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
            return _right(given, problem) if "/" in given + problem.answer else _RIGHT  # a plain number is worked out
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
    """The verdict on an answer that equals the reference: right, unless it is the question's own expression."""
    if is_copied(given, problem.answer, problem.question):
        return Verdict(0.0, f"answered {shorten(given)}, which the question says and which is not worked out")
    return _RIGHT
