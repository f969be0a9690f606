"""Values that cross layers and need no torch: problems, completions, verdicts, and the Protocols of their makers.

A *problem source* makes problems and, where it has any, pre-training text; a *reward function* judges one completion.
Both are plain functions of their arguments, so that the same question gives the same verdict in any order, in any process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

Language = Literal["en", "zh"]
# The rule that judges a task's answers; `rewards/judges.py` maps each name to a reward.
JudgeName = Literal["exact", "math", "code", "reasoning_gym"]
# What a data module or a stage must be given, listed in its class attribute `needs`; `run` checks it before anything is made.
Need = Literal[
    "documents",  # the task has text to pre-train on
    "examples",  # questions with completions, from `data.examples` or the stage's input `data`
    "text",  # `data.traces`, the stage's input `data`, or the task's documents
    "problems",  # the task has problems to train on
    "rollout",  # settings to sample with
    "verdicts",  # what says whether an answer is right: a reward named accuracy, or the stage's input `judge`
    "sampled_rows",  # every share of a sampled data set has a source, and every benchmark has questions to keep out
    "requests",  # the task holds out as many requests of each domain as the stage asks for
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its reference answer.

    `problem_id` is the same for every wording of a problem and every order of its operands, so that sets of problems can be
    compared; `level` grows with difficulty. `earlier` holds the conversation's turns before the question, as (question, reply).
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

    `timed_out` is True if judging passed its time limit; the score is then no judgement. `behaviour` says of a wrong program what
    it did: equal texts if two are first wrong at the same test, with the same output. They vote together in cons@k.
    """

    score: float
    reason: str
    timed_out: bool = False
    behaviour: str = field(default="", compare=False)


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
    """A reward for right answers in the required format; `leniently` returns one that accepts a final answer in any format."""

    def leniently(self) -> RewardFunction: ...


@runtime_checkable
class VotingFunction(RewardFunction, Protocol):
    """A reward for right answers that also decides whether two answers are equal, so that a majority vote uses its equality."""

    def ballot(self, problem: Problem, completion: Completion) -> str | None:
        """Return the answer for which a completion votes, in any format; None if it gives no answer."""
        ...

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> Sequence[bool]:
        """True for each pair whose two ballots are the same answer."""
        ...


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """A judgement of one step of a completion: the step ends before character `end` of its text."""

    end: int
    score: float
    reason: str


class Scorer(Protocol):
    """A trained reward model: maps each (question, response) pair to a number, higher for a better response."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]: ...


@runtime_checkable
class ModelReward(RewardFunction, Protocol):
    """A reward that takes its score from trained models, each an input of the stage.

    `part_of_model` maps each model's role to the part of a completion that the model reads. YAML cannot hold a model, so a
    configuration makes the reward without one; `with_scorers` returns a copy that has its models.
    """

    @property
    def part_of_model(self) -> Mapping[str, str]: ...

    def with_scorers(self, scorers: Mapping[str, Scorer]) -> RewardFunction: ...


@dataclass(frozen=True, slots=True)
class Preference:
    """Two responses to one question; `chosen` is better. `score_gap` is the judge's score difference, None if not scored."""

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
    """A question and the completion to learn; `where` is its place in the source ("train.jsonl, line 7"), for error messages.

    `metadata` holds the row's other known fields. `earlier` is as in `Problem`: its turns belong to the prompt and are not learned.
    """

    question: str
    completion: str
    where: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    earlier: Sequence[tuple[str, str]] = ()


class PreferenceSource(Protocol):
    """The source of a reward model's data; deterministic. `content_version` is as in `ProblemSource`."""

    @property
    def content_version(self) -> str: ...

    def training_items(self, seed: int, wanted: int) -> Sequence[PreferenceItem]:
        """Return all items, or the first `wanted` of an endless sequence; either all pairs or all labelled responses."""
        ...

    def held_out_items(self, count: int) -> Sequence[PreferenceItem]:
        """Return `count` items on questions of the test split, which training never sees."""
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """A question with a teacher's whole completion; `earlier` is as in `Problem`."""

    question: str
    completion: str
    earlier: Sequence[tuple[str, str]] = ()


class SharedVocabulary(Protocol):
    """The part of a tokenizer's interface that decides whether two tokenizers are the same."""

    eos_id: int

    def vocabulary(self) -> Mapping[str, int]:
        """Return each token's spelling and its id."""
        ...


class TraceSource(Protocol):
    """The source of a student's text; `content_version` is as in `ProblemSource`."""

    @property
    def content_version(self) -> str: ...

    def traces(self) -> Sequence[Trace]:
        """Return all traces, always in the same order."""
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
