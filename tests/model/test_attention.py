"""The table of kinds: which layer has which, that every kind fits the interface, and that nobody else asks for a kind by name."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from r1_lightning.model.attention import KINDS, AttentionKind, kinds_by_name, layer_kinds, mtp_kind
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import NAMED_ATTENTION, AttentionSettings, ModelConfig
from r1_lightning.model.hf_config import check_expressible
from r1_lightning.model.lightning_attention import LightningKind
from r1_lightning.model.mla import MLAKind
from r1_lightning.types.errors import InvalidInput
from tests.architecture.house import name, python_files
from tests.model.tiny import TINY, backbone, left_pad, pack, random_documents, tiny

HYBRID = tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=2)
WITHOUT_MLA = {"q_lora_rank": 0, "kv_lora_rank": 0, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0}
# The files that may know a kind by its name: the kinds, their table, and the shape that reads the word from a configuration.
KNOW_NAMES = {f"r1_lightning/model/{file}.py" for file in ("attention", "config", "lightning_attention", "mla")} | {
    "r1_lightning/rollout/native_sampler.py"  # its compiled step is MLA's, and leaves every other kind to the model
}


def asks_by_name(source: str) -> list[int]:
    """Lines that compare with or look up the word of a kind, or import the classes of one."""
    found = []
    for node in ast.walk(ast.parse(source)):
        words = [*node.comparators, node.left] if isinstance(node, ast.Compare) else []
        words += [node.slice] if isinstance(node, ast.Subscript) else []
        is_word = any(isinstance(word, ast.Constant) and word.value in KINDS for word in words)
        imported = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
        if is_word or imported & {"MLA", "MLAKind", "LightningAttention", "LightningKind"}:
            found.append(node.lineno)
    return sorted(found)


@dataclass(frozen=True)
class Own(MLAKind):
    """A kind from outside the package: MLA of a given shape, as settings of its own."""

    name: ClassVar[str] = "own"
    hf_refusal: ClassVar[str | None] = "it is a test"
    widest: int = 64

    def check(self, config: ModelConfig) -> None:
        if config.d_model > self.widest:
            raise InvalidInput(f"model.d_model={config.d_model} is not allowed: it must be at most {self.widest}")

    def build(self, config: ModelConfig, precision: Any, layer: int | None) -> Any:
        return super().build(TINY, precision, layer)

    def rotary_width(self, config: ModelConfig) -> int:
        return super().rotary_width(TINY)


@dataclass(frozen=True)
class OwnRecurrent(LightningKind):
    name: ClassVar[str] = "own_recurrent"


def test_layers_and_mtp_modules_have_the_kinds_of_the_shape() -> None:
    mla, lightning = MLAKind(), LightningKind()
    assert layer_kinds(TINY) == (mla, mla) and mtp_kind(TINY) == mla
    assert layer_kinds(HYBRID) == (lightning, mla, lightning, mla) and mtp_kind(HYBRID) == mla
    assert list(kinds_by_name(HYBRID).items()) == [("lightning", lightning), ("mla", mla)]
    model = DeepSeekBackbone(HYBRID)
    assert [block.attention_kind for block in model.blocks] == ["lightning", "mla", "lightning", "mla"]
    assert model.mtp_modules[0].block.attention_kind == "mla"


def test_the_table_has_what_a_configuration_may_say() -> None:
    assert tuple(KINDS) == NAMED_ATTENTION
    assert all(kind.name == word and isinstance(kind, AttentionSettings) for word, kind in KINDS.items())


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_kind_has_the_whole_interface(kind: AttentionKind) -> None:
    members = {member for member in (*vars(AttentionKind), *vars(AttentionSettings)) if not member.startswith("_")}
    assert {"name", "check", "build", "decode_products"} <= members
    assert [member for member in members if not hasattr(kind, member)] == []


def test_a_kind_with_settings_of_its_own_needs_no_line_anywhere() -> None:
    """It is in every layer and in the MTP modules, and the fields of MLA are not given beside it."""
    config = tiny(**WITHOUT_MLA, attention_kind=Own())
    assert layer_kinds(config) == (Own(), Own()) and mtp_kind(config) == Own()
    model = backbone(config)
    model_of_names = backbone(TINY)
    prompts = random_documents([9, 4], 61, seed=1)
    with torch.no_grad():
        assert torch.equal(model.hidden(pack([prompts])).hidden, model_of_names.hidden(pack([prompts])).hidden)
    with pytest.raises(InvalidInput, match=r"model\.attention_kind='own' is not allowed: it is a test"):
        check_expressible(config)


def test_a_recurrent_kind_with_settings_leaves_mla_where_lightning_does() -> None:
    config = tiny(n_layers=4, attention_kind=OwnRecurrent(), softmax_attention_every=2)
    assert layer_kinds(config) == (OwnRecurrent(), MLAKind(), OwnRecurrent(), MLAKind())
    tokens, is_token = left_pad(random_documents([5, 3], 61, seed=0))
    model, twin = backbone(config), backbone(HYBRID)
    with torch.no_grad():
        found, expected = (m.step(tokens, is_token, m.new_cache(2, 5)).hidden for m in (model, twin))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_kind": Own()}, r"model\.q_lora_rank=12 is not allowed: no layer has MLA where .* is own"),
        (
            {**WITHOUT_MLA, "attention_kind": Own(), "v_head_dim": 4},
            r"model\.v_head_dim=4 is not allowed: no layer has MLA",
        ),
        ({**WITHOUT_MLA, "attention_kind": Own(), "q_lora_rank": None}, r"model\.q_lora_rank=None is not allowed"),
        ({**WITHOUT_MLA, "attention_kind": Own(widest=16)}, r"model\.d_model=32 is not allowed: it must be at most 16"),
        ({"kv_lora_rank": 0}, r"model\.kv_lora_rank=0 is not allowed"),
        (
            {"attention_kind": {"n_kv_heads": 2}},
            r"model\.attention_kind=\{'n_kv_heads': 2\} is not allowed: .* mla, lightning",
        ),
        ({"attention_kind": OwnRecurrent()}, r"model\.softmax_attention_every=8 .* at most 2"),
    ],
)
def test_fields_that_do_not_belong_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        tiny(**changes)


def test_a_kind_outside_of_the_trunk_says_what_it_lacks() -> None:
    with pytest.raises(TypeError, match="place in the trunk"):
        LightningKind().build(HYBRID, backbone().precision, None)


def test_nobody_else_asks_for_a_kind_by_its_name() -> None:
    """No file of the package but those of the kinds has the word of a kind as a value or imports its class."""
    found = []
    for path in python_files("r1_lightning"):
        if name(path) not in KNOW_NAMES:
            found += [f"{name(path)}:{line}" for line in asks_by_name(path.read_text(encoding="utf-8"))]
    assert found == []


def test_a_question_by_name_would_be_found() -> None:
    source = 'from r1_lightning.model.mla import MLA\nmasks["mla"]\nkind == "lightning"\nname = "lightning"\n'
    assert asks_by_name(source) == [1, 2, 3]
