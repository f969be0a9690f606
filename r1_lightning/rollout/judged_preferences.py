"""Preferences among a model's own completions, compared by another model, as R1 made the pairs of its helpful reward model.

Of the `samples` completions of a problem, a key draws two whose scored parts differ. A judge (`rollout.pair_judge`) compares the
part of each that the reward model will score, and the pair is kept if its mean scores differ by more than `min_score_gap` (1 in
R1v2 section 3.1). Dropped pairs are counted by reason, and replies that cannot be parsed are counted, too.

The pairs are a function of (seed, problem) and of both models' weights at the time of the call: a resumed run judges the same
pairs again, with the same result. Each process samples its share of the problems and has its share of the pairs judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.pair_judge import Pair, PairJudge
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.sampled_preferences import (
    HELD_OUT_ROLLOUT,
    PROBLEMS_PER_CALL,
    PROBLEMS_PER_PAIR,
    TRAINING_ROLLOUT,
)
from r1_lightning.rollout.shared_sampling import sample_together
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.response_parts import part_of
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import GenerateFn
from r1_lightning.types.text import Preference, Problem, ProblemSource

ALIKE = "no two samples that differ"


@dataclass(frozen=True)
class JudgedPreferences:
    """A `PreferenceSource`. `left_out` counts the dropped pairs of the latest call by reason, `replies` the judge's replies."""

    source: ProblemSource
    generate: GenerateFn
    tokenizer: TextTokenizer
    template: ChatTemplate
    judge: PairJudge
    samples: int
    part: str
    min_score_gap: float
    processes: Processes = ONE
    left_out: Counter[str] = field(default_factory=Counter, compare=False)
    replies: Counter[str] = field(default_factory=Counter, compare=False)
    content_version: ClassVar[str] = "judged-preferences-1"

    def training_items(self, seed: int, wanted: int) -> Sequence[Preference]:
        """Return the first `wanted` pairs along the training stream of `seed`.

        Raises InvalidInput if fewer than one problem in `PROBLEMS_PER_PAIR` gives a pair.
        """
        self._begin()
        pairs: list[Preference] = []
        start = 0
        while len(pairs) < wanted:
            if len(pairs) * PROBLEMS_PER_PAIR < start:
                raise InvalidInput(
                    f"data: {start} problems gave {len(pairs)} judged pairs of the {wanted} wanted; {self.account()}"
                )
            problems = [self.source.train_problem(seed, start + place) for place in range(PROBLEMS_PER_CALL)]
            pairs += self._pairs(problems, TRAINING_ROLLOUT, start)
            start += len(problems)
        return pairs[:wanted]

    def held_out_items(self, count: int) -> Sequence[Preference]:
        """Return the pairs of the first `count` held-out problems, usually fewer than `count`."""
        self._begin()
        pairs = self._pairs(self.source.held_out_problems(count), HELD_OUT_ROLLOUT, 0)
        if not pairs:
            raise InvalidInput(f"data: {count} held-out problems gave no judged pair; {self.account()}")
        return pairs

    def account(self) -> str:
        """Return a line with the dropped pairs by reason and the number of the judge's replies that could not be parsed."""
        reasons = ", ".join(f"{count} ({reason})" for reason, count in sorted(self.left_out.items())) or "none"
        return f"left out: {reasons}; {self.replies['unreadable']} of {self.replies['all']} replies of the judge cannot be read"

    def _begin(self) -> None:
        self.left_out.clear()
        self.replies.clear()

    def _pairs(self, problems: Sequence[Problem], rollout: int, start: int) -> list[Preference]:
        prompts = prompt_ids(problems, self.tokenizer, self.template)
        keys = rollout_keys(rollout, len(prompts), self.samples)
        keys[:, 1] += start
        completions = sample_together(self.generate, self.processes, prompts, self.samples, keys, self.tokenizer)
        texts = [completion.text for completion in completions]
        drawn: list[tuple[Problem, list[str]]] = []
        for number, problem in enumerate(problems):
            # Scored part -> the first completion with that part.
            parts: dict[str, str] = {}
            for text in texts[number * self.samples : (number + 1) * self.samples]:
                said = part_of(text, self.part)
                if said is not None:
                    parts.setdefault(said, text)
            if len(parts) < 2:
                self.left_out[ALIKE] += 1
            else:
                drawn.append((problem, keyed_random("pair", rollout, start + number).sample(list(parts.values()), 2)))
        return self._judged(drawn)

    def _judged(self, drawn: Sequence[tuple[Problem, Sequence[str]]]) -> list[Preference]:
        shown = [Pair(p.question, *(part_of(text, self.part) or "" for text in texts)) for p, texts in drawn]
        own = self.processes.share(shown)
        judged = STOP.together(lambda: self.judge.compare(own), self.processes.any, self.processes.collect)
        shares = self.processes.collect(judged)
        verdicts = [verdict for share, _, _ in shares for verdict in share]
        for _, replies, unreadable in shares:
            self.replies.update({"all": replies, "unreadable": unreadable})
        pairs = []
        for (problem, (first, second)), verdict in zip(drawn, verdicts, strict=True):
            if verdict.gap is None:
                self.left_out[verdict.reason] += 1
            elif abs(verdict.gap) > self.min_score_gap:
                better, worse = (first, second) if verdict.gap > 0 else (second, first)
                pairs.append(Preference(problem.question, better, worse, abs(verdict.gap)))
            else:
                self.left_out[f"the judge's scores differ by no more than {self.min_score_gap:g}"] += 1
        return pairs
