"""`fresh=true` on a real SLURM: a job that is queued again resumes what it began, beside what was there before."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from r1_lightning.artefacts import store
from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.steps import last_step
from r1_lightning.run.commands.submit_points import points_of
from tests.run.test_slurm_jobs import ENDED, LIMIT_S, jobs_of, small_pretrain, submit, until  # noqa: F401 - a fixture
from tests.support.commands import folder
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

STEPS = 400  # so many that the signal comes before the last one


def test_queued_again_it_goes_on_where_it_was(
    slurm: Cluster,
    submit: Callable[..., tuple[int, str]],  # noqa: F811
    tmp_path: Path,
) -> None:
    """SIGUSR1 in the first attempt. The second has its steps behind it: one folder more, no step lost or taken twice."""
    root = tmp_path / "runs"
    (tmp_path / "own" / "optim").mkdir(parents=True)
    (tmp_path / "own" / "optim" / "mine.yaml").write_text("defaults: [adamw]\nweight_decay: 0.2\n")
    words = small_pretrain(root, "optim=mine", f"stage.max_steps={STEPS}", "--config-dir=own")
    node = points_of(words)[0].node
    old = store.create(root, "pretrain", "tiny", "arithmetic", node.fingerprint)
    old.weights_path.write_bytes(b"x")
    store.complete(old, "c", {}, {}, {})
    assert "complete, nothing to submit" in submit(*words)[1]
    code, said = submit(*words, "fresh=true")
    assert code == 0, said
    job = jobs_of(said)["pretrain"]
    (tmp_path / "own" / "optim" / "mine.yaml").write_text(
        "defaults: [adamw]\nweight_decay: 0.3\n"
    )  # the job has its copy
    new = old.folder.with_name(f"{old.folder.name}-2")
    until(lambda: (last_step(new) or 0) >= 2, "step")
    slurm.call("scancel", "--signal=USR1", job)
    notes = folder(root / "slurm", "pretrain") / "attempts.txt"
    until(lambda: "requeued" in notes.read_text(), "requeue")
    saved = last_step(new)
    assert saved is not None and saved < STEPS and not store.is_complete(new)
    found = slurm.wait_for(job, ENDED, LIMIT_S)
    log = (notes.parent / f"log-{job}-2.txt").read_text()
    assert found["JobState"] == "COMPLETED" and f"pretrain: resuming {new}" in log and f"{saved}/{STEPS}" in log, log
    assert sorted(root.glob("pretrain-*")) == [old.folder, new] and store.is_complete(new)
    with (new / METRICS).open(encoding="utf-8") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(STEPS))
