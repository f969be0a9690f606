"""Shows that held-out problems never occur in training text, with a parser that shares no code with the generator.

`tests/tasks/reading.py` parses raw text and finds every sum in it: as an expression, in English or Chinese words, or worked out in
lines of facts, mistakes included. The test compares the sums of 20,000 documents and 5,000 training problems with those
of 2,000 held-out problems. To show that the check can fail, the tests also plant leaks and disable the train/test split.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Sequence

import pytest

from r1_lightning.tasks import arithmetic_text, chains
from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem
from tests.support.shares import near
from tests.tasks import reading

TASK = ArithmeticTask()
SEEDS = (0, 1, 2, 3)


def documents(task: ArithmeticTask, per_seed: int, seeds: Sequence[int] = SEEDS) -> list[str]:
    return [text for seed in seeds for text in task.documents(seed, 0, per_seed)]


def questions(problems: Sequence[Problem]) -> list[str]:
    return [problem.question for problem in problems]


def only_sum(question: str) -> reading.Sum:
    (found,) = reading.written_sums(question)
    return found


@pytest.fixture(scope="module")
def held_out() -> Sequence[Problem]:
    return TASK.held_out_problems(2_000)


@pytest.fixture(scope="module")
def held_out_forms(held_out: Sequence[Problem]) -> set[reading.Canonical]:
    return reading.forms_tested(questions(held_out))


# ------------------------------------------------------------------------------------------------------------- the proof


def test_nothing_that_is_tested_was_ever_trained_on(held_out_forms: set[reading.Canonical]) -> None:
    problems = [TASK.train_problem(seed, index) for seed in SEEDS for index in range(1_250)]
    trained = reading.forms_trained(documents(TASK, 5_000) + questions(problems))
    assert len(trained) > 20_000  # the reader does find what is there
    assert len(held_out_forms) > 2_000  # 2,000 problems and what is left of the longer ones
    assert trained & held_out_forms == set()


def test_the_same_of_longer_chains() -> None:
    """With up to five operations several steps can follow a mistake, and a prefix can have four operations."""
    task = ArithmeticTask(max_operations=5)
    held_out_forms = reading.forms_tested(questions(task.held_out_problems(500)))
    trained = reading.forms_trained(documents(task, 3_000, seeds=[0]))
    assert max(len(factors) + len(terms) - 1 for factors, terms in trained) >= 4
    assert trained & held_out_forms == set()


def test_the_reader_reads_every_problem_as_it_is(held_out: Sequence[Problem]) -> None:
    """The parser's own arithmetic gives each question's answer, so no problem escapes the test by being misparsed."""
    problems = [*held_out, *(TASK.train_problem(seed, index) for seed in SEEDS for index in range(500))]
    for problem in problems:
        asked = only_sum(problem.question)
        assert str(reading.evaluate(asked)) == problem.answer
        assert reading.n_operations(asked) == problem.level


def test_the_reader_finds_a_sum_in_every_document_but_plain_facts() -> None:
    for text in documents(TASK, 1_000):
        lines_of_facts = "\n" in text and "User:" not in text
        assert bool(list(reading.written_sums(text))) != lines_of_facts, text


# ------------------------------------------------------------------------------------------- would the proof notice a leak?


def spellings(problem: reading.Sum) -> dict[str, str]:
    """Texts that leak `problem`, (first; a, b) with two operations, in every form that a document can have."""
    (first,), (a, b) = problem
    value, result = first + a, first + a + b
    return {
        "expression": f"What is {first}{a:+d}{b:+d}. Assistant: {result}",
        "another order": f"What is {abs(b)}{first:+d}{a:+d}. Assistant: {result}" if b > 0 else "",
        "beginning": f"What is {first}{a:+d}{b:+d}+3. Assistant: {result + 3}",
        "left after a step": f"What is {first - 1}+1{a:+d}{b:+d}. Assistant: {result}",
        "left after a product": f"What is {first // 2}*2{a:+d}{b:+d}. Assistant: {result}" if first % 2 == 0 else "",
        "English": f"Start with {first}{_told(a, 'en')}{_told(b, 'en')}. What is left",
        "Chinese": f"从{first}开始{_told(a, 'zh')}{_told(b, 'zh')}，结果是多少",
        "facts": f"<think>{first}{a:+d}={value}. {value}{b:+d}={result}.</think>",
        "after a slip": f"<think>9*9={first}, {first}{a:+d}={value}, {value}{b:+d}={result}.</think>",
        "slip corrected": f"<think>{first}{a:+d}={value + 1}. Wait, {first}{a:+d}={value}, {value}{b:+d}={result}</think>",
        "slip carried on": f"<think>{first}{a:+d}={value + 1}, {value + 1}{b:+d}={result + 1}.</think>",
        "lines": f"{first}{a:+d}={value}\n{value}{b:+d}={result}",
    }


def _told(term: int, language: str) -> str:
    words = {"en": (", add ", ", take away "), "zh": ("，加", "，减")}[language]
    return f"{words[term < 0]}{abs(term)}"


@pytest.mark.parametrize("spelling", spellings(((2,), (3, 4))))
def test_a_planted_problem_is_noticed(spelling: str, held_out: Sequence[Problem], held_out_forms: set) -> None:
    planted = 0
    for problem in held_out[:200]:
        asked = only_sum(problem.question)
        if len(asked[0]) == 1 and len(asked[1]) == 2 and (text := spellings(asked)[spelling]):
            planted += 1
            assert reading.canonical(asked) in reading.forms_trained([text]) & held_out_forms, text
    assert planted > 30


def no_split(chain: chains.Chain) -> bool:
    return True


def states_only(chain: chains.Chain) -> bool:
    return not any(chains.is_held_out_key(state.key()) for state in chain.states() if state.n_operations >= 2)


@pytest.mark.parametrize("split", [no_split, states_only])
def test_a_leaky_split_is_noticed(split, held_out_forms: set, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reading.forms_trained(documents(TASK, 1_000)) & held_out_forms
    monkeypatch.setattr(chains, "may_train_on", split)
    assert len(reading.forms_trained(documents(TASK, 1_000)) & held_out_forms) >= 10


def carried_slips(count: int) -> list[str]:
    """Reasoning over three operations with a mistake at any step that is carried on."""
    writer, rng = arithmetic_text.DocumentWriter(3, 3, 0.0, 0.0), random.Random(0)
    return [writer._slip_unnoticed(rng, chains.draw_training_chain(rng, 3, 3), "en") for _ in range(count)]


def test_a_slip_that_is_not_looked_after_is_noticed(held_out_forms: set, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of these mistakes leave two operations, on a number that was not checked when the chain was drawn."""
    assert not reading.forms_trained(carried_slips(4_000)) & held_out_forms
    monkeypatch.setattr(arithmetic_text, "may_train_on", no_split)
    assert len(reading.forms_trained(carried_slips(4_000)) & held_out_forms) >= 5


# ------------------------------------------------------------------------------------------------------ the problem source


def test_held_out_problems_are_distinct_and_the_same_for_every_count(held_out: Sequence[Problem]) -> None:
    assert len(held_out) == 2_000
    assert len({reading.canonical(only_sum(problem.question)) for problem in held_out}) == 2_000
    assert len({problem.problem_id for problem in held_out}) == 2_000
    assert list(TASK.held_out_problems(50)) == list(held_out[:50])
    assert [problem.language for problem in held_out[:4]] == ["en", "zh", "en", "zh"]


def test_the_problem_id_is_the_same_exactly_for_the_same_problem() -> None:
    problems = [TASK.train_problem(seed, index) for seed in SEEDS for index in range(1_000)]
    by_id: dict[str, set[reading.Canonical]] = {}
    for problem in problems:
        by_id.setdefault(problem.problem_id, set()).add(reading.canonical(only_sum(problem.question)))
    assert all(len(forms) == 1 for forms in by_id.values())
    assert len(set.union(*by_id.values())) == len(by_id)


def test_train_problems_have_all_levels_languages_and_forms() -> None:
    problems = [TASK.train_problem(0, index) for index in range(2_000)]
    words = [problem for problem in problems if "," in problem.question or "，" in problem.question]
    assert len(words) / 2_000 == near(0.2, 2_000)
    chinese = [problem for problem in problems if problem.language == "zh"]
    assert len(chinese) / 2_000 == near(0.5, 2_000)
    for problem in problems:
        assert (problem.language == "zh") == any("\u4e00" <= character <= "\u9fff" for character in problem.question)
    # Of chains with three operations fewer may be trained on (7/8^3 against 7/8): 0.433 of all.
    assert sum(problem.level == 3 for problem in problems) / 2_000 == near(0.433, 2_000)
    assert {problem.level for problem in problems} == {2, 3}


def test_a_question_has_no_final_mark(held_out: Sequence[Problem]) -> None:
    """R1-Zero's template closes the question itself: `{question}. Assistant:`."""
    for problem in [*held_out, *(TASK.train_problem(1, index) for index in range(500))]:
        assert problem.question[-1] not in ".?!。？！， \n"


def test_word_share_and_operations_are_followed() -> None:
    all_words = ArithmeticTask(min_operations=4, max_operations=4, word_share=1.0)
    none = ArithmeticTask(word_share=0.0)
    assert all("," in p.question or "，" in p.question for p in (all_words.train_problem(0, i) for i in range(100)))
    assert not any("," in p.question or "，" in p.question for p in (none.train_problem(0, i) for i in range(100)))
    assert {all_words.train_problem(0, i).level for i in range(20)} == {4}


def test_problems_are_a_function_of_seed_and_index() -> None:
    forwards = [TASK.train_problem(3, index) for index in range(20)]
    backwards = [ArithmeticTask().train_problem(3, index) for index in reversed(range(20))]
    assert forwards == backwards[::-1]
    assert forwards != [TASK.train_problem(4, index) for index in range(20)]
    assert len({problem.question for problem in forwards}) == 20


def test_documents_are_a_function_of_seed_and_number() -> None:
    whole = list(TASK.documents(5, 0, 60))
    parts = [text for start, count in ((0, 1), (1, 29), (30, 30)) for text in TASK.documents(5, start, count)]
    assert parts == whole
    assert list(TASK.documents(5, 40, 20)) == whole[40:]
    assert list(TASK.documents(6, 0, 60)) != whole
    assert list(TASK.documents(5, 7, 0)) == []


def test_the_content_version_stands_for_this_content() -> None:
    """A failure means that the text has changed: increment `content_version` (part of every fingerprint), then update the hash."""
    texts = [
        *TASK.documents(0, 0, 500),
        *(repr(TASK.train_problem(0, index)) for index in range(200)),
        *(repr(problem) for problem in TASK.held_out_problems(200)),
    ]
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    assert {TASK.content_version: digest} == {"arithmetic-3": "1e571bace516"}


BAD = {
    "min_operations": (1, "2", 2.0, True, None),
    "max_operations": (1, 9, "3"),
    "word_share": (-0.1, 1.1, "0.2", float("nan")),
    "wrong_share": (-1, 2, None),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_bad_values_are_named(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=rf"task\.{field}={value!r} is not allowed: it must be"):
        dataclasses.replace(TASK, **{field: value})


def test_more_held_out_problems_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for bad in (0, -1, True, "5"):
        with pytest.raises(InvalidInput, match="held_out_problems="):
            TASK.held_out_problems(bad)
    monkeypatch.setattr("r1_lightning.tasks.arithmetic.DRAWS_PER_HELD_OUT_PROBLEM", 2)
    with pytest.raises(InvalidInput, match=r"held_out_problems=100 is not allowed: these chains give only \d+ of them"):
        TASK.held_out_problems(100)
