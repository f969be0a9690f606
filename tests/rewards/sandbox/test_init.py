"""Init's messages and forks: messages are read to the exact byte, and a fork inherits neither files nor later messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1_lightning.rewards.sandbox import init
from r1_lightning.rewards.sandbox.init import Link
from r1_lightning.rewards.sandbox.sandbox import Program, Sandbox


def test_messages_are_read_to_the_byte() -> None:
    read, write = os.pipe()
    link = Link(read, write)
    link.send({"a": "é\n\ud800"})
    link.send({"b": [1]})
    assert link.receive() == {"a": "é\n\ud800"}
    assert os.read(read, 4) == (10).to_bytes(4, "big")  # the next length: {"b": [1]} has ten bytes
    assert os.read(read, 100) == b'{"b": [1]}'
    link.close()
    with pytest.raises(OSError):
        os.fstat(read)


@pytest.mark.usefixtures("isolated")
def test_an_answer_is_no_copy_of_a_process_that_has_read_the_script() -> None:
    """All memory of the answer's process that Python can name, searched while the script waits for it."""
    source = (
        "import ctypes, gc\ndef double(n):\n    needle = ''.join(['cafe', 'babe'])\n"
        "    start = id(gc) & ~0xfff\n    near = ctypes.string_at(start, 4096)\n"
        "    held = str([str(o)[:5000] for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and len(o) < 200])\n"
        "    return needle in held or needle.encode() in near\n"
    )
    with Sandbox(Program("assert", source, entry_point="double")) as box:
        script = "secret = 'cafebabe'\nassert double(1) is False"
        assert box.run(script=script, token="t").report == "t"
    with Sandbox(Program("assert", source, setup="known = 'cafebabe'", entry_point="double")) as box:
        assert box.run(script="assert double(1) is True", token="t").report == "t"  # the search finds what is there


def test_without_isolation_each_case_has_a_folder_and_files_go_away() -> None:
    source = "import os\nprint(os.listdir('.'), os.getcwd())\nopen('x', 'w').close()"
    with Sandbox(Program("stdin", source), isolated=False) as box:
        outcomes = [box.run(""), box.run("")]
    folders = [Path(outcome.stdout.split()[1]) for outcome in outcomes]
    assert [outcome.stdout.split()[0] for outcome in outcomes] == ["[]", "[]"] and folders[0] != folders[1]
    assert not folders[0].exists() and not folders[0].parent.exists()


def test_it_ends_when_its_requests_end(repo_root: Path) -> None:
    command = [sys.executable, "-m", "r1_lightning.rewards.sandbox.init", str(os.getpid()), "0", "", "{}"]
    ended = subprocess.run(command, cwd=repo_root, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert ended.returncode == 0 and b'{"ready": true}' in ended.stdout and ended.stderr == b""
    assert init.FIRST_FREE_FD > 5  # the pipes of a case fit below it
