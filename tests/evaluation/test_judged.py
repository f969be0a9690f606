"""Judgements of samples, and how processes put them together: every sample once."""

from __future__ import annotations

from dataclasses import replace

from r1_lightning.evaluation.judged import Judged, JudgedSamples, Rules, judge
from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.types.processes import Processes
from r1_lightning.types.text import Completion, Problem
from tests.support.processes import in_processes

PROBLEM = Problem("What is 2+3", "5", "2,3")
RIGHT = Completion("<think>two and three</think><answer>5</answer>", 9, True)
WRONG = Completion("<think>2+3</think><answer>6</answer>", 7, True)
CUT = Completion("It is 5", 3, False)


def test_a_sample_s_numbers_by_hand() -> None:
    ((right, wrong, cut),) = judge([(PROBLEM, [RIGHT, WRONG, CUT])], Rules(AccuracyReward()))
    assert right == (Judged(True, True, True, True, True, 9, 1.0, 3, False, 0), "right")
    assert wrong == (Judged(False, False, True, False, True, 7, 1.0, 0, False, 1), "answered '6', expected '5'")
    # Cut off and without a form; the right answer is at the end, so it votes with the first.
    assert cut == (Judged(False, True, False, False, False, 3, 1.0, 2, False, 0), "right")


def _collected(processes: Processes) -> tuple[list[list[Judged]], list[list[Judged]]]:
    """Shares of five questions; then the same with the first question of all in every process once more."""
    rows = [
        [Judged(True, True, True, True, True, 10 * q + s, s / 3, q, False, None if s else q) for s in range(2)]
        for q in range(5)
    ]
    mine = processes.share(range(5))
    samples = JudgedSamples(processes)
    samples.update(mine[0] if mine else 0, [rows[number] for number in mine])
    shared = samples.judged()
    samples.update(0, rows[:1])
    return shared, samples.judged()


def test_processes_put_their_shares_together_and_count_nothing_twice() -> None:
    """One process, two, and more than there are questions, so that one has none."""
    ((expected, again),) = in_processes(1, _collected)
    assert [[sample.tokens for sample in row] for row in expected] == [[0, 1], [10, 11], [20, 21], [30, 31], [40, 41]]
    assert (
        [row[1].language for row in expected] == [1 / 3] * 5
        and expected[2][0].vote == 2
        and expected[2][1].vote is None
    )
    assert again == expected
    for count in (2, 6):
        assert in_processes(count, _collected) == [(expected, expected)] * count


def test_a_reset_forgets() -> None:
    (((judged, _),),) = judge([(PROBLEM, [RIGHT])], Rules(AccuracyReward()))
    samples = JudgedSamples()
    samples.update(0, [[judged]])
    samples.reset()
    samples.update(3, [[replace(judged, tokens=1)]])
    assert samples.judged() == [[replace(judged, tokens=1)]]
