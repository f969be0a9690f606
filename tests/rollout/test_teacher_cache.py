"""The cache: names by content, numbers to a stated error, nothing taken for whole that is not, and the size beforehand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts import weights
from r1_lightning.functional import distillation
from r1_lightning.functional.distillation import top_k_logprobs
from r1_lightning.rollout import teacher_cache
from r1_lightning.rollout.distill_rows import DistillRow, collate_distill
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.rollout.teacher_cache import TeacherCache
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import DistillBatch
from tests.support.miniature import EOS, PAD, CharTokenizer, backbone

VOCABULARY = CharTokenizer.vocab_size  # 17


def teacher(
    fingerprint: str = "abc", vocabulary: int = VOCABULARY, compute: str = "fp32", weights: str = "w1"
) -> Teacher:
    return Teacher(lambda: backbone(3), fingerprint, vocabulary, compute, weights)


def cache(folder: Path, top_k: int = 4, t: float = 2.0, **changes: Any) -> TeacherCache:
    return TeacherCache(folder / "cache", changes.get("teacher", teacher()), top_k, t)


def batch(ids: Sequence[int] = (1, 2, 3, 4, 5, EOS), first: int = 1) -> DistillBatch:
    return collate_distill([DistillRow(tuple(ids), first), DistillRow((7, 8, EOS), 1)], 12, PAD, 99)


def exact(data: DistillBatch, top_k: int, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    known = teacher()
    return top_k_logprobs(known.unembed(known.hidden(data)), top_k, t)


def tensors(store: TeacherCache, data: DistillBatch) -> list[list[list[float]]]:
    """A shard's numbers; the order of its header's fields is not fixed."""
    found = store.read(data)
    assert found.top_ids is not None and found.top_logprobs is not None
    return [found.top_ids.tolist(), found.top_logprobs.tolist()]


def test_what_is_read_is_what_the_teacher_says_to_the_stated_error(tmp_path: Path) -> None:
    """FP16 keeps a log-prob to a relative 2^-11; making the sum 1 again moves all by at most the largest such error."""
    store, data = cache(tmp_path), batch()
    store.write(data)
    found = store.read(data)
    ids, logprobs = exact(data, 4, 2.0)
    assert found.top_ids is not None and found.top_logprobs is not None
    assert torch.equal(found.top_ids, ids) and found.top_ids.dtype == torch.long
    error = (found.top_logprobs - logprobs).abs()
    bound = logprobs.abs() * 2**-11
    assert (error <= bound + bound.amax(1, keepdim=True) + 1e-6).all() and error.max() > 0
    torch.testing.assert_close(found.top_logprobs.exp().sum(1), torch.ones(len(ids)))
    assert torch.equal(found.target_mask, data.target_mask) and found.n_tokens == 99


def test_the_whole_vocabulary_has_no_rest(tmp_path: Path) -> None:
    store, data = cache(tmp_path, top_k=VOCABULARY), batch()
    store.write(data)
    found = store.read(data)
    assert store.columns == VOCABULARY and found.top_logprobs is not None
    assert found.top_logprobs.shape == (int(data.target_mask.sum()), VOCABULARY)


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, data = cache(tmp_path), batch()
    store.write(data)
    whole = tensors(store, data)
    monkeypatch.setattr(teacher_cache, "CHUNK_LOGITS", 3 * VOCABULARY)
    store.write(data)
    assert distillation.CHUNK_LOGITS > 3 * VOCABULARY and tensors(store, data) == whole


def test_the_size_is_known_beforehand(tmp_path: Path) -> None:
    # 4 ids of 4 bytes and 5 log-probs of 2: 26 bytes a token; a header is less than 400 bytes here.
    store, data = cache(tmp_path), batch()
    n_tokens = int(data.target_mask.sum())
    assert n_tokens == 7 and store.bytes_of(n_tokens) == 7 * 26
    store.write(data)
    assert 0 < store.path_of(data).stat().st_size - 7 * 26 < 400
    assert cache(tmp_path, top_k=VOCABULARY).bytes_of(1) == 17 * 6


def test_whatever_decides_the_content_decides_the_name(tmp_path: Path) -> None:
    data = batch()
    names = [
        cache(tmp_path).path_of(data),
        cache(tmp_path, top_k=5).path_of(data),
        cache(tmp_path, t=1.0).path_of(data),
        cache(tmp_path, teacher=teacher("abd")).path_of(data),
        cache(tmp_path, teacher=teacher(weights="w2")).path_of(data),
        cache(tmp_path, teacher=teacher("w1", weights="abc")).path_of(data),
        cache(tmp_path).path_of(batch((1, 2, 3, 4, 6, EOS))),
        cache(tmp_path).path_of(batch(first=2)),
        cache(tmp_path, teacher=teacher(vocabulary=16)).path_of(data),
        cache(tmp_path, teacher=teacher(compute="bf16")).path_of(data),
    ]
    assert len(set(names)) == len(names)
    # What does not: the denominator of the step, and whoever wrote the text.
    assert cache(tmp_path).path_of(replace(data, n_tokens=1, is_on_policy=True)) == names[0]


def test_a_second_run_finds_the_shards_and_goes_on_behind_the_last(tmp_path: Path) -> None:
    store, data = cache(tmp_path), [batch((1, 2, last, EOS)) for last in range(3, 7)]
    for item in data[:2]:
        store.write(item)
    again = cache(tmp_path, teacher=Teacher(lambda: pytest.fail("asked again"), "abc", VOCABULARY, "fp32", "w1"))
    assert list(again.missing(data)) == data[2:]
    assert again.read(data[0]).top_ids is not None


def test_a_killed_writer_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between writing and moving: nothing stands at the shard's place, and the next writer is not disturbed."""

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    store, data = cache(tmp_path), batch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans up nothing
        with pytest.raises(Killed):
            store.write(data)
    (left,) = (tmp_path / "cache").iterdir()
    assert left.name.endswith(".tmp") and list(store.missing([data])) == [data]
    with pytest.raises(InvalidInput, match="there is no such shard"):
        store.read(data)
    store.write(data)
    assert list(store.missing([data])) == []


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_shard_cut_short_is_missing(tmp_path: Path, kept: int) -> None:
    store, data = cache(tmp_path), batch()
    store.write(data)
    path = store.path_of(data)
    whole = tensors(store, data)
    path.write_bytes(path.read_bytes()[:kept])
    assert list(store.missing([data])) == [data]
    store.write(data)
    assert tensors(store, data) == whole


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    store, data = cache(tmp_path), batch()
    store.write(data)
    path = store.path_of(data)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidInput, match="the shard is damaged; remove it"):
        store.read(data)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "write_tensors", full)
    with pytest.raises(InvalidInput, match=r"cannot be written: the disk is full"):
        cache(tmp_path).write(batch())


@pytest.mark.parametrize(
    ("top_k", "t", "line"),
    [
        (0, 1.0, "data.top_k=0 is not allowed"),
        (18, 1.0, "data.top_k=18 is not allowed: there are 17 tokens"),
        (4, 0.0, "data.distill_temperature=0.0 is not allowed"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, top_k: int, t: float, line: str) -> None:
    with pytest.raises(InvalidInput, match=line):
        cache(tmp_path, top_k, t)
