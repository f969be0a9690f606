"""The log for inspect-ai's viewer: the fields that its reader needs, and its own numbers from the same samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from r1_lightning.evaluation.inspect_log import write_log
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Completion
from tests.evaluation.test_statements import SCORES, records_of

# `inspect_ai.log.read_eval_log` of inspect-ai 0.3.285 opened this log and printed: version 2, status success, 16 samples, model
# r1_lightning/m, 4 epochs. Its own `mean()` and `stderr()` of the samples, reduced by `mean_score()`, gave these two numbers.
INSPECTS_MEAN, INSPECTS_STDERR = 0.375, 0.1613743060919757
# The fields without a default in its models EvalLog, EvalSpec, EvalDataset, EvalPlan, EvalResults, EvalScore, EvalMetric,
# EvalStats, EvalSample, ModelOutput and Score, and those that its viewer shows.
NEEDED = {
    (): {"version", "status", "eval", "plan", "results", "stats", "samples"},
    ("eval",): {"created", "task", "dataset", "model", "config"},
    ("eval", "dataset"): {"name", "samples"},
    ("eval", "config"): {"epochs", "epochs_reducer"},
    ("results",): {"total_samples", "completed_samples", "scores"},
    ("results", "scores", 0): {"name", "scorer", "metrics"},
    ("results", "scores", 0, "metrics", "accuracy"): {"name", "value"},
    ("stats",): {"started_at", "completed_at"},
    ("samples", 0): {"id", "epoch", "input", "target", "messages", "output", "scores"},
    ("samples", 0, "output"): {"model", "choices"},
    ("samples", 0, "output", "choices", 0): {"message", "stop_reason"},
    ("samples", 0, "output", "choices", 0, "message"): {"role", "content"},
    ("samples", 0, "scores", "AccuracyReward"): {"value", "answer", "explanation"},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("logs") / "new" / "log.json"
    write_log(records_of(SCORES), path)
    return json.loads(path.read_text())


@pytest.mark.parametrize("place", NEEDED, ids=str)
def test_the_reader_finds_the_fields_that_it_needs(log: dict, place: tuple) -> None:
    node = log
    for key in place:
        node = node[key]
    assert NEEDED[place] <= set(node)


def test_the_viewers_numbers_are_those_of_its_library(log: dict) -> None:
    score, in_any_form = log["results"]["scores"]
    assert score["metrics"]["accuracy"]["value"] == INSPECTS_MEAN
    assert score["metrics"]["stderr"]["value"] == pytest.approx(INSPECTS_STDERR, abs=1e-12)
    assert score["metrics"]["finished_rate"]["value"] == 0.75
    assert in_any_form["name"] == "in_any_form" and in_any_form["metrics"]["accuracy"]["value"] == INSPECTS_MEAN


def test_samples_of_a_question_are_epochs(log: dict) -> None:
    assert [(sample["id"], sample["epoch"]) for sample in log["samples"]] == [
        (q, s + 1) for q in range(4) for s in range(4)
    ]
    values = [sample["scores"]["AccuracyReward"]["value"] for sample in log["samples"]]
    assert values == ["C" if right else "I" for row in SCORES for right in row]
    first, second, *_ = log["samples"]
    assert first["output"]["choices"][0]["stop_reason"] == "max_tokens"  # it was cut off, the others ended
    assert second["output"]["choices"][0]["stop_reason"] == "stop"
    assert log["eval"]["metadata"]["protocol"]["commit"] == "c0ffee" and log["eval"]["config"]["epochs"] == 4


def test_hostile_text_is_written_and_half_a_surrogate_replaced(tmp_path: Path) -> None:
    found = records_of([[1]])
    record = replace(found.samples[0, 0], completion=Completion("\u202e<script>\x00\ud800", 5, True), reason="\udfff")
    write_log(replace(found, samples={(0, 0): record}), tmp_path / "log.json")
    (sample,) = json.loads((tmp_path / "log.json").read_text(encoding="utf-8"))["samples"]
    assert sample["messages"][1]["content"] == "\u202e<script>\x00?"
    assert sample["scores"]["in_any_form"]["explanation"] == "?"


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match=r"file/log\.json cannot be written .*File exists.*; choose another file"):
        write_log(records_of(SCORES), tmp_path / "file" / "log.json")
    (tmp_path / "log.json").mkdir()
    with pytest.raises(InvalidInput, match=r"cannot be written .*Is a directory"):
        write_log(records_of(SCORES), tmp_path / "log.json")
