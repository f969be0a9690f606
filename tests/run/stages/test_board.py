"""TensorBoard's files as its own plugins read them: layout and settings once, no `epoch`, no chart of a single value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer import event_file_writer

from r1_lightning.run.stages.board import LAYOUT_TAG, SETTINGS_TAG, Board, main_result, settings_of
from r1_lightning.run.stages.loggers import rewind

FOLDER = "grpo-tiny-arithmetic-0123456789"


@pytest.fixture(autouse=True)
def number_event_files_from_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads files in the order of their names, which end in a count per process: 10 would come before 9."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def events(root: Path) -> EventAccumulator:
    read = EventAccumulator(str(root / FOLDER / "tensorboard"), {"tensors": 0})
    read.Reload()
    return read


def layouts(root: Path) -> list[Any]:
    return [event.tensor_proto.string_val[0] for event in events(root).Tensors(LAYOUT_TAG)]


def written(root: Path, tag: str) -> int:
    return sum(path.read_bytes().count(tag.encode()) for path in (root / FOLDER / "tensorboard").iterdir())


def run(root: Path, steps: range, **given: Any) -> Board:
    """One process: Lightning logs each step with its epoch, then the stage its results."""
    board = Board(str(root / FOLDER), settings={"optim.lr": 0.5, "seed": 1}, **given)
    if steps.start:
        rewind(board, steps.start)
    for step in steps:
        board.log_metrics({"epoch": 0, "train/loss": 1.0 * step, "rollout/reward_mean": 0.5}, step)
    board.finalize("success")  # as the Trainer does after its last step
    board.log_results({"eval/x/pass_at_1": 0.25, "eval/x/none": math.nan}, "a  b\n1  2", steps.stop)
    return board


def test_a_run_has_its_curves_a_layout_and_no_epoch(tmp_path: Path) -> None:
    run(tmp_path, range(3))
    found = events(tmp_path)
    assert found.Tags()["scalars"] == ["train/loss", "rollout/reward_mean"]
    assert [event.value for event in found.Scalars("train/loss")] == [0.0, 1.0, 2.0]
    (text,) = layouts(tmp_path)
    charts = [(category.title, [chart.title for chart in category.chart]) for category in parsed(text).category]
    assert charts == [("Reward", ["reward"]), ("Loss and optimiser", ["loss"])]


def parsed(text: bytes) -> Any:
    made = layout_pb2.Layout()
    made.ParseFromString(text)
    return made


def settings(root: Path) -> Mapping[str, Any]:
    data = plugin_data_pb2.HParamsPluginData()
    data.ParseFromString(events(root).SummaryMetadata(SETTINGS_TAG).plugin_data.content)
    start = data.session_start_info
    assert start.group_name == ""  # then a run is a row of its own, also beside one with the same settings
    return {name: value.string_value or value.number_value for name, value in start.hparams.items()}


def test_final_measures_stand_beside_the_settings(tmp_path: Path) -> None:
    run(tmp_path, range(1))
    measure = {"Result: eval/x/pass_at_1": 0.25, "eval/x/pass_at_1": 0.25}
    values = {"optim.lr": 0.5, "seed": 1.0, **measure}
    assert settings(tmp_path) == values
    (table,) = events(tmp_path).Tensors("results/text_summary")
    assert table.tensor_proto.string_val[0] == b"    a  b\n    1  2"


def test_a_resumed_run_writes_layout_and_settings_once_and_each_step_once(tmp_path: Path) -> None:
    first = Board(str(tmp_path / FOLDER))
    first.log_metrics({"epoch": 0, "train/loss": 0.0}, 0)
    first.log_metrics({"epoch": 0, "train/loss": 1.0}, 1)
    first.finalize("success")
    run(tmp_path, range(1, 4))
    run(tmp_path, range(4, 4))  # it was ended while it wrote the artefact: the measures come again
    assert written(tmp_path, LAYOUT_TAG) == 1 and written(tmp_path, SETTINGS_TAG) == 1
    assert [(e.step, e.value) for e in events(tmp_path).Scalars("train/loss")] == [(n, 1.0 * n) for n in range(4)]


def test_a_process_that_died_before_its_first_step_leaves_the_layout_to_the_next(tmp_path: Path) -> None:
    Board(str(tmp_path / FOLDER)).experiment.flush()
    run(tmp_path, range(2))
    assert len(layouts(tmp_path)) == 1


def test_values_beside_the_steps_make_no_layout(tmp_path: Path) -> None:
    """A measurement that a resumed run catches up with comes before the first step, alone."""
    board = Board(str(tmp_path / FOLDER), evaluates=True)
    board.log_metrics({"val/x": 1.0}, 0)
    assert LAYOUT_TAG not in events(tmp_path).Tags()["tensors"]
    board.log_metrics({"epoch": 0, "rollout/reward_mean": 1.0}, 1)
    board.finalize("success")
    (text,) = layouts(tmp_path)
    titles = [chart.title for category in parsed(text).category for chart in category.chart]
    assert titles[0] == "reward" and titles[1:] and all(title.startswith("held-out") for title in titles[1:])


def test_the_band_is_logged_at_its_steps_and_drawn(tmp_path: Path) -> None:
    bands = {"rollout/reward_mean": {0: (0.1, 0.2), 2: (0.3, 0.5)}, "absent": {0: (0.0, 1.0)}}
    run(tmp_path, range(4), bands=bands)
    found = events(tmp_path)
    for edge, values in (("low", (0.1, 0.3)), ("high", (0.2, 0.5))):
        points = found.Scalars(f"expected/rollout/reward_mean/{edge}")
        assert [(point.step, point.value) for point in points] == [
            (0, pytest.approx(values[0])),
            (2, pytest.approx(values[1])),
        ]
    (text,) = layouts(tmp_path)
    (series,) = parsed(text).category[0].chart[0].margin.series
    name = "rollout/reward_mean"
    assert (series.value, series.lower, series.upper) == (name, f"expected/{name}/low", f"expected/{name}/high")


def test_settings_are_numbers_and_short_words_of_what_decides_a_result() -> None:
    config = OmegaConf.create(
        {
            "seed": 7,
            "paths": {"root": "elsewhere"},
            "optim": {"_target_": "r1_lightning.stages.base.AdamWConfig", "lr": 0.1, "on": True, "none": None},
            "task": {"source": {"_target_": "mine.Task", "file": "x" * 101}, "judge": "exact"},
            "stage": {
                "max_steps": 4,
                "inputs": {"base": "pretrain"},
                "parent_overrides": ["a"],
                "evaluation": {"n": 1},
            },
        }
    )
    assert settings_of(config) == {
        "seed": 7,
        "task.source": "mine.Task",
        "task.judge": "exact",
        "optim": "AdamWConfig",
        "optim.lr": 0.1,
        "optim.on": True,
        "stage.max_steps": 4,
    }


def test_the_result_is_of_the_trained_model_and_stands_first() -> None:
    measured = {
        "eval_base/x/pass_at_1": 0.1,
        "eval/x/format_rate": 0.5,
        "eval/x/pass_at_1": 0.25,
        "eval/x/pass_at_16": 1.0,
    }
    assert main_result(measured) == {"Result: eval/x/pass_at_1": 0.25}
    assert sorted([*measured, *main_result(measured), "data"])[0] == "Result: eval/x/pass_at_1"
    bits = {"eval/text/bits_per_token": 1.5, "eval/text/ngram_1_bits_per_token": 4.0}
    assert main_result(bits) == {"Result: eval/text/bits_per_token": 1.5}
    assert main_result({"eval/x/format_rate": 0.5}) == {}


def test_long_lines_of_a_table_are_wrapped(tmp_path: Path) -> None:
    board = Board(str(tmp_path / FOLDER))
    board.log_results({}, "a" * 100 + " " + "b" * 20 + "\n\n  c  1", 1)
    (table,) = events(tmp_path).Tensors("results/text_summary")
    shown = table.tensor_proto.string_val[0].decode().split("\n")
    assert [line.strip() for line in shown] == ["a" * 100, "b" * 20, "", "c  1"] and shown[-1] == "      c  1"
