"""Comparisons, answered and parsed from the text by an independent parser."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest

from r1_lightning.tasks import logic
from r1_lightning.tasks.keyed import is_held_out_key, keyed_random
from r1_lightning.tasks.logic import ComparisonTask, Order, Sums, draw_comparison, may_test_on, may_train_on
from r1_lightning.tasks.solved import ANSWER_SHARES
from r1_lightning.text.reasoning_format import parse
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem
from tests.support.shares import near

TASK = ComparisonTask()
# Who is who in the other language: the reader's own lists.
NAMES = dict(
    zip(
        ["小安", "小波", "小春", "小丹", "小梅", "小飞", "小刚", "小雨", "小军", "小凯"],
        ["Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Ida", "Jim", "Kay"],
        strict=True,
    )
)
KINDS = dict(
    zip("甲乙丙丁戊己庚辛壬癸", ["dax", "rex", "mip", "tov", "wug", "zib", "lop", "fep", "gim", "kul"], strict=True)
)
NAME = f"(?:{'|'.join([*NAMES, *NAMES.values()])})"
KIND = f"(?:{'|'.join([*KINDS, *KINDS.values()])})"
LESS = {"younger", "shorter", "slower", "年轻", "矮", "慢"}
SAID = (
    re.compile(rf"({NAME}) is (\w+er) than ({NAME})"),
    re.compile(rf"({NAME})比({NAME})(年长|年轻|高|矮|快|慢)(?!吗)"),
)
EVERY = (re.compile(rf"Every ({KIND}) is a ({KIND})"), re.compile(rf"(?<!能推出)每个({KIND})都是({KIND})"))
EXPRESSION = re.compile(r"\d+[+-]\d+")

Path = tuple[str, ...]


# ------------------------------------------------------------------------------- a reader that knows nothing of the writer


def edges(text: str) -> set[tuple[str, str]]:
    """Who stands before whom, by what a text says in words or signs; names in English."""
    found = []
    for first, word, second in SAID[0].findall(text):
        found.append((second, first) if word in LESS else (first, second))
    for first, second, word in SAID[1].findall(text):
        found.append((second, first) if word in LESS else (first, second))
    for pattern in EVERY:
        found += pattern.findall(text)
    for sign, member in ((">", NAME), ("<", KIND)):
        for chain in re.findall(rf"{member}(?:{sign}{member})+", text):
            parts = chain.split(sign)
            found += list(pairwise(parts))
    english = {**NAMES, **KINDS}
    return {(english.get(a, a), english.get(b, b)) for a, b in found}


def paths(text: str) -> set[Path]:
    """Every chain of three or more that a text lets one follow."""
    after = defaultdict(list)
    for first, second in edges(text):
        after[first].append(second)
    found: set[Path] = set()

    def walk(path: Path) -> None:
        if len(path) >= 3:
            found.add(path)
        for following in after.get(path[-1], []):
            if following not in path:
                walk((*path, following))

    for start in list(after):
        walk((start,))
    return found


def sums(text: str) -> set[frozenset[str]]:
    """Every two or more sums that a text compares."""
    written = sorted(set(EXPRESSION.findall(text)))
    return {frozenset(some) for size in range(2, len(written) + 1) for some in combinations(written, size)}


def compared(text: str) -> set[object]:
    return {*paths(text), *sums(text)}


def whole(problem: Problem) -> object:
    """The one comparison that a question is about."""
    found = compared(problem.question)
    return max(found, key=len)  # type: ignore[arg-type]


def worked_out(problem: Problem) -> str:
    """The answer, from the question's words alone."""
    yes, no = ("yes", "no") if problem.language == "en" else ("对", "错")
    question = problem.question
    written = EXPRESSION.findall(question)
    if written:
        values = [sum(map(int, re.findall(r"[+-]?\d+", expression))) for expression in written]
        if "larger" in question or "大吗" in question:
            return yes if values[0] > values[1] else no
        return str(min(values) if "smallest" in question or "最小" in question else max(values))
    order = max(paths(question), key=len)
    back = {english: chinese for chinese, english in {**NAMES, **KINDS}.items()} if problem.language == "zh" else {}
    asked = re.split(r"\. |。", question)[-1]
    if asked.startswith(("Who", "谁")):
        least = any(word in asked for word in ("youngest", "shortest", "slowest", "年轻", "矮", "慢"))
        return back.get(order[-1 if least else 0], order[-1 if least else 0])
    first, second = re.findall(rf"{NAME}|{KIND}", asked)
    english = {**NAMES, **KINDS}
    return yes if order.index(english.get(first, first)) < order.index(english.get(second, second)) else no


def training_problems(count: int) -> Iterator[Problem]:
    return (TASK.train_problem(seed, index) for seed in (0, 1) for index in range(count // 2))


# ---------------------------------------------------------------------------------------------------------------- the tests


def test_the_reader_by_hand() -> None:
    text = "Ann is older than Bob. Cid is younger than Bob. Is Ann older than Cid"
    assert edges(text) == {("Ann", "Bob"), ("Bob", "Cid")} and paths(text) == {("Ann", "Bob", "Cid")}
    assert paths("小安比小波高。小波比小春高。小安比小春高吗") == {("Ann", "Bob", "Cid")}
    assert paths("Every dax is a rex. Every rex is a mip. Does it follow that every mip is a dax") == {
        ("dax", "rex", "mip")
    }
    assert paths("<think>甲<乙，再算乙<丙</think>") == {("dax", "rex", "mip")}
    assert sums("What is the largest of 1+2, 3-1") == {frozenset({"1+2", "3-1"})}


def test_answers_are_right() -> None:
    for problem in [*training_problems(1_000), *TASK.held_out_problems(200)]:
        assert problem.answer == worked_out(problem), problem


def test_what_is_asked_has_not_been_said() -> None:
    for problem in training_problems(600):
        asked = re.split(r"\. |。", problem.question)[-1]
        named = re.findall(rf"{NAME}|{KIND}", asked)
        if len(named) == 2 and not EXPRESSION.search(problem.question):
            english = {**NAMES, **KINDS}
            pair = tuple(english.get(name, name) for name in named)
            assert pair not in edges(problem.question) and pair[::-1] not in edges(problem.question), problem


def test_steps_lead_to_the_answer() -> None:
    for index in range(300):
        solved = TASK.solved_problem(1, index)
        assert solved.problem.answer not in solved.wrong_answers and solved.wrong_answers
        sign = ">" if ">" in solved.steps[-1] else "<"
        whole_chain = solved.steps[-1].split(sign)
        if EXPRESSION.search(solved.problem.question):
            values = [int(part) for part in whole_chain]
            assert values == sorted(values, reverse=True)
            for step in solved.steps[:-1]:
                expression, written = step.split("=")
                assert sum(map(int, re.findall(r"[+-]?\d+", expression))) == int(written)
        else:
            english = {**NAMES, **KINDS}
            assert tuple(english.get(part, part) for part in whole_chain) == whole(solved.problem)
        for number, slip in solved.slips:
            assert slip != solved.steps[number]


def test_levels_are_how_much_there_is_to_compare() -> None:
    for problem in training_problems(300):
        size = len(whole(problem))  # type: ignore[arg-type]
        assert problem.level == (size - 1 if EXPRESSION.search(problem.question) else size - 2)
    assert {problem.level for problem in TASK.held_out_problems(100)} == {1, 2, 3}


def test_nothing_that_is_tested_was_ever_written_in_training() -> None:
    tested = {whole(problem) for problem in TASK.held_out_problems(400)}
    assert len(tested) == 400
    trained: set[object] = set()
    for text in [
        *TASK.documents(0, 0, 6_000),
        *TASK.documents(1, 0, 6_000),
        *(p.question for p in training_problems(2_000)),
    ]:
        trained |= compared(text)
    assert len(trained) > 4_000  # the reader does find what is there
    assert trained & tested == set()


def test_a_missing_split_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = {whole(problem) for problem in TASK.held_out_problems(400)}
    monkeypatch.setattr(logic, "may_train_on", lambda comparison: True)
    orders, classes = 0, 0
    for text in TASK.documents(0, 0, 6_000):
        leaked = compared(text) & tested
        orders += any(isinstance(path, tuple) and path[0] in NAMES.values() for path in leaked)
        classes += any(isinstance(path, tuple) and path[0] in KINDS.values() for path in leaked)
    assert orders and classes


def test_no_sums_of_the_tested_side_are_compared_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are so many sums that overlap by chance is unlikely; so the test checks the split side of every compared sum."""

    def held_out() -> int:
        texts = TASK.documents(0, 0, 2_000)
        return sum(is_held_out_key("sums:" + ",".join(sorted(some))) for text in texts for some in sums(text))

    assert held_out() == 0
    monkeypatch.setattr(logic, "may_train_on", lambda comparison: True)
    assert held_out() > 100


def test_train_and_test_sides_do_not_meet_and_parts_count() -> None:
    rng = keyed_random("test")
    drawn = [draw_comparison(rng, 1, 3) for _ in range(2_000)]
    assert not any(may_train_on(this) and may_test_on(this) for this in drawn)
    assert set(Order((1, 2, 3, 4)).parts()) == {"order:1,2,3", "order:2,3,4", "order:1,2,3,4"}
    assert len(list(Sums(("1+2", "2+2", "3+2")).parts())) == 4  # three pairs and the whole
    assert Sums(("1+2", "2+2")).key() == Sums(("2+2", "1+2")).key()


def test_the_shares_of_the_corpus() -> None:
    texts = list(TASK.documents(0, 0, 3_000))
    answers = [text.partition("Assistant:")[2] for text in texts if "Assistant:" in text]
    assert 1 - len(answers) / len(texts) == near(logic.FACTS_SHARE, 3_000)
    well_formed = sum(parse(answer).well_formed for answer in answers) / len(answers)
    assert well_formed == near(ANSWER_SHARES["reasoned"] + ANSWER_SHARES["slip_noticed"], len(answers))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"min_level": 0}, "task.min_level=0"),
        ({"max_level": 4}, "task.max_level=4"),
        ({"wrong_share": 2.0}, "task.wrong_share=2"),
        ({"manner": "loud"}, "task.manner='loud'"),
    ],
)
def test_bad_settings_are_named(settings: dict, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        ComparisonTask(**settings)
