"""The machine of a run, as its marker has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from r1_lightning.artefacts import machine


def test_this_machine() -> None:
    found = machine.machine()
    assert set(found) - {"gpus"} == {"processor", "cores", "threads", "memory"}
    assert found["threads"] == str(torch.get_num_threads()) and 1 <= int(found["cores"]) <= (os.cpu_count() or 1)
    assert ("gpus" in found) == torch.cuda.is_available()


def test_a_machine_that_says_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors of one name, 3 pages of 2^30 bytes; then neither a name nor a size."""
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU (r) 9\n\nmodel name\t: A CPU (r) 9\n")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 2**30, "SC_PHYS_PAGES": 3}.__getitem__)
    found = machine.machine()
    assert (found["processor"], found["memory"]) == ("A CPU (r) 9", "3.0 GiB")

    def refuse(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", refuse)
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "absent")
    assert "memory" not in machine.machine() and machine.machine()["processor"]
