"""Rejection sampling block by block: for each problem a record of its samples, each kept or dropped with a reason.

DeepSeek-R1 samples several responses per prompt from its RL checkpoint and keeps the correct and readable ones (arXiv:2501.12948v1,
section 2.3.3); the rules are in `rollout.rejecting`. Here the problems come in blocks. A block is a function of the configuration
and the weights: problem i is number i of the task's training stream, (seed, i, sample) keys its draws, and the rows of a block are
decoded together. So any number of processes can make blocks in any order, and again after a kill, with the same bytes.

A problem is not sampled if its `problem_id` came before, if it is contaminated, or if its prompt leaves no room for an answer; the
record gives the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from r1_lightning.rewards.combine import WeightedSum, judge_all
from r1_lightning.rollout.groups import completion_texts, rollout_keys
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.rejecting import CONTAMINATED, KEPT, NOT_JUDGED, JudgedSample, KeepRules
from r1_lightning.rollout.results import Samples
from r1_lightning.tasks.answered_file import RowSource
from r1_lightning.tasks.decontaminate import NGRAM, Decontaminator
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.reasoning_format import R1_FORM, FormName
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require, require_choice, require_int, require_number
from r1_lightning.types.tensors import GenerateFn
from r1_lightning.types.text import Completion, Need, Problem, ProblemSource, RewardFunction, Verdict

SAMPLED_ROLLOUT = 2**31 + 4  # rollout number that keys these draws: no rollout of RL has it
REASONING = "reasoning"  # name of the share that is sampled here, beside those of other sources
REPEATED, NO_ROOM = "asked before", "prompt too long"
SKIPPED = (REPEATED, CONTAMINATED, NO_ROOM)  # why a problem is not sampled

Record = dict[str, Any]


@dataclass(frozen=True)
class RejectionSampling:
    """Settings of `stage=sample`.

    It samples `samples` completions of each of `problems` problems of the training stream, from number `first_problem` on, in
    blocks of `problems_per_block` (at most `max_steps` blocks; null: all). `benchmarks` are tasks by name: rows that share
    `contamination_ngram` consecutive words with their held-out questions, or with the first `held_out_questions` of the task's
    own, are dropped. `sources` are rows from elsewhere by name, and `shares` gives each source's share of the data set,
    `reasoning` being the sampled rows; null takes all rows. This process makes block `shard` and every `shards`-th after it. With
    `rewrite_as: r1` the kept samples, written in R1-Zero's form, enter the data set in R1's (`tasks.clean_traces.in_r1_form`),
    except those whose answer would then be read differently. A judging model (the stage's input `judge`) votes `judge_votes` times
    with at most `judge_new_tokens` each.
    """

    problems: int
    samples: int
    first_problem: int = 0
    problems_per_block: int = 32
    max_steps: int | None = None
    held_out_questions: int = 500
    contamination_ngram: int = NGRAM
    rules: KeepRules = field(default_factory=KeepRules)
    benchmarks: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, RowSource] = field(default_factory=dict)
    shares: Mapping[str, float] | None = None
    rewrite_as: FormName | None = None
    shard: int = 0
    shards: int = 1
    judge_votes: int = 1
    judge_new_tokens: int = 512
    content_version: ClassVar[str] = "rejection-sampling-2"
    needs: ClassVar[tuple[Need, ...]] = ("rollout", "verdicts", "sampled_rows", "problems")

    def __post_init__(self) -> None:
        for name in ("problems", "samples", "problems_per_block", "shards", "judge_votes", "judge_new_tokens"):
            require_int(name, getattr(self, name), 1)
        require_int("first_problem", self.first_problem, 0)
        require_int("held_out_questions", self.held_out_questions, 0)
        require_int("contamination_ngram", self.contamination_ngram, 1)
        if self.max_steps is not None:
            require_int("max_steps", self.max_steps, 1)
        require_int("shard", self.shard, 0, self.shards - 1)
        require(
            REASONING not in self.sources, "sources", REASONING, f"{REASONING} is what is sampled; take another name"
        )
        for name, share in (self.shares or {}).items():
            require_number(f"shares.{name}", share, 0.0)
        if self.rewrite_as is not None:
            require_choice("rewrite_as", self.rewrite_as, (R1_FORM,))
        if self.shares is not None:
            require(sum(self.shares.values()) > 0, "shares", dict(self.shares), "one of them must be above 0")

    @property
    def blocks(self) -> list[range]:
        """The problem numbers of each block."""
        end, size = self.first_problem + self.problems, self.problems_per_block
        found = [range(start, min(start + size, end)) for start in range(self.first_problem, end, size)]
        return found[: self.max_steps]

    @property
    def own_blocks(self) -> range:
        """The indices of the blocks that this process makes."""
        return range(self.shard, len(self.blocks), self.shards)


@dataclass(frozen=True)
class BlockMaker:
    """Samples and judges the problems of one block and applies the rules. `max_prompt_tokens` is the longest allowed prompt."""

    settings: RejectionSampling
    source: ProblemSource
    generate: GenerateFn
    tokenizer: TextTokenizer
    template: ChatTemplate
    accuracy: RewardFunction
    form: RewardFunction | None
    decontaminator: Decontaminator
    seed: int
    max_prompt_tokens: int

    def __call__(self, block: range, first_of: Mapping[str, int]) -> list[Record]:
        """Return one record per problem, in order. `first_of` maps each problem's id to the number of its first occurrence."""
        problems = {index: self.source.train_problem(self.seed, index) for index in block}
        skipped = {index: self._skipped(index, problem, first_of) for index, problem in problems.items()}
        asked = [index for index in block if skipped[index] is None]
        samples = iter(self._samples(asked, [problems[index] for index in asked]))
        return [self._record(i, problems[i], skipped[i], [] if skipped[i] else next(samples)) for i in block]

    def _skipped(self, index: int, problem: Problem, first_of: Mapping[str, int]) -> str | None:
        if first_of[problem.problem_id] < index:  # by number: blocks are made in any order
            return REPEATED
        if self.decontaminator.leak(problem.question) is not None:
            return CONTAMINATED
        return NO_ROOM if len(self._prompt(problem)) > self.max_prompt_tokens else None

    def _prompt(self, problem: Problem) -> list[int]:
        return prompt_ids([problem], self.tokenizer, self.template)[0]

    def _samples(self, numbers: Sequence[int], problems: Sequence[Problem]) -> Iterator[list[JudgedSample]]:
        if not problems:
            return
        copies = self.settings.samples
        # Keyed by the problem's number in the stream, not its place in the block: skipped problems change no other's samples.
        keys = rollout_keys(SAMPLED_ROLLOUT, len(problems), copies)
        keys[:, 1] = keys.new_tensor(numbers).repeat_interleave(copies)
        prompts = [self._prompt(problem) for problem in problems]
        generation = self.generate(prompts, copies, keys)
        texts = completion_texts(generation, self.tokenizer)
        samples = Samples(problems=problems, prompts=prompts, texts=texts, generation=generation)
        judged = self._judged(samples.pairs())
        for start in range(0, len(judged), copies):
            yield judged[start : start + copies]

    def _judged(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[JudgedSample]:
        right = judge_all(self.accuracy, pairs)
        formed = [verdict.score >= 1 for verdict in judge_all(self.form, pairs)] if self.form else [True] * len(pairs)
        return [
            JudgedSample(completion, verdict.score >= 1, is_well_formed, _is_judged(verdict))
            for (_, completion), verdict, is_well_formed in zip(pairs, right, formed, strict=True)
        ]

    def _record(self, index: int, problem: Problem, skipped: str | None, samples: Sequence[JudgedSample]) -> Record:
        fates = self.settings.rules.decide(problem, samples, self.decontaminator.leak)
        told = []
        for sample, fate in zip(samples, fates, strict=True):
            told.append({"tokens": sample.completion.n_tokens, "right": sample.is_right, "fate": fate})
            if fate == KEPT:
                told[-1]["completion"] = sample.completion.text
        leak = self.decontaminator.leak(problem.question) if skipped == CONTAMINATED else None
        plain = {**asdict(problem), "metadata": dict(problem.metadata)}
        if not problem.earlier:
            del plain["earlier"]
        return {"index": index, "problem": plain, "skipped": skipped, "benchmark": leak, "samples": told}


def _is_judged(verdict: Verdict) -> bool:
    """False if the score is no judgement: the verifier ran out of time, or no reply of a judge could be parsed."""
    return not verdict.timed_out and not verdict.reason.startswith(NOT_JUDGED)


def accuracy_and_form(reward: WeightedSum) -> tuple[RewardFunction, RewardFunction | None]:
    """Return a reward's part that judges whether an answer is right, and its format part (None if it has none)."""
    parts = {part.name: part for part in reward.rewards}
    allowed = "rejection sampling needs a reward named accuracy, which says what is right"
    require("accuracy" in parts, "reward.rewards", sorted(parts), allowed)
    return parts["accuracy"], form_of(reward)


def form_of(reward: WeightedSum | None) -> RewardFunction | None:
    """Return a reward's part that judges the form of a completion; None if it has none."""
    return next((part for part in reward.rewards if part.name == "format"), None) if reward else None
