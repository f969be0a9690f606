"""Held-out text of pre-training: its loss by loops, the floor of counting, and where both are shown."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from r1_lightning.rollout.packing import PackedRows
from r1_lightning.run.stages.held_out_text import (
    HeldOutText,
    documents_of,
    held_out_text,
    measured_text,
    seen_share,
    text_loss,
    text_of,
)
from r1_lightning.types.processes import Processes
from tests.run.test_endings import Captured, pretrain
from tests.stages.test_pretrain import loss_by_loops
from tests.support.commands import folder
from tests.support.miniature import Miniature
from tests.support.processes import in_processes


def rows(*documents: list[int], row_tokens: int = 6) -> PackedRows:
    return PackedRows(documents, row_tokens, 0)


def test_documents_without_padding_by_hand() -> None:
    text = text_of(rows([1, 2, 3], [4, 5], [6, 7, 8, 9]))
    assert text.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert np.flatnonzero(text.is_first).tolist() == [0, 3, 5]
    assert text_of(rows([1, 2, 3], [4, 5], [6, 7, 8, 9]), 1).tokens.tolist() == [1, 2, 3, 4, 5]


def test_the_share_of_documents_that_were_seen_by_hand() -> None:
    """Of 1 2 3, 4 5 and 2 3 the first two are in training; 2 3 is only a part of a document there."""
    trained, held_out = rows([4, 5], [1, 2, 3]), rows([1, 2, 3], [4, 5], [2, 3])
    assert seen_share(documents_of(held_out), documents_of(trained)) == pytest.approx(2 / 3, rel=1e-12)


def test_the_loss_is_that_of_all_targets_whatever_the_batches() -> None:
    module = Miniature().pretrain()
    held_out = rows([1, 2, 3, 4], [5, 6], [7, 8], [9, 3, 1], [2, 2])
    batches = [held_out.batch(slice(start, start + 1)) for start in range(len(held_out))]
    whole = held_out.batch(slice(None))
    module.train()
    assert text_loss(module, batches) == pytest.approx(loss_by_loops(module.backbone.eval(), whole, 1), rel=1e-5)
    assert text_loss(module, [whole]) == pytest.approx(text_loss(module, batches), rel=1e-6)


def test_the_mode_of_training_is_put_back() -> None:
    module = Miniature().pretrain().train()
    module.backbone.head.eval()
    text_loss(module, [rows([1, 2, 3]).batch(slice(None))])
    assert module.training and not module.backbone.head.training


def test_the_measures_by_hand() -> None:
    """Trained on 1 2 3 and 1 2, V = 10: P(2) = 3/13, P(3) = 2/13; held out is 1 2, after 1 both times 2.

    n = 1: log2 13/3 bits. Back-off, n = 2: (2 + 3/13) / 3 = 29/39; above it the context (mark, 1) was seen as often with as few
    tokens: P_3 = (2 + 29/39) / 3 = 107/117, P_4 = (2 + 107/117) / 3, P_5 likewise. Laplace, n = 2: 3/12.
    """
    module, held_out = Miniature().pretrain(), rows([1, 2])
    found = HeldOutText(held_out, rows([1, 2, 3], [1, 2]), 10, [held_out.batch(slice(None))]).measures(module)
    p = [3 / 13]
    for _ in range(4):
        p.append((2 + p[-1]) / 3)
    expected = {f"eval/text/ngram_{n}_bits_per_token": -math.log2(p[n - 1]) for n in range(1, 6)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert found["eval/text/laplace_2_bits_per_token"] == pytest.approx(2.0, rel=1e-12)
    assert found["eval/text/documents_seen"] == 1.0 and found["eval/text/trained_tokens"] == 3.0
    with torch.no_grad():
        logits = module.backbone.unembed(module.backbone.hidden(held_out.batch(slice(None))).hidden)[0, 0].double()
    bits = float(logits.logsumexp(0) - logits[2]) / math.log(2)
    assert found["eval/text/bits_per_token"] == pytest.approx(bits, rel=1e-5)


@pytest.mark.parametrize(
    ("callbacks", "expected"),
    [(None, None), ({}, None), ({"evaluation": {"text_rows": 0}}, None), ({"evaluation": {"text_rows": 5}}, [4, 1])],
)
def test_rows_are_asked_for_by_the_callback(callbacks: Any, expected: Any) -> None:
    config = OmegaConf.create({"callbacks": callbacks})
    text = held_out_text(config, Miniature().text(24, 4), 20)
    assert expected == (text and [len(batch.token_ids) for batch in text.batches])
    assert held_out_text(config, Miniature().examples(), 20) is None


def test_the_table_has_a_line_per_measure() -> None:
    held_out = rows([1, 2], row_tokens=5)
    text = HeldOutText(held_out, rows([1, 2, 3], [1, 2]), 10, [held_out.batch(slice(None))])
    table, measures = measured_text(text, Miniature().pretrain())
    title, *lines = table.splitlines()
    assert title == "1 rows of 5 tokens of held-out text, and n-gram models of the training text"
    assert [line.split()[0] for line in lines] == list(measures)
    assert lines[2].split() == ["eval/text/ngram_2_bits_per_token", "0.4274"]  # log2(39/29)


def _share_of_the_loss(processes: Processes) -> float:
    module = Miniature().pretrain()
    module.processes = processes
    held_out = rows([1, 2, 3, 4], [5, 6], [7, 8], [9, 3, 1], [2, 2])
    return text_loss(module, [held_out.batch(slice(0, 1)), held_out.batch(slice(1, 3))])


@pytest.mark.slow  # two processes
def test_two_processes_find_the_loss_of_one() -> None:
    held_out = rows([1, 2, 3, 4], [5, 6], [7, 8], [9, 3, 1], [2, 2])
    alone = text_loss(Miniature().pretrain(), [held_out.batch(slice(None))])
    assert in_processes(2, _share_of_the_loss) == pytest.approx([alone] * 2, rel=1e-6)


@pytest.mark.slow  # two runs
def test_a_run_shows_them_and_keeps_its_weights(tmp_path: Path, capsys: Captured) -> None:
    shown = pretrain(tmp_path / "with", capsys)
    measures = json.loads((folder(tmp_path / "with", "pretrain") / "artefact.json").read_text())["metrics"]
    assert 0 < measures["eval/text/bits_per_token"] < 20 and measures["eval/text/ngram_1_bits_per_token"] > 2
    assert "eval/text/ngram_5_bits_per_token" in shown.out
    pretrain(tmp_path / "without", capsys, "callbacks.evaluation.text_rows=0")
    without = folder(tmp_path / "without", "pretrain")
    assert without.name == folder(tmp_path / "with", "pretrain").name  # the fingerprint is in it
    assert "eval/text/bits_per_token" not in json.loads((without / "artefact.json").read_text())["metrics"]
