"""metrics.csv after a resume: the rows of before are kept, the steps taken again are there once."""

from __future__ import annotations

import csv
from pathlib import Path

from r1_lightning.run.stages.metrics_log import MetricsLog


def log(folder: Path, steps: range, name: str = "loss") -> None:
    """One process that logs some steps; like a killed one it writes after each step and never finishes."""
    logger = MetricsLog(folder, name="", version="logs", flush_logs_every_n_steps=1)
    for step in steps:
        logger.log_metrics({name: step / 2}, step)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_process(tmp_path: Path) -> None:
    log(tmp_path, range(3))
    assert rows(tmp_path) == [{"loss": str(step / 2), "step": str(step)} for step in range(3)]


def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path) -> None:
    log(tmp_path / "whole", range(8))
    log(tmp_path / "parts", range(5))
    log(tmp_path / "parts", range(3, 8))  # from the checkpoint of step 3
    files = [(tmp_path / name / "logs" / "metrics.csv").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_started_again_from_the_beginning(tmp_path: Path) -> None:
    log(tmp_path, range(5))
    log(tmp_path, range(2))
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1"]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    log(tmp_path, range(4))
    path = tmp_path / "logs" / "metrics.csv"
    for cut in (b"1.5,3\r\n", b",3\r\n", b"3\r\n", b"\n"):
        whole = path.read_bytes()
        assert whole.endswith(cut)
        path.write_bytes(whole.removesuffix(cut))
        log(tmp_path, range(3, 4))
        assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]


def test_a_metric_that_appears_later_gets_a_column(tmp_path: Path) -> None:
    log(tmp_path, range(2))
    log(tmp_path, range(2, 3), "reward")
    assert rows(tmp_path) == [
        {"loss": "0.0", "reward": "", "step": "0"},
        {"loss": "0.5", "reward": "", "step": "1"},
        {"loss": "", "reward": "1.0", "step": "2"},
    ]


def test_a_row_of_an_earlier_process_takes_what_was_measured_later(tmp_path: Path) -> None:
    """Steps 0 and 1 were saved and step 2 was not; after step 1 something was measured late, and step 2 is taken again."""
    log(tmp_path / "parts", range(3))
    logger = MetricsLog(tmp_path / "parts", name="", version="logs", flush_logs_every_n_steps=1)
    logger.amend({"val": 0.25}, 1)
    logger.log_metrics({"loss": 1.0}, 2)
    logger.save()
    whole = MetricsLog(tmp_path / "whole", name="", version="logs", flush_logs_every_n_steps=1)
    for step, more in enumerate(({}, {"val": 0.25}, {})):
        whole.log_metrics({"loss": step / 2, **more}, step)
    whole.save()
    files = [(tmp_path / name / "logs" / "metrics.csv").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_without_a_file_it_is_a_row_of_its_own(tmp_path: Path) -> None:
    logger = MetricsLog(tmp_path, name="", version="logs")
    logger.amend({"val": 0.25}, 1)
    logger.save()
    assert rows(tmp_path) == [{"step": "1", "val": "0.25"}]
