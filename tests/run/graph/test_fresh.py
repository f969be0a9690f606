"""`fresh=true` in a batch job: anew in the first attempt, resumed in the others, whatever is there beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from r1_lightning.run.graph.fresh import begun_by, remember
from tests.run.commands.test_submit_jobs import node
from tests.run.conftest import Command
from tests.run.fakes import Recorder


@pytest.fixture
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a batch job's script names."""
    monkeypatch.setenv("R1_FRESH", str(tmp_path / "fresh.txt"))
    return tmp_path / "fresh.txt"


def test_an_attempt_that_is_queued_again_resumes_what_the_first_began(
    command: Command, note: Path, tmp_path: Path
) -> None:
    """The trap: beside a complete artefact, `fresh=true` again would make a third folder, and no `fresh` at all reuse the first."""
    words, runs = ("stage=pretrain", "fresh=true"), tmp_path / "runs"
    assert command("stage=pretrain").code == 0
    first = command(*words, recorder=Recorder(faults=[KeyboardInterrupt()]))
    new = first.recorder.calls[0][1]
    assert new.name.endswith("-2") and note.read_text() == f"{new.name}\n"
    (new / "progress").write_text("step 5")
    second = command(*words)
    assert second.code == 0 and f"pretrain: resuming {new}" in second.out
    assert [call[1] for call in second.recorder.calls] == [new] and (new / "progress").read_text() == "step 5"
    third = command(*words)
    assert third.recorder.stages == [] and f"reusing {new}" in third.out
    assert len(list(runs.glob("pretrain-*"))) == 2


def test_without_a_job_fresh_is_anew_each_time(command: Command, tmp_path: Path) -> None:
    for count in (1, 2, 3):
        assert command("stage=pretrain", "fresh=true").recorder.stages == ["pretrain"]
        assert len(list((tmp_path / "runs").glob("pretrain-*"))) == count


def test_a_folder_that_is_gone_is_made_anew(command: Command, note: Path) -> None:
    note.write_text("pretrain-tiny-sums-0123456789\n")
    assert command("stage=pretrain", "fresh=true").recorder.stages == ["pretrain"]
    assert not note.read_text().startswith("pretrain-tiny-sums-0123456789")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../elsewhere/grpo-tiny-sums-dddddddddd",
        "sft-tiny-sums-dddddddddd",
        "grpo-tiny-sums-eeeeeeeeee",
        "a\x00b",
        "\udcff",
    ],
)
def test_a_note_that_names_no_folder_of_this_stage_counts_as_none(tmp_path: Path, text: str) -> None:
    root = tmp_path / "runs"
    for name in (
        "elsewhere/grpo-tiny-sums-dddddddddd",
        "runs/sft-tiny-sums-dddddddddd",
        "runs/grpo-tiny-sums-eeeeeeeeee",
    ):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / "fresh.txt"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert begun_by(node(root, "grpo", "d"), path) is None
    assert begun_by(node(root, "grpo", "d"), tmp_path / "nowhere") is None


def test_what_was_remembered_is_found(tmp_path: Path) -> None:
    wanted = node(tmp_path / "runs", "grpo", "d")
    made = store.create(wanted.root, "grpo", "tiny", "sums", wanted.fingerprint)
    remember(made, {"R1_FRESH": str(tmp_path / "fresh.txt")})
    remember(made, {})
    assert begun_by(wanted, tmp_path / "fresh.txt") == made
