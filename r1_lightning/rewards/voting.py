"""Which answer do the samples of a problem agree on, and is it right? The vote of cons@k (DeepSeek-R1, arXiv:2501.12948, D.1).

Equal is what the accuracy reward holds to be equal (`types.text.VotingFunction`), as in pass@1: the right samples of a problem are
one class, because all of them equal the reference; wrong ones are sorted into classes by that same equality. A reward that scores
without an equality votes by text. Programs have no vote: two are equal if they print the same, which their texts do not say.

Comparing formulas costs, so it is done only where it can change the vote, and equal texts are one from the start: a problem without
a right sample is lost at once, one whose right samples outnumber all others is won. Of what remains, `MAX_CLASSES` of the most
frequent wrong texts are compared with the rest; a rarer one is a class of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from r1_lightning.functional.intervals import majority_vote
from r1_lightning.text.answers import answer_key, lenient_answer
from r1_lightning.text.code_tests import TESTS
from r1_lightning.types.text import Completion, Problem, RewardFunction, VotingFunction

MAX_CLASSES = 8  # of wrong answers to one problem, that gather votes: at most 8 * 63 comparisons for 64 samples


@dataclass(slots=True)
class _Class:
    """Votes for one answer: how many, the first sample that gave it, and how it is written."""

    text: str
    first: int
    votes: int = 0

    def beats(self, other: _Class) -> bool:
        """More votes, or as many and the first of them earlier."""
        return (self.votes, -self.first) > (other.votes, -other.first)


@dataclass(slots=True)
class _Count:
    """The votes of one problem: those for the reference, and the wrong answers that may still gain, most frequent first."""

    right: _Class
    wrong: list[_Class] = field(default_factory=list)

    def outcome(self) -> bool | None:
        """Whether the right answer wins; None where that depends on which wrong answers are equal."""
        if not self.right.votes or any(answer.beats(self.right) for answer in self.wrong):
            return False
        if not self.wrong:
            return True
        together = _Class("", min(answer.first for answer in self.wrong), sum(answer.votes for answer in self.wrong))
        return None if together.beats(self.right) else True


def majorities_right(
    reward: RewardFunction,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[Completion]],
    right: Sequence[Sequence[bool]],
) -> list[bool | None]:
    """Whether the majority vote on each problem is right; None for a program, on which no vote is defined.

    `right[p][k]`: whether sample k of problem p is right, in any form. No usable vote is never right; of classes of one size the
    one that was voted for first wins.
    """
    rows = [row for row, problem in enumerate(problems) if TESTS not in problem.metadata]
    outcomes: list[bool | None] = [None] * len(problems)
    if not isinstance(reward, VotingFunction):
        for row in rows:
            outcomes[row] = _by_text(completions[row], right[row])
        return outcomes
    counts = {row: _count(reward, problems[row], completions[row], right[row]) for row in rows}
    for _ in range(MAX_CLASSES):
        undecided = [count for count in counts.values() if count.outcome() is None]
        if not undecided:
            break
        _gather(reward, undecided)
    for row, count in counts.items():
        outcomes[row] = count.outcome() is not False
    return outcomes


def text_ballot(completion: Completion) -> str | None:
    """The ballot of a reward that knows no equality: the answer at the end, in one spelling of numbers and of spaces."""
    return answer_key(lenient_answer(completion.text))


def _by_text(samples: Sequence[Completion], right: Sequence[bool]) -> bool:
    ballots = [text_ballot(sample) for sample in samples]
    winner = majority_vote(ballots)
    return winner is not None and right[ballots.index(str(winner))]


def _count(reward: VotingFunction, problem: Problem, samples: Sequence[Completion], right: Sequence[bool]) -> _Count:
    count = _Count(_Class(problem.answer, len(samples)))
    wrong: dict[str, _Class] = {}
    for number, (sample, is_right) in enumerate(zip(samples, right, strict=True)):
        if is_right:
            count.right.first = min(count.right.first, number)
            count.right.votes += 1
        elif (ballot := reward.ballot(problem, sample)) is not None:
            wrong.setdefault(ballot, _Class(ballot, number)).votes += 1
    count.wrong = sorted(wrong.values(), key=lambda answer: -answer.votes)
    return count


def _gather(reward: VotingFunction, counts: Sequence[_Count]) -> None:
    """Of each count, the most frequent wrong answer takes the votes of all that equal it, and leaves if it still does not win."""
    pairs = [(answer.text, count.wrong[0].text) for count in counts for answer in count.wrong[1:]]
    equal = iter(reward.equal_many(pairs))
    for count in counts:
        leader, *others = count.wrong
        same = [answer for answer in others if next(equal)]
        leader.votes += sum(answer.votes for answer in same)
        leader.first = min([leader.first, *(answer.first for answer in same)])
        count.wrong = (
            [leader]
            if leader.beats(count.right)
            else [answer for answer in others if all(answer is not other for other in same)]
        )
