"""The store: completeness, siblings, which artefact is used, locks, and damage that is noticed."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path

import pytest
from torch import nn

from r1_lightning.artefacts import store
from r1_lightning.artefacts.store import Artefact
from r1_lightning.types.errors import InvalidInput

DIGEST = "0123456789abcdef" * 4


def _make(root: Path, digest: str = DIGEST, stage: str = "pretrain", **inputs: Artefact) -> Artefact:
    artefact = store.create(root, stage, "tiny", "sums", digest)
    store.save_weights(nn.Linear(2, 2), artefact.weights_path)
    return store.complete(artefact, "c0ffee", {"torch": "2"}, inputs, {"eval/pass_at_1": 0.5, "bad": float("nan")})


def test_a_complete_artefact_reads_back(tmp_path: Path) -> None:
    base = _make(tmp_path)
    made = _make(tmp_path, "f" * 64, "grpo", base=base)
    read = store.open_artefact(made.folder)
    assert read == made and read.complete and read.folder.name == "grpo-tiny-sums-ffffffffff"
    assert read.metrics == {"eval/pass_at_1": 0.5, "bad": None}
    assert read.inputs == {
        "base": {"stage": "pretrain", "fingerprint": DIGEST, "folder": "../pretrain-tiny-sums-0123456789"}
    }
    assert read.weights_bytes == read.weights_path.stat().st_size
    assert read.commit == "c0ffee" and read.created.endswith("+00:00")
    store.verify(read)


def test_find_prefers_the_newest_complete_then_the_newest_incomplete(tmp_path: Path) -> None:
    assert store.find(tmp_path / "absent", "pretrain", DIGEST) is None
    assert store.find(tmp_path, "pretrain", DIGEST) is None
    folders = [store.create(tmp_path, "pretrain", "tiny", "sums", DIGEST).folder for _ in range(11)]
    assert [folder.name.removeprefix("pretrain-tiny-sums-0123456789") for folder in folders[:3]] == ["", "-2", "-3"]
    found = store.find(tmp_path, "pretrain", DIGEST)
    assert found == Artefact(folders[-1], "pretrain", DIGEST)  # -11, not -9: numbers, not text
    for index in (1, 4):
        unfinished = Artefact(folders[index], "pretrain", DIGEST)
        store.save_weights(nn.Linear(2, 2), unfinished.weights_path)
        store.complete(unfinished, "c", {}, {}, {})
    found = store.find(tmp_path, "pretrain", DIGEST)
    assert found is not None and found.complete and found.folder == folders[4]
    assert store.find(tmp_path, "grpo", DIGEST) is None
    assert store.find(tmp_path, "pretrain", "f" * 64) is None


def test_a_chance_clash_of_the_short_digits_is_not_taken_for_the_same(tmp_path: Path) -> None:
    _make(tmp_path)
    other = DIGEST[:10] + "f" * 54
    assert store.find(tmp_path, "pretrain", other) is None
    assert store.create(tmp_path, "pretrain", "tiny", "sums", other).folder.name.endswith("-2")


def test_nothing_is_completed_twice_or_without_weights(tmp_path: Path) -> None:
    made = _make(tmp_path)
    before = (made.folder / store.MARKER).read_bytes()
    with pytest.raises(InvalidInput, match="never overwritten"):
        store.complete(made, "other", {}, {}, {})
    assert (made.folder / store.MARKER).read_bytes() == before
    with pytest.raises(InvalidInput, match=r"no weights\.safetensors"):
        store.complete(store.create(tmp_path, "pretrain", "tiny", "sums", "e" * 64), "c", {}, {}, {})


def test_missing_incomplete_unreadable_and_damaged_artefacts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such folder"):
        store.open_artefact(tmp_path / "absent")
    with pytest.raises(InvalidInput, match="incomplete"):
        store.open_artefact(store.create(tmp_path, "pretrain", "tiny", "sums", "e" * 64).folder)
    made = _make(tmp_path)
    whole = made.weights_path.read_bytes()
    made.weights_path.write_bytes(whole[:-1])
    with pytest.raises(InvalidInput, match=f"truncated, {len(whole) - 1} bytes where {len(whole)}"):
        store.verify(made)
    made.weights_path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InvalidInput, match="damaged"):
        store.verify(made)
    made.weights_path.unlink()
    with pytest.raises(InvalidInput, match="is missing"):
        store.verify(made)
    for text in ("{", "[]", json.dumps({"stage": "pretrain"})):
        (made.folder / store.MARKER).write_text(text)
        with pytest.raises(InvalidInput, match="cannot be read"):
            store.open_artefact(made.folder)


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen2.5-0.5B",
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "meta-llama/Llama-3.2-1B",
        "hf-internal-testing/tiny_random",
    ],
)
@pytest.mark.parametrize("address", ["", "https:/huggingface.co/", "hf:/"])
def test_a_name_of_the_hub_says_how_to_get_it(
    name: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = (
        f"there is no such folder; a checkpoint of the hub is downloaded first: hf download {name} --local-dir FOLDER"
    )
    with pytest.raises(InvalidInput, match=re.escape(wanted)) as error:
        store.open_artefact(Path(f"{address}{name}"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("folder", ["runs/grpo-1", "grpo-1", "/none/of/these", "a/b/c", "../x/y"])
def test_another_missing_folder_is_just_missing(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(InvalidInput, match=r"there is no such folder$"):
        store.open_artefact(Path(folder))


def _hold(folder: Path, held: multiprocessing.synchronize.Event) -> None:
    with store.locked(folder):
        held.set()
        held.wait(60)
        multiprocessing.Event().wait(60)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held))
    holder.start()
    try:
        assert held.wait(60)
        with pytest.raises(InvalidInput, match=f"pid {holder.pid}"), store.locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.join()
    with store.locked(tmp_path):
        pass


def test_a_root_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(InvalidInput, match="cannot be written"):
            store.create(root, "pretrain", "tiny", "sums", DIGEST)


def test_a_root_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _make(tmp_path)

    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    for method in ("iterdir", "is_dir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, denied)
            with pytest.raises(InvalidInput, match="cannot be read"):
                store.find(tmp_path, "pretrain", DIGEST)
            with pytest.raises(InvalidInput, match="cannot be read"):
                store.create(tmp_path, "pretrain", "tiny", "sums", DIGEST)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", denied)
        for call in (lambda: store.verify(made), lambda: store.open_artefact(made.folder)):
            with pytest.raises(InvalidInput, match="cannot be read"):
                call()


def test_the_commits_that_worked_on_it_are_kept_in_order(tmp_path: Path) -> None:
    artefact = store.create(tmp_path, "pretrain", "tiny", "sums", DIGEST)
    for commit in ("aaa", "aaa", "bbb-dirty", "aaa"):
        store.record_commit(artefact.folder, commit)
    store.save_weights(nn.Linear(2, 2), artefact.weights_path)
    done = store.complete(artefact, "aaa", {}, {}, {})
    assert done.commit == "aaa" and done.commits == ("aaa", "bbb-dirty", "aaa")
    assert _make(tmp_path, "f" * 64).commits == ("c0ffee",)
