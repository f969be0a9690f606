"""Builds a planned stage graph: reuses complete artefacts, resumes interrupted ones, makes the others, inputs first.

    pretrain ── base ──► grpo            configs/stage/grpo.yaml:  inputs: {base: pretrain}
        └─ base ──► reward_model ── helpful ──► grpo, where `inputs` names a second role

An input may be a whole experiment, so experiments compose: `experiment=r1_tiny` is a stage whose base is another's result.

Several processes, each started by hand, may divide the work of a stage (`stage.shard` of `stage.shards`): they share one folder,
and the process that finds all shards done completes the artefact.

A configuration asks for a stage, and its fingerprint (`fingerprints`) finds the artefact: a complete one is reused, an incomplete
one is resumed, and a missing one is made after its inputs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts import lineage, store, work
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.leftovers import remove_leftovers
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.checks.loggers import check_logger_packages
from r1_lightning.run.checks.models import check_installed
from r1_lightning.run.config.stage_config import BASE, resolved
from r1_lightning.run.graph.last_words import table
from r1_lightning.run.graph.node import Node
from r1_lightning.run.graph.stage_tree import measured_stages, stage_table, time_table, tree
from r1_lightning.run.graph.waiting import Waiting
from r1_lightning.types.errors import InvalidInput, require

# Trains, evaluates and writes weights, tokenizer and table into the folder; resumes from a checkpoint there. Returns the metrics,
# or None if this process finished its shard but other shards are still missing.
RunStage = Callable[[DictConfig, str, Path, dict[str, Artefact]], Mapping[str, float] | None]


def build(target: Node, run_stage: RunStage, fresh: bool = False, say: Callable[[str], None] = print) -> Artefact:
    """Return the finished artefact for `target`: reuse it, resume it, or build it (inputs first). Then `say` its table.

    `fresh` makes a new artefact beside an existing one, for the target only, never for its inputs. Raises `InvalidInput` if a
    folder cannot be written, if another process is working in it, or if a stage refuses its input.
    """
    commit = lineage.commit()  # now: the checkout may change while the run goes on
    is_deep = any(isinstance(source, Node) and source.inputs for source in target.inputs.values())
    for line in (*([tree(target)] if is_deep else []), *target.stage.notes):  # a stage and its base need no picture
        say(line)
    artefact = _reuse_or_build(target, target.stage.name, _Maker(run_stage, say, commit), fresh)
    if not artefact.complete:
        shard, of = _shard(target)
        say(
            f"{artefact.stage}: shard {shard} of 0..{of - 1} is done, others are not; the last to end completes {artefact.folder}"
        )
        return artefact
    say(table(artefact))
    if is_deep:
        for text in (stage_table(measured_stages(target)), time_table(target)):
            if text:
                say(f"\n{text}")
    return artefact


@dataclass(frozen=True)
class _Maker:
    """The arguments of making any artefact; `commit` is the commit of the running code."""

    run_stage: RunStage
    say: Callable[[str], None]
    commit: str


def _reuse_or_build(node: Node, role: str, maker: _Maker, fresh: bool) -> Artefact:
    """Return the artefact of `node`: reused, resumed or made after its inputs."""
    say = maker.say
    found = None if fresh else node.found()
    if found is not None and found.complete:
        store.verify(found)  # hashes the files: damaged weights must not become another stage's base
        say(f"{role}: reusing {found.folder} (fingerprint {found.fingerprint[:SHORT_DIGITS]})")
        if found.commit != maker.commit:
            say(
                f"{role}: made by commit {_short(found.commit)}, the code here is {_short(maker.commit)}; fresh=true makes it anew"
            )
        return found
    # Before the inputs are made, which may take hours: a package that is missing would end this stage anyway.
    check_installed(node.stage.config)
    check_logger_packages(node.stage.config)
    inputs = {}
    for name, source in node.inputs.items():
        if isinstance(source, Artefact):
            given = "init_from" if name == BASE else f"stage.inputs.{name}"
            say(f"{name}: taking {source.folder} ({given}, fingerprint {source.fingerprint[:SHORT_DIGITS]})")
            inputs[name] = source
        else:
            inputs[name] = _reuse_or_build(source, name, maker, False)
            done = inputs[name].complete  # an input divided into shards may still wait for other processes
            require(done, f"stage.inputs.{name}", str(inputs[name].folder), "other processes are still at work on it")
    if found is not None:
        say(f"{role}: resuming {found.folder}")
        return _run(node, found, inputs, maker, role)
    made = _new_folder(node, fresh)
    if made.complete:  # another process made it while this one was busy with the inputs
        return made
    if role == node.stage.name:
        say(f"{role}: running -> {made.folder}")
    else:
        say(f"{role}: missing, building it first (stage {_what(node)}) -> {made.folder}")
    return _run(node, made, inputs, maker, role)


def _what(node: Node) -> str:
    stage = node.stage
    return stage.stage if stage.name == stage.stage else f"{stage.stage}, experiment {stage.name}"


def _shard(node: Node) -> tuple[int, int]:
    """Return this process's shard and the number of shards."""
    stage = node.stage.config.stage
    return stage.get("shard", 0), stage.get("shards", 1)


def _new_folder(node: Node, fresh: bool) -> Artefact:
    """Return a new folder for the stage, or the one that another process has made since we looked."""
    choices = node.stage.choices
    names = (
        node.stage.stage,
        str(choices["model"]),
        str(choices["task"]),
        node.fingerprint,
        node.stage.config.get("name"),
    )
    if fresh:
        allowed = "with stage.shards above 1 each process would make a folder of its own"
        require(_shard(node)[1] == 1, "fresh", True, allowed)
        return store.create(node.root, *names)
    # Under a lock, so that two processes that start together do not make a folder each.
    with store.exclusive_lock(node.root):
        return store.find(node.root, node.stage.stage, node.fingerprint) or store.create(node.root, *names)


def _short(commit: str) -> str:
    """Return a commit's first digits, with "-dirty" if there were uncommitted changes."""
    return commit[:SHORT_DIGITS] + "-dirty" * commit.endswith("-dirty")


def _run(node: Node, artefact: Artefact, inputs: dict[str, Artefact], maker: _Maker, role: str) -> Artefact:
    """Run the stage in its folder, under its lock, and complete the artefact unless shards of other processes are missing.

    If another process is making the artefact, an input is waited for, and the target is refused.
    """
    folder, (shard, of) = artefact.folder, _shard(node)
    waiting = None if role == node.stage.name else Waiting(role, node, folder, maker.say)
    lock = store.locked(folder, store.LOCK if of == 1 else f"{store.LOCK}-{shard}-of-{of}", waiting)
    with lock, store.output_folder(folder):  # a full disk anywhere in the stage becomes one line
        if store.is_complete(folder):  # another process finished it while this one waited
            maker.say(f"{role}: {folder} is complete now, made by another process")
            return store.open_artefact(folder)
        with store.exclusive_lock(folder):
            # Written once: a resumed run keeps the configuration that began it, equal but for what no fingerprint covers.
            if not (folder / store.CONFIG).exists():
                store.write_text(folder / store.CONFIG, OmegaConf.to_yaml(resolved(node.stage.config)))
            store.record_commit(folder, maker.commit)
        try:
            with work.timed(folder):
                metrics = maker.run_stage(resolved(node.stage.config), node.stage.stage, folder, inputs)
        except InvalidInput:
            if of == 1:  # with shards another process may be working in the folder
                _remove_if_untouched(folder)
            raise
        if metrics is None:
            return artefact
        with store.exclusive_lock(folder):
            if store.is_complete(folder):  # the process of another shard saw all shards done at the same time
                return store.open_artefact(folder)
            made = store.complete(artefact, maker.commit, lineage.environment(), inputs, metrics)
            remove_leftovers(folder)  # after the marker: a kill before it must find the checkpoint to resume from
            return made


def _remove_if_untouched(folder: Path) -> None:
    """Remove the folder of a stage that refused its input before it wrote any result."""
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith((store.LOCK, store.TURN))}
    if names <= {store.CONFIG, store.COMMITS, work.WORK}:
        shutil.rmtree(folder, ignore_errors=True)
