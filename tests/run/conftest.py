"""The command line under test: the real `cli.main`, small option files, a stage runner that only notes its calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1_lightning.run import cli
from tests.run.fakes import Recorder
from tests.support.commands import after_planning
from tests.support.slurm.cluster import Cluster, missing

FAKE_CONFIGS = Path(__file__).parent / "fake_configs"
REAL_CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code, what it printed, and the stages that ran."""

    code: int
    out: str
    err: str
    recorder: Recorder

    @property
    def error(self) -> str:
        """The one line of a refused command."""
        lines = self.err.strip().splitlines()
        assert self.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), (self.code, self.err)
        assert self.recorder.stages == [], "something ran before the input was refused"
        return lines[0].removeprefix("error: ")


Command = Callable[..., Outcome]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Command:
    """`command("stage=grpo", ...)` runs it in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cli.FULL_ERROR, raising=False)

    def run(*arguments: str, recorder: Recorder | None = None, configs: Path = FAKE_CONFIGS) -> Outcome:
        recorder = recorder or Recorder()
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        code = cli.main(recorder, configs)
        out, err = capsys.readouterr()
        return Outcome(code, after_planning(out), err, recorder)

    return run


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """A SLURM of this machine alone, for the session; skips where it is not installed, or its daemons do not start.

    With R1_REQUIRE_SLURM=1 a SLURM that does not start is a failure.
    """
    if names := missing():
        pytest.skip(f"needs SLURM (apt-get install slurm-wlm slurm-client munge): {', '.join(names)} not found")
    cluster = Cluster()
    try:
        try:
            cluster.start()
        except RuntimeError as error:
            if os.environ.get("R1_REQUIRE_SLURM") == "1":
                raise
            pytest.skip(f"SLURM is installed and does not start here: {error}")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def slurm(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with SLURM's commands on the path; jobs that a test leaves behind are cancelled."""
    for name in [
        name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))
    ]:  # where tests are a job themselves
        monkeypatch.delenv(name)
    for name, value in slurm_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_cluster
    slurm_cluster.cancel_all()
