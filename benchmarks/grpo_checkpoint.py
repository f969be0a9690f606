"""Seconds per GRPO step of a published checkpoint beside TRL's: `python benchmarks/grpo_checkpoint.py FOLDER`.

As `grpo_step.py`, with the weights, the tokenizer and the class that the folder names, on both sides in FP32: the arithmetic task
in R1-Zero's prompt, `--prompts` x `--group` completions of `--tokens` tokens each, one optimizer step per rollout, the objective,
reference and optimizer of `stage=grpo`. Both sides read the folder; ours runs the model by `model=hf`. `grpo_step.py` says what is
equal and what is checked, `pairs.py` how pairs take turns (ours, theirs, ours, theirs). Each side holds a model, a reference,
gradients and AdamW's state: 20 bytes a parameter, one side after the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

from omegaconf import DictConfig
from transformers import AutoModelForCausalLM

from benchmarks import grpo_ours, grpo_trl
from benchmarks.command import silence_warnings
from benchmarks.grpo_work import WORK, Work
from benchmarks.pairs import Contest, compare
from benchmarks.setting import FULL, Size, World
from benchmarks.table import Machine, render
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.build.hf_import import with_model_of
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.build.stored import open_folder
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.types.errors import InvalidInput

BAD_INPUT = 2
ROOM_FOR_PROMPT = 128  # tokens of R1-Zero's prompt with a problem of arithmetic, in published tokenizers
LEARNING_RATE = 1e-6  # of a published model; at the miniature's one step would spoil it


@dataclass(frozen=True)
class CheckpointWorld(World):
    """The shared parts, of the checkpoint in `folder`; in FP32, not compiled."""

    folder: Path = Path()

    def ours(self) -> list[World]:
        return [self]

    def theirs(self) -> list[World]:
        return [self]

    @cached_property
    def base(self) -> Artefact:
        return open_folder(self.folder)

    @cached_property
    def config(self) -> DictConfig:
        size = self.size
        with composing():
            stage = compose_stage(
                [
                    "stage=grpo",
                    "model=hf",
                    f"optim.lr={LEARNING_RATE}",
                    f"rollout.prompts_per_rollout={size.prompts}",
                    f"rollout.group_size={size.group_size}",
                    "rollout.minibatches_per_rollout=1",
                    f"rollout.max_new_tokens={size.new_tokens}",
                    f"rollout.row_tokens={size.row_tokens[0]}",
                    f"rollout.max_rows={size.completions}",
                ]
            )
            return with_model_of(stage, self.base).config

    @cached_property
    def parts(self) -> Mapping[str, Any]:
        return build_parts(self.config, self.base)

    def hf_model(self, experts: str, eos_id: int | None = None) -> Any:
        """The checkpoint's own class in FP32; a mixture's experts run as named."""
        return self.load_hf(self.folder, experts)

    def load_hf(self, folder: Path, experts: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")

    def save_hf(self, folder: Path) -> None:
        """Let `folder` show the checkpoint's files."""
        for path in self.folder.iterdir():
            (folder / path.name).symlink_to(path.resolve())


def contest(folder: Path, size: Size) -> Contest:
    """Every completion as long as the limit."""
    world = CheckpointWorld(size, folder=folder)
    work = Work(WORK, (size.new_tokens,) * size.completions)
    title = f"{WORK} of {world.config.model.hf_config.model_type}, {size.prompts} prompts x {size.group_size} completions x "
    return Contest(
        work=f"{title}{size.new_tokens} tokens",
        unit="s/step",
        opponent="TRL",
        ours={
            f"rows of {row_tokens} in {parts} parts": grpo_ours.measurement(world, work, row_tokens, parts)
            for row_tokens in grpo_ours.long_enough(world)
            for parts in size.micro_batches
        },
        theirs={f"batch {batch}": grpo_trl.measurement(world, work, batch, "eager") for batch in size.trl_batches},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each pair and the table; returns the exit code."""
    parser = argparse.ArgumentParser(description="Seconds per GRPO step of a checkpoint, beside TRL's.")
    parser.add_argument("folder", type=Path, help="a checkpoint in HuggingFace's form")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=4, help="completions of each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each completion")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", help="TRL's per-device batches to try (all completions)")
    options = parser.parse_args(arguments)
    size = replace(
        FULL,
        prompts=options.prompts,
        group_size=options.group,
        new_tokens=options.tokens,
        row_tokens=(ROOM_FOR_PROMPT + options.tokens,),
        micro_batches=(1,),
        trl_batches=tuple(options.batch or [options.prompts * options.group]),
    )
    silence_warnings()
    try:
        result = compare(contest(options.folder, size), options.pairs)
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    print(render([result], Machine.here()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
