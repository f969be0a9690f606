"""An accuracy reward for tasks that mix programming problems with other problems.

DeepSeek-R1's RL stages mix mathematics, code, science and logic in one batch, each judged by its own rule (arXiv:2501.12948,
section B.3.1). A problem with tests in its metadata goes to the code reward, any other to the reward for answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from r1_lightning.rewards.combine import judge_all
from r1_lightning.rewards.voting import text_ballot
from r1_lightning.text.code_tests import TESTS
from r1_lightning.types.text import AccuracyFunction, Completion, Problem, RewardFunction, Verdict, VotingFunction


class TaskAccuracy:
    """Judges problems with tests by `code` and all others by `other`, each in one call."""

    def __init__(self, code: RewardFunction, other: RewardFunction, name: str = "accuracy") -> None:
        self.code, self.other, self.name = code, other, name

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        """Return the verdicts in order."""
        is_code = [TESTS in problem.metadata for problem, _ in pairs]
        of = {
            kind: iter(judge_all(reward, [pair for pair, this in zip(pairs, is_code, strict=True) if this is kind]))
            for kind, reward in ((True, self.code), (False, self.other))
        }
        return [next(of[kind]) for kind in is_code]

    def leniently(self) -> TaskAccuracy:
        """Return this reward with the lenient forms of both parts, if they have one."""
        return TaskAccuracy(_lenient(self.code), _lenient(self.other), self.name)

    def ballot(self, problem: Problem, completion: Completion) -> str | None:
        """Return the ballot of `other`; programs have none (`rewards.voting`)."""
        if isinstance(self.other, VotingFunction):
            return self.other.ballot(problem, completion)
        return text_ballot(completion)

    def equal_many(self, pairs: Sequence[tuple[str, str]]) -> Sequence[bool]:
        """Compare by `other`, or as texts if `other` defines no equality."""
        if isinstance(self.other, VotingFunction):
            return self.other.equal_many(pairs)
        return [first == second for first, second in pairs]


def _lenient(reward: RewardFunction) -> RewardFunction:
    return reward.leniently() if isinstance(reward, AccuracyFunction) else reward
