"""metrics.csv, one row per optimizer step, the same after interruptions and resumes as after an uninterrupted run.

Lightning's CSVLogger deletes an earlier process's file when it starts to write. Here a resumed run keeps the rows of the steps
before the one it resumes at, and writes the later ones again, so one file holds the whole run.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from r1_lightning.artefacts.files import write_text


class MetricsLog(CSVLogger):
    """A `CSVLogger` whose file survives a resume."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment

    def amend(self, metrics: Mapping[str, float], step: int) -> None:
        """Put `metrics` into the row of `step`, which an earlier process wrote without them."""
        self.experiment.amend(metrics, step)


class _Writer(ExperimentWriter):
    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.begun = False

    def _check_log_dir_exists(self) -> None:
        """Do nothing: Lightning's own method deletes the earlier file here."""

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        if not self.begun and step is not None:
            self.begun = True
            self._keep_rows_before(step)
        super().log_metrics(metrics_dict, step)

    def amend(self, metrics: Mapping[str, float], step: int) -> None:
        """Rewrite the file with `metrics` in the row of `step`; later rows, of steps that are taken again, go."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            self.log_metrics(dict(metrics), step)
            return
        self.begun = True
        self._keep_rows_before(step + 1)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.metrics_keys = sorted({*self.metrics_keys, *metrics})
        values = {name: str(value) for name, value in metrics.items()}
        _write_rows(path, self.metrics_keys, [{**row, **values} if row["step"] == str(step) else row for row in rows])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Replace the file atomically: Lightning's own method empties it first, and a kill in between would lose every row."""
        path = Path(self.metrics_file_path)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        _write_rows(path, fieldnames, rows)

    def _keep_rows_before(self, step: int) -> None:
        """Rewrite an earlier process's file without the steps that are taken again, and without a line that a kill cut off."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            self.metrics_keys = list(reader.fieldnames or ())
            rows = [row for row in reader if _is_whole(row) and int(row["step"]) < step]
        _write_rows(path, self.metrics_keys, rows)


def _write_rows(path: Path, fieldnames: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _is_whole(row: Mapping[Any, Any]) -> bool:
    return None not in row and None not in row.values() and str(row.get("step", "")).isdigit()
