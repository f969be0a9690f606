"""Records of completions: written and read back, within a bound, and hostile files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.review.rollout_records import (
    EVALUATIONS,
    NEWEST,
    QUESTIONS,
    ROLLOUTS,
    SAMPLES,
    Part,
    RolloutRecord,
    Tokens,
    known,
    read_records,
    shortened,
)
from r1_lightning.types.errors import InvalidInput
from tests.support.example_records import example_record, example_records, write_example_records


def written(folder: Path, name: str, *records: RolloutRecord, most: int = 2**20) -> None:
    (folder / name).write_bytes(b"".join(record.line(most) for record in records))


HOSTILE = "</script><script>alert(1)</script>\u202e\x00\x1b[31m\u2028\r\n\t\\\"' \ud800 是"


@pytest.mark.parametrize(
    "record",
    [
        example_record(),
        example_record(3, 2, 1, advantage=None, tokens=Tokens(("a", "b"), (None, -0.5))),
        RolloutRecord(0, "evaluation", 0, 0, "p", "c", None, evaluation="val"),
        example_record(completion="", tokens=Tokens(), extracted=None, mixed_language=None, parts=()),
        example_record(parts=(Part("accuracy", None, 0.5, "no number"),), reward=None),
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, record: RolloutRecord) -> None:
    written(tmp_path, ROLLOUTS, record)
    assert list(read_records(tmp_path)) == [record]
    plain = asdict(record)
    assert record.row() == {**plain, "parts": list(plain["parts"])}


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    record = example_record(completion=HOSTILE, prompt=HOSTILE, parts=(Part(HOSTILE, 1.0, 1.0, HOSTILE),))
    written(tmp_path, ROLLOUTS, record, example_record(sample=1))
    first, second = read_records(tmp_path)
    whole = HOSTILE.replace("\ud800", "\ufffd")
    assert (first.completion, first.prompt, first.parts[0].name, first.parts[0].reason) == (whole,) * 4
    assert second == example_record(sample=1)


def test_all_tokens_have_the_advantage_of_their_completion(tmp_path: Path) -> None:
    record = example_record(advantage=0.5, tokens=Tokens(("a", "b")))
    written(tmp_path, ROLLOUTS, record)
    assert [found.tokens.advantage for found in read_records(tmp_path)] == [(0.5, 0.5)]


def test_files_are_read_in_order_and_nothing_twice(tmp_path: Path) -> None:
    assert list(read_records(tmp_path)) == []
    write_example_records(tmp_path, [0, 5], groups=2, samples=2, evaluated=[5])
    written(tmp_path, NEWEST, *example_records([5], 3, 2))
    found = list(read_records(tmp_path))
    assert [(r.source, r.step, r.prompt_index) for r in found[::2]] == [
        *[("rollout", 0, 0), ("rollout", 0, 1), ("rollout", 5, 0), ("rollout", 5, 1), ("rollout", 5, 2)],
        *[("evaluation", 5, 0), ("evaluation", 5, 1)],
    ]
    assert len({record.key for record in found}) == len(found) == 14


def test_samples_of_an_evaluation_are_read_too(tmp_path: Path) -> None:
    asked = {"problem_id": "p1", "text": "17+25?", "reference": "42", "language": "en", "prompt_sha256": "0"}
    sample = {"question": 0, "sample": 3, "completion": "43", "answer": "43", "strict": False, "lenient": False}
    sample |= {
        "well_formed": True,
        "accurate": False,
        "finished": True,
        "tokens": 3,
        "mixed": False,
        "reason": "answered '43'",
    }
    (tmp_path / QUESTIONS).write_text(json.dumps(asked) + "\n")
    (tmp_path / SAMPLES).write_text(
        json.dumps({"protocol": {"benchmark": "math500"}}) + "\n" + json.dumps(sample) + "\n"
    )
    (record,) = read_records(tmp_path)
    assert (record.source, record.evaluation, record.prompt_index, record.sample) == ("evaluation", "math500", 0, 3)
    assert (record.prompt, record.completion, record.extracted, record.reference) == ("17+25?", "43", "43", "42")
    assert (record.reward, record.length, record.finished, record.mixed_language) == (0.0, 3, True, False)
    assert record.parts == (Part("accuracy", 0.0, 1.0, "answered '43'"), Part("format", 1.0))
    (tmp_path / SAMPLES).write_text(json.dumps(sample | {"question": 1}) + "\n")
    with pytest.raises(
        InvalidInput, match=r"samples\.jsonl, line 1: question=1 is not allowed: questions\.jsonl has 1"
    ):
        list(read_records(tmp_path))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"step": -1}, "step=-1"),
        ({"step": 1e999}, "step=inf"),
        ({"reward": "1"}, "reward='1'"),
        ({"reward": 10**30}, "reward=1000"),
        ({"completion": 5}, "completion=5"),
        ({"completion": None}, "completion=None"),
        ({"source": ["x"]}, "source=list"),
        ({"finished": 1}, "finished=1"),
        ({"length": 1.5}, "length=1.5"),
        ({"parts": [{}]}, "name is missing"),
        ({"parts": [{"name": "a"}] * 101}, "parts=list"),
        ({"parts": {"name": "a"}}, "parts=dict"),
        ({"tokens": [1]}, "tokens=list"),
        ({"tokens": {"text": ["a"], "entropy": [1, 2]}}, "entropy=list"),
        ({"tokens": {"text": ["a"], "entropy": ["b"]}}, "entropy=list"),
        ({"tokens": {"text": "ab"}}, "text='ab'"),
        ({"tokens": {}}, "text is missing"),
        ({"extracted": 42}, "extracted=42"),
        ({"mixed_language": 0}, "mixed_language=0"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    row = {**asdict(example_record()), **changes}
    (tmp_path / EVALUATIONS).write_text(
        json.dumps(asdict(example_record(1))) + "\n" + json.dumps(row).replace("Infinity", "1e999") + "\n"
    )
    with pytest.raises(InvalidInput) as caught:
        list(read_records(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / EVALUATIONS}, line 2: {field}") and "\n" not in str(caught.value)


def test_missing_fields_are_named_and_those_that_came_later_are_not_needed(tmp_path: Path) -> None:
    needed = ("step", "source", "prompt_index", "sample", "prompt", "completion", "finished", "length")
    row = asdict(example_record())
    (tmp_path / ROLLOUTS).write_text(json.dumps({name: row[name] for name in needed} | {"unknown": [1]}) + "\n")
    (record,) = read_records(tmp_path)
    assert record == RolloutRecord(
        **{name: row[name] for name in needed[:6]}, reward=None, finished=True, length=row["length"]
    )
    for name in needed:
        (tmp_path / ROLLOUTS).write_text(json.dumps({other: row[other] for other in needed if other != name}) + "\n")
        with pytest.raises(InvalidInput, match=rf"rollouts\.jsonl, line 1: {name} is missing"):
            list(read_records(tmp_path))


@pytest.mark.parametrize("most", [1_000, 3_000, 20_000])
@pytest.mark.parametrize("letter", ["a", "是", "\x01", "\U0001f600"])
def test_a_line_has_its_bound_whatever_the_model_wrote(tmp_path: Path, most: int, letter: str) -> None:
    text = letter * 5_000
    tokens = Tokens(tuple(text), *((-1.2345,) * 5_000,) * 4)
    record = example_record(completion=text, prompt=text, question=text, tokens=tokens, length=5_000, extracted=text)
    record = replace(record, parts=tuple(Part(f"part{n}", 1.0, 1.0, text) for n in range(3)))
    line = record.line(most)
    assert len(line) <= most and line.endswith(b"}\n") and line.count(b"\n") == 1
    (tmp_path / ROLLOUTS).write_bytes(line)
    (found,) = read_records(tmp_path)
    assert found.key == record.key and found.length == 5_000 and found.reward == record.reward
    assert "characters left out" in found.completion and len(found.parts) == 3
    assert len(found.tokens.text) == len(found.tokens.entropy or ()) < 5_000
    assert record.line(2**20) != line, "more room, more of it"


def test_columns_are_cut_before_texts(tmp_path: Path) -> None:
    record = example_record(completion="a" * 1_000, tokens=Tokens(("a",) * 1_000, (-1.25,) * 1_000), length=1_000)
    written(tmp_path, ROLLOUTS, record, most=4_800)
    (found,) = read_records(tmp_path)
    assert found.completion == record.completion and found.tokens.text == ("a",) * 50  # 4,800 / 2 / 48
    assert found.tokens.sampler_logprob == (-1.25,) * 50


def test_texts_keep_their_beginning_and_end() -> None:
    assert shortened("abcdefgh", 8) == "abcdefgh"
    assert shortened("abcdefghijkl", 8) == "abcd [4 characters left out] kl"


def test_numbers_are_rounded_and_finite() -> None:
    assert known(1 / 3) == 0.333333 and known(math.nan) is None and str(known(-1e-9)) == "0.0"
