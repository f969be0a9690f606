"""Engines for `model=hf` beside each other: a rehearsal with a tiny Qwen2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from benchmarks import hf_sampling
from benchmarks.hf_sampling import ENGINE, World, contests, main, write_model

Captured = pytest.CaptureFixture[str]


@pytest.mark.slow
def test_every_engine_makes_all_tokens(capsys: Captured) -> None:
    """The sides themselves check how many."""
    assert main(["--shape", "tiny", "--rows", "2", "--tokens", "4", "--pairs", "1"]) == 0
    out = capsys.readouterr().out
    assert "pair 1: ours" in out and "sampling with model=hf, 2 rows x 4 tokens behind 32" in out
    assert ("is not installed" in out) == (importlib.util.find_spec(ENGINE) is None)


def test_a_side_that_makes_fewer_tokens_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="new tokens=7 is not allowed"):
        World(tmp_path, 2, 4).timed(lambda: 7)()


def test_both_sides_have_the_same_weights_and_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model("tiny", tmp_path / "model")
    world = World(tmp_path / "model", 3, 2)
    made: list[torch.nn.Module] = []
    loaded = hf_sampling.AutoModelForCausalLM.from_pretrained

    def watched(*given: object, **named: object) -> torch.nn.Module:
        made.append(loaded(*given, **named))
        return made[-1]

    monkeypatch.setattr(hf_sampling.AutoModelForCausalLM, "from_pretrained", watched)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [contest.opponent for contest in contests(world)] == ["transformers"]
    states = [model.state_dict() for model in made]
    assert len(states) == 4  # ours and theirs, FP32 and BF16
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert world.prompts == world.prompts and len(world.prompts) == 3 and min(map(min, world.prompts)) >= 4


def test_a_shape_that_is_not_known_is_one_line(capsys: Captured) -> None:
    assert main(["--shape", "huge"]) == 2
    assert capsys.readouterr().err == "error: --shape='huge' is not allowed: it must be one of qwen2.5-0.5b, tiny\n"
