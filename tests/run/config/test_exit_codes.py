"""The line of bad input is found behind whatever wrapped it."""

from __future__ import annotations

from pathlib import Path

from r1_lightning.run.config.exit_codes import (
    AGAIN,
    BAD_INPUT,
    INTERRUPTED,
    KILLED,
    NOTED,
    OUT_OF_TIME,
    REQUEUE,
    bad_input_in,
    note,
)
from r1_lightning.types.errors import InvalidInput


def test_codes_are_those_of_a_shell() -> None:
    assert (BAD_INPUT, INTERRUPTED, OUT_OF_TIME) == (2, 128 + 2, 124)  # SIGINT is 2; 124 is `timeout`'s
    assert KILLED == (128 + 10, 128 + 15)  # SIGUSR1 is 10 on Linux, SIGTERM 15 everywhere


def test_a_batch_script_asks_again_after_the_codes_of_a_batch_system_only() -> None:
    assert REQUEUE == 75 and AGAIN == (75, 138, 143)  # EX_TEMPFAIL of sysexits.h


def test_bad_input_is_found_behind_what_wrapped_it() -> None:
    inner = InvalidInput("seed=-1 is not allowed:\n  it must be at least 0")
    outer = RuntimeError("Error in call to target")
    outer.__cause__ = KeyError("one more")
    outer.__cause__.__cause__ = inner
    assert bad_input_in(outer) == bad_input_in(inner) == "seed=-1 is not allowed: it must be at least 0"


def test_a_defect_has_no_such_line() -> None:
    error = ValueError("ours")
    error.__context__ = InvalidInput("handled before")  # what was being handled is not what it was raised from
    assert bad_input_in(error) is None


def test_a_task_of_a_batch_job_notes_its_code(tmp_path: Path) -> None:
    file = tmp_path / "codes"
    for code in (75, 2):
        note(code, {NOTED: str(file)})
    assert file.read_text() == "75\n2\n"
    note(2, {NOTED: str(tmp_path / "not" / "there")})  # it leaves the code to srun
    note(2, {})
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]
