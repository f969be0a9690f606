"""`....file=FILE` wherever rows come from: what is typed, and what Hydra reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.file_names import with_readers
from r1_lightning.tasks.answered_file import AnsweredFile
from r1_lightning.tasks.preference_file import PreferenceFile, PromptFile
from r1_lightning.tasks.traces import TraceFile
from r1_lightning.types.errors import InvalidInput

TRACES = "{_target_: r1_lightning.tasks.traces.TraceFile, file: x.jsonl}"
ANSWERED = "{_target_: r1_lightning.tasks.answered_file.AnsweredFile, file: x.jsonl}"
TYPED = {
    "data.traces.file=x.jsonl": f"data.traces={TRACES}",
    "data.traces=x.jsonl": f"data.traces={TRACES}",
    "+data.traces.file=x.jsonl": f"data.traces={TRACES}",
    "+stage.sources.general.file=x.jsonl": f"+stage.sources.general={ANSWERED}",
    "++stage.sources.my-rows.file=x.jsonl": f"++stage.sources.my-rows={ANSWERED}",
    "data.traces.file='a b.jsonl'": f"data.traces={TRACES}".replace("x.jsonl", "'a b.jsonl'"),
}
LEFT = (
    "data.traces=null",
    "data.traces.file=null",
    "data.traces={_target_: mine.Traces}",
    "data.examples.file=x.jsonl",
    "task.source.train.file=x.jsonl",
    "data.preferences.file=x.jsonl",
    "+stage.sources.general={_target_: mine.Rows}",
    "stage=distill",
    "--help",
)


@pytest.mark.parametrize(("typed", "read"), TYPED.items())
def test_a_file_that_is_only_named_gets_its_reader(typed: str, read: str) -> None:
    assert with_readers([typed, "seed=1"]) == [read, "seed=1"]


def test_everything_else_stays_as_it_is() -> None:
    assert with_readers(LEFT) == list(LEFT)


@pytest.mark.parametrize("name", ["x.jsonl", "a (1)/x=2.jsonl", "日 本/x.jsonl", "it's.jsonl", "C:/x.jsonl"])
def test_hydra_reads_it(name: str) -> None:
    with composing():
        traces = compose_stage(["stage=distill", f"data.traces.file={name}"]).config.data.traces
        sources = compose_stage(["stage=sample", f"+stage.sources.general.file={name}"]).config.stage.sources
    assert traces == {"_target_": "r1_lightning.tasks.traces.TraceFile", "file": name}
    assert sources.general.file == name


def test_every_reader_takes_a_file_or_what_artefacts_of_before_say(tmp_path: Path) -> None:
    for reader in (TraceFile, AnsweredFile, PreferenceFile, PromptFile):
        assert reader("a/x.jsonl").path == reader(folder="a", name="x.jsonl").path == Path("a/x.jsonl")
        for wrong in ({}, {"folder": "a"}, {"file": ""}, {"file": "x", "folder": "a", "name": "y"}):
            with pytest.raises(InvalidInput, match=r"\.file="):
                reader(**wrong)
