"""The majority vote of cons@k: which answer most samples of a problem give, and whether it is right (arXiv:2501.12948, D.1).

Votes use the equality of the accuracy reward (`types.text.VotingFunction`), as pass@1 does: all right samples of a problem are
one class, because they equal the reference; the same equality groups wrong samples into classes. With a reward that defines no
equality, answers vote by text. Programs vote by what they print, where the caller knows it: those that pass all tests are one
class, and wrong ones are equal if they are first wrong at the same test with the same output (`Verdict.behaviour`).

Comparing formulas is expensive, so it is done only if it can change the vote, and equal texts are merged first. A problem without a
right sample is lost at once; one whose right samples outnumber all others is won. For the remaining problems the `MAX_CLASSES` most
frequent wrong texts are compared with the rest; every rarer text is a class of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from r1_lightning.functional.intervals import majority_vote
from r1_lightning.text.answers import answer_key, lenient_answer
from r1_lightning.text.code_tests import TESTS
from r1_lightning.types.text import Completion, Problem, RewardFunction, VotingFunction

MAX_CLASSES = 8  # compared wrong answers per problem: at most 8 * 63 comparisons for 64 samples


@dataclass(slots=True)
class _Class:
    """The votes for one answer: their count, the first sample that gave it, and its text."""

    text: str
    first: int
    votes: int = 0

    def beats(self, other: _Class) -> bool:
        """True if this class has more votes, or as many and an earlier first vote."""
        return (self.votes, -self.first) > (other.votes, -other.first)


@dataclass(slots=True)
class _Count:
    """The votes of one problem: those for the reference, and the wrong answers that may still win, most frequent first.

    `given` holds each sample's wrong answer, True for a right one, or None; `equals` takes wrong answers to the equal one that is
    more frequent.
    """

    right: _Class
    wrong: list[_Class] = field(default_factory=list)
    given: list[str | bool | None] = field(default_factory=list)
    equals: dict[str, str] = field(default_factory=dict)

    def ballots(self) -> list[str | bool | None]:
        """The class of each sample: True, or the text of a wrong one; None is no vote."""
        return [self.equals.get(given, given) if isinstance(given, str) else given for given in self.given]

    def outcome(self) -> bool | None:
        """True if the right answer wins; None if that depends on which wrong answers are equal."""
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
    """Return for each problem whether its majority vote is right; None for programming problems, which have no vote here.

    `right[p][k]` is True if sample k of problem p is right, in any format. Without a usable vote the result is False; of equally
    large classes the one with the first vote wins.
    """
    rows = zip(problems, votes(reward, problems, completions, right), right, strict=True)
    return [None if TESTS in problem.metadata else is_majority_right(cast, of_row) for problem, cast, of_row in rows]


def is_majority_right(cast: Sequence[int | None], right: Sequence[bool]) -> bool:
    """Whether the class with the most votes (of equals the first) is right; `cast` are the votes of a problem's samples."""
    winner = majority_vote(cast)
    return winner is not None and right[cast.index(winner)]


def votes(
    reward: RewardFunction,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[Completion]],
    right: Sequence[Sequence[bool]],
    behaviours: Sequence[Sequence[str]] | None = None,
) -> list[list[int | None]]:
    """Return for each problem the class for which each sample votes, numbered in the order of first votes; None is no vote.

    `behaviours[p][k]` says what a program does (`Verdict.behaviour`); without them programs do not vote. Classes that cannot
    change who wins are not compared, so two of them may be equal.
    """
    found: list[list[int | None]] = [[None] * len(row) for row in completions]
    rows = [row for row, problem in enumerate(problems) if TESTS not in problem.metadata]
    for row, did_row in enumerate(behaviours or ()):
        if TESTS in problems[row].metadata:
            found[row] = _numbered(["" if ok else did or None for ok, did in zip(right[row], did_row, strict=True)])
    if not isinstance(reward, VotingFunction):
        return _replaced(found, {row: [text_ballot(sample) for sample in completions[row]] for row in rows})
    counts = {row: _count(reward, problems[row], completions[row], right[row]) for row in rows}
    for _ in range(MAX_CLASSES):
        undecided = [count for count in counts.values() if count.outcome() is None]
        if not undecided:
            break
        _gather(reward, undecided)
    return _replaced(found, {row: count.ballots() for row, count in counts.items()})


def _replaced(
    found: Sequence[list[int | None]], of_rows: Mapping[int, Sequence[Hashable | None]]
) -> list[list[int | None]]:
    return [_numbered(of_rows[row]) if row in of_rows else cast for row, cast in enumerate(found)]


def _numbered(ballots: Sequence[Hashable | None]) -> list[int | None]:
    numbers: dict[Hashable, int] = {}
    return [None if ballot is None else numbers.setdefault(ballot, len(numbers)) for ballot in ballots]


def text_ballot(completion: Completion) -> str | None:
    """Return the ballot for a reward without an equality: the answer at the end, with canonical numbers and spaces."""
    return answer_key(lenient_answer(completion.text))


def _count(reward: VotingFunction, problem: Problem, samples: Sequence[Completion], right: Sequence[bool]) -> _Count:
    count = _Count(_Class(problem.answer, len(samples)))
    wrong: dict[str, _Class] = {}
    for number, (sample, is_right) in enumerate(zip(samples, right, strict=True)):
        if is_right:
            count.right.first = min(count.right.first, number)
            count.right.votes += 1
            count.given.append(True)
        elif (ballot := reward.ballot(problem, sample)) is not None:
            wrong.setdefault(ballot, _Class(ballot, number)).votes += 1
            count.given.append(ballot)
        else:
            count.given.append(None)
    count.wrong = sorted(wrong.values(), key=lambda answer: -answer.votes)
    return count


def _gather(reward: VotingFunction, counts: Sequence[_Count]) -> None:
    """For each count, merge into the most frequent wrong answer all equal ones, and drop it if it still does not win."""
    pairs = [(answer.text, count.wrong[0].text) for count in counts for answer in count.wrong[1:]]
    equal = iter(reward.equal_many(pairs))
    for count in counts:
        leader, *others = count.wrong
        same = [answer for answer in others if next(equal)]
        count.equals.update((answer.text, leader.text) for answer in same)
        leader.votes += sum(answer.votes for answer in same)
        leader.first = min([leader.first, *(answer.first for answer in same)])
        count.wrong = (
            [leader]
            if leader.beats(count.right)
            else [answer for answer in others if all(answer is not other for other in same)]
        )
