"""The report on mixtures in RL: its table by hand, what the MTP module foresees, and runs that are not made twice."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.commands.recipe import append
from r1_lightning.run.commands.report_loop import write_report
from r1_lightning.run.commands.report_runs import planned_fingerprint
from tests.reports.recipes import recipe_module

recipe = recipe_module("moe_in_rl")
FIELDS, MTP_WEIGHTS, ROUTERS = recipe.FIELDS, recipe.MTP_WEIGHTS, recipe.ROUTERS
foresees, overrides, render = recipe.foresees, recipe.overrides, recipe.render


def row(seed: int, router: str, weight: float, value: float) -> dict[str, Any]:
    measure = "eval/arithmetic/pass_at_1"
    made = {"fingerprint": planned_fingerprint(*overrides(seed, router, weight)), "commit": "c"}
    return {"seed": seed, "router": router, "mtp_loss_weight": weight, "measure": measure, "value": value, **made}


def test_the_table_by_hand() -> None:
    rows = [{k: str(v) for k, v in row(s, "replay", 0.1, x).items()} for s, x in ((0, 0.9), (1, 0.8))]
    accuracy = render(rows).splitlines()[4]
    # Six settings, of which only the last was run: (0.9 + 0.8) / 2 = 0.85.
    assert accuracy == "| strict accuracy, held out | " + "not run | " * 5 + "0.8500 [0.8000, 0.9000] |"


def test_six_settings_are_six_different_models() -> None:
    found = {planned_fingerprint(*overrides(0, router, weight)) for router in ROUTERS for weight in MTP_WEIGHTS}
    assert len(found) == 6


def test_what_is_there_is_not_run_again_and_rows_of_another_recipe_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def train(arguments: list[str], root: Path) -> tuple[Artefact, float]:
        ran.append(arguments[2:])
        return Artefact(root, "grpo", planned_fingerprint(*arguments)), 1.0

    def write(seed: int) -> int:
        return write_report(recipe.RECIPE, tmp_path, list(recipe.RECIPE.runs(Namespace(seeds=[seed]))), tmp_path)

    monkeypatch.setattr(recipe, "train", train)
    monkeypatch.setattr(recipe, "measures_of", lambda artefact: {"eval/arithmetic/pass_at_1": 0.5})
    assert write(1) == 0 and write(1) == 0
    assert ran == [
        [f"stage.router={router}", f"stage.mtp_loss_weight={weight}"] for router in ROUTERS for weight in MTP_WEIGHTS
    ]
    append(tmp_path / "results.csv", FIELDS, [row(2, "frozen", 0.0, 0.5) | {"fingerprint": "0123456789"}])
    assert write(1) == 0 and capsys.readouterr().out.count("note: ") == 1  # nothing is added to them
    assert write(3) == 2
    refused = "seed 2, router frozen, mtp_loss_weight 0.0 has fingerprint 0123456789 and would now have"
    assert refused in capsys.readouterr().err


class _Guesser:
    """A backbone whose first MTP module gives the logits it was told, whatever the text."""

    def __init__(self, guesses: list[int], n_tokens: int) -> None:
        self.mtp = [torch.nn.functional.one_hot(torch.tensor([guesses]), n_tokens).float()]

    def hidden(self, batch: Any) -> _Guesser:
        return self

    def unembed(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def test_what_an_mtp_module_foresees_by_hand() -> None:
    # Prompt 5 6 7, completion 1 2 3. The module sits at position t and guesses the token at t + 2:
    # positions 1, 2, 3 guess the completion (1, then 9 instead of 2, then 3); 0 guesses the prompt; 4 and 5 look past the end.
    guesser: Any = _Guesser([7, 1, 9, 3, 0, 0], n_tokens=10)
    assert foresees(guesser, 3, [5, 6, 7, 1, 2, 3]).tolist() == [True, False, True]
