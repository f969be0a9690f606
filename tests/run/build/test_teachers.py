"""Distillation from the command line: the graph, a teacher of another shape, the cache, resumed runs, and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from r1_lightning.artefacts.files import sha256_of
from r1_lightning.artefacts.store import open_artefact
from r1_lightning.artefacts.weights import stored_shapes
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.reward_head import HEAD
from r1_lightning.rollout.distill_rows import DistillRow, collate_distill
from r1_lightning.rollout.teacher_cache import TeacherCache
from r1_lightning.run.build.teachers import teacher_of, with_teacher
from r1_lightning.stages.distill import DistillModule
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, hf_twin, tiny
from tests.run.stages.test_train import Fault, metrics_rows
from tests.support.commands import SMALL_MODEL, folder, train, weights
from tests.support.hf_folders import VOCABULARY, write_tokenizer

Captured = pytest.CaptureFixture[str]
# The teacher is wider than the student, and pre-trained longer.
WIDE = [override.replace("d_model=16", "d_model=24") for override in SMALL_MODEL if override.startswith("model.")]
TEACHER = ["model=tiny", *WIDE, "stage.max_steps=6", "data.rows_per_batch=4", "optim.warmup_steps=1"]


def distill(root: Path, *more: str) -> list[str]:
    quoted = ",".join(f'"{value}"' for value in TEACHER)
    return [
        "stage=distill",
        *SMALL_MODEL,
        f"stage.inputs.teacher={{stage: pretrain, overrides: [{quoted}]}}",
        'stage.parent_overrides=["stage.max_steps=5","data.rows_per_batch=4","optim.warmup_steps=1"]',
        "stage.max_steps=5",
        "data.items_per_batch=6",
        "optim.lr=0.01",
        "optim.warmup_steps=1",
        "stage.evaluation={problems: 4, samples: 2, max_new_tokens: 12}",
        f"paths.root={root}",
        *more,
    ]


def students(root: Path) -> list[Path]:
    return sorted(root.glob("distill-*"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    assert train(distill(root)).code == 0
    return root


@pytest.fixture
def inputs(finished: Path, tmp_path: Path) -> Path:
    """A root with the finished base and teacher only."""
    root = tmp_path / "runs"
    root.mkdir()
    for path in finished.glob("pretrain-*"):
        shutil.copytree(path, root / path.name)
    return root


def teacher_folder(root: Path) -> Path:
    record = json.loads((students(root)[0] / "artefact.json").read_text())
    return (students(root)[0] / record["inputs"]["teacher"]["folder"]).resolve()


def test_the_graph_and_the_table(finished: Path) -> None:
    record = json.loads((folder(finished, "distill") / "artefact.json").read_text())
    assert {role: source["stage"] for role, source in record["inputs"].items()} == {
        "base": "pretrain",
        "teacher": "pretrain",
    }
    assert len(list(finished.glob("pretrain-*"))) == 2
    widths = [
        stored_shapes(finished / path / "weights.safetensors")["embedding.weight"][1]
        for path in (folder(finished, "distill"), teacher_folder(finished))
    ]
    assert widths == [16, 24], "the student's shape stays its own"
    head = (folder(finished, "distill") / "table.txt").read_text().splitlines()[1]
    assert head.split() == ["base", "distill", "teacher"]
    assert {"eval/arithmetic/pass_at_1", "eval_base/arithmetic/pass_at_1", "eval_teacher/arithmetic/pass_at_1"} <= set(
        record["metrics"]
    )
    rows = metrics_rows(finished, "distill")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert all(float(row["train/divergence"]) > 0 for row in rows)


def test_interrupted_and_resumed_the_bits_are_the_same(
    finished: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    Fault(monkeypatch, DistillModule, 3, KeyboardInterrupt())
    assert train(distill(inputs), capsys).code == 130
    assert train(distill(inputs), capsys).code == 0
    assert weights(inputs, "distill") == weights(finished, "distill")
    assert metrics_rows(inputs, "distill") == metrics_rows(finished, "distill")
    assert (folder(inputs, "distill") / "table.txt").read_text() == (
        folder(finished, "distill") / "table.txt"
    ).read_text()


def test_a_folder_is_the_same_teacher(finished: Path, capsys: Captured) -> None:
    again = train(distill(finished, f"+stage.inputs.teacher.folder={teacher_folder(finished)}"), capsys)
    assert again.code == 0 and again.out.startswith(f"distill: reusing {folder(finished, 'distill')} ")


def test_from_the_cache_and_on_policy(inputs: Path, capsys: Captured) -> None:
    """Three students of one cache: the second finds all shards, one in another precision none. Then a student that learns from
    what it writes itself."""
    cached = ["data=teacher_cache", "data.top_k=4", "data.items_per_batch=6", "stage.evaluation=null"]
    first = train(distill(inputs, *cached), capsys)
    assert first.code == 0, first.err
    assert "x 4 of 300" in first.out and "in 5 shards, of which 5" in first.out
    assert len(list((inputs / "teacher_cache").iterdir())) == 5
    second = train(distill(inputs, *cached, "optim.lr=0.005"), capsys)
    assert second.code == 0 and "in 5 shards, of which 0" in second.out
    same = f"+stage.inputs.teacher.folder={teacher_folder(inputs)}"
    half = train(distill(inputs, *cached, same, "precision=bf16", "stage.max_steps=1"), capsys)
    assert half.code == 0 and "in 1 shards, of which 1" in half.out, "the same teacher says something else in BF16"
    own = ["data=on_policy", "rollout=default", "rollout.max_new_tokens=12", "objective=js", "stage.evaluation=null"]
    done = train(distill(inputs, *own, "data.items_per_batch=3", "data.micro_batches=2"), capsys)
    assert done.code == 0, done.err
    newest = max(students(inputs), key=lambda path: path.stat().st_mtime)
    metrics = json.loads((newest / "artefact.json").read_text())["metrics"]
    assert metrics["train/on_policy"] == 1.0 and metrics["train/divergence"] > 0
    assert len(students(inputs)) == 4


def remade(teacher: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """`teacher` in place, as the same recipe might leave it elsewhere: another `norm.weight`, and the marker that goes with it."""
    path, marker = teacher / "weights.safetensors", teacher / "artefact.json"
    tensors = load_file(path)
    save_file({**tensors, "norm.weight": change(tensors["norm.weight"])}, path, metadata={"format": "pt"})
    record = json.loads(marker.read_text())
    record["weights"] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    marker.write_text(json.dumps(record))
    return teacher


def one_bit(weight: torch.Tensor) -> torch.Tensor:
    """The first number by one unit in its last place."""
    return torch.cat([torch.nextafter(weight[:1], torch.tensor([math.inf])), weight[1:]])


CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "doubled": lambda weight: 2 * weight,
    "one bit": one_bit,
    "negated": torch.neg,
    "reversed": lambda weight: weight.flip(0),
    "zero": torch.zeros_like,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_remade_teacher_has_shards_of_its_own(finished: Path, tmp_path: Path, change: str) -> None:
    """The same recipe, other numbers: other names in the cache. A copy elsewhere, and the same numbers again, have the same."""
    copies = [Path(shutil.copytree(teacher_folder(finished), tmp_path / name)) for name in ("first", "copy", "again")]
    remade(copies[2], lambda weight: weight.clone())
    other = remade(Path(shutil.copytree(copies[0], tmp_path / "other")), CHANGES[change])
    student = backbone(tiny(vocab_size=300))
    names = []
    for path in (*copies, other):
        artefact = open_artefact(path)
        tokenizer = TextTokenizer.load(artefact.tokenizer_folder)
        cache = TeacherCache(tmp_path / "cache", teacher_of(artefact, tokenizer, student), 4, 2.0)
        names.append(cache.path_of(collate_distill([DistillRow((4, 5, 6))], 8, 2, 2)))
    assert names[0] == names[1] == names[2] != names[3]


def test_a_student_of_a_remade_teacher_asks_it_anew(inputs: Path, capsys: Captured) -> None:
    cached = ["data=teacher_cache", "data.top_k=4", "data.items_per_batch=6", "stage.evaluation=null"]
    first = train(distill(inputs, *cached), capsys)
    assert first.code == 0 and "in 5 shards, of which 5" in first.out
    remade(teacher_folder(inputs), lambda weight: -weight)
    second = train(distill(inputs, *cached, "optim.lr=0.005"), capsys)
    assert second.code == 0 and "in 5 shards, of which 5" in second.out
    assert len(list((inputs / "teacher_cache").iterdir())) == 10


def test_traces_of_a_file(inputs: Path, tmp_path: Path, capsys: Captured) -> None:
    lines = [{"question": f"What is {n}+1", "completion": f" {n + 1}"} for n in range(20)]
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    named = f"data.traces.file={tmp_path}/traces.jsonl"
    done = train(distill(inputs, named, "stage.evaluation=null"), capsys)
    assert done.code == 0 and "traces: 20; left out: 0" in done.out
    path.write_text("\n".join(map(json.dumps, lines[1:])))  # its bytes count
    assert train(distill(inputs, named, "stage.evaluation=null"), capsys).code == 0
    assert len(students(inputs)) == 2
    path.write_text('{"question": "1"}')
    assert "traces.jsonl, line 1: the field 'completion' is missing" in train(distill(inputs, named), capsys).error
    path.unlink()
    assert "traces.jsonl is not readable" in train(distill(inputs, named), capsys).error


def test_another_tokenizer_is_refused_in_one_line(inputs: Path, tmp_path: Path, capsys: Captured) -> None:
    teacher = shutil.copytree(next(inputs.glob("pretrain-*")), tmp_path / "other")
    path = teacher / "tokenizer" / "tokenizer.json"
    spoiled = json.loads(path.read_text())
    vocabulary = spoiled["model"]["vocab"]
    tokens = {token_id: token for token, token_id in vocabulary.items()}
    vocabulary[tokens[4]], vocabulary[tokens[5]] = 5, 4
    path.write_text(json.dumps(spoiled))
    refused = train(distill(inputs, f"+stage.inputs.teacher.folder={teacher}"), capsys)
    assert f"stage.inputs.teacher='{teacher}': token 4={tokens[5]!r} is not allowed" in refused.error
    assert "teacher and student must share one tokenizer" in refused.error and not students(inputs)


def test_a_stage_without_a_teacher_is_refused_and_a_dry_run_counts_it(inputs: Path, capsys: Captured) -> None:
    refused = train(distill(inputs, "~stage.inputs.teacher"), capsys)
    assert refused.error.startswith("stage.inputs.teacher=None is not allowed: stage DistillModule needs it")
    counted = train(distill(inputs, "dry_run=true"), capsys)
    assert re.search(r"^  teacher +\S+ kB  frozen$", counted.out, re.MULTILINE) and not students(inputs), counted.err
    no_items = [override for override in distill(inputs) if not override.startswith("data.")]
    refused = train([*no_items, "data=text"], capsys)
    assert "DistillModule trains on DistillBatch" in refused.error
    refused = train(distill(inputs, "data=on_policy"), capsys)
    assert refused.error == "rollout=None is not allowed: data OnPolicyDataModule needs it"


def test_what_cannot_teach(finished: Path, tmp_path: Path) -> None:
    artefact = open_artefact(teacher_folder(finished))
    tokenizer, student = TextTokenizer.load(artefact.tokenizer_folder), backbone(tiny(vocab_size=300))
    teacher = teacher_of(artefact, tokenizer, student, 512)
    assert not teacher.is_loaded and teacher.fingerprint == artefact.fingerprint and teacher.vocabulary == 300
    assert teacher.model.config.d_model == 24
    assert teacher.compute == "fp32" == student.precision.compute
    student.precision = PlainPrecision("bf16")
    assert teacher_of(artefact, tokenizer, student).compute == "bf16", "it runs in the student's precision"
    with pytest.raises(InvalidInput, match=r"data.row_tokens=513 is not allowed: the teacher reads at most 512 tokens"):
        teacher_of(artefact, tokenizer, student, 513)
    copied = Path(shutil.copytree(artefact.folder, tmp_path / "scored"))
    tensors = load_file(copied / "weights.safetensors")
    save_file({**tensors, HEAD: tensors["norm.weight"].clone()}, copied / "weights.safetensors")
    with pytest.raises(InvalidInput, match="it holds a reward model, which predicts no tokens"):
        teacher_of(open_artefact(copied), tokenizer, student)


@pytest.mark.parametrize(("told", "is_own"), [("{teacher: cpu}", True), ("{reference: cpu}", False), ("null", False)])
def test_the_settings_say_whether_a_teacher_has_a_device_of_its_own(finished: Path, told: str, is_own: bool) -> None:
    """Not the device itself, which is here that of the student: processes must not differ in whether they divide a teacher."""
    artefact = open_artefact(teacher_folder(finished))
    parts = {"tokenizer": TextTokenizer.load(artefact.tokenizer_folder), "backbone": backbone(tiny(vocab_size=300))}
    config = OmegaConf.create(f"{{data: {{}}, trainer: {{accelerator: cpu, role_devices: {told}}}}}")
    assert with_teacher(parts, {"teacher": artefact}, config)["teacher"].has_own_device is is_own


def test_a_stage_that_names_no_teacher_gets_none(finished: Path) -> None:
    artefact = open_artefact(teacher_folder(finished))
    assert with_teacher({"seed": 1}, {"base": artefact}, OmegaConf.create({})) == {"seed": 1}


def test_a_published_checkpoint_as_the_teacher_of_one(tmp_path: Path, capsys: Captured) -> None:
    """Two folders in HuggingFace's form with one tokenizer; the student's embedding has rows beyond it."""
    folders = {}
    for name, rows, width in (("teacher", VOCABULARY, 48), ("student", VOCABULARY + 8, 32)):
        folders[name] = tmp_path / name
        write_tokenizer(folders[name])
        hf_twin(backbone(tiny(vocab_size=rows, d_model=width, max_positions=256))).save_pretrained(folders[name])
    arguments = ["stage=distill", "debug=fast", "data.row_tokens=192", "data.items_per_batch=4", "logger=none"]
    arguments += [f"init_from={folders['student']}", f"+stage.inputs.teacher.folder={folders['teacher']}"]
    done = train([*arguments, f"paths.root={tmp_path / 'runs'}"], capsys)
    assert done.code == 0, done.err
    assert stored_shapes(folder(tmp_path / "runs", "distill") / "weights.safetensors")["embedding.weight"] == (
        VOCABULARY + 8,
        32,
    )
