"""Restricts a reward to some domains: R1's second RL stage judges reasoning by rules and all other problems by reward models.

    Reward = Reward_reasoning + Reward_general + Reward_language,   Reward_reasoning = Reward_rule,
    Reward_general = Reward_reward_model + Reward_format                               (R1v2 equations 8 to 10)

Each prompt belongs to one domain, which its metadata name under `DOMAIN` ("reasoning" by default). On problems of other domains the
reward is 0 and its judge is not called. All completions of a group answer the same problem, so this 0 is equal for all of them and
changes no advantage; means in the logs are over all problems, including those with this 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from r1_lightning.tasks.mixture import DOMAIN, REASONING
from r1_lightning.types.errors import require
from r1_lightning.types.text import (
    BatchRewardFunction,
    Completion,
    ModelReward,
    Problem,
    RewardFunction,
    Scorer,
    Verdict,
)


@dataclass(frozen=True)
class OnDomain:
    """`reward` on problems of the listed `domains`, 0 on all others."""

    reward: RewardFunction
    domains: Sequence[str]

    def __post_init__(self) -> None:
        require(bool(self.domains), "reward.domains", self.domains, "at least one kind of problem is needed")

    @property
    def name(self) -> str:
        """The name of the inner reward."""
        return self.reward.name

    @property
    def part_of_model(self) -> Mapping[str, str]:
        return self.reward.part_of_model if isinstance(self.reward, ModelReward) else {}

    def with_scorers(self, scorers: Mapping[str, Scorer]) -> OnDomain:
        """Return this reward with the trained models given to its inner reward."""
        if not isinstance(self.reward, ModelReward):
            return self
        return replace(self, reward=self.reward.with_scorers(scorers))

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        """Return the verdicts in order; the inner reward judges all of its problems in one call."""
        own = [pair for pair in pairs if domain_of(pair[0]) in self.domains]
        reward = self.reward
        judged = reward.judge_many(own) if isinstance(reward, BatchRewardFunction) else [reward(*pair) for pair in own]
        verdicts = iter(judged)
        return [
            next(verdicts) if domain_of(p) in self.domains else Verdict(0.0, f"not asked: {domain_of(p)}")
            for p, _ in pairs
        ]


def domain_of(problem: Problem) -> str:
    """Return the domain of `problem`."""
    return problem.metadata.get(DOMAIN, REASONING)
