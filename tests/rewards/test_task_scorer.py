"""The reward with reasoning-gym's scorers: which scores count as right, and verdicts on answers that cannot be judged."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from r1_lightning.rewards.task_scorer import TaskScorer
from r1_lightning.rewards.verifiers.pool import CRASHED, TIMED_OUT, PoolVerdict
from r1_lightning.tasks.reasoning_gym_task import ENTRY, ReasoningGymTask
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, Problem, Verdict

PROBLEM = Problem("q", "5", "id", metadata={ENTRY: "{}"})


def answering(answer: str) -> Completion:
    return Completion(f"<think> so </think> <answer> {answer} </answer>", 9, True)


@pytest.fixture
def scorer() -> Iterator[TaskScorer]:
    scorer = TaskScorer(workers=1)
    yield scorer
    scorer.close()


def test_only_a_whole_point_is_right_unless_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    scored = [PoolVerdict(True, "one", score=1.0), PoolVerdict(False, "some", score=0.3), TIMED_OUT, CRASHED]

    def judged(pairs: list[tuple[str, str]]) -> list[PoolVerdict]:
        asked.extend(pairs)
        return scored

    completions = [answering("1"), answering("2"), Completion("no block", 2, True), answering("3"), answering("4")]
    found = {}
    for graded in (False, True):
        scorer = TaskScorer(graded=graded)
        monkeypatch.setattr(scorer.pool, "compare_many", judged)
        found[graded] = scorer.judge_many([(PROBLEM, completion) for completion in completions])
    assert asked[:4] == [(answer, "{}") for answer in "1234"]  # nothing is asked for a completion without an answer
    assert [verdict.score for verdict in found[False]] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert [verdict.score for verdict in found[True]] == [1.0, 0.3, 0.0, 0.0, 0.0]
    assert [verdict.timed_out for verdict in found[False]] == [False, False, False, True, False]
    assert found[False][2] == Verdict(0.0, "no answer in its place")


def test_problems_of_other_tasks_are_refused(scorer: TaskScorer) -> None:
    with pytest.raises(InvalidInput, match="judges problems of task=reasoning_gym only"):
        scorer(Problem("q", "5", "id"), answering("5"))
    assert scorer.pool.process_ids() == []


def test_a_copy_has_processes_of_its_own() -> None:
    scorer = TaskScorer(workers=3, cpu_limit_s=1.0, memory_limit_mb=512, graded=True)
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy.pool is not scorer.pool and copy.graded and copy.name == "accuracy"
    assert (copy.pool.workers, copy.pool.cpu_limit_s, copy.pool.memory_limit_mb) == (3, 1.0, 512)
    assert copy.pool.program == scorer.pool.program == "r1_lightning.rewards.verifiers.task_worker"


def test_real_problems_in_real_processes(scorer: TaskScorer) -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra `tasks`")
    task = ReasoningGymTask({"chain_sum": 1.0, "countdown": 1.0, "prime_factorization": 1.0}, held_out=6)
    problems = task.held_out_problems(6)
    right = [(problem, answering(problem.answer)) for problem in problems]
    wrong = [(problem, answering("nothing")) for problem in problems]
    verdicts = scorer.judge_many([*right, *wrong])
    assert [verdict.score for verdict in verdicts] == [1.0] * 6 + [0.0] * 6
    assert scorer.judge_many(wrong[::-1] + right[::-1]) == verdicts[::-1]


# Parameters with which a generator gives answers of more than 1,000 characters, for some by default already.
LONG = {
    "tower_of_hanoi": {"min_disks": 7, "max_disks": 8, "min_pegs": 3, "max_pegs": 3},
    "palindrome_partitioning": {"min_string_len": 14, "max_string_len": 16},
    "number_sorting": {"min_numbers": 300, "max_numbers": 300},
    "word_sorting": {"min_words": 250, "max_words": 250},
    "game_of_life": {"grid_size_x": 30, "grid_size_y": 30},
    "pool_matrix": {"min_rows": 60, "max_rows": 60, "min_cols": 60, "max_cols": 60},
    "rotate_matrix": {"min_n": 30, "max_n": 30},
}


@pytest.mark.parametrize("form", ["r1_zero", "r1"])
def test_long_answers_are_read_to_their_end(scorer: TaskScorer, form: str) -> None:
    pytest.importorskip("reasoning_gym", reason="needs the extra `tasks`")
    scorer.form = form  # type: ignore[assignment]
    template = {"r1_zero": "<think>so</think><answer>{}</answer>", "r1": "<think>so</think>It is \\boxed{{{}}}."}[form]
    pairs = []
    for name, parameters in LONG.items():
        problem = ReasoningGymTask({name: 1.0}, {name: parameters}, held_out=2).held_out_problems(1)[0]
        assert len(problem.answer) > 1_000
        for answer in (problem.answer, problem.answer[: len(problem.answer) // 2]):
            pairs.append((problem, Completion(template.format(answer), 9, True)))
    assert [verdict.score for verdict in scorer.judge_many(pairs)] == [1.0, 0.0] * len(LONG)


def test_an_answer_without_end_is_none(scorer: TaskScorer) -> None:
    assert scorer(PROBLEM, answering("9" * 70_000)) == Verdict(0.0, "no answer in its place")
    assert scorer.pool.process_ids() == []


def test_r1_s_form_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    scorer = TaskScorer(form="r1")

    def judged(pairs: list[tuple[str, str]]) -> list[PoolVerdict]:
        asked.extend(pairs)
        return [PoolVerdict(True, "one", score=1.0)] * len(pairs)

    monkeypatch.setattr(scorer.pool, "compare_many", judged)
    texts = ["<think>so</think>It is \\boxed{5}.", "<think>so</think><answer>5</answer>"]
    verdicts = scorer.judge_many([(PROBLEM, Completion(text, 9, True)) for text in texts])
    assert asked == [("5", "{}")] and [verdict.score for verdict in verdicts] == [1.0, 0.0]
    with pytest.raises(InvalidInput, match="form='r2' is not allowed"):
        TaskScorer(form="r2")  # type: ignore[arg-type]
