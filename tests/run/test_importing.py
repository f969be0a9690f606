"""Stages that start from a checkpoint in HuggingFace's form, and what is refused before anything runs."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1_lightning.artefacts.store import CONFIG
from r1_lightning.run import export
from tests.model.tiny import backbone, hf_twin, tiny
from tests.support.commands import folder, train
from tests.support.hf_folders import VOCABULARY, dense_folder, write_tokenizer

Captured = pytest.CaptureFixture[str]
SMALL = (
    "debug=fast",
    "rollout.row_tokens=160",
    "rollout.max_new_tokens=12",
    "+callbacks.self_check.prompts=2",
    "logger=none",
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Read only."""
    root = tmp_path_factory.mktemp("checkpoints")
    made = {kind: dense_folder(root / kind, kind) for kind in ("qwen2", "llama")}
    made["deepseek_v3"] = root / "deepseek_v3"
    write_tokenizer(made["deepseek_v3"])
    twin = hf_twin(backbone(tiny(vocab_size=VOCABULARY, max_positions=256)))
    twin.save_pretrained(made["deepseek_v3"], max_shard_size="40KB")
    return made


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("grpo", "qwen2"),
        *(
            pytest.param(stage, kind, marks=pytest.mark.slow)
            for stage, kind in itertools.product(("pretrain", "grpo"), ("qwen2", "llama", "deepseek_v3"))
            if (stage, kind) != ("grpo", "qwen2")
        ),
    ],
)
def test_every_stage_starts_from_a_checkpoint_and_is_exported(
    checkpoints: dict[str, Path],
    kind: str,
    stage: str,
    tmp_path: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = [] if kind == "deepseek_v3" else ["model=hf"]
    done = train([f"stage={stage}", *model, f"init_from={checkpoints[kind]}", *SMALL, f"paths.root={tmp_path}"], capsys)
    assert done.code == 0, done.err
    assert f"base: taking {checkpoints[kind]} (init_from, fingerprint" in done.out
    run = folder(tmp_path, stage)
    arguments = ["export_hf.py", f"artefact={run}", f"out={tmp_path / 'out'}", "max_file=40KB"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert export.main() == 0
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()) and again.config.model_type == kind
    before = AutoModelForCausalLM.from_pretrained(checkpoints[kind])
    ids = torch.arange(40)[None]
    with torch.no_grad():
        moved = (again(ids).logits - before(ids).logits).abs().max()
    assert moved > 0 or stage == "grpo"  # two steps without a reward teach nothing
    assert moved < 1.0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "1+1"}], tokenize=False).endswith(
        "1+1. Assistant:"
    )


@pytest.mark.slow
def test_an_artefact_of_a_dense_model_needs_its_folder_no_more(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: Captured
) -> None:
    source = Path(shutil.copytree(checkpoints["qwen2"], tmp_path / "source"))
    common = [*SMALL, f"paths.root={tmp_path}", "model=hf"]
    assert train(["stage=pretrain", f"init_from={source}", *common], capsys).code == 0
    shutil.rmtree(source)
    base = folder(tmp_path, "pretrain")
    done = train(["stage=grpo", f"init_from={base}", *common], capsys)
    assert done.code == 0, done.err
    stored = yaml.safe_load((folder(tmp_path, "grpo") / CONFIG).read_text())
    assert stored["model"]["hf_config"]["model_type"] == "qwen2"


def _with_field(path: Path, **changes: object) -> Path:
    fields = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(fields | changes))
    return path


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ([], {}, r"without model=hf: its model_type is 'qwen2', our backbone takes deepseek_v3 and deepseek_v2"),
        (["model=hf"], {"x": "${oc.env:HOME}"}, r"config\.json: the value '\$\{oc\.env:HOME\}' is not allowed"),
        (
            ["model=hf"],
            {"rope_parameters": {"_target_": "os.system"}},
            r"config\.json: the key '_target_' is not allowed",
        ),
        (["model=hf"], {"model_type": "t5"}, r"transformers makes no causal language model of it"),
        (["model=hf"], {"vocab_size": 300}, r"vocab_size=300 is not allowed: the tokenizer has 4\d\d tokens"),
        (
            ["model=hf"],
            {"hidden_size": 64},
            r"holds model\.embed_tokens\.weight as 432 x 32, this model needs 432 x 64",
        ),
    ],
)
def test_a_bad_checkpoint_is_one_line(
    checkpoints: dict[str, Path],
    arguments: list[str],
    changes: dict[str, object],
    message: str,
    tmp_path: Path,
    capsys: Captured,
) -> None:
    source = _with_field(Path(shutil.copytree(checkpoints["qwen2"], tmp_path / "source")), **changes)
    root = tmp_path / "runs"
    done = train(["stage=pretrain", f"init_from={source}", *SMALL, *arguments, f"paths.root={root}"], capsys)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1

    assert re.search(message, done.err), done.err
    assert not root.exists() or not list(root.iterdir())


def test_the_folder_decides_the_model(checkpoints: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    common = [*SMALL, f"paths.root={tmp_path}"]
    given = f"init_from={checkpoints['deepseek_v3']}"
    done = train(["stage=pretrain", given, "model.d_model=64", *common], capsys)
    assert done.code == 2 and "model.d_model=64 is not allowed beside init_from=" in done.err
    done = train(["stage=pretrain", "model=hf", *common], capsys)
    assert done.code == 2 and "model=hf is not allowed without init_from=FOLDER" in done.err
