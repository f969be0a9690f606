"""Stages that start from a checkpoint in HuggingFace's form, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import r1_lightning as r1
from r1_lightning.artefacts.hf_folder import import_model
from r1_lightning.artefacts.hub import snapshot
from r1_lightning.artefacts.store import CONFIG, TURN, Artefact, open_artefact
from r1_lightning.model.hf_model import HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.run.build.hf_import import model_node_of, open_input, with_model_of
from r1_lightning.run.commands import export
from r1_lightning.run.commands.evaluate import evaluate, opened_for_measuring
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.config.stored import read_model
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, hf_twin, tiny
from tests.support.commands import folder, train
from tests.support.fake_hub import COMMIT, FakeHub, serving
from tests.support.hf_folders import VOCABULARY, dense_folder, write_tokenizer

Captured = pytest.CaptureFixture[str]
MODEL = f"{HFModelConfig.__module__}.HFModelConfig"
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
    text = "callbacks.evaluation.text_rows=2"
    assert train(["stage=pretrain", f"init_from={source}", *common, text], capsys).code == 0
    shutil.rmtree(source)
    base = folder(tmp_path, "pretrain")
    measured = open_artefact(base).metrics
    assert {"eval/text/bits_per_token", "eval/text/ngram_5_bits_per_token"} <= measured.keys()
    done = train(["stage=grpo", f"init_from={base}", *common], capsys)
    assert done.code == 0, done.err
    stored = yaml.safe_load((folder(tmp_path, "grpo") / CONFIG).read_text())
    assert stored["model"]["hf_config"]["model_type"] == "qwen2"


# A reward that differs within groups gives so small a model something to learn.
LORA = (
    "model=hf_lora",
    "model.lora.target_modules=[q_proj,v_proj]",
    "stage.reference_refresh_steps=0",
    "rollout.group_size=4",
    "optim.lr=0.01",
    "+reward.rewards.language={_target_: r1_lightning.rewards.language.LanguageConsistencyReward}",
    "+reward.weights.language=1.0",
)


@pytest.mark.slow
def test_a_policy_with_adapters_is_trained_measured_exported_and_trained_on(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [tmp_path / "first", tmp_path / "second"]
    measured = "stage.evaluation={problems: 4, samples: 2, max_new_tokens: 12}"
    done = train(
        ["stage=grpo", f"init_from={checkpoints['qwen2']}", *SMALL, *LORA, measured, f"paths.root={roots[0]}"], capsys
    )
    assert done.code == 0, done.err
    run = folder(roots[0], "grpo")
    assert not (run / "reference").exists()
    learned = load_file(run / "weights.safetensors")
    assert any(bool(tensor.any()) for name, tensor in learned.items() if ".lora_B." in name)
    _, measures = evaluate(run, {})
    stored = json.loads((run / "artefact.json").read_text())["metrics"]
    assert {f"eval/arithmetic/{name}": found.value for name, found in measures.items()}.items() <= stored.items()
    again = train(["stage=grpo", f"init_from={run}", *SMALL, *LORA, f"paths.root={roots[1]}"], capsys)
    assert again.code == 0, again.err
    assert "KL to the reference 0\n" in again.out  # to the policy that it starts from, not to the first base
    other = train(
        ["stage=grpo", f"init_from={run}", *SMALL, *LORA, "model.lora.rank=2", f"paths.root={roots[1]}"], capsys
    )
    assert re.search(r"model\.lora \(rank 2 on q_proj, v_proj\) is not allowed: .*rank 16, alpha 32", other.error)
    for source, out in ((folder(roots[1], "grpo"), "a"), (run, "b")):
        monkeypatch.setattr(sys, "argv", ["export_hf.py", f"artefact={source}", f"out={tmp_path / out}"])
        assert export.main() == 0
    ids = torch.arange(40)[None]
    policy, _ = r1.load(run)
    with torch.no_grad():
        expected = policy(ids)
        exported = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
        assert (exported(ids).logits - expected).abs().max() <= 1e-5
        assert (exported(ids).logits - AutoModelForCausalLM.from_pretrained(checkpoints["qwen2"])(ids).logits).any()


def test_adapters_of_an_input_are_not_left_out(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    stage = StageConfig("grpo", "train", OmegaConf.create({"model": {"_target_": MODEL, "hf_config": None}}), [], {})
    lora = {"_target_": f"{LoraSettings.__module__}.LoraSettings", "rank": 2, "alpha": 4}
    base = import_model(checkpoints["qwen2"])
    with_lora = stage.config.copy()
    with_lora.model.lora = lora
    made = with_model_of(dataclasses.replace(stage, config=with_lora), base).config
    assert made.model.lora == {**lora, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
    (tmp_path / CONFIG).write_text(OmegaConf.to_yaml(made))
    artefact = Artefact(tmp_path, "grpo", "", complete=True)
    with pytest.raises(InvalidInput, match=r"model\.lora \(null\) is not allowed: .* was made with rank 2, alpha 4"):
        with_model_of(stage, artefact)
    assert with_model_of(dataclasses.replace(stage, config=with_lora), artefact).config.model == made.model


def _with_field(path: Path, **changes: object) -> Path:
    fields = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(fields | changes))
    return path


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (
            ["model=tiny_lightning"],
            {},
            r"model=tiny_lightning is not allowed beside init_from=.*: its config\.json says what the model is",
        ),
        (["model=hf"], {"x": "${oc.env:HOME}"}, r"config\.json: the value '\$\{oc\.env:HOME\}' is not allowed"),
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
    assert not root.exists() or {path.name for path in root.iterdir()} <= {TURN}


def test_the_folder_decides_the_model(checkpoints: dict[str, Path], tmp_path: Path, capsys: Captured) -> None:
    common = [*SMALL, f"paths.root={tmp_path}"]
    given = f"init_from={checkpoints['deepseek_v3']}"
    done = train(["stage=pretrain", given, "model.d_model=64", *common], capsys)
    assert done.code == 2 and "model.d_model=64 is not allowed beside init_from=" in done.err
    done = train(["stage=pretrain", "model=hf", *common], capsys)
    assert done.code == 2 and "model=hf is not allowed without init_from=FOLDER" in done.err


@pytest.mark.parametrize(
    "value",
    [
        "{_target_: os.system, command: 'true'}",
        "'\\${oc.env:HOME}'",
        "'\\\\\\${oc.create:{_target_: os.system}}'",
        "'\\\\\\\\\\${oc.create:{_target_: os.system}}'",
    ],
)
def test_what_hydra_would_act_on_in_an_artefact_is_refused(value: str, tmp_path: Path) -> None:
    """A backslash is lost each time a configuration is resolved: what is harmless text now would act later."""
    node = "_target_: r1_lightning.model.hf_model.HFModelConfig"
    (tmp_path / CONFIG).write_text(f"model: {{{node}, hf_config: {{model_type: qwen2, x: {value}}}}}")
    with pytest.raises(InvalidInput, match=r"is not allowed"):
        read_model(tmp_path / CONFIG)
    with pytest.raises(InvalidInput, match=r"is not allowed"):
        with_model_of(_stage("model=hf"), Artefact(tmp_path, "grpo", "f"))


def _stage(*overrides: str) -> StageConfig:
    with composing():
        return compose_stage(["stage=grpo", *overrides])


@pytest.mark.slow
def test_a_deepseek_folders_artefact_is_the_input_of_the_next_stage(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: Captured
) -> None:
    common = [*SMALL, f"paths.root={tmp_path}"]
    assert train(["stage=pretrain", f"init_from={checkpoints['deepseek_v3']}", *common], capsys).code == 0
    base = folder(tmp_path, "pretrain")
    assert base.name.startswith("pretrain-deepseek_v3-")
    done = train(["stage=grpo", f"init_from={base}", *common], capsys)
    assert done.code == 0, done.err
    done = train(["stage=grpo", f"init_from={base}", "rollout.row_tokens=400", *common[2:]], capsys)
    assert (
        done.code == 2
        and "rollout.row_tokens=400 is not allowed: it must be at most model.max_positions=256" in done.err
    )


STORED_LORA = (
    "{_target_: r1_lightning.model.lora.LoraSettings, rank: 2, alpha: 4, dropout: 0.0, target_modules: [q_proj]}"
)


@pytest.mark.parametrize("lora", ["null", STORED_LORA])
def test_a_dense_artefact_says_itself_that_it_is_one(tmp_path: Path, lora: str) -> None:
    """`model=hf` need not be typed; typed, it gives the same, and adapters go on as they are."""
    node = "_target_: r1_lightning.model.hf_model.HFModelConfig, hf_config: {model_type: qwen2}"
    (tmp_path / CONFIG).write_text(f"model: {{{node}, lora: {lora}}}")
    base = Artefact(tmp_path, "grpo", "f")
    found = with_model_of(_stage(), base)
    assert found.choices["model"] == "hf" and found.config.model == yaml.safe_load(f"{{{node}, lora: {lora}}}")
    if lora == "null":
        assert found.config.model == with_model_of(_stage("model=hf"), base).config.model


@pytest.mark.parametrize("kind", ["qwen2", "llama", "deepseek_v3"])
def test_a_folder_says_itself_whose_it_is(checkpoints: dict[str, Path], kind: str) -> None:
    base = import_model(checkpoints[kind])
    found = with_model_of(_stage(), base)
    assert found.choices["model"] == ("deepseek_v3" if kind == "deepseek_v3" else "hf")
    if kind != "deepseek_v3":
        assert found.config.model == with_model_of(_stage("model=hf"), base).config.model
        assert found.config.model.hf_config.model_type == kind


def test_the_library_s_own_notes_are_no_obstacle(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(checkpoints["qwen2"], tmp_path / "source"))
    base = import_model(_with_field(source, _attn_implementation_autoset=True, transformers_version="4"))
    fields = with_model_of(_stage("model=hf"), base).config.model.hf_config
    assert "_attn_implementation_autoset" not in fields and fields.model_type == "qwen2"


def test_what_hydra_would_act_on_in_a_folder_is_dropped(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """`_target_` would be called, `_args_` given to it; the rest of the node stays as it is."""
    source = Path(shutil.copytree(checkpoints["qwen2"], tmp_path / "source"))
    called = {"_target_": "os.system", "_args_": ["touch evil"], "rope_type": "default", "rope_theta": 10000.0}
    base = import_model(_with_field(source, rope_parameters=called, x=[{"_target_": "os.system"}]))
    fields = with_model_of(_stage("model=hf"), base).config.model.hf_config
    assert fields.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0} and fields.x == [{}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_theta": "abc"}}, r"config\.json is not allowed"),
        ({"rope_parameters": [1]}, r"config\.json is not allowed"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers=1000000000 is not allowed: .* holds \d+ tensors in all"),
        ({"hidden_size": 2**50}, r"is not allowed"),
        ({"vocab_size": 2**70}, r"is not allowed"),
    ],
)
def test_absurd_numbers_are_one_line_and_take_no_memory(
    checkpoints: dict[str, Path], changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(checkpoints["deepseek_v3"], tmp_path / "source"))
    with pytest.raises(InvalidInput, match=message):
        r1.load(_with_field(source, **changes))


@pytest.fixture
def hub(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    snapshot.cache_clear()
    with serving(monkeypatch, tmp_path / "cache") as made:
        made.models = {f"a/{kind}": folder for kind, folder in checkpoints.items()}
        yield made
    snapshot.cache_clear()


def test_a_hub_name_is_a_folder_wherever_one_is_named(
    hub: FakeHub, checkpoints: dict[str, Path], tmp_path: Path, capsys: Captured
) -> None:
    """In a notebook, as a stage's base (planned, not run), as another input, and for evaluation."""
    ids = torch.arange(20)[None]
    for kind in ("qwen2", "deepseek_v3"):
        found, tokenizer = r1.load(f"hub:a/{kind}")
        expected, _ = r1.load(checkpoints[kind])
        with torch.no_grad():
            assert torch.equal(found(ids), expected(ids)) and tokenizer.vocab_size > 300
    done = train(
        ["stage=grpo", "init_from=hub:a/deepseek_v3@main", "dry_run=true", *SMALL, f"paths.root={tmp_path}"], capsys
    )
    assert done.code == 0 and f"models--a--deepseek_v3/snapshots/{COMMIT} (init_from)" in done.out, done.err
    assert "HTTP" not in done.out
    teacher = open_input("hub:a/llama", "stage.inputs.teacher.folder")
    assert model_node_of(teacher, "x")["hf_config"]["model_type"] == "llama"
    base, config = opened_for_measuring(Path("hub:a/llama@v1"), ["task=arithmetic"])
    assert base.folder.name == COMMIT and config.model.hf_config.model_type == "llama"


def test_a_wrong_hub_name_is_one_line(hub: FakeHub, tmp_path: Path, capsys: Captured) -> None:
    done = train(["stage=grpo", "init_from=hub:a/none", f"paths.root={tmp_path}"], capsys)
    assert done.code == 2 and len(done.err.strip().splitlines()) == 1
    assert "init_from: the model hub:a/none is not allowed: " in done.err and "has no such model" in done.err
    with pytest.raises(InvalidInput, match=r"stage\.inputs\.judge\.folder: the model='hub:x' is not allowed"):
        open_input("hub:x", "stage.inputs.judge.folder")
