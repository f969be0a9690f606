"""The protocol of an evaluation: what a number depends on besides the model. Two numbers are comparable if it is the same.

Published scores differ by many points because prompts, samples, temperatures, length limits and judges differ; so all of them are
written down beside every number, with a hash of what was asked and the commit of the code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from r1_lightning.artefacts.fingerprint import SHORT_DIGITS, fingerprint
from r1_lightning.evaluation.metrics import Question
from r1_lightning.types.text import Problem

VERSION = 1  # of the records' files
# What two comparable numbers may differ in: the hash depends on the model's tokenizer, and draws of another seed are as good.
OF_THE_MODEL = ("model", "weights", "questions_sha256", "seed")


@dataclass(frozen=True)
class Protocol:
    """All of it, and the model. `weights` is the fingerprint of the artefact or checkpoint.

    `questions_sha256` covers prompts (as token ids) and references; `commit` is the code's. The other fields are those of
    `EvaluationConfig` and of the task.
    """

    model: str
    weights: str
    benchmark: str
    questions: int
    questions_sha256: str
    template: str
    form: str
    forced_prefix: str
    judge: str
    samples: int
    sampling_temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    commit: str
    version: int = VERSION

    @property
    def digits(self) -> str:
        """The first digits of a hash of all of it: folders named by them hold one protocol each."""
        return fingerprint(asdict(self))[:SHORT_DIGITS]

    def differences(self, other: Protocol) -> list[str]:
        """Return "field: here and there" of every field that differs and is not the model's."""
        names = [item.name for item in fields(self) if item.name not in OF_THE_MODEL]
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return [f"{name}: {here} and {there}" for name, here, there in pairs if here != there]


@dataclass(frozen=True)
class Asking:
    """A question as it was asked: `prompt_sha256` is the hash of its prompt's token ids; `task` and `votes` as in `Question`."""

    problem_id: str
    text: str
    reference: str
    language: str
    prompt_sha256: str
    task: str = ""
    votes: bool = True

    @classmethod
    def of(cls, problem: Problem, prompt: Sequence[int]) -> Asking:
        known = Question.of(problem, programs_vote=True)
        digest = hashlib.sha256(json.dumps(list(prompt)).encode()).hexdigest()
        shown = (problem.question, problem.answer, problem.language)
        return cls(problem.problem_id, *shown, digest, known.task, known.votes)


def questions_digest(asked: Sequence[Asking]) -> str:
    """Hash what was asked: the prompts and references, in order."""
    return fingerprint({"asked": [[item.problem_id, item.prompt_sha256, item.reference] for item in asked]})
