"""`dry_run=true` from the command line: a table for the stage, its missing inputs by name, and nothing made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from r1_lightning.rollout import vllm_engine
from r1_lightning.run.cost import dry_run as module
from r1_lightning.run.cost import probe
from r1_lightning.run.cost.probe import Speed
from tests.run.conftest import REAL_CONFIGS, Command
from tests.support.commands import folder, overrides, train
from tests.support.hf_folders import dense_folder

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "BUDGET_S", 0.0)


def rows(text: str) -> dict[str, str]:
    """Name -> value of the table's rows; the value ends where the note begins, after two spaces."""
    found = re.findall(r"^  (\S.*?) {2,}(\S+(?: \S+)?)(?:  .*)?$", text, re.MULTILINE)
    return dict(found)


def test_a_table_and_nothing_made(tmp_path: Path, capsys: Captured) -> None:
    result = train([*overrides(tmp_path), "dry_run=true"], capsys)
    assert result.code == 0, result.err
    assert list(tmp_path.iterdir()) == []
    first, *_ = result.out.splitlines()
    assert first.startswith("base: missing, would be built first (stage pretrain, 5 optimizer steps, about ")
    assert "grpo: 5 optimizer steps of model tiny on task arithmetic; nothing is run" in result.out
    assert "completions at their limit of 12 tokens" in result.out and "weights untrained" in result.out
    table = rows(result.out)
    assert {"total", "without embedding and head", "without MTP", "activated per token"} <= table.keys()
    assert {"weights", "gradients", "optimizer state", "reference", "latent cache, sampling"} <= table.keys()
    assert {"activations, update", "logits, update", "at one time"} <= table.keys()
    assert {"sampling", "reference", "update", "forward and backward", "optimizer", "evaluation, once"} <= table.keys()
    *_, time, verdict = result.out.splitlines()
    assert time.endswith("for the whole stage on this machine, checkpoints apart")
    assert re.fullmatch(r"this machine \(\d+ GiB\): fits; .* GiB and a quarter in reserve are .* GiB", verdict)


def test_it_is_no_part_of_the_fingerprint_and_sees_what_is_there(tmp_path: Path, capsys: Captured) -> None:
    assert train(overrides(tmp_path), capsys).code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = train([*overrides(tmp_path), "dry_run=true"], capsys)
    base, grpo = folder(tmp_path, "pretrain"), folder(tmp_path, "grpo")
    assert result.out.splitlines()[:2] == [f"base: reusing {base}", f"grpo: {grpo} is complete already"]
    assert "weights untrained" not in result.out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    anew = train([*overrides(tmp_path), "dry_run=true", "fresh=true"], capsys)
    assert anew.out.startswith(f"base: reusing {base}\ngrpo: 5 optimizer steps")
    given = train([*overrides(tmp_path), "dry_run=true", f"init_from={base}", "seed=1"], capsys)
    assert given.out.startswith(f"base: taking {base} (init_from)\n")


def test_a_model_that_does_not_fit_is_counted_and_not_probed(command: Command, tmp_path: Path) -> None:
    outcome = command("experiment=paper_r1_zero", "dry_run=true", configs=REAL_CONFIGS)
    assert outcome.code == 0, outcome.err
    assert outcome.recorder.stages == [] and list(tmp_path.iterdir()) == []
    assert re.search(r"^base: missing, .*stage pretrain.*time: not measured, with a reserve of 50% it", outcome.out)
    assert re.search(r"time: not measured, with a reserve of 50% it takes [\d.]+ TB, and this machine has", outcome.out)
    table = rows(outcome.out)
    # 671 B with V3's vocabulary of 129,280; here it is some 400. The MTP module has 11.6 B.
    assert table["total"].split()[0] == "681" and table["without MTP"].split()[0] == "669"
    assert table["sampling"].endswith("EFLOPs") and table["weights"] == "2.72 TB"


def test_a_gpu_that_is_not_there_is_said(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    outcome = command("stage=pretrain", "dry_run=true", "trainer=gpu", configs=REAL_CONFIGS)
    assert outcome.code == 0 and outcome.out.endswith("time: not measured, this machine has no GPU\n")  # and no verdict


def test_an_engine_that_is_not_installed_is_counted_and_not_probed(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "find_spec", lambda _: None)
    base = "stage.inputs={}"
    outcome = command("stage=grpo", "rollout=vllm", "dry_run=true", base, configs=REAL_CONFIGS)
    assert outcome.code == 0, outcome.err
    assert (
        "time: not measured, rollout=vllm is not allowed: vLLM is not installed here; docs/guide.md#sampling-with-vllm says how\n"
        in outcome.out
    )
    assert rows(outcome.out)["vLLM"] == "40%" and "latent cache" not in outcome.out


@pytest.mark.parametrize("arguments", [["model=hf"], ["model=hf_lora", "stage.reference_refresh_steps=0"]])
def test_a_model_of_transformers_is_counted_from_its_description_alone(
    command: Command, tmp_path: Path, arguments: list[str], capsys: Captured
) -> None:
    """Neither weights nor tokenizer are there: a folder with a config.json, or that file, says what the model is."""
    source = dense_folder(tmp_path / "source", "qwen2", max_position_embeddings=512)
    capsys.readouterr()  # the library's progress bars
    for path in [path for path in source.iterdir() if path.name != "config.json"]:
        path.unlink()
    short = ("rollout.row_tokens=160", "rollout.max_new_tokens=8")
    outcome = command("stage=grpo", f"init_from={source}", "dry_run=true", *short, *arguments, configs=REAL_CONFIGS)
    assert outcome.code == 0, outcome.err
    assert {"key-value cache, sampling", "reference's forward", "activations, update"} <= rows(outcome.out).keys()
    assert "time: not measured, only pre-training and GRPO of our own backbone are timed" in outcome.out
    file = command(
        "stage=grpo", f"init_from={source}/config.json", "dry_run=true", *short, *arguments, configs=REAL_CONFIGS
    )
    assert file.out == outcome.out
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_a_folder_decides_how_long_rows_may_be(command: Command, tmp_path: Path, capsys: Captured) -> None:
    """Rows longer than the default model's 512 positions, typed for a folder whose model has 2,048: no line about 512."""
    source = dense_folder(tmp_path / "source", "qwen2")
    fields = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**fields, "max_position_embeddings": 2048}))
    capsys.readouterr()  # the library's progress bars
    long = ("rollout.row_tokens=1024", "rollout.max_new_tokens=8")
    outcome = command("stage=grpo", f"init_from={source}", "dry_run=true", *long, configs=REAL_CONFIGS)
    assert outcome.code == 0 and "this machine (" in outcome.out, outcome.err


def test_a_machine_that_is_not_here_is_asked_about(command: Command, tmp_path: Path) -> None:
    """16 B in FP32 under AdamW: 4 x 4 bytes x 16 B are 238 GiB; shared out among 8 they fit into 139 GiB each."""
    arguments = ("stage=grpo", "model=moonlight_16b", "dry_run=true", "precision=bf16", "objective=dapo")
    base = "stage.inputs={}"
    one = command(*arguments, base, "dry_run_memory_gib=139", configs=REAL_CONFIGS)
    assert one.code == 0, one.err
    *_, last = one.out.splitlines()
    assert "one device of 139 GiB: does not fit; " in one.out and "this machine has no GPU" in one.out
    assert "such devices, weights sharded over them" in last and last.endswith("each, fits")
    eight = command(*arguments, base, "dry_run_memory_gib=139", "dry_run_devices=8", configs=REAL_CONFIGS)
    assert re.match(
        r"8 devices of 139 GiB: fits; [\d.]+ GiB each, weights sharded over them, and a quarter in reserve",
        eight.out.splitlines()[-1],
    )


def test_several_processes_are_counted_and_none_is_started(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU they share its memory; a probe would start them."""
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("a probe"))
    out = command("stage=pretrain", "trainer=ddp", "trainer.devices=8", "dry_run=true", configs=REAL_CONFIGS).out
    assert "time: not measured, several processes are not timed" in out
    assert "memory of each of 8 devices (the whole model on each)" in out and "gradients, in buckets" in out
    assert re.match(
        r"this machine \(\d+ GiB, 8 processes\): fits; [\d.]+ GiB each, the whole model on each,", out.splitlines()[-1]
    )


def test_divided_weights_are_counted_as_shares(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1.38 M weights in FP32, 5.52 MB, each of 8 processes holds 690 kB; a probe would start them."""
    monkeypatch.setattr(module, "measure", lambda *_: pytest.fail("a probe"))
    outcome = command("stage=pretrain", "trainer=fsdp", "trainer.devices=8", "dry_run=true", configs=REAL_CONFIGS)
    assert outcome.code == 0 and outcome.recorder.stages == [], outcome.err
    whole, shares = outcome.out.split("time: not measured, several processes are not timed\n")
    assert rows(whole)["gradients"] == "5.52 MB"
    title, *_, last = shares.splitlines()
    assert title == "memory of each of 8 devices (weights sharded over them)"
    assert rows(shares)["weights"] == rows(shares)["gradients"] == "690 kB"
    assert {"embedding and head, gathered", "blocks, gathered", "a block's gradients"} <= rows(shares).keys()
    assert "at the start" in rows(shares)
    assert re.match(r"this machine \(\d+ GiB, 8 processes\): fits; [\d.]+ GiB each, weights sharded over them,", last)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("dry_run_memory_gib=0", "dry_run=true"), "dry_run_memory_gib=0 is not allowed"),
        (("dry_run_devices=0", "dry_run=true"), "dry_run_devices=0 is not allowed"),
        (("dry_run_memory_gib=139",), "dry_run=False is not allowed: dry_run_memory_gib and dry_run_devices go with"),
    ],
)
def test_a_machine_that_cannot_be(command: Command, arguments: tuple[str, ...], message: str) -> None:
    assert message in command("stage=pretrain", *arguments, configs=REAL_CONFIGS).error


def test_what_is_drawn_again_is_at_most(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda *_: Speed(1e-3, 0.5, 1e-4, 1e-3, 20.0, 9.0))
    drawn = "rollout.dynamic_sampling_attempts=3"
    out = command("stage=grpo", "dry_run=true", drawn, configs=REAL_CONFIGS).out
    assert [line.split()[0] for line in out.splitlines() if "at most (dynamic sampling)" in line] == ["sampling"] * 2


def test_the_time_of_a_stage_by_hand(command: Command, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """32 prompts x 16 completions in 2 minibatches: 256 completions to a step, of 20 tokens behind a prompt of p.

    Sampling 5,120 tokens at 1 ms: 5.12 s. Training 256 (p + 20) tokens at 1 ms and 0.1 ms for their data. Optimizer 0.5 s.
    Evaluation: 2 models x 500 problems x 16 samples x 20 tokens at 1 ms: 320 s.
    """
    monkeypatch.setattr(module, "measure", lambda *_: Speed(1e-3, 0.5, 1e-4, 1e-3, 20.0, 9.0))
    out = command("stage=grpo", "dry_run=true", configs=REAL_CONFIGS).out
    table = rows(out)
    assert (
        table["sampling"] == "5.12 s" and table["optimizer"] == "500 ms" and table["evaluation, once"] == "5.33 minutes"
    )
    assert "completions of 20 tokens (as in the probe)" in out
    (tokens,) = {float(found.replace(",", "")) for found in re.findall(r"update +\S+ GFLOPs +([\d,]+) tokens", out)}
    trained_s = (tokens - 256 * 44) * 1.1e-3  # the table's completions are at their limit of 64 tokens
    whole_s = 160 * (5.12 + trained_s + 0.5) + 320
    assert (
        out.splitlines()[-2]
        == f"about {module._duration(whole_s)} for the whole stage on this machine, checkpoints apart"
    )


def test_a_probe_that_stopped_early_takes_the_limits_mean(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 tokens for the first half of the steps and 96 for the second: 80."""
    monkeypatch.setattr(module, "measure", lambda *_: Speed(1e-3, 0.5, 1e-4, 1e-3, None, 9.0))
    later = ("rollout.longer_from_step=80", "rollout.longer_max_new_tokens=96")
    out = command("stage=grpo", "dry_run=true", *later, configs=REAL_CONFIGS).out
    assert "completions of 80 tokens (their limit, which the probe did not reach)" in out
    assert "completions at their limit of 96 tokens" in out


def test_an_evaluation_that_was_not_measured_is_said(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pre-training samples nothing, so that the probe does not know how fast its evaluation would be."""
    monkeypatch.setattr(module, "measure", lambda *_: Speed(1e-3, 0.0, 0.0, 0.0, None, 9.0))
    measured = "stage.evaluation={problems: 4, samples: 2, max_new_tokens: 12}"
    out = command("stage=pretrain", "dry_run=true", measured, configs=REAL_CONFIGS).out
    assert "not measured: this stage samples nothing else" in out
    # 850 steps of 42 rows x 96 tokens at 1 ms: 3,427 s
    assert out.splitlines()[-2] == "about 57.1 minutes for the whole stage on this machine, checkpoints apart"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0.00 "), (7, "7.00 "), (999, "999 "), (1_234_567, "1.23 M"), (5.35e12, "5.35 T"), (8e16, "80.0 P")],
)
def test_three_digits_and_a_prefix(number: float, text: str) -> None:
    assert module._human(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0005, "0.50 ms"), (0.25, "250 ms"), (42.0, "42.0 s"), (90.0, "1.50 minutes"), (1e8, "1157 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert module._duration(seconds) == text


def test_a_model_without_mtp_is_counted(tmp_path: Path, capsys: Captured) -> None:
    done = train([*overrides(tmp_path), "model.mtp_depth=0", "dry_run=true"], capsys)
    assert done.code == 0 and "latent cache, sampling" in done.out and "MTP module's" not in done.out


def test_an_input_whose_data_decide_its_steps(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "1+1?", "completion": "2"}\n')
    plain = [item for item in overrides(tmp_path / "runs") if not item.startswith("stage.parent_overrides")]
    sft = f'stage.inputs.base={{stage: sft, overrides: ["data.examples.file={tmp_path}/x.jsonl"]}}'
    result = train([*plain, sft, "dry_run=true"], capsys)
    assert result.code == 0, result.err
    assert (
        "base: missing, would be built first (stage sft, as many optimizer steps as its data need, time not"
        in result.out
    )
