"""Lineage: the commit's three forms, the versions, and the printed tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import r1_lightning
from r1_lightning.artefacts import lineage, store
from r1_lightning.artefacts.store import Artefact


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_commit_clean_dirty_and_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lineage.commit(tmp_path) == "unknown"
    _git(tmp_path, "init")
    inner = tmp_path / "package"
    inner.mkdir()
    (inner / "a.py").write_text("1")
    assert lineage.commit(inner) == "unknown"  # below a checkout, but not part of it
    _git(tmp_path, "add", "package")
    _git(tmp_path, "commit", "-m", "x")
    clean = lineage.commit(inner)
    assert len(clean) == 40 and int(clean, 16) > 0
    (inner / "b.py").write_text("new files, such as runs/, do not count")
    assert lineage.commit(inner) == clean
    (inner / "a.py").write_text("2")
    assert lineage.commit(inner) == clean + "-dirty"
    monkeypatch.setenv("PATH", "")
    assert lineage.commit(inner) == "unknown"


def test_an_installed_package_names_its_release(tmp_path: Path) -> None:
    """As pip lays it out: the package's folders, and beside the package its record."""
    folder = tmp_path / "site-packages" / "r1_lightning" / "artefacts"
    folder.mkdir(parents=True)
    assert lineage.commit(folder) == "unknown"
    record = tmp_path / "site-packages" / "r1_lightning-0.1.0.dist-info"
    record.mkdir()
    assert lineage.commit(folder) == "unknown"
    (record / "RECORD").touch()
    assert lineage.commit(folder) == f"v{r1_lightning.__version__}"


def test_a_copy_for_a_batch_job_says_what_it_was_copied_from(tmp_path: Path) -> None:
    folder = tmp_path / "r1_lightning" / "artefacts"
    folder.mkdir(parents=True)
    (tmp_path / "commit.txt").write_text("c0ffee-dirty\n")
    assert lineage.commit(folder) == "c0ffee-dirty"


def test_environment_names_versions() -> None:
    found = lineage.environment()
    assert found["python"].startswith("3.") and found["torch"].startswith("2.")
    assert set(lineage.PACKAGES) <= set(found)


def _make(root: Path, stage: str, digit: str, config: str | None = None, **inputs: Artefact) -> Artefact:
    artefact = store.create(root, stage, "tiny", "sums", digit * 64)
    if config is not None:
        store.write_text(artefact.folder / store.CONFIG, config)
    artefact.weights_path.write_bytes(b"x")
    return store.complete(artefact, "c" * 40 + "-dirty", {}, inputs, {})


def test_render_draws_the_tree(tmp_path: Path) -> None:
    """The seed is that of the artefact's own configuration, at its top; without one the line says nothing of it."""
    base = _make(tmp_path, "pretrain", "a", "data:\n  seed: 7\nseed: 3\n")
    cold = _make(tmp_path, "sft", "b", "seed: 12\ntask:\n  seed: 8\n", base=base)
    final = _make(tmp_path, "grpo", "d", base=cold, data=base)
    lines = lineage.render(final).splitlines()
    assert [line.split("  commit")[0] for line in lines] == [
        "grpo  dddddddddd",
        "├─ base: sft  bbbbbbbbbb  seed 12",
        "│  └─ base: pretrain  aaaaaaaaaa  seed 3",
        "└─ data: pretrain  aaaaaaaaaa  seed 3",
    ]
    assert "commit cccccccccccc-dirty" in lines[0] and str(final.folder) in lines[0]


def test_what_was_used_twice_is_shown_once_whole(tmp_path: Path) -> None:
    """A base without inputs is one line either way, and keeps its commit."""
    base = _make(tmp_path, "pretrain", "a")
    cold = _make(tmp_path, "sft", "b", base=base)
    table = _make(tmp_path, "compare", "d", dev1=cold, r1=_make(tmp_path, "grpo", "e", base=cold))
    lines = lineage.render(table).splitlines()
    assert [line.split("  commit")[0] for line in lines] == [
        "compare  dddddddddd",
        "├─ dev1: sft  bbbbbbbbbb",
        "│  └─ base: pretrain  aaaaaaaaaa",
        "└─ r1: grpo  eeeeeeeeee",
        "   └─ base: sft  bbbbbbbbbb  (as above)",
    ]


def test_render_survives_a_deleted_input_and_a_moved_root(tmp_path: Path) -> None:
    base = _make(tmp_path / "old", "pretrain", "a")
    _make(tmp_path / "old", "grpo", "d", base=base)
    (tmp_path / "old").rename(tmp_path / "new")
    final = store.open_artefact(tmp_path / "new" / "grpo-tiny-sums-dddddddddd")
    assert "pretrain  aaaaaaaaaa  commit" in lineage.render(final)
    (tmp_path / "new" / base.folder.name / store.MARKER).unlink()
    assert "pretrain  aaaaaaaaaa  no longer at" in lineage.render(final)
