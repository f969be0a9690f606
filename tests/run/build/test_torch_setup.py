"""Threads, freed memory and the C library."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest
import torch

from r1_lightning.run.build.torch_setup import keep_freed_memory, set_up_torch


def test_threads_are_set_or_left_alone() -> None:
    before = torch.get_num_threads()
    try:
        set_up_torch(None)
        assert torch.get_num_threads() == before
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
        set_up_torch(before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)


def test_freed_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """M_TRIM_THRESHOLD is -1 and M_MMAP_THRESHOLD -3 in glibc's <malloc.h>; the second may be 32 MiB at most."""
    told: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda name, value: told.append((name, value)))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory()
    assert told == [(-1, 2147483647), (-3, 33554432)]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: asked.append(name) or object())
    keep_freed_memory()
    assert asked == [None]
