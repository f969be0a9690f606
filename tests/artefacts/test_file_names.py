"""The names under which a run's files are found: those that its writers use."""

from __future__ import annotations

from r1_lightning.artefacts import file_names, store
from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.run.stages.loggers import LOGS


def test_a_reader_without_torch_looks_for_the_files_that_are_written() -> None:
    assert (file_names.MARKER, file_names.CONFIG) == (store.MARKER, store.CONFIG) == ("artefact.json", "config.yaml")
    assert METRICS.parent.name == LOGS
