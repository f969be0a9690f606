"""Where work is done: every kind of stage and command on a pretend GPU, whose models never compute on the CPU.

One process runs them all, because loading torch is the largest part of it (see `tests/support/fake_cuda`). The default tier runs
pre-training and GRPO alone, the slow tier every command.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT, SMALL_MODEL
from tests.support.fake_cuda.library import start

HASH = "{_target_: tests.support.miniature.HashReward, name: hash}"
BY_HASH = (f"+reward.rewards.hash={HASH}", "+reward.weights.hash=1.0")
MEASURED = "stage.evaluation={problems: 2, samples: 2, max_new_tokens: 4}"
SHORT = ("rollout.prompts_per_rollout=2", "rollout.group_size=4", "rollout.max_new_tokens=4")
GRPO = (*SHORT, "rollout.minibatches_per_rollout=2", *BY_HASH)
PAIRS = ("data=preference_samples", "data.part=whole", "data.samples=2", "data.items_per_batch=4", "rollout=default",
         "rollout.max_new_tokens=4", "reward=r1_zero", *BY_HASH)  # fmt: skip
SCORED = ("reward=model_score", "+stage.inputs.score.folder=@reward_model@")
TAUGHT = ("+stage.inputs.teacher.folder=@grpo@",)
SAMPLED = ("init_from=@grpo@", "stage.problems=2", "stage.samples=2", "rollout.max_new_tokens=4")
RESUMED = (
    "init_from=@pretrain@",
    "seed=5",
    "stage.max_steps=3",
    "stage.reference_refresh_steps=1",
    *GRPO,
    "stage.evaluation=null",
)
BROKEN = """
import sys
from unittest import mock
from r1_lightning.run import cli
from r1_lightning.stages.grpo import GRPOModule
step = GRPOModule.training_step
def interrupted(self, *given):
    if self.global_step == 2:
        raise KeyboardInterrupt
    return step(self, *given)
with mock.patch.object(GRPOModule, "training_step", interrupted), mock.patch.object(sys, "argv", {words}):
    assert cli.main() == 130
"""
NOTEBOOK = """
import r1_lightning as r1
model, tokenizer = r1.load("@pretrain@")
assert model.embedding.weight.device.type == "cuda"
print(r1.generate(model, tokenizer, ["1 + 1 ="], max_new_tokens=4))
"""
ELSEWHERE = "_elsewhere"  # ends the name of a command whose other model is told to be on the CPU
MEMORY = """
from pathlib import Path
import torch
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.run.build.models import make_backbone
from r1_lightning.run.build.stored import open_folder, open_model
from r1_lightning.model.hf_model import HFModelConfig
from tests.support.hf_folders import DENSE
from tests.support.memory import LiveTensors
class OnTheHost(LiveTensors):
    def _count(self, storage):
        if storage.device.type == "cpu":
            super()._count(storage)
opened = open_model(open_folder(Path("@pretrain@")), PlainPrecision())
place = torch.device("cuda", 0)
fields = {**DENSE, "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 8, "tie_word_embeddings": True}
theirs = HFModelConfig({"model_type": "qwen2", **fields})
for make in (
    lambda: opened.backbone(place),
    lambda: make_backbone(opened.shape, PlainPrecision(), device=place),
    lambda: make_backbone(theirs, PlainPrecision(), device=place),
):
    with OnTheHost() as host:
        model = make()
    sizes = [parameter.numel() * 4 for parameter in model.parameters()]
    print(host.peak, max(sizes), sum(sizes))
    assert all(tensor.device.type == "cuda" for tensor in model.state_dict().values())
"""
SEEDED = """
import torch
from r1_lightning.model.hf_model import HFModelConfig
from r1_lightning.model.lora import LoraSettings
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.run.build.models import make_backbone
from tests.support.hf_folders import DENSE
config = HFModelConfig({"model_type": "qwen2", **DENSE}, LoraSettings(2, 8))
there, here = (make_backbone(config, PlainPrecision(), seed=3, device=torch.device(kind)) for kind in ("cuda", "cpu"))
for name, tensor in there.state_dict().items():
    assert tensor.device.type == "cuda" and torch.equal(tensor.cpu(), here.state_dict()[name]), name
"""
ROUNDED = """
import torch
from r1_lightning.stages.adamw_bf16 import BF16AdamWConfig
def steps(weight, optimizer, numbers):
    for number in numbers:
        weight.grad = torch.full_like(weight, 0.1 * number)
        optimizer.step()
def made(device):
    weight = torch.nn.Parameter(torch.ones(40, 5, device=device))
    return weight, BF16AdamWConfig(lr=0.1).build(torch.nn.ParameterList([weight]))
weight, optimizer = made("cuda")
steps(weight, optimizer, (1, 2, 3, 4))
again, first = made("cuda")
steps(again, first, (1, 2))
resumed = BF16AdamWConfig(lr=0.1).build(torch.nn.ParameterList([again]))
resumed.load_state_dict(first.state_dict())
steps(again, resumed, (3, 4))
state = resumed.state[again]
assert {(state[name].device.type, state[name].dtype) for name in ("exp_avg", "exp_avg_sq")} == {("cuda", torch.bfloat16)}
assert torch.equal(weight.cpu(), again.cpu())
"""
FEW, ALL = "few", "all"
DEFAULT_TIER = ("pretrain", "grpo")
of_all = pytest.mark.parametrize("done", [pytest.param(ALL, marks=pytest.mark.slow)], indirect=True)
BASE = ("data.rows_per_batch=4", "optim.warmup_steps=1")


def commands(root: Path) -> dict[str, list[str]]:
    """Every kind of stage, each from the artefacts of those before it, then the commands beside training."""
    model = (*SMALL_MODEL, "model.max_positions=2048", f"paths.root={root}")
    rows = root.parent / "rows.jsonl"
    turns = [{"role": "user", "content": "What is 1 + 1?"}, {"role": "assistant", "content": "2"}]
    rows.write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    parents = f'stage.parent_overrides=["stage.max_steps=2","stage.evaluation=null","{BASE[0]}","{BASE[1]}"]'

    def train(stage: str, *words: str) -> list[str]:
        return ["train", f"stage={stage}", *words, *model, *([] if stage in ("pretrain", "compare") else [parents])]

    return {
        "pretrain": train("pretrain", "stage.max_steps=2", "stage.evaluation=null", *BASE),
        "grpo": train("grpo", "stage.max_steps=1", *GRPO, MEASURED),
        "ppo": train("ppo", "stage.max_steps=1", *GRPO, "stage.evaluation=null"),
        "sft": train("sft", f"data.examples.file={rows}", "stage.max_steps=1", "stage.evaluation=null", "optim=adamw_bf16"),
        "reward_model": train("reward_model", *PAIRS, "stage.max_steps=1", "stage.evaluation.items=2"),
        "dpo": train("dpo", "data.items_per_batch=4", "stage.max_steps=1", MEASURED, "stage.evaluation.pairs=2"),
        "scored": train("grpo", "stage.max_steps=1", *SCORED, *SHORT, "stage.evaluation=null"),
        "cached": train("distill", "data=teacher_cache", "data.items_per_batch=4", "stage.max_steps=1", *TAUGHT, MEASURED),
        "own_text": train("distill", "data=on_policy", *SHORT[-1:], "rollout=fast", "data.items_per_batch=4",
                          "stage.max_steps=1", *TAUGHT, "stage.evaluation=null"),
        "reference_elsewhere": train("grpo", "stage.max_steps=1", *GRPO, "stage.evaluation=null",
                                     "trainer.role_devices={reference: cpu}"),
        "teacher_elsewhere": train("distill", "data.items_per_batch=4", "stage.max_steps=1", *TAUGHT, "stage.evaluation=null",
                                   "trainer.role_devices={teacher: cpu}"),
        "score_elsewhere": train("grpo", "stage.max_steps=1", *SCORED, *SHORT, "stage.evaluation=null", "seed=1",
                                 "init_from=@pretrain@", "trainer.role_devices={score: cpu}"),
        "broken": ["python", BROKEN.format(words=train("grpo", *RESUMED))],
        "resumed": train("grpo", *RESUMED),
        "whole": train("grpo", *RESUMED, "fresh=true"),
        "sample": train("sample", "debug=fast", *SAMPLED),
        "judged": train("sample", "debug=fast", *SAMPLED, "~reward", "+stage.judge_new_tokens=3",
                        "+stage.inputs.judge.folder=@pretrain@"),
        "compare": train("compare", "debug=fast", "+stage.inputs.zero.folder=@grpo@"),
        "evaluate": ["evaluate", "@grpo@", "--trust-targets", "--problems", "2", "--samples", "2"],
        "notebook": ["python", NOTEBOOK],
        "memory": ["python", MEMORY],
        "rounded": ["python", ROUNDED],
        "seeded_elsewhere": ["python", SEEDED],
    }  # fmt: skip


@pytest.fixture(scope="module", params=[FEW, pytest.param(ALL, marks=pytest.mark.slow)])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name of each command -> its exit code, output, and what the pretend GPU recorded; run once for all workers of pytest."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"gpu_{request.param}"
    place.mkdir(exist_ok=True)
    asked, answered = place / "commands.json", place / "results.json"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the worker that comes second waits, and reads what the first one made
        if not answered.exists():
            wanted = {k: v for k, v in commands(place / "runs").items() if request.param == ALL or k in DEFAULT_TIER}
            asked.write_text(json.dumps(wanted), encoding="utf-8")
            process = start("tests.support.fake_cuda.commands", str(asked), str(answered), cwd=ROOT)
            assert process.returncode == 0, process.stderr
    results: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    return {name: {**result, "folder": _folder(result["out"])} for name, result in results.items()}


def _folder(out: str) -> str | None:
    """The folder that a command says it works in."""
    found = re.findall(r"(?:running ->|resuming) (\S+)", out)
    return found[-1] if found else None


def test_every_command_ends_well(done: dict[str, Any]) -> None:
    assert {name: result["err"][-2000:] for name, result in done.items() if result["code"] != 0} == {}


def test_no_model_works_on_the_cpu(done: dict[str, Any]) -> None:
    """A product, an attention or an embedding of tensors on the CPU would be a model beside the idle GPU."""
    work = {name: result["records"]["host_work"] for name, result in done.items() if not name.endswith(ELSEWHERE)}
    assert work == {name: {} for name in work}
    idle = [name for name, result in done.items() if not result["records"]["launches"].get("aten::embedding")]
    idlers = ("memory", "rounded", "seeded_elsewhere")  # which only make models, or take an optimizer's steps
    assert idle == [name for name in idlers if name in done]


@of_all
@pytest.mark.parametrize("role", ["reference", "teacher", "score"])
def test_a_model_that_is_told_another_device_works_there(role: str, done: dict[str, Any]) -> None:
    """One forward's embedding a step, or a few: the policy, which samples token by token, is not there."""
    record = done[role + ELSEWHERE]["records"]
    lookups = [count for where, count in record["host_work"].items() if where.startswith("aten::embedding")]
    assert 1 <= sum(lookups) <= 8 < record["launches"]["aten::embedding"]


def test_the_first_line_names_the_gpu_and_its_type(done: dict[str, Any]) -> None:
    for name, result in done.items():
        if result["out"].startswith(f"{name}: planning"):
            assert "on Pretend GPU in BF16 (trainer=auto: torch finds a GPU; BF16" in result["out"].splitlines()[0]


@of_all
def test_resumed_on_the_gpu_the_bits_are_those_of_a_run_at_once(done: dict[str, Any]) -> None:
    """Interrupted in its third step; sampler, reference and optimizer go on from what was saved after the second."""
    assert "step 2 is saved" in done["broken"]["err"] and "resuming" in done["resumed"]["out"]
    folders = [Path(done[name]["folder"]) for name in ("whole", "resumed")]
    whole, resumed = ((folder / "weights.safetensors").read_bytes() for folder in folders)
    assert folders[0] != folders[1] and whole == resumed


@of_all
def test_no_model_is_made_in_the_memory_of_the_host(done: dict[str, Any]) -> None:
    """Loaded or drawn, ours or of `transformers`: beside the largest tensor, 300 tokens x 16 in FP32, the host holds 2 kB of
    generator and tables at most.
    """
    lines = done["memory"]["out"].splitlines()
    assert len(lines) == 3
    for line in lines:
        host, largest, model = map(int, line.split())
        assert largest == 300 * 16 * 4 and model > 3 * largest
        assert largest <= host <= largest + 2_048


def test_no_operator_lacks_a_deterministic_kernel(done: dict[str, Any]) -> None:
    assert {name: result["records"]["undetermined"] for name, result in done.items()} == {key: {} for key in done}
