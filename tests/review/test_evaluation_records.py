"""Which evaluations are kept: all that fit, evenly spaced, and always the one at the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from r1_lightning.review.evaluation_records import END, EvaluationRecords, evenly
from r1_lightning.review.rollout_records import EVALUATIONS, read_records
from tests.support.example_records import example_records


def opened(folder: Path, limit: int = 10**6) -> EvaluationRecords:
    records = EvaluationRecords()
    records.open(folder, 2, limit)
    return records


def write(records: EvaluationRecords, step: int, name: str = "val") -> None:
    made = example_records([step], 2, 1, source="evaluation", evaluation=name)
    records.write(step, name, [replace(record, tokens=type(record.tokens)()) for record in made])


def kept(folder: Path) -> list[tuple[str, int]]:
    return list(dict.fromkeys((record.evaluation, record.step) for record in read_records(folder)))


def test_nothing_is_kept_before_it_is_open(tmp_path: Path) -> None:
    closed = EvaluationRecords()
    write(closed, 5)
    assert closed.chosen(10) == [] and list(tmp_path.iterdir()) == []
    assert opened(tmp_path).chosen(10) == [0, 5] and opened(tmp_path).chosen(1) == [0]


def test_the_last_one_stays_whatever_the_spacing(tmp_path: Path) -> None:
    records = opened(tmp_path, 10_000)
    for step in range(5, 205, 5):
        write(records, step)
    write(records, 200, END)
    found = kept(tmp_path)
    assert (tmp_path / EVALUATIONS).stat().st_size <= 10_000 and found[-1] == (END, 200) and len(found) >= 4
    steps = [step for name, step in found if name == "val"]
    assert len({b - a for a, b in pairwise(steps)}) == 1 and steps[0] == steps[1] - steps[0]


def test_a_resumed_run_takes_the_same_evaluations_again(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        write(opened(tmp_path), step)
    records = opened(tmp_path)
    write(records, 10)
    assert kept(tmp_path) == [("val", 5), ("val", 10)]
    write(records, 10, END)
    write(opened(tmp_path), 10, END)
    assert kept(tmp_path) == [("val", 5), ("val", 10), (END, 10)]


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / EVALUATIONS).mkdir()
    records = opened(tmp_path)
    with pytest.warns(UserWarning, match="evaluation records: .*the run goes on without them"):
        write(records, 5)
    write(records, 10)
    assert records.chosen(10) == [0, 5], "as in the other processes, which go on"


def test_places_are_evenly_spaced() -> None:
    assert [evenly(10, wanted) for wanted in (0, 1, 3, 10, 11)] == [
        [],
        [0],
        [0, 3, 6],
        list(range(10)),
        list(range(10)),
    ]
