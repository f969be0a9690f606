"""The command line: exit codes, one line for every kind of bad input, and Hydra's own options still working."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hydra.errors import InstantiationException

from r1_lightning.run import cli
from r1_lightning.run.config.exit_codes import NOTED
from r1_lightning.run.config.speaking import Lost
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.stopping import STOP
from tests.run.conftest import FAKE_CONFIGS, REAL_CONFIGS, Command
from tests.run.fakes import Recorder, full_disk

BAD_INPUT = [
    # Hydra's composition errors
    (["stage=pretrian"], "stage='pretrian' is not allowed: it must be one of grpo, loop, misspelt, pretrain"),
    (["model=big"], "model='big' is not allowed: it must be one of tiny, wide"),
    (
        ["experiment=none_such"],
        "experiment='none_such' is not allowed: it must be one of first, loop, second, wide_run",
    ),
    (["optim.lrr=1"], "optim.lrr=1 is not allowed: there is no such key; did you mean optim.lr"),
    (["lr=1"], "lr=1 is not allowed: there is no such key; did you mean optim.lr?"),
    (["stge=grpo"], "stge=grpo is not allowed: there is no such key; did you mean stage"),
    (["optim.lrr=1", "seed=[1"], "the override 'seed=[1' is not allowed"),
    (["seed"], "the override 'seed' is not allowed: missing EQUAL at '<EOF>'; it must be key=value"),
    (["optim.lr=1,2"], "Ambiguous value for argument 'optim.lr=1,2'"),
    (["stage=null"], "a group takes the name of one of its options"),
    (["stage=grpo", "stage.inputs.base=gpro"], "stage='gpro' is not allowed: it must be one of grpo, loop"),
    # wrong types and ranges
    (["rollout.group_size=1"], "rollout.group_size=1 is not allowed: it must be a whole number of at least 2"),
    (["rollout.group_size=four"], "rollout.group_size='four' is not allowed: it must be a whole number"),
    (["rollout.group_size='4'"], "rollout.group_size='4' is not allowed: it must be a whole number"),
    (["rollout.group_size=4.5"], "rollout.group_size=4.5 is not allowed: it must be a whole number"),
    (["rollout.share=true"], "rollout.share=True is not allowed: it must be a number"),
    (["rollout.share=null"], "rollout.share=None is not allowed: it must be a number"),
    (["optim.lr=abc"], "optim.lr='abc' is not allowed: it must be a number"),
    (["optim.lr=-0.1"], "optim.lr=-0.1 is not allowed: it must be at least 0"),
    (["optim.betas=[0.9,x]"], "optim.betas=[0.9, 'x'] is not allowed: it must be a list of a number"),
    (["model.d_model=-8"], "model.d_model=-8 is not allowed: it must be a whole number of at least 1"),
    (["model.rank=two"], "model.rank='two' is not allowed: it must be a whole number or null"),
    (["stage.max_steps=-1"], "stage.max_steps=-1 is not allowed: it must be at least 0"),
    (["stage.kl_coef=-0.1"], "stage.kl_coef=-0.1 is not allowed: it must be at least 0"),
    (["data.row_tokens=-1"], "data.row_tokens=-1 is not allowed"),
    (
        ["reward.parts=[{_target_: tests.run.fakes.FakeReward, name: x, kind: soft}]"],
        "reward.parts[0].kind='soft' is not allowed: it must be one of strict, lenient",
    ),
    (["seed=-1"], "seed=-1 is not allowed: it must be a whole number of at least 0"),
    (["seed=abc"], "seed='abc' is not allowed"),
    (["fresh=yes_please"], "fresh='yes_please' is not allowed: it must be true or false"),
    (["dry_run=maybe"], "dry_run='maybe' is not allowed: it must be true or false"),
    (["stage.parent_overrides=3"], "stage.parent_overrides=3 is not allowed: it must be a list"),
    # the makers of inputs are checked before anything runs
    (['stage.parent_overrides=["optim.lr=abc"]'], "optim.lr='abc' is not allowed: it must be a number"),
    (
        ['stage.parent_overrides=["optim.lrr=1"]'],
        "optim.lrr=1 is not allowed: there is no such key; did you mean optim.lr",
    ),
    # keys that Hydra keeps silently
    (
        ["stage=misspelt"],
        "stage.max_step=7 is not allowed: FakeModule takes max_steps, kl_coef, policy; did you mean max_steps?",
    ),
    (
        ["+model.d_modell=3"],
        "model.d_modell=3 is not allowed: FakeModel takes vocab_size, d_model, rank; did you mean d_model?",
    ),
    (
        ["model._target_=tests.run.fakes.Absent"],
        "model._target_='tests.run.fakes.Absent' is not allowed: it cannot be imported",
    ),
    (["paths.root=${nowhere}"], "Interpolation key 'nowhere' not found"),
    # the graph
    (["stage=loop"], "stage.inputs.base='loop' is not allowed: it would need itself (loop)"),
    (["stage=pretrain", "init_from=x"], "init_from: artefact='x' is not allowed: there is no such folder"),
    (["init_from=absent"], "init_from: artefact='absent' is not allowed: there is no such folder"),
]


@pytest.mark.parametrize(("arguments", "expected"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    assert expected in command(*arguments).error
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_the_traceback_is_shown_on_request_only(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in command("rollout.group_size=1").err
    monkeypatch.setenv(cli.FULL_ERROR, "1")
    for arguments in (["rollout.group_size=1"], ["stage=absent"]):
        outcome = command(*arguments)
        assert outcome.code == 2 and "Traceback" in outcome.err and outcome.err.splitlines()[-1].startswith("error: ")
    assert os.environ[cli.FULL_ERROR] == "1"


def test_the_environment_is_left_as_it_was(command: Command) -> None:
    command("stage=pretrain")
    assert cli.FULL_ERROR not in os.environ


def test_bad_input_inside_a_stage_is_one_line(command: Command) -> None:
    wrapped = RuntimeError("Error instantiating")
    wrapped.__cause__ = InvalidInput("task.folder='x' is not allowed:\n there is no such folder")
    outcome = command("stage=pretrain", recorder=Recorder(faults=[wrapped]))
    assert outcome.code == 2 and outcome.err == "error: task.folder='x' is not allowed: there is no such folder\n"


def test_a_library_that_refuses_its_values_is_one_line(command: Command) -> None:
    theirs = InstantiationException("Error in call to target 'lightning.Trainer':\nValueError('no such accelerator')")
    outcome = command("stage=pretrain", recorder=Recorder(faults=[theirs]))
    assert outcome.code == 2
    assert outcome.err == "error: Error in call to target 'lightning.Trainer': ValueError('no such accelerator')\n"
    with pytest.raises(InstantiationException):
        ours = InstantiationException("Error in call to target 'r1_lightning.stages.grpo.GRPOModule':\nKeyError('x')")
        command("stage=pretrain", recorder=Recorder(faults=[ours]))


def test_a_defect_keeps_its_traceback(command: Command) -> None:
    with pytest.raises(ZeroDivisionError):
        command("stage=pretrain", recorder=Recorder(faults=[ZeroDivisionError()]))


def test_a_full_disk_while_training_is_one_line_and_resumes(command: Command, tmp_path: Path) -> None:
    recorder = Recorder(faults=[full_disk(tmp_path / "runs" / "pretrain-tiny-sums-0123456789")])
    recorder.faults[0].filename = None  # a write, unlike an open, names no file
    outcome = command("stage=pretrain", recorder=recorder)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert "the disk is full" in outcome.err and str(recorder.calls[0][1]) in outcome.err
    again = command("stage=pretrain", recorder=recorder)
    assert again.code == 0 and "pretrain: resuming" in again.out and recorder.calls[0][1] == recorder.calls[1][1]


def test_an_output_folder_that_cannot_be_written_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for root in ("file", "file/runs", "/proc/runs"):
        assert f"the output folder {root} cannot be written" in command(f"paths.root={root}").error
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    "error", [InvalidInput("the disk is full"), Lost("another process is gone"), ValueError("ours")]
)
def test_a_rank_that_failed_is_ended_without_a_word_and_keeps_its_code(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """SIGTERM comes because another rank has failed, too: not "interrupted" and 75, with which the job would be queued again."""
    monkeypatch.setattr(cli, "is_another", lambda place: True)
    monkeypatch.setenv(NOTED, str(tmp_path / "codes"))
    ending = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    waiting = STOP.ended_within
    monkeypatch.setattr(STOP, "ended_within", lambda seconds: (ending.start(), waiting(seconds))[1])
    outcome = command("stage=pretrain", recorder=Recorder(faults=[error]))
    ending.join()
    code = 2 if isinstance(error, InvalidInput) else 1
    assert (outcome.code, outcome.err) == (code, "")
    # What was lost has its own code, which must come first.
    assert (tmp_path / "codes").exists() != isinstance(error, Lost)


def test_a_lost_rank_that_nobody_ends_says_so_at_last(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "LOST_LATER_S", 0.1)
    monkeypatch.setenv(NOTED, str(tmp_path / "codes"))
    outcome = command("stage=pretrain", recorder=Recorder(faults=[Lost("another process is gone")]))
    assert (outcome.code, outcome.err) == (1, "error: another process is gone\n")
    assert (tmp_path / "codes").read_text() == "1\n"


def test_interrupted_says_how_to_go_on(command: Command) -> None:
    leaving = SystemExit(1)
    leaving.__context__ = KeyboardInterrupt()  # what Lightning makes of Ctrl-C
    recorder = Recorder(faults=[KeyboardInterrupt(), leaving, KeyboardInterrupt()])
    for _ in range(2):
        outcome = command("stage=pretrain", recorder=recorder)
        assert (outcome.code, outcome.err) == (130, "interrupted; the same command resumes\n")
    assert recorder.calls[0][1] == recorder.calls[1][1]
    outcome = command("stage=pretrain", "fresh=true", recorder=recorder)
    assert (outcome.code, outcome.err) == (130, "interrupted; its folder keeps what was done\n")


def test_hydra_options_work_and_leave_nothing(command: Command, tmp_path: Path) -> None:
    for arguments, expected in (
        (["--help"], "pretrain"),
        (["--cfg", "job"], "d_model: 8"),
        (["--cfg", "job", "--package", "optim"], "lr: 0.001"),
    ):
        outcome = command(*arguments)
        assert outcome.code == 0 and expected in outcome.out and outcome.recorder.stages == []
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_runs_each_value(command: Command, tmp_path: Path) -> None:
    outcome = command("-m", "stage=pretrain", "seed=0,1")
    assert outcome.code == 0 and [call[3].seed for call in outcome.recorder.calls] == [0, 1]
    assert {entry.name for entry in tmp_path.iterdir()} == {"runs"}


def test_a_sweep_ends_at_its_first_error_and_launches_nothing_after_it(command: Command) -> None:
    outcome = command("-m", "stage=pretrain", "seed=0,-1,2,3")
    assert outcome.code == 2 and "seed=-1" in outcome.err and [call[3].seed for call in outcome.recorder.calls] == [0]
    assert "seed=2" not in outcome.out + outcome.err and "seed=3" not in outcome.out + outcome.err


def test_names_of_folders_that_hydra_cannot_read_bare_work(command: Command, tmp_path: Path) -> None:
    for name in ("runs(1)", "a=b", "a#b", "it's", "\u5b9e\u9a8c", "a b (c)", "x&y", "r\u00e9sum\u00e9"):
        outcome = command("stage=pretrain", f"paths.root={name}")
        assert outcome.code == 0, (name, outcome.err)
        assert len(list((tmp_path / name).glob("pretrain-*"))) == 1


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cp1252", "latin-1"))]
)
def test_an_output_that_cannot_show_a_character_shows_its_number(
    encoding: str, tmp_path: Path, repo_root: Path
) -> None:
    """ASCII, Latin-1 and the code page of a Western Windows: no traceback, and the run is made."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "PYTHONIOENCODING": encoding}
    script = DONE.format(configs=str(FAKE_CONFIGS))
    start = [sys.executable, "-c", script, "stage=pretrain", "paths.root=\u5b9e\u9a8c"]
    ended = subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert ended.returncode == 0 and b"Traceback" not in ended.stderr, ended.stderr
    assert rb"\u5b9e\u9a8c" in ended.stdout


DONE = """
import sys
from pathlib import Path
from r1_lightning.run.cli import main
from tests.run.fakes import Recorder
sys.exit(main(Recorder(), Path({configs!r})))
"""
SCRIPT = """
import sys, time
from pathlib import Path
from r1_lightning.run.cli import main
def run_stage(config, stage, folder, inputs):
    print("started", flush=True)
    time.sleep(60)
sys.exit(main(run_stage, Path({configs!r})))
"""


def test_ctrl_c_and_a_second_process(tmp_path: Path, repo_root: Path) -> None:
    """Two real processes: the second is refused while the first trains, and Ctrl-C ends the first politely."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    start = [sys.executable, "-c", SCRIPT.format(configs=str(FAKE_CONFIGS)), "stage=pretrain"]
    first = subprocess.Popen(
        start, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert first.stdout is not None
        while first.stdout.readline() != "started\n":
            assert first.poll() is None
        second = subprocess.run(start, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=120)
        assert second.returncode == 2 and f"another process (pid {first.pid})" in second.stderr
        time.sleep(0.1)
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=60)
        said = "\nCtrl-C: saving and stopping; once more leaves at once\ninterrupted; the same command resumes\n"
        assert (first.returncode, err) == (130, said)
    finally:
        first.kill()


def test_the_first_line_says_which_device_was_chosen_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for typed, told in (
        ((), "on the CPU in FP32 (trainer=auto: torch finds no GPU)"),
        (("trainer=cpu", "precision=bf16"), "on the CPU in BF16 (trainer.accelerator=cpu)"),
    ):
        monkeypatch.setattr(sys, "argv", ["train.py", "stage=pretrain", *typed])
        assert cli.main(Recorder(), REAL_CONFIGS) == 0
        assert capsys.readouterr().out.splitlines()[0] == f"pretrain: planning (seed 0) {told}"


def test_a_gpu_that_is_not_there_is_refused_before_anything_runs(command: Command) -> None:
    refused = command("stage=pretrain", "trainer=gpu", configs=REAL_CONFIGS)
    assert refused.error.startswith("trainer.accelerator='gpu' is not allowed: torch finds no GPU here; trainer=cpu")
