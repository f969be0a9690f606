"""Files of records that somebody damaged or edited: each is answered in one line, and a changed number is found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from r1_lightning.evaluation import records
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.evaluation.records import QUESTIONS, RESULTS, SAMPLES
from r1_lightning.functional.intervals import Interval
from r1_lightning.types.errors import InvalidInput
from tests.evaluation.test_recording import run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a finished evaluation."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return {name: (folder / name).read_text() for name in (QUESTIONS, SAMPLES, RESULTS)}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def edited(text: str, line: int, change: Callable[[dict], None]) -> str:
    lines = text.splitlines()
    row = json.loads(lines[line])
    change(row)
    lines[line] = json.dumps(row)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(sample=9), r"line 3: sample 9 of question 0 was not asked for"),
        (lambda row: row.update(sample=0), r"line 3: sample 0 of question 0 is there twice"),
        (lambda row: row.update(question=-1), r"line 3: sample 1 of question -1 was not asked for"),
        (lambda row: row.pop("strict"), r"line 3: it is no sample of an evaluation \(KeyError\('strict'\)\)"),
        (lambda row: row.update(tokens="many"), r"line 3: it is no sample of an evaluation"),
        (lambda row: row.update(tokens=math.inf), r"line 3: it is no sample .*tokens is Infinity"),
        (lambda row: row.update(tokens="12"), r"line 3: it is no sample .*tokens is \"12\""),
        (lambda row: row.update(tokens=True), r"line 3: it is no sample .*tokens is true"),
        (lambda row: row.update(question=math.inf), r"line 3: it is no sample .*question is Infinity"),
        (lambda row: row.update(question=0.5), r"line 3: it is no sample .*question is 0.5"),
        (lambda row: row.update(language="x"), r"line 3: it is no sample .*language is"),
        (lambda row: row.update(language=math.nan), r"line 3: it is no sample .*language is NaN"),
        (lambda row: row.update(strict="no"), r"line 3: it is no sample .*strict is"),
        (lambda row: row.update(vote=[1]), r"line 3: it is no sample .*vote is \[1\]"),
        (lambda row: row.update(mixed=[]), r"line 3: it is no sample .*mixed is"),
        (lambda row: row.update(answer=[1]), r"line 3: it is no sample .*answer is"),
        (lambda row: row.update(completion={}), r"line 3: it is no sample .*completion is"),
        (
            lambda row: row.update(prompt_sha256="0" * 64),
            r"line 3: sample 1 of question 0 was drawn for another prompt",
        ),
        (lambda row: row.update(seed=4), r"line 3: sample 1 of question 0 was drawn for another prompt or seed"),
    ],
)
def test_a_bad_sample_is_named(tmp_path: Path, whole: dict[str, str], change: Callable, message: str) -> None:
    written(tmp_path, {**whole, SAMPLES: edited(whole[SAMPLES], 2, change)})
    with pytest.raises(InvalidInput, match=message) as error:
        records.read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (SAMPLES, "{}\n", r"samples.jsonl, line 1: it is no protocol of an evaluation"),
        (SAMPLES, '{"protocol": {"model": "m"}}\n', r"samples.jsonl, line 1: it is no protocol"),
        (SAMPLES, "", r"samples.jsonl, line 1: it is no protocol"),
        (SAMPLES, "[1]\n", r"samples.jsonl, line 1: it is cut off, or no JSON object"),
        (QUESTIONS, '{"text": "?"}\n', r"questions.jsonl, line 1: it is no question of an evaluation"),
        (QUESTIONS, "", r"questions.jsonl holds other questions than the protocol in samples.jsonl says"),
        (RESULTS, "[" * 100_000, r"results.json: it holds no measures"),
        (RESULTS, "{}", r"results.json: it holds no measures"),
        (RESULTS, '{"measures": {"pass_at_1": [1]}}', r"results.json: it holds no measures"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, whole: dict[str, str], file: str, text: str, message: str) -> None:
    written(tmp_path, {**whole, file: text})
    with pytest.raises(InvalidInput, match=message):
        records.check(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": "4"}, r"it is no protocol of an evaluation .*samples is"),
        ({"samples": 1.0}, r"it is no protocol of an evaluation .*samples is 1.0"),
        ({"samples": math.inf}, r"it is no protocol of an evaluation .*samples is Infinity"),
        ({"model": 5}, r"it is no protocol of an evaluation .*model is 5"),
        ({"judge": []}, r"it is no protocol of an evaluation .*judge is"),
        ({"sampling_temperature": "hot"}, r"it is no protocol of an evaluation .*sampling_temperature is"),
        ({"version": 99}, r"^version=99 is not allowed"),
        ({"questions": 99}, r"questions.jsonl holds other questions"),
    ],
)
def test_a_bad_protocol_is_named(tmp_path: Path, whole: dict[str, str], values: dict, message: str) -> None:
    changed = edited(whole[SAMPLES], 0, lambda row: row["protocol"].update(values))
    written(tmp_path, {**whole, SAMPLES: changed})
    with pytest.raises(InvalidInput, match=message):
        records.check(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": [1]}, r"questions.jsonl, line 1: it is no question of an evaluation .*task is"),
        ({"votes": "no"}, r"questions.jsonl, line 1: it is no question of an evaluation .*votes is"),
        ({"reference": "7"}, r"questions.jsonl holds other questions than the protocol"),
    ],
)
def test_a_changed_question_is_named(tmp_path: Path, whole: dict[str, str], values: dict, message: str) -> None:
    written(tmp_path, {**whole, QUESTIONS: edited(whole[QUESTIONS], 0, lambda row: row.update(values))})
    with pytest.raises(InvalidInput, match=message):
        records.check(tmp_path)


def test_a_number_that_the_records_do_not_give_is_found(tmp_path: Path, whole: dict[str, str]) -> None:
    """In results.json, and in the verdict of one sample."""
    results = json.loads(whole[RESULTS])
    results["measures"]["format_rate"][1] -= 1e-9
    written(tmp_path, {**whole, RESULTS: json.dumps(results)})
    with pytest.raises(InvalidInput, match=r"^format_rate=1.0 is not allowed: results.json says"):
        records.check(tmp_path)
    flipped = edited(whole[SAMPLES], 1, lambda row: row.update(strict=not row["strict"]))
    written(tmp_path, {**whole, SAMPLES: flipped})
    with pytest.raises(InvalidInput, match=r"^pass_at_1=0\.\d+ is not allowed: results.json says"):
        records.check(tmp_path)
    del results["measures"]["format_rate"]
    written(tmp_path, {**whole, RESULTS: json.dumps(results)})
    with pytest.raises(InvalidInput, match=r"^measures='pass_at_1, .* is not allowed: results.json has"):
        records.check(tmp_path)


def test_unfinished_records_have_no_measures(tmp_path: Path, whole: dict[str, str]) -> None:
    written(tmp_path, {**whole, SAMPLES: "".join(whole[SAMPLES].splitlines(keepends=True)[:-1])})
    with pytest.raises(InvalidInput, match=r"1 of 3 questions are not done"):
        records.check(tmp_path)
    (tmp_path / RESULTS).unlink()
    with pytest.raises(InvalidInput, match=r"it holds no results.json: the evaluation was not finished"):
        records.check(tmp_path)
    with pytest.raises(InvalidInput, match=r"it holds no evaluation"):
        records.read(tmp_path / "elsewhere")


def test_a_bound_that_is_not_known_is_stored_as_null(tmp_path: Path, whole: dict[str, str]) -> None:
    """The mean length of a single question has no interval."""
    found = records.read(written(tmp_path, whole))
    records.write_results(found, {"length": Measure(7.0, Interval(7.0, math.nan, math.nan))})
    assert json.loads((tmp_path / RESULTS).read_text())["measures"] == {"length": [7.0, None, None]}
    (measure,) = records.stored_results(tmp_path).values()
    assert measure.value == 7.0 and math.isnan(measure.interval.low)


def test_text_of_any_kind_comes_back(tmp_path: Path, whole: dict[str, str]) -> None:
    """Line separators of Unicode end no line, and half of a surrogate pair is no error."""
    found = records.read(written(tmp_path, whole))
    sample = found.samples[2, 3]
    short = {key: value for key, value in found.samples.items() if key != (2, 3)}
    kept = "".join(whole[SAMPLES].splitlines(keepends=True)[:-1])
    (tmp_path / SAMPLES).write_text(kept)
    strange = sample.__class__(
        2, 3, sample.completion.__class__("a\u2028b\r\n中\ud800", 7, True), None, sample.judged, ""
    )
    records.append(records.Records(tmp_path, found.protocol, found.asked, short), [strange])
    assert records.read(tmp_path).samples[2, 3] == strange
