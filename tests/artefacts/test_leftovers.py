"""What an artefact sheds when it is complete, and what it keeps."""

from __future__ import annotations

from pathlib import Path

from r1_lightning.artefacts.leftovers import remove_leftovers


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"state")


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_checkpoints_go_and_their_folder_with_them(tmp_path: Path) -> None:
    kept = ("weights.safetensors", "artefact.json", "tensorboard/metrics.csv")
    ours = ("last.ckpt", "previous.ckpt", "damaged.ckpt", ".last.ckpt.7.tmp")
    cited = ("reference/step-0.safetensors", "reference/step-400.safetensors")
    make(tmp_path, *kept, *(f"checkpoints/{name}" for name in ours), *cited, "hpc_ckpt_1.ckpt", "hpc_ckpt_12.ckpt")
    remove_leftovers(tmp_path)
    assert left(tmp_path) == {*kept, "tensorboard"}


def test_what_somebody_else_put_there_stays(tmp_path: Path) -> None:
    theirs = ("checkpoints/epoch=0-step=3.ckpt", "my_hpc_ckpt_1.ckpt", "reference/mine.safetensors")
    make(tmp_path, "checkpoints/last.ckpt", *theirs)
    remove_leftovers(tmp_path)
    assert left(tmp_path) == {"checkpoints", "reference", *theirs}


def test_nothing_to_remove_is_no_error(tmp_path: Path) -> None:
    remove_leftovers(tmp_path)
    assert left(tmp_path) == set()


def test_weights_that_a_killed_process_was_writing_go(tmp_path: Path) -> None:
    kept = (
        "weights.safetensors",
        "reference/mine.safetensors",
        ".weights.safetensors",
        "tokenizer/.a.safetensors.7.tmp",
    )
    make(
        tmp_path,
        *kept,
        ".x.tmp",
        ".artefact.json.7.tmp",
        ".weights.safetensors.7.tmp",
        ".best.safetensors.8.tmp",
        "reference/.step-8.safetensors.7.tmp",
    )
    remove_leftovers(tmp_path)
    assert left(tmp_path) == {*kept, ".x.tmp", "reference", "tokenizer"}
