"""TRL's `SFTTrainer` on the same texts and the same weights: the same tokens are learned, and the loss is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.rollout.chat_rows import chat_rows, collate_chat
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.sft import SFTModule
from r1_lightning.text.chat_template import R1
from r1_lightning.text.tokenizer import TextTokenizer
from tests.support.hf_folders import dense_folder

PAIRS = [
    ("What is 12+30?", "<think>12+30=42</think>It is \\boxed{42}."),
    ("3?", "<think>a</think>3"),
    ("从1开始，加2", "<think>1+2=3</think>3 是答案。"),
]


@pytest.mark.filterwarnings("ignore")
def test_labels_and_loss(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    folder = dense_folder(tmp_path / "model", "qwen2")
    rows = [{"prompt": R1.render(question), "completion": R1.respond(text)} for question, text in PAIRS]
    settings = SFTConfig(
        output_dir=str(tmp_path / "trl"),
        per_device_train_batch_size=len(PAIRS),
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_length=None,
        gradient_checkpointing=False,
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = SFTTrainer(
        model, settings, train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(folder)
    )
    theirs = next(iter(trainer.get_train_dataloader()))

    tokenizer = TextTokenizer.load(folder)
    ours = collate_chat([chat_rows(PAIRS, tokenizer, R1)], 0, 64, tokenizer.pad_id)
    documents = sorted(
        (ours.tokens.token_ids[line][here].tolist(), ours.completion_mask[line][here].tolist())
        for line, ids in enumerate(ours.tokens.document_ids)
        for here in (ids == number for number in range(1, int(ids.max()) + 1))
    )
    expected = sorted(
        (ids[mask.bool()].tolist(), (labels[mask.bool()] != -100).tolist())
        for ids, mask, labels in zip(
            theirs["input_ids"],
            theirs.get("attention_mask", theirs["input_ids"] * 0 + 1),
            theirs["labels"],
            strict=True,
        )
    )
    assert documents == expected

    backbone = HFBackbone(HFModelConfig(model.config.to_dict()))
    backbone.model.load_state_dict(model.state_dict())
    module = SFTModule(backbone, AdamWConfig(lr=1e-3), max_steps=1)
    with torch.no_grad():
        their_loss = float(model(**theirs).loss)
        our_loss = float(module._loss(backbone.hidden(ours.tokens).hidden, ours, 1))
    assert our_loss == pytest.approx(their_loss, rel=1e-5)
    assert 1.0 < their_loss < 20.0
