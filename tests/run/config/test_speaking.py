"""Rank 0 prints and reports; the others are silent, and keep their errors back."""

from __future__ import annotations

import os
import sys

import pytest

from r1_lightning.run.config.place import ALONE, Place
from r1_lightning.run.config.speaking import LATER_S, LOST_LATER_S, TORCH_LOG, is_another, speaking
from r1_lightning.run.config.starting import END_S


def test_only_rank_0_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TORCH_LOG, "INFO")
    for rank in range(2):
        with speaking(Place(rank, 2)):
            print(f"out {rank}")
            print(f"err {rank}", file=sys.stderr)
    print("after")  # an error is told after the block
    assert capsys.readouterr() == ("out 0\nafter\n", "err 0\n")
    assert os.environ[TORCH_LOG] == "INFO"  # the user's own choice stays


def test_errors_of_the_others_come_after_the_end_of_all() -> None:
    assert LATER_S > END_S  # whoever started them ends them first
    # A rank that fails alone says so after LATER_S, and 10 s of leaving the group; those that lost it are ended before they speak.
    assert LOST_LATER_S > LATER_S + END_S + 10


def test_another() -> None:
    started, torchrun = {"R1_STARTED_BY": "3", "RANK": "1"}, {"TORCHELASTIC_RUN_ID": "x", "RANK": "0"}
    assert is_another(ALONE, started) and not is_another(ALONE, torchrun)
    assert is_another(Place(1, 2), {}) and not is_another(ALONE, {}) and not is_another(ALONE, {"RANK": "1"})
