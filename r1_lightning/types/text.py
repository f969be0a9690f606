"""Values that cross layers and need no torch: problems, completions, verdicts, and the Protocols of their makers.

A *problem source* makes problems and, where it has any, pre-training text; a *reward function* judges one completion.
Both are plain functions of their arguments, so that the same question gives the same verdict in any order, in any process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

Language = Literal["en", "zh"]
# What judges the answers of a task: see `rewards/judges.py`.
JudgeName = Literal["exact", "math", "code", "reasoning_gym"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its reference answer.

    `problem_id` is equal for the same problem whatever its wording or the order of its operands, so that sets of
    problems can be compared; `level` grows with difficulty. `earlier` are the turns of the conversation that came before the
    question, each what was asked and what was replied.
    """

    question: str
    answer: str
    problem_id: str
    language: Language = "en"
    level: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)
    earlier: Sequence[tuple[str, str]] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote after the prompt. `finished` is False where the length limit cut it off before EOS."""

    text: str
    n_tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reward function's judgement: a score (1.0 is right, 0.0 is wrong) and a short reason for people.

    `timed_out`: the score stands for no judgement, because judging took longer than it may.
    """

    score: float
    reason: str
    timed_out: bool = False


class RewardFunction(Protocol):
    """Judges one completion of one problem; its `name` is the name of its metric."""

    @property
    def name(self) -> str: ...

    def __call__(self, problem: Problem, completion: Completion) -> Verdict: ...


@runtime_checkable
class BatchRewardFunction(RewardFunction, Protocol):
    """A reward function that judges a whole rollout faster than one completion after another, with the same verdicts."""

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> Sequence[Verdict]: ...


@runtime_checkable
class AccuracyFunction(RewardFunction, Protocol):
    """A reward for right answers in their place, which knows its lenient form: right at the end, in any form."""

    def leniently(self) -> RewardFunction: ...


@runtime_checkable
class VotingFunction(RewardFunction, Protocol):
    """A reward for right answers that knows which answers are equal, so that samples can vote by the equality it scores by."""

    def ballot(self, problem: Problem, completion: Completion) -> str | None:
        """The answer that a completion votes for, in any form; None where it gives none."""
        ...

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> Sequence[bool]:
        """Whether the two ballots of each pair are one answer."""
        ...


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """A judgement of one step of a completion: the step ends before character `end` of its text."""

    end: int
    score: float
    reason: str


class Scorer(Protocol):
    """A model that gives (question, response) pairs a number each, higher for the better: a trained reward model."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]: ...


@runtime_checkable
class ModelReward(RewardFunction, Protocol):
    """A reward that asks trained models. Each is an input of the stage: `part_of_model` maps its role to what it is shown.

    A configuration makes the reward without a model, because a model cannot stand in YAML; `with_scorers` gives one that has it.
    """

    @property
    def part_of_model(self) -> Mapping[str, str]: ...

    def with_scorers(self, scorers: Mapping[str, Scorer]) -> RewardFunction: ...


@dataclass(frozen=True, slots=True)
class Preference:
    """Two responses to one question; `chosen` is the better one. `score_gap`: by how much a judge said so, None if it did not."""

    question: str
    chosen: str
    rejected: str
    score_gap: float | None = None


@dataclass(frozen=True, slots=True)
class LabelledResponse:
    """One response to a question, and whether it is good (safe)."""

    question: str
    response: str
    is_good: bool


PreferenceItem = Preference | LabelledResponse


@dataclass(frozen=True, slots=True)
class ChatExample:
    """A question and the completion to be learned; `where` it was read ("train.jsonl, line 7"), and what else is known of it.

    `earlier` as in `Problem`: it belongs to the prompt, and is not learned.
    """

    question: str
    completion: str
    where: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    earlier: Sequence[tuple[str, str]] = ()


class PreferenceSource(Protocol):
    """Where a reward model's data come from; deterministic, and `content_version` as in `ProblemSource`."""

    @property
    def content_version(self) -> str: ...

    def training_items(self, seed: int, wanted: int) -> Sequence[PreferenceItem]:
        """All there are, or the first `wanted` of an endless sequence; all of one kind."""
        ...

    def held_out_items(self, count: int) -> Sequence[PreferenceItem]:
        """`count` items on questions that are never trained on."""
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """A question with the whole completion that a teacher wrote to it; `earlier` as in `Problem`."""

    question: str
    completion: str
    earlier: Sequence[tuple[str, str]] = ()


class SharedVocabulary(Protocol):
    """As much of a tokenizer as says whether two of them are the same."""

    eos_id: int

    def vocabulary(self) -> Mapping[str, int]:
        """Each token's spelling with its id."""
        ...


class TraceSource(Protocol):
    """Where a student's text comes from; `content_version` as in `ProblemSource`."""

    @property
    def content_version(self) -> str: ...

    def traces(self) -> Sequence[Trace]:
        """All there are, in an order of their own."""
        ...


class StepRewardFunction(Protocol):
    """Judges the steps of one completion, in the order in which they end (process supervision)."""

    def __call__(self, problem: Problem, completion: Completion) -> Sequence[StepVerdict]: ...


@runtime_checkable
class ScheduledSource(Protocol):
    """A problem source whose training stream depends on the optimizer step: `at_step` gives the source for one step."""

    def at_step(self, step: int) -> ProblemSource: ...


class ProblemSource(Protocol):
    """Makes problems and pre-training text, deterministically: everything is a function of (seed, index).

    `content_version` changes whenever the same arguments would make other text; it is part of the fingerprint.
    """

    @property
    def content_version(self) -> str: ...

    def train_problem(self, seed: int, index: int) -> Problem: ...

    def held_out_problems(self, count: int) -> Sequence[Problem]: ...

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Pre-training documents number start .. start + count - 1, without an end-of-sequence token."""
        ...
