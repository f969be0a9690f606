"""One accuracy reward for mixed tasks: who is asked, in which order the verdicts come back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from r1_lightning.rewards.accuracy import AccuracyReward
from r1_lightning.rewards.task_accuracy import TaskAccuracy
from r1_lightning.text.code_tests import TESTS
from r1_lightning.types.text import AccuracyFunction, BatchRewardFunction, Completion, Problem, Verdict

CODE, NUMBER = Problem("?", "", "c", metadata={TESTS: "[]"}), Problem("?", "42", "n")


class Counting:
    """Says how many it was asked at once, and which of them this is."""

    name = "accuracy"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        return [Verdict(0.5, f"{completion.text}: {row} of {len(pairs)}") for row, (_, completion) in enumerate(pairs)]


def written(answer: str) -> Completion:
    return Completion(answer, 1, True)


def test_each_is_asked_about_its_own_at_once_and_the_order_is_kept() -> None:
    reward = TaskAccuracy(Counting(), AccuracyReward())
    assert isinstance(reward, BatchRewardFunction) and isinstance(reward, AccuracyFunction)
    right, wrong = written("<answer>42</answer>"), written("<answer>41</answer>")
    verdicts = reward.judge_many([(CODE, written("a")), (NUMBER, right), (CODE, written("b")), (NUMBER, wrong)])
    assert [verdict.reason for verdict in verdicts[::2]] == ["a: 0 of 2", "b: 1 of 2"]
    assert [verdict.score for verdict in verdicts] == [0.5, 1.0, 0.5, 0.0]
    assert reward(NUMBER, right).score == 1.0 and reward(CODE, right).score == 0.5
    assert reward.judge_many([]) == []


def test_leniently_both_are_what_they_can_be() -> None:
    reward = TaskAccuracy(Counting(), AccuracyReward(), name="right")
    lenient = reward.leniently()
    assert reward(NUMBER, written("it is 42")).score == 0.0
    assert lenient(NUMBER, written("it is 42")).score == 1.0
    assert lenient.code is reward.code and lenient.name == "right"


@pytest.mark.usefixtures("isolated")
def test_the_shipped_option_judges_both(repo_root: Path) -> None:
    from hydra.utils import instantiate

    config = yaml.safe_load((repo_root / "configs" / "reward" / "code.yaml").read_text(encoding="utf-8"))
    reward = instantiate(config)
    tests = '{"kind": "stdin", "cases": [{"given": "4", "expected": "8"}]}'
    code = Problem("?", "", "c", metadata={TESTS: tests})
    program = "<think>a</think><answer>\n```python\nprint(2 * int(input()))\n```\n</answer>"
    pairs = [(code, written(program)), (NUMBER, written("<think>a</think><answer>42</answer>"))]
    assert [verdict.total for verdict in reward.judge_many(pairs)] == [2.0, 2.0]
    assert reward(code, written("<think>a</think><answer>print(7)</answer>")).total == 1.0
