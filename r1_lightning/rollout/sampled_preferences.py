"""Preferences among a model's own completions: sampled, judged by a reward, and paired (the best with the worst of a group).

R1 uses another model as judge; here any reward serves, for instance the accuracy rule, so that the reward model learns a known rule
and can be compared with it (`reports/reward_hacking`). Each problem whose completions got different rewards (by more than rounding,
`SPREAD_FLOOR`) gives one pair; among equal rewards a hash of the problem's number decides. The pairs are a function of (seed,
problem) and of the weights at the time of the call. Each process samples and judges its share of the problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from r1_lightning.functional.advantages import SPREAD_FLOOR
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.shared_sampling import sample_together
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import GenerateFn
from r1_lightning.types.text import Preference, Problem, ProblemSource

# Rollout numbers that key the draws of training pairs and of held-out pairs: no rollout of RL has them.
TRAINING_ROLLOUT, HELD_OUT_ROLLOUT = 2**31 + 2, 2**31 + 3
PROBLEMS_PER_CALL = 128
PROBLEMS_PER_PAIR = 20  # a model that gives fewer pairs is nearly always right, or nearly always wrong


@dataclass(frozen=True)
class SampledPreferences:
    """A `PreferenceSource`: `samples` completions of each problem of `source`, judged by `reward`."""

    source: ProblemSource
    generate: GenerateFn
    tokenizer: TextTokenizer
    template: ChatTemplate
    reward: WeightedSum
    samples: int
    processes: Processes = ONE
    content_version: ClassVar[str] = "sampled-preferences-1"

    def training_items(self, seed: int, wanted: int) -> Sequence[Preference]:
        """Return the first `wanted` pairs along the training stream of `seed`. InvalidInput if rewards hardly ever differ."""
        pairs: list[Preference] = []
        start, limit = 0, max(PROBLEMS_PER_CALL, PROBLEMS_PER_PAIR * wanted)
        while len(pairs) < wanted:
            if start >= limit:
                raise InvalidInput(
                    f"data: {start} problems with {self.samples} samples each gave {len(pairs)} pairs of the {wanted} wanted: "
                    "the rewards of one problem's samples hardly ever differ; try another model, another reward, or more samples"
                )
            problems = [self.source.train_problem(seed, start + place) for place in range(PROBLEMS_PER_CALL)]
            pairs += self._pairs(problems, TRAINING_ROLLOUT, start)
            start += len(problems)
        return pairs[:wanted]

    def held_out_items(self, count: int) -> Sequence[Preference]:
        """Return the pairs of the first `count` held-out problems, usually fewer than `count`."""
        pairs = self._pairs(self.source.held_out_problems(count), HELD_OUT_ROLLOUT, 0)
        if not pairs:
            raise InvalidInput(
                f"data: {count} held-out problems gave no pair: the rewards of one problem's samples never differ"
            )
        return pairs

    def _pairs(self, problems: Sequence[Problem], rollout: int, start: int) -> list[Preference]:
        prompts = prompt_ids(problems, self.tokenizer, self.template)
        keys = rollout_keys(rollout, len(prompts), self.samples)
        keys[:, 1] += start
        drawn = sample_together(self.generate, self.processes, prompts, self.samples, keys, self.tokenizer)
        asked = [(problems[row // self.samples], completion) for row, completion in enumerate(drawn)]
        share = self.processes.share(asked)
        judged = STOP.together(lambda: self.reward.judge_many(share), self.processes.any, self.processes.collect)
        totals = self.processes.gather([verdict.total for verdict in judged])
        texts = [completion.text for completion in drawn]
        pairs = []
        for number, problem in enumerate(problems):
            own = range(number * self.samples, (number + 1) * self.samples)
            high, low = max(totals[row] for row in own), min(totals[row] for row in own)
            if high - low > SPREAD_FLOOR * max(1.0, abs(high), abs(low)):
                rng = keyed_random("pair", rollout, start + number)
                best, worst = (rng.choice([row for row in own if totals[row] == value]) for value in (high, low))
                pairs.append(Preference(problem.question, texts[best], texts[worst]))
        return pairs
