"""Published sizes: V3 671.03 B (37.55 B activated with the embedding, 36.63 B without), V2-Lite 15.71 B, Moonlight 15.96 B."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from r1_lightning.run.cost.model_sizes import DOCUMENT, PUBLISHED, activated_of, counts_of, document, main
from tests.architecture.house import ROOT


@pytest.mark.parametrize(("option", "billions"), [("v3_671b", 671.03), ("v2_lite", 15.71), ("moonlight_16b", 15.96)])
def test_totals_are_the_published_ones(option: str, billions: float) -> None:
    counts = counts_of(option)
    assert (counts.total - counts.mtp) / 1e9 == pytest.approx(billions, abs=0.005)


def test_v3_activates_what_it_should() -> None:
    counts = counts_of("v3_671b")
    assert [count / 1e9 for count in activated_of(counts)] == [
        pytest.approx(36.63, abs=0.005),
        pytest.approx(37.55, abs=0.005),
    ]
    assert counts.mtp / 1e9 == pytest.approx(11.61, abs=0.005)


def test_the_document_is_what_the_configurations_say() -> None:
    assert (ROOT / DOCUMENT).read_text(encoding="utf-8") == document()
    assert document().count("\n| `") == len(PUBLISHED)


def test_only_a_checkout_has_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["r1 models", "--write"])
    assert main() == 2 and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == (
        "error: --write is not allowed: there is no folder docs here to write docs/models.md into\n"
    )
