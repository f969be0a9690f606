"""Hands the samples of an evaluation to the run's records: text, answer, and why it was judged right, wrong or badly formed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1_lightning.evaluation.judged import Judged
from r1_lightning.review.evaluation_records import EvaluationRecords
from r1_lightning.review.rollout_records import EVALUATION, Part, RolloutRecord, known, why
from r1_lightning.rewards.format import FormatReward
from r1_lightning.text.answers import given_answer
from r1_lightning.text.code_tests import TESTS
from r1_lightning.types.text import Completion, Problem

# A problem with its samples and the judgement of each, with the verdict's reason.
Sampled = tuple[Problem, Sequence[Completion], Sequence[tuple[Judged, str]]]


@dataclass(frozen=True)
class Kept:
    """Where the samples of one evaluation go, the one called `name` of the weights after `step`."""

    records: EvaluationRecords
    step: int
    name: str

    def write(self, sampled: Sequence[tuple[int, str, Sampled]], form: FormatReward) -> None:
        """Write down samples by the number of their problem, with the text of its prompt; `form` judges the format."""
        made = [
            self._record(number, place, prompt, problem, completion, judged, reason, form)
            for number, prompt, (problem, completions, judgements) in sampled
            for place, (completion, (judged, reason)) in enumerate(zip(completions, judgements, strict=True))
        ]
        self.records.write(self.step, self.name, made)

    def _record(
        self,
        number: int,
        sample: int,
        prompt: str,
        problem: Problem,
        completion: Completion,
        judged: Judged,
        reason: str,
        form: FormatReward,
    ) -> RolloutRecord:
        formed = form(problem, completion)
        given = None if TESTS in problem.metadata else given_answer(completion.text, form.form)
        return RolloutRecord(
            step=self.step,
            source=EVALUATION,
            prompt_index=number,
            sample=sample,
            prompt=prompt,
            completion=completion.text,
            reward=float(judged.strict),
            parts=(
                Part("accuracy", float(judged.accurate), 1.0, why(reason, judged.accurate, judged.lenient)),
                Part("format", known(formed.score), 1.0, formed.reason),
            ),
            extracted=given,
            finished=completion.finished,
            length=completion.n_tokens,
            mixed_language=judged.mixed,
            problem_id=problem.problem_id,
            question=problem.question,
            reference=problem.answer,
            evaluation=self.name,
        )
