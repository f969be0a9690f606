"""The accuracy reward for reasoning-gym's problems: calls the scorer of each problem's generator.

The answer is the content of the single closed answer block, as in `AccuracyReward` (DeepSeek-R1, arXiv:2501.12948, section 2.2).
Answers to generated problems can be long (the tower of Hanoi with seven disks takes 127 lines): up to `MAX_SCORED_CHARS` are
accepted. The generator's `score_answer` runs in processes that can be killed (`verifiers.pool`), a whole rollout at a time.

These scores are graded: a generator may give 0.01 for a wrong answer, or 0.3 for a right one with words around it. R1's accuracy is
1 or 0, so only 1.0 counts as right; with `graded` the reward is the generator's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from r1_lightning.rewards.verifiers.pool import PoolVerdict, VerifierPool
from r1_lightning.tasks.reasoning_gym_task import ENTRY
from r1_lightning.text.answers import final_answer
from r1_lightning.text.boxed import MAX_BOX_CHARS
from r1_lightning.text.reasoning_format import FORMS, R1_ZERO_FORM, FormName
from r1_lightning.types.errors import InvalidInput, require_choice
from r1_lightning.types.text import Completion, JudgeName, Problem, Verdict

MAX_SCORED_CHARS = MAX_BOX_CHARS  # the longest reference in 400 of each generator has 8,400
PROGRAM = "r1_lightning.rewards.verifiers.task_worker"


class TaskScorer:
    """1.0 if the generator's scorer gives 1.0, else 0.0; with `graded` the scorer's score in 0 .. 1.

    Args:
        name: the name of its metric.
        graded: whether scores between 0 and 1 count.
        workers, cpu_limit_s, memory_limit_mb: settings of the `VerifierPool`, which starts when the first answer needs it.
        form: the completions' format, which says where the answer is (`text.reasoning_format.FORMS`).

    Raises:
        InvalidInput: when judging, a problem that does not come from `ReasoningGymTask`.
    """

    judges: ClassVar[tuple[JudgeName, ...]] = ("reasoning_gym",)

    def __init__(
        self,
        name: str = "accuracy",
        graded: bool = False,
        workers: int | None = None,
        cpu_limit_s: float = 5.0,
        memory_limit_mb: int = 1024,
        form: FormName = R1_ZERO_FORM,
    ) -> None:
        require_choice("form", form, FORMS)
        self.form = form
        self.name = name
        self.graded = graded
        self.pool = VerifierPool(workers, cpu_limit_s, memory_limit_mb, program=PROGRAM)

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        """Return the verdicts in order; the answers are distributed over all of the pool's processes."""
        recipes = [_recipe(problem) for problem, _ in pairs]
        given = [final_answer(completion.text, self.form, MAX_SCORED_CHARS) for _, completion in pairs]
        answered = [row for row, answer in enumerate(given) if answer is not None]
        scored = self.pool.compare_many([(str(given[row]), recipes[row]) for row in answered])
        judged = dict(zip(answered, scored, strict=True))
        return [self._verdict(judged.get(row)) for row in range(len(pairs))]

    def close(self) -> None:
        """Kill the pool's processes; they would also end with this process."""
        self.pool.close()

    def _verdict(self, scored: PoolVerdict | None) -> Verdict:
        if scored is None:
            return Verdict(0.0, "no answer in its place")
        score = (scored.score or 0.0) if self.graded else float(scored.same)
        return Verdict(score, scored.why, timed_out=scored.timed_out)


def _recipe(problem: Problem) -> str:
    if ENTRY not in problem.metadata:
        raise InvalidInput(
            f"problem={problem.problem_id!r} is not allowed: this reward judges problems of task=reasoning_gym only"
        )
    return problem.metadata[ENTRY]
