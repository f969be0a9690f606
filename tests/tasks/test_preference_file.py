"""Preference files: both kinds of lines, the split by prompt, and every way in which a line can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.rewards.language import LanguageConsistencyReward
from r1_lightning.tasks.preference_file import PreferenceFile, PromptFile
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion, LabelledResponse, Preference

PAIR = {"prompt": "Say hello", "chosen": "Hello!", "rejected": "No."}
SINGLE = {"prompt": "Say hello", "response": "Hello!", "label": True}


def write(folder: Path, *rows: Any) -> Path:
    """rows.jsonl: objects as JSON, text as it stands."""
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def source(folder: Path, *rows: Any, held_out_one_in: int = 10**9) -> PreferenceFile:
    write(folder, *rows)
    return PreferenceFile(str(folder / "rows.jsonl"), held_out_one_in)


def many(count: int) -> list[dict[str, Any]]:
    return [{**PAIR, "prompt": f"Question {number // 2}", "chosen": f"{number}"} for number in range(count)]


def test_pairs(tmp_path: Path) -> None:
    judged = {**PAIR, "chosen_score": 8, "rejected_score": 6.5, "more": ["whatever"]}
    found = source(tmp_path, PAIR, "", judged).training_items(0, 1)
    assert found == [Preference("Say hello", "Hello!", "No."), Preference("Say hello", "Hello!", "No.", 1.5)]


@pytest.mark.parametrize(("label", "is_good"), [(True, True), (False, False), ("safe", True), ("unsafe", False)])
def test_labelled_responses(tmp_path: Path, label: object, is_good: bool) -> None:
    (found,) = source(tmp_path, {**SINGLE, "label": label}).training_items(0, 5)
    assert found == LabelledResponse("Say hello", "Hello!", is_good)


def test_held_out_prompts_are_never_trained_on(tmp_path: Path) -> None:
    made = source(tmp_path, *many(400), held_out_one_in=10)
    trained, held_out = made.training_items(0, 0), made.held_out_items(1000)
    assert len(trained) + len(held_out) == 400
    assert not {item.question for item in trained} & {item.question for item in held_out}
    assert 20 <= len(held_out) <= 64, "about one prompt in ten, two rows each"
    assert list(made.held_out_items(3)) == list(held_out)[:3]
    # By the prompt alone: without half of the rows, the others stay on their side.
    half = source(tmp_path, *many(400)[::2], held_out_one_in=10)
    assert {i.question for i in half.held_out_items(999)} == {i.question for i in held_out}


def test_a_side_without_a_prompt_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="none of these few is"):
        source(tmp_path, PAIR).held_out_items(5)
    made = source(tmp_path, *many(8), held_out_one_in=2)
    held_out = [json.dumps({**PAIR, "prompt": item.question}) for item in made.held_out_items(8)]
    with pytest.raises(InvalidInput, match="every prompt in it is held out"):
        source(tmp_path, *held_out, held_out_one_in=2).training_items(0, 1)


def test_the_version_is_that_of_the_bytes(tmp_path: Path) -> None:
    first = source(tmp_path, PAIR).content_version
    assert source(tmp_path, PAIR).content_version == first
    assert source(tmp_path, {**PAIR, "chosen": "Hello"}).content_version != first
    for kind in (PreferenceFile, PromptFile):  # what a fingerprint makes an object for (run/graph/fingerprints.py)
        assert isinstance(kind.content_version, property)


def test_nothing_is_read_before_it_is_asked(tmp_path: Path) -> None:
    made = PreferenceFile(str(tmp_path / "absent.jsonl"))
    with pytest.raises(InvalidInput, match=r"absent.jsonl is not readable: No such file"):
        made.training_items(0, 1)
    with pytest.raises(InvalidInput, match=r"absent.jsonl is not readable"):
        _ = made.content_version


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"half": ', "line 2: not valid JSON"),
        ("[1]", "line 2: a JSON object is needed, not list"),
        ({"prompt": "a", "chosen": "b"}, r"line 2: the field 'rejected' is missing \(prompt, chosen, rejected; or"),
        ({**PAIR, "prompt": " "}, "line 2: prompt=' ' is not allowed: it must be a non-empty string"),
        ({**PAIR, "chosen": [{"role": "user"}]}, r"line 2: chosen=\['user'\] is not allowed"),
        ({**PAIR, "rejected": "Hello!"}, "line 2: rejected='Hello!' is not allowed: it must differ from chosen"),
        ('{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}', "line 2: prompt=.* valid Unicode"),
        ({**PAIR, "chosen_score": 5}, "line 2: rejected_score=None is not allowed: a judge's scores are two"),
        ({**PAIR, "chosen_score": "5", "rejected_score": 1}, "line 2: chosen_score='5'"),
        ({**PAIR, "chosen_score": True, "rejected_score": 1}, "line 2: chosen_score=True"),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_score": NaN, "rejected_score": 1}',
            "chosen_score=nan",
        ),
        ({**SINGLE, "label": 2}, "line 2: label=2 is not allowed: it must be true, false, safe or unsafe"),
        ({**SINGLE, "label": None}, "line 2: label=None"),
        ({**SINGLE, "response": ""}, "line 2: response=''"),
        (SINGLE, "its lines must be all pairs, or all single"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as error:
        source(tmp_path, PAIR, row).training_items(0, 1)
    assert "\n" not in str(error.value)


def test_empty_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is empty"):
        source(tmp_path, "", " ").training_items(0, 1)
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"not valid UTF-8 \(line 1, byte 0\)"):
        PreferenceFile(str(tmp_path / "rows.jsonl")).training_items(0, 1)
    with pytest.raises(InvalidInput, match="held_out_one_in=1 "):
        PreferenceFile(str(tmp_path / "rows.jsonl"), held_out_one_in=1)


def test_prompts_as_problems(tmp_path: Path) -> None:
    write(tmp_path, *many(10))  # five prompts, twice each
    made = PromptFile(str(tmp_path / "rows.jsonl"))
    passes = [[made.train_problem(0, turn * 5 + place).question for place in range(5)] for turn in range(3)]
    assert all(sorted(turn) == [f"Question {n}" for n in range(5)] for turn in passes)
    assert passes[0] != passes[1], "each pass has its own order"
    assert [made.train_problem(1, place).question for place in range(5)] != passes[0]
    assert made.train_problem(0, 0).answer == "" and made.train_problem(0, 7) == made.train_problem(0, 7)
    assert made.content_version.startswith("prompts-2-")
    for asked in (lambda: made.held_out_problems(1), lambda: made.documents(0, 0, 1)):
        with pytest.raises(InvalidInput, match="prompts without answers"):
            asked()


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("请写一首关于春天的诗。", "zh"),
        ("Write a poem about spring.", "en"),
        ("用Python写一个函数`reverse`", "zh"),
        ("证明：在△ABC中，AB=AC时角B=角C", "zh"),
        ("What does 春天 mean in English?", "en"),
        ("翻译成英文：三月的雨", "zh"),
        ("1+1=?", "en"),  # no words at all
    ],
)
def test_a_prompt_says_which_language_it_is_in(tmp_path: Path, prompt: str, language: str) -> None:
    write(tmp_path, {**PAIR, "prompt": prompt})
    assert PromptFile(str(tmp_path / "rows.jsonl")).train_problem(0, 0).language == language


def test_a_row_may_name_its_language(tmp_path: Path) -> None:
    write(tmp_path, {**PAIR, "prompt": "Translate: spring", "language": "zh"})
    assert PromptFile(str(tmp_path / "rows.jsonl")).train_problem(0, 0).language == "zh"
    write(tmp_path, {**PAIR, "language": "de"})
    with pytest.raises(InvalidInput, match="line 1: language='de' is not allowed: it must be one of en, zh, or left"):
        PromptFile(str(tmp_path / "rows.jsonl")).train_problem(0, 0)


def test_thinking_in_the_language_of_a_chinese_prompt_earns_the_language_reward(tmp_path: Path) -> None:
    write(tmp_path, {**PAIR, "prompt": "请写一首关于春天的诗。"})
    problem = PromptFile(str(tmp_path / "rows.jsonl")).train_problem(0, 0)
    chinese = Completion("<think>先想想春天的景色。</think><answer>春风</answer>", 9, True)
    english = Completion("<think>First think of spring.</think><answer>春风</answer>", 9, True)
    assert [LanguageConsistencyReward()(problem, sample).score for sample in (chinese, english)] == [1.0, 0.0]


ASKED, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "1+1?"), ("assistant", "2"), ("assistant", "3"))
)
MESSAGES = {
    "UltraFeedback": {
        "prompt": "1+1?",
        "chosen": [ASKED, GOOD],
        "rejected": [ASKED, BAD],
        "messages": [ASKED, GOOD],
        "score_chosen": 8.5,
        "score_rejected": 6.0,
    },
    "TRL without a prompt": {
        "chosen": [ASKED, GOOD],
        "rejected": [ASKED, BAD],
        "chosen_score": 3.5,
        "rejected_score": 1,
    },
    "TRL with one": {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD], "chosen_score": 2.5, "rejected_score": 0},
    "text and messages": {
        "prompt": "1+1?",
        "chosen": [GOOD],
        "rejected": [BAD],
        "score_chosen": 2.5,
        "score_rejected": 0,
    },
    "ShareGPT": {
        "chosen": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}],
        "rejected": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "3"}],
        "score_chosen": 2.5,
        "score_rejected": 0,
    },
}


@pytest.mark.parametrize("row", MESSAGES.values(), ids=MESSAGES)
def test_replies_may_be_messages(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    made = PreferenceFile(str(tmp_path / "x.jsonl"))
    assert made._items == [Preference("1+1?", "2", "3", 2.5)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": [ASKED, GOOD], "rejected": [GOOD]}, "rejected=.'assistant'.* in turns"),
        ({"chosen": [ASKED, GOOD], "rejected": [{**ASKED, "content": "x"}, BAD]}, "must answer the same question"),
        ({"chosen": [ASKED, BAD, ASKED, GOOD], "rejected": [ASKED, BAD, ASKED, BAD]}, "several turns are not read"),
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD]}, "it must differ from chosen"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "the field 'prompt' is missing"),
        ({"chosen": [], "rejected": []}, "chosen="),
    ],
)
def test_messages_that_are_no_pair_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(InvalidInput, match=message):
        _ = PreferenceFile(str(tmp_path / "x.jsonl"))._items
