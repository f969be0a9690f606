"""A model is opened in one way, whoever asks: an artefact as it was trained, a checkpoint as its `config.json` says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from r1_lightning.artefacts.store import CONFIG, TOKENIZER, Artefact
from r1_lightning.artefacts.weights import save_weights
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_model import HFBackbone
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.reward_head import RewardModel
from r1_lightning.run.build.stored import is_reward_model, open_folder, open_language_model, open_model
from r1_lightning.text.chat_template import INSTRUCTIONS, PLAIN, R1
from r1_lightning.types.errors import InvalidInput
from tests.model.tiny import backbone, tiny
from tests.support.hf_folders import VOCABULARY, dense_folder, write_tokenizer

SHAPE = tiny(vocab_size=VOCABULARY)  # more rows than the tokenizer has tokens, as published models have


def artefact(folder: Path, model: torch.nn.Module, template: str = "r1", target: str = "") -> Artefact:
    """As little of an artefact as its model needs."""
    made = Artefact(folder, "grpo", "f", complete=True)
    write_tokenizer(made.folder / TOKENIZER)
    numbers = {key: value for key, value in dataclasses.asdict(SHAPE).items() if key != "vocab_size"}
    node = {"_target_": target or f"{ModelConfig.__module__}.ModelConfig", **numbers}
    text = yaml.safe_dump({"model": node, "task": {"template": template}, "data": {"part": "whole"}})
    (folder / CONFIG).write_text(text)
    save_weights(model, made.weights_path)
    return made


def test_an_artefact_is_opened_as_it_was_trained(tmp_path: Path) -> None:
    original = backbone(SHAPE)
    made = artefact(tmp_path / "grpo", original)
    precision = PlainPrecision("bf16")
    opened = open_model(made, precision)
    assert opened.shape == SHAPE and opened.tokenizer.vocab_size < VOCABULARY
    assert opened.template(PLAIN) is R1 and opened.setting("data.part") == "whole" and opened.setting("data.x") is None
    network = opened.backbone()
    assert network.precision is precision
    assert all(torch.equal(tensor, original.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_a_checkpoint_has_no_template_of_ours(tmp_path: Path) -> None:
    opened = open_model(open_folder(dense_folder(tmp_path / "qwen", "qwen2")), PlainPrecision())
    assert opened.config is None and opened.setting("task.template") is None
    assert opened.template(PLAIN) is PLAIN and opened.template(R1) is R1
    assert opened.template(R1, "boxed").instruction == INSTRUCTIONS["boxed"], "the asking configuration's"
    assert isinstance(opened.backbone(), HFBackbone) and opened.shape.max_positions == 256


def test_a_reward_model_is_no_language_model(tmp_path: Path) -> None:
    model = RewardModel(backbone(SHAPE))
    made = artefact(tmp_path / "reward_model", model)
    assert is_reward_model(made) and not is_reward_model(artefact(tmp_path / "grpo", backbone(SHAPE)))
    with pytest.raises(
        InvalidInput, match=r"stage\.inputs\.judge='.*' is not allowed: it holds a reward model, which writes no"
    ):
        open_language_model(made, PlainPrecision(), "judge", "writes nothing")
    opened = open_model(made, PlainPrecision())
    assert opened.shape == SHAPE, "the vocabulary is that of the embedding in it"
    assert all(
        torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.reward_model().state_dict().items()
    )


def test_what_an_artefact_s_configuration_says_is_not_trusted(tmp_path: Path) -> None:
    other = artefact(tmp_path / "other", backbone(SHAPE), target="os.system")
    with pytest.raises(InvalidInput, match="it is no class of r1_lightning"):
        open_model(other, PlainPrecision())
    with pytest.raises(InvalidInput, match=r"task\.template='r2' is not allowed"):
        open_model(artefact(tmp_path / "r2", backbone(SHAPE), template="r2"), PlainPrecision()).template(PLAIN)
    fields = '{"model_type": "qwen2", "vocab_size": 512, "rope_scaling": "${oc.env:HOME}"}'
    folder = dense_folder(tmp_path / "qwen", "qwen2")
    (folder / "config.json").write_text(fields)
    with pytest.raises(InvalidInput, match=r"^stage\.inputs\.x: .*config\.json: the value .* is not allowed"):
        open_model(open_folder(folder), PlainPrecision(), "stage.inputs.x")
