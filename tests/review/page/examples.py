"""A run's folder as the tests of a page need it: settings, curves, lineage, completions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.support.example_records import write_example_records

HOSTILE = (
    "<script>window.HIT = 1</script><img src=x onerror='window.HIT = 2'>",
    "</pre></details></article></script><script>window.HIT = 3</script>",
    "right \u202eleft\u2066 nul \0 half \r\x1b[31m end",
    "<!-- <svg onload='window.HIT = 4'> ]]></title><style>* { display: none }</style>",
    "x" * 1_000_000,
)
CONFIG: dict[str, Any] = {
    "seed": 0,
    "optim": {"lr": 1e-4},
    "rollout": {"minibatches_per_rollout": 2, "group_size": 4, "prompts_per_rollout": 2},
    "trainer": {"accelerator": "cpu", "devices": 1},
    "paths": {"root": "runs"},
    "stage": {"max_steps": 200},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_run(root: Path, called: str = "grpo-x-0000000001", steps: int = 10, gain: float = 1.0, **changes: Any) -> Path:
    """A finished run of `steps` steps whose reward rises to `gain`, made from a base beside it."""
    folder = root / called
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    rows = [f"{step},{gain * step / steps},{0.5 + step % 2},{100 + step},12.5,32" for step in range(steps)]
    names = "step,rollout/reward_mean,perf/step_s,perf/step_tokens,rollout/completion_tokens_mean,rollout/drawn_groups"
    (folder / "tensorboard" / "metrics.csv").write_text("\n".join([names, *rows, ""]))
    (folder / "work.txt").write_text(f"begin\nend {2.0 * steps}\nbegin\n")
    (folder / "table.txt").write_text("pass_at_1  0.25  <b>0.75</b>\n")
    base = {"stage": "pretrain", "fingerprint": "f" * 64, "folder": "../pretrain-x-ffffffffff"}
    write_marker(folder, "grpo", {"base": base})
    write_marker(root / "pretrain-x-ffffffffff", "pretrain", {})
    return folder


def write_marker(folder: Path, stage: str, inputs: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    record = {
        "stage": stage, "fingerprint": ("a" if inputs else "f") * 64, "commits": [COMMIT, f"{COMMIT}-dirty"],
        "created": "2026-11-29T18:43:30+00:00", "inputs": inputs, "metrics": {"rollout/reward_mean": 1.0},
        "environment": {"python": "3.11.7", "platform": "Linux <x>"},
    }  # fmt: skip
    (folder / "artefact.json").write_text(json.dumps(record))


def write_hostile(folder: Path, every: int) -> None:
    """Give the run records at every such step of 200; at step 0 a group of hostile completions, one of them of 1 MB."""
    write_example_records(folder, range(0, 200, every), groups=4, samples=4, evaluated=[200])
    path = folder / "rollouts.jsonl"
    head, first, *rest = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines = []
    for sample, text in enumerate(HOSTILE):
        row = json.loads(first)
        row.update(
            prompt_index=99,
            sample=sample,
            completion=text,
            prompt=f"{text[:100]}?",
            extracted=text[:50],
            advantage=None,
        )
        row["parts"][0].update(reason=text[:50], name="accuracy")
        row["tokens"] = {"text": [text[:3], text[3:]], "sampler_logprob": [-0.5, -1.5], "policy_logprob": [-0.4, -1.6]}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join([head, *lines, first, *rest]), encoding="utf-8")
