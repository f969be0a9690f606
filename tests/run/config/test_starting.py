"""One command, several processes: what each is told, and the rule that all end when one does. No torch, no training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1_lightning.run.config import starting
from r1_lightning.run.config.program import SCRIPTS

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
TELL = "import os; open(os.environ['OUT'] + os.environ['RANK'], 'w').write(' '.join(map(os.environ.get, NAMES)))"
HOLDS = """
import errno, os, socket, time
rank, port, out = os.environ["RANK"], int(os.environ["MASTER_PORT"]), os.environ["OUT"]
if rank == "0":
    held = socket.socket(fileno=int(os.environ["R1_LISTENING"]))
    text = "holds it" if held.getsockname() == ("127.0.0.1", port) else "holds another"
    held.accept()
else:
    assert "R1_LISTENING" not in os.environ
    try:
        socket.socket().bind(("127.0.0.1", port))
        text = "free"
    except OSError as error:
        text = "in use" if error.errno == errno.EADDRINUSE else str(error)
    socket.create_connection(("127.0.0.1", port), 10)
    text += ", answered"
open(out + rank, "w").write(text)
"""
RANK = "import os, signal, sys, time; rank = int(os.environ['RANK']);"


def _start(monkeypatch: pytest.MonkeyPatch, script: str, count: int = 2, timeout_s: float = 60.0) -> tuple[int, float]:
    """The exit code of `count` ranks that run `script`, and the seconds that they took."""
    monkeypatch.setattr(starting, "command", lambda arguments: [sys.executable, "-c", script, *arguments])
    begun_s = time.monotonic()
    return starting.start(count, [], os.environ, timeout_s), time.monotonic() - begun_s


def test_each_rank_is_told_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OUT", f"{tmp_path}/")
    assert _start(monkeypatch, f"NAMES = {NAMES}; {TELL}", 3)[0] == 0
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == [f"{r} {r} 3 3 127.0.0.1" for r in range(3)]


def test_the_port_is_held_from_the_first_and_given_to_rank_0_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rank 1 cannot take the port, and who comes to it before rank 0 asks is not refused."""
    monkeypatch.setenv("OUT", f"{tmp_path}/")
    monkeypatch.setenv("R1_LISTENING", "99")  # of a starter around this one
    code, _ = _start(monkeypatch, HOLDS)
    assert code == 0
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["holds it", "in use, answered"]


def test_the_first_bad_end_is_the_command_s_and_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "END_S", 0.2)
    code, seconds = _start(monkeypatch, f"{RANK} sys.exit(7) if rank == 1 else time.sleep(60)")
    assert code == 7 and seconds < 20


def test_a_killed_rank_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(starting, "END_S", 0.2)
    script = f"{RANK} os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)"
    code, seconds = _start(monkeypatch, script)
    error = capsys.readouterr().err
    assert code == 137 and seconds < 20  # 128 + 9
    assert error.startswith("error: rank 1 of 2 (pid ") and error.endswith(
        " was killed by SIGKILL; the others end, too\n"
    )


def test_a_rank_that_hangs_after_the_others_have_ended_is_killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped behind its last call of the others, so that none of them waits for it."""
    script = f"{RANK} os.kill(os.getpid(), signal.SIGSTOP) if rank == 1 else None"
    code, seconds = _start(monkeypatch, script, timeout_s=0.2)
    assert code == 1 and seconds < 20
    error = capsys.readouterr().err
    assert error.startswith("error: rank 1 of 2 (pid ")
    assert error.endswith(" has not ended in trainer.timeout_s=0.2 s after rank 0\n")


def test_a_rank_that_was_asked_to_stop_leaves_the_others_time_to_save(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(starting, "END_S", 0.0)
    saved = tmp_path / "saved"
    slow = f"(time.sleep(0.5), open({str(saved)!r}, 'w').close(), sys.exit(143))"
    assert _start(monkeypatch, f"{RANK} sys.exit(143) if rank == 1 else {slow}")[0] == 143
    assert saved.exists()


def test_a_signal_while_ranks_are_started_reaches_the_later_ones_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It comes when rank 0 listens and rank 1 is not there yet; unheard, rank 1 would sleep for a minute."""
    monkeypatch.setenv("OUT", f"{tmp_path}/")
    script = f"{RANK} signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75));"
    # Written by a statement of its own: what a handler raises while a file is closed by its destructor would be lost.
    script += "import pathlib; pathlib.Path(os.environ['OUT'] + str(rank)).write_text('here'); time.sleep(60)"
    asked: list[int] = []

    def command(arguments: list[str]) -> list[str]:
        if asked:
            _written(tmp_path / "0")
            os.kill(os.getpid(), signal.SIGUSR1)
        asked.append(len(asked))
        return [sys.executable, "-c", script]

    monkeypatch.setattr(starting, "command", command)
    begun_s = time.monotonic()
    # Rank 1 hears it before it can listen, most likely: 128 + 10.
    assert starting.start(2, [], os.environ) in (75, 138) and time.monotonic() - begun_s < 30
    assert asked == [0, 1]


OUTSIDE = """
import os
import sys
from r1_lightning.run.config import starting
script = "import os, signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(130));"
script += "open(os.environ['OUT'] + os.environ['RANK'], 'w').write(str(os.getpid()));"
script += "starting = __import__('r1_lightning.run.config.starting', fromlist=['x']); starting.end_with_starter();"
script += "time.sleep(60)"
starting.command = lambda arguments: [sys.executable, "-c", script]
sys.exit(starting.start(2, [], os.environ))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_signals_reach_every_rank_and_no_rank_outlives_its_starter(number: signal.Signals, tmp_path: Path) -> None:
    out = {**os.environ, "OUT": f"{tmp_path}/", "PYTHONPATH": str(SCRIPTS.parent)}
    starter = subprocess.Popen([sys.executable, "-c", OUTSIDE], env=out, start_new_session=True)
    try:
        pids = [int(_written(tmp_path / str(rank))) for rank in range(2)]
        time.sleep(0.3)  # for the thread that watches the pipe
        starter.send_signal(number)
        assert starter.wait(20) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        for pid in pids:
            _gone(pid)
    finally:
        starter.kill()


def _written(path: Path) -> str:
    end_s = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return path.read_text()


def _gone(pid: int) -> None:
    end_s = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < end_s, f"rank {pid} is still there"
        time.sleep(0.02)


def test_a_rank_runs_the_command_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = os.path.relpath(SCRIPTS / "train.py")
    monkeypatch.setattr(sys, "argv", [script, "stage=grpo"])
    assert starting.command(["stage=grpo"]) == [sys.executable, script, "stage=grpo"]
    monkeypatch.setattr(sys, "argv", ["r1 train", "a=1"])
    assert starting.command(["a=1"]) == [sys.executable, "-m", "r1_lightning", "train", "a=1"]
