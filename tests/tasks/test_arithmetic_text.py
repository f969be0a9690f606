"""The corpus as a reader finds it: kinds of documents and their shares, true and false facts, languages, template."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import pairwise

import pytest

from r1_lightning.tasks.arithmetic import ArithmeticTask
from r1_lightning.tasks.arithmetic_text import DocumentWriter, question_text
from r1_lightning.tasks.chains import Chain
from r1_lightning.text.chat_template import R1_ZERO
from r1_lightning.text.reasoning_format import parse
from tests.support.shares import near
from tests.tasks import reading

N_DOCUMENTS = 8_000
WAIT = re.compile(r"Wait, |等等，")
HAN = re.compile(r"[\u4e00-\u9fff]")


def completion(text: str) -> str:
    return text.rpartition("Assistant:")[2]


def question(text: str) -> str:
    return text.removeprefix(R1_ZERO.prefix).rpartition(R1_ZERO.suffix)[0]


def true_value(text: str) -> int:
    (asked,) = reading.written_sums(question(text))
    return reading.evaluate(asked)


def answer_of(text: str) -> int:
    return int(re.findall(r"\d+", completion(text))[-1])


def is_true(fact: tuple[str, int]) -> bool:
    return reading.evaluate(reading.as_sum(fact[0])) == fact[1]


def kind(text: str) -> str:
    """What a document is, by how it looks and by whether its sums are right."""
    if not text.startswith(R1_ZERO.prefix):
        return "facts" if "\n" in text else "worked"
    told = completion(text)
    if "=" not in told:
        return "straight"
    if not parse(told).well_formed:
        return "half_formatted"
    if WAIT.search(told):
        return "slip_noticed"
    return "reasoned" if answer_of(text) == true_value(text) else "slip_unnoticed"


@pytest.fixture(scope="module")
def by_kind() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in ArithmeticTask().documents(11, 0, N_DOCUMENTS):
        found.setdefault(kind(text), []).append(text)
    return found


def test_every_kind_has_its_share(by_kind: dict[str, list[str]]) -> None:
    """The largest standard deviation is that of a share of 0.36: sqrt(0.36 * 0.64 / 8,000) = 0.0054."""
    stated = {
        "facts": 0.26,
        "worked": 0.06,
        "straight": 0.36,
        "reasoned": 0.15,
        "half_formatted": 0.07,
        "slip_noticed": 0.06,
        "slip_unnoticed": 0.04,
    }
    shares = {name: len(texts) / N_DOCUMENTS for name, texts in by_kind.items()}
    assert shares == {name: near(share, N_DOCUMENTS) for name, share in stated.items()}


def test_well_formatted_reasoning_is_a_minority(by_kind: dict[str, list[str]]) -> None:
    """That it pays is left for the reward to find: of all answers (0.68) those of three kinds (0.25) have it, 0.37."""
    answers = sum(len(by_kind[name]) for name in by_kind if name not in ("facts", "worked"))
    formatted = sum(len(by_kind[name]) for name in ("reasoned", "slip_noticed", "slip_unnoticed"))
    assert formatted / answers == near(0.25 / 0.68, answers)


def test_every_number_lies_between_0_and_99(by_kind: dict[str, list[str]]) -> None:
    for texts in by_kind.values():
        for text in texts:
            written = text.removeprefix(R1_ZERO.prefix)
            assert all(0 <= int(number) <= 99 for number in re.findall(r"\d+", written)), written
            assert all(0 <= reading.evaluate(value) <= 99 for value in reading.written_sums(written)), written


@pytest.mark.parametrize("name", ["facts", "reasoned", "half_formatted"])
def test_facts_are_true_where_there_is_no_slip(name: str, by_kind: dict[str, list[str]]) -> None:
    for text in by_kind[name]:
        facts = reading.facts(text)
        assert facts, text
        assert all(map(is_true, facts)), text


def test_plain_facts_are_eight_lines_of_one_fact_each(by_kind: dict[str, list[str]]) -> None:
    for text in by_kind["facts"]:
        lines = text.split("\n")
        assert len(lines) == 8
        assert all(re.fullmatch(r"\d+[*+-]\d+=\d+", line) for line in lines)
        starts, results = zip(*[re.split(r"[*+-]|=", line)[::2] for line in lines], strict=True)
        goes_on = [a == b and "*" not in line for a, b, line in zip(results, starts[1:], lines[1:], strict=False)]
        assert not any(goes_on), text
    operators = Counter(
        re.search(r"\d([*+-])", line).group(1) for text in by_kind["facts"] for line in text.split("\n")
    )
    assert operators["*"] / sum(operators.values()) == pytest.approx(0.15, abs=0.02)
    assert min(operators["+"], operators["-"]) / sum(operators.values()) > 0.3


def test_worked_chains_are_equal_from_end_to_end(by_kind: dict[str, list[str]]) -> None:
    for text in by_kind["worked"]:
        (run,) = reading.equations(text)
        assert "=".join(run) == text
        assert len({reading.evaluate(reading.as_sum(state)) for state in run}) == 1
        lengths = [reading.n_operations(reading.as_sum(state)) for state in run]
        assert lengths in ([2, 1, 0], [3, 2, 1, 0])


def test_reasoning_works_out_the_question_and_answers_it(by_kind: dict[str, list[str]]) -> None:
    for text in by_kind["reasoned"] + by_kind["half_formatted"]:
        (asked,) = reading.written_sums(question(text))
        assert asked in list(reading.reasoned_sums(completion(text))), text
        assert answer_of(text) == reading.evaluate(asked)


def test_half_formatted_answers_break_the_form_in_several_ways(by_kind: dict[str, list[str]]) -> None:
    broken = Counter(parse(completion(text)).faults for text in by_kind["half_formatted"])
    assert len(broken) == 4
    assert min(broken.values()) > 0.15 * sum(broken.values())
    assert () not in broken


def test_a_noticed_slip_is_corrected_and_the_end_is_right(by_kind: dict[str, list[str]]) -> None:
    for text in by_kind["slip_noticed"]:
        facts = reading.facts(completion(text))
        (wrong,) = [number for number, fact in enumerate(facts) if not is_true(fact)]
        assert facts[wrong + 1][0] == facts[wrong][0], text  # the next fact is the same one, now right
        assert len(WAIT.findall(text)) == 1
        assert answer_of(text) == facts[-1][1] == true_value(text)


def test_an_unnoticed_slip_is_one_wrong_fact_carried_on(by_kind: dict[str, list[str]]) -> None:
    for text in by_kind["slip_unnoticed"]:
        facts = reading.facts(completion(text))
        assert [is_true(fact) for fact in facts].count(False) == 1, text
        for (_, value), (left, _) in pairwise(facts):
            assert reading.as_sum(left)[0] == (value,), text
        assert answer_of(text) == facts[-1][1] != true_value(text)


def test_slips_stand_at_every_step(by_kind: dict[str, list[str]]) -> None:
    for name in ("slip_noticed", "slip_unnoticed"):
        facts = [reading.facts(completion(text)) for text in by_kind[name]]
        places = Counter([is_true(fact) for fact in row].index(False) for row in facts)
        assert set(places) == {0, 1, 2}


def test_straight_answers_have_three_forms_and_are_often_wrong(by_kind: dict[str, list[str]]) -> None:
    texts = by_kind["straight"]
    forms = Counter(
        "empty" if "<think>" in t else "answer" if "<answer>" in t else "plain" for t in map(completion, texts)
    )
    assert forms["empty"] / len(texts) == near(0.3, len(texts))
    assert forms["answer"] / len(texts) == near(0.2, len(texts))
    wrong = [answer_of(text) - true_value(text) for text in texts if answer_of(text) != true_value(text)]
    assert len(wrong) / len(texts) == near(0.35, len(texts))
    assert set(wrong) == {-10, -2, -1, 1, 2, 10}


def test_wrong_share_is_followed() -> None:
    for share in (0.0, 1.0):
        texts = [t for t in ArithmeticTask(wrong_share=share).documents(0, 0, 300) if kind(t) == "straight"]
        wrong = sum(answer_of(text) != true_value(text) for text in texts) / len(texts)
        assert wrong == share


def test_both_languages_ask_and_answer(by_kind: dict[str, list[str]]) -> None:
    """Thinking is in the question's language but for one time in ten of `reasoned`: 0.2 of the time it is drawn anew."""
    answers = [text for name, texts in by_kind.items() if name not in ("facts", "worked") for text in texts]
    chinese = [bool(HAN.search(question(text))) for text in answers]
    assert sum(chinese) / len(answers) == near(0.5, len(answers))

    def crossed(text: str) -> bool | None:
        """Whether question and answer are in different languages; None where the answer has no word."""
        told = completion(text)
        if not HAN.search(told) and not re.search(r"[A-Za-z]{2}", re.sub(r"</?\w+>", "", told)):
            return None
        return bool(HAN.search(told)) != bool(HAN.search(question(text)))

    for name in ("straight", "half_formatted", "slip_noticed"):
        assert not any(crossed(text) for text in by_kind[name]), name
    told = [crossed(text) for text in by_kind["reasoned"]]
    known = [answer for answer in told if answer is not None]
    assert 0.03 < sum(known) / len(known) < 0.17
    assert any(HAN.search(completion(text)) for text in by_kind["reasoned"])


def test_questions_stand_in_the_template_word_for_word(by_kind: dict[str, list[str]]) -> None:
    for name in ("straight", "reasoned", "half_formatted", "slip_noticed", "slip_unnoticed"):
        for text in by_kind[name]:
            assert R1_ZERO.render(question(text)) + completion(text) == text
            assert completion(text).startswith(" ")
            assert not text.endswith("\n")


# ------------------------------------------------------------------------------------------------------------- words by hand


@pytest.mark.parametrize(
    ("expression", "language", "expected"),
    [
        ("12+5-3", "en", "Start with 12, add 5, take away 3. What is left"),
        ("7*8-19+42", "en", "Start with 7 times 8, take away 19, add 42. What is left"),
        ("12+5-3", "zh", "从12开始，加5，减3，结果是多少"),
        ("7*8-19+42", "zh", "从7乘8开始，减19，加42，结果是多少"),
    ],
)
def test_questions_told_in_words(expression: str, language: str, expected: str) -> None:
    assert question_text(random.Random(0), expression, language, in_words=True) == expected


def test_questions_as_expressions() -> None:
    rng = random.Random(0)
    english = {question_text(rng, "1+2+3", "en", False) for _ in range(100)}
    chinese = {question_text(rng, "1+2+3", "zh", False) for _ in range(100)}
    assert english == {"What is 1+2+3", "Compute 1+2+3", "Calculate 1+2+3", "Find 1+2+3"}
    assert chinese == {"1+2+3等于多少", "计算1+2+3", "求1+2+3", "请算1+2+3"}


def test_a_slip_without_a_way_on_becomes_plain_reasoning(monkeypatch: pytest.MonkeyPatch) -> None:
    """If every mistake would lead to a held-out chain, the document has the right solution instead."""
    monkeypatch.setattr("r1_lightning.tasks.arithmetic_text.may_train_on", lambda chain: False)
    writer = DocumentWriter(3, 3, 0.0, 0.0)
    told = {writer._slip_unnoticed(random.Random(seed), Chain((5,), (6, 7, 8)), "en") for seed in range(60)}
    after_first = [text for text in told if not is_true(reading.facts(text)[0])]
    assert after_first == []
    assert any(text.endswith("<answer>26</answer>") for text in told)  # 5+6+7+8
