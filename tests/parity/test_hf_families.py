"""Each family of published checkpoints, in small: the model of its folder is `transformers`' own, wherever we compute it.

Read, the logits are `transformers`'; packed rows and cached steps are each text alone; adapters change nothing until they learn;
and what is exported is the same model again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import r1_lightning as r1
from r1_lightning.artefacts.hf_folder import ImportedModel, open_hf_folder
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.agreement import row_agreement
from r1_lightning.run.build.models import make_backbone
from r1_lightning.text.chat_template import ChatTemplate
from tests.model.tiny import pack, random_documents
from tests.support.hf_families import FAMILIES, Family, family_folder, in_older_form
from tests.support.hf_folders import VOCABULARY, move_adapters
from tests.support.published_tokenizers import KINDS, tokenizer_of, write

IDS = torch.randint(4, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(0))
EXACT = 1e-5


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[str(request.param)]


@torch.no_grad()
def their_logits(folder: Path) -> Tensor:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    logits: Tensor = model.eval()(IDS).logits
    assert logits.std() > 0.05
    return logits


def difference(model: Any, expected: Tensor) -> float:
    with torch.no_grad():
        return float((model.eval()(IDS) - expected).abs().max())


def test_a_family_is_read_in_both_forms_packed_and_decoded(family: Family, tmp_path: Path) -> None:
    """Documents of 9, 14 and 3 tokens in one row, one of 26 in the other."""
    folder = family_folder(tmp_path, family)
    expected = their_logits(folder)
    model, _ = r1.load(folder)
    assert isinstance(model, HFBackbone) != family.is_ours
    assert difference(model, expected) <= EXACT
    rows = pack([random_documents(lengths, VOCABULARY, seed) for seed, lengths in enumerate([(9, 14, 3), (26,)])], 26)
    found = row_agreement(model, rows)
    assert 0.0 < found.packed < EXACT and found.cached < EXACT
    in_older_form(folder, family)
    assert (their_logits(folder) - expected).abs().max() <= EXACT
    assert difference(r1.load(folder)[0], expected) <= EXACT


@pytest.mark.slow
def test_a_family_is_adapted_exported_and_reloaded(family: Family, tmp_path: Path) -> None:
    """Exported, the model is what `transformers` and we read again; adapters are merged into its weights."""
    folder = family_folder(tmp_path / "published", family)
    expected = their_logits(folder)
    model, tokenizer = r1.load(folder)
    if not family.is_ours:
        source = open_hf_folder(folder)
        config = HFModelConfig(source.config, LoraSettings(2, 8, target_modules=family.targets))
        base = ImportedModel(folder, "huggingface", "", complete=True, source=source)
        model = make_backbone(config, PlainPrecision(), base)
        assert difference(model, expected) <= EXACT
        move_adapters(model)
        with torch.no_grad():
            learned = model.eval()(IDS)
        assert (learned - expected).abs().max() > 1e-2
        expected = learned
    out = r1.save(model, tokenizer, tmp_path / "exported")
    assert (their_logits(out) - expected).abs().max() <= EXACT
    assert difference(r1.load(out)[0], expected) <= EXACT
    fields = json.loads((out / "config.json").read_text())
    assert fields["model_type"] == family.kind and {"rope_theta", "rope_parameters"} <= fields.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_keeps_its_tokenizer_and_all_its_ends(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, a text has the ids of `transformers`; either end stops a sample; what is written again reads the same."""
    folder = family_folder(tmp_path / "published", Family("llama", {"vocab_size": 1024}))
    write(folder, tokenizer_of(kind), ends=[2, 5])
    model, tokenizer = r1.load(folder)
    out = r1.save(model, tokenizer, tmp_path / "exported")
    again = r1.load(out)[1]
    text = "what is 12+30? so we add them first"
    expected = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    for read in (tokenizer, again):
        assert read.eos_ids == (2, 5)
        assert read.encode_prompts(ChatTemplate("prompt", text, ""), [""])[0] == expected
    assert AutoTokenizer.from_pretrained(out)(text)["input_ids"] == expected
    assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 5]
    for token, is_end in ((2, True), (5, True), (400, False)):
        certain = torch.zeros(1024).index_fill(0, torch.tensor([token]), 100.0)
        monkeypatch.setattr(model, "unembed", lambda hidden, row=certain: row.expand(*hidden.shape[:-1], -1))
        assert (r1.generate(model, tokenizer, [text], max_new_tokens=3) == [[""]]) == is_end
