"""Builds a planned stage graph: reuses complete artefacts, resumes interrupted ones, makes the others, inputs first.

    pretrain ── base ──► grpo            configs/stage/grpo.yaml:  inputs: {base: pretrain}
        └─ base ──► reward_model ── helpful ──► grpo, where `inputs` names a second role

An input may be a whole experiment, so experiments compose: `experiment=r1_tiny` is a stage whose base is another's result.

Several processes, each started by hand, may divide the work of a stage (`stage.shard` of `stage.shards`): they share one folder,
and the process that finds all shards done completes the artefact.

The processes of one run (`trainer.devices=2`) walk the same graph together. Rank 0 alone looks for artefacts, takes locks, makes
folders and completes them; the others wait for what it finds (`agreeing`), and all of them make each stage.

A configuration asks for a stage, and its fingerprint (`fingerprints`) finds the artefact: a complete one is reused, an incomplete
one is resumed, and a missing one is made after its inputs.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from r1_lightning.artefacts import lineage, store, work
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.leftovers import remove_leftovers
from r1_lightning.artefacts.machine import machine
from r1_lightning.artefacts.run_label import EXPERIMENT, note_experiment
from r1_lightning.artefacts.store import Artefact
from r1_lightning.rollout.native_sampler import used_decoders
from r1_lightning.run.build.agreeing import by_main
from r1_lightning.run.checks.loggers import check_logger_packages
from r1_lightning.run.checks.models import check_installed
from r1_lightning.run.config.stage_config import BASE, resolved
from r1_lightning.run.graph.fresh import begun, remember
from r1_lightning.run.graph.last_words import table
from r1_lightning.run.graph.node import Node
from r1_lightning.run.graph.stage_tree import measured_stages, stage_table, time_table, tree
from r1_lightning.run.graph.waiting import Waiting
from r1_lightning.types.errors import InvalidInput, require
from r1_lightning.types.processes import Processes, processes_now

# Trains, evaluates and writes weights, tokenizer and table into the folder; resumes from a checkpoint there. Returns the metrics,
# or None if this process finished its shard but other shards are still missing.
RunStage = Callable[[DictConfig, str, Path, dict[str, Artefact]], Mapping[str, float] | None]
SEEN_S, POLL_S = 60.0, 0.2  # how long a process looks for a file that rank 0 wrote, and how often


def build(target: Node, run_stage: RunStage, fresh: bool = False, say: Callable[[str], None] = print) -> Artefact:
    """Return the finished artefact for `target`: reuse it, resume it, or build it (inputs first). Then `say` its table.

    `fresh` makes a new artefact beside an existing one, for the target only, never for its inputs; in a batch job that is queued
    again it resumes the one that the job has begun (`run/graph/fresh.py`).

    Raises `InvalidInput` if a folder cannot be written, if another process is working in it, or if a stage refuses its input.
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
    processes: Processes = field(default_factory=processes_now)


def _reuse_or_build(node: Node, role: str, maker: _Maker, fresh: bool) -> Artefact:
    """Return the artefact of `node`: reused, resumed or made after its inputs."""
    say = maker.say
    found = _found(node, maker.processes, fresh)
    if found is not None and found.complete:
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
    made = _at(node, *by_main(maker.processes, lambda _: _named(_new_folder(node, fresh))))
    if made.complete:  # another process made it while this one was busy with the inputs
        return made
    if role == node.stage.name:
        say(f"{role}: running -> {made.folder}")
    else:
        say(f"{role}: missing, building it first (stage {_what(node)}) -> {made.folder}")
    return _run(node, made, inputs, maker, role)


def _found(node: Node, processes: Processes, fresh: bool) -> Artefact | None:
    """Return the artefact that rank 0 finds for `node`, its files compared with their hashes if it is complete."""

    def look(_: object) -> tuple[str, bool] | None:
        found = begun(node) if fresh else node.found()
        if found is not None and found.complete:
            store.verify(found)  # hashes the files: damaged weights must not become another stage's base
            _clear_up(found.folder)
        return None if found is None else _named(found)

    place = by_main(processes, look)
    return None if place is None else _at(node, *place)


def _clear_up(folder: Path) -> None:
    """Remove what a kill just after the marker left in a complete artefact; not if it is only read, or at work with its lock."""
    with suppress(OSError, InvalidInput), ExitStack() as held:
        for path in (folder / store.LOCK, *folder.glob(f"{store.LOCK}-*-of-*[0-9]")):
            held.enter_context(store.locked(folder, path.name))
        remove_leftovers(folder)


def _named(artefact: Artefact) -> tuple[str, bool]:
    return str(artefact.folder), artefact.complete


def _at(node: Node, folder: str, complete: bool) -> Artefact:
    """Return the artefact of `node` in the folder that rank 0 named, once this process sees there what rank 0 saw."""
    path = Path(folder)
    end_s = time.monotonic() + SEEN_S  # a network file system shows other machines' files a while later
    while not (store.is_complete(path) if complete else path.is_dir()):
        require(time.monotonic() < end_s, "paths.root", str(node.root), f"rank 0 wrote {path}, which is not seen here")
        time.sleep(POLL_S)
    return store.open_artefact(path) if complete else Artefact(path, node.stage.stage, node.fingerprint)


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
        made = store.create(node.root, *names)
        remember(made)
        return made
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
    folder, processes = artefact.folder, maker.processes
    with ExitStack() as held:
        # a full disk anywhere in the stage becomes one line
        if by_main(processes, lambda alive: _take(node, folder, maker, role, held, alive)):
            maker.say(f"{role}: {folder} is complete now, made by another process")
            return _at(node, str(folder), True)
        with store.output_folder(folder):
            metrics = _run_together(node, folder, inputs, maker)
            if metrics is None:
                return artefact
            by_main(processes, lambda _: _complete(artefact, maker.commit, inputs, metrics))
            return _at(node, str(folder), True)


def _take(node: Node, folder: Path, maker: _Maker, role: str, held: ExitStack, alive: Callable[[], None]) -> bool:
    """Take the folder's lock until `held` is left, and note who works there. Returns True if the artefact is complete by now."""
    shard, of = _shard(node)
    waiting = None if role == node.stage.name else Waiting(role, node, folder, maker.say, alive)
    held.enter_context(store.locked(folder, store.LOCK if of == 1 else f"{store.LOCK}-{shard}-of-{of}", waiting))
    with store.output_folder(folder):
        if store.is_complete(folder):  # another process finished it while this one waited
            return True
        with store.exclusive_lock(folder):
            # Written once: a resumed run keeps the configuration that began it, equal but for what no fingerprint covers.
            if not (folder / store.CONFIG).exists():
                store.write_text(folder / store.CONFIG, OmegaConf.to_yaml(resolved(node.stage.config)))
            note_experiment(folder, node.stage.choices.get("experiment"))
            store.record_commit(folder, maker.commit)
    return False


def _run_together(node: Node, folder: Path, inputs: dict[str, Artefact], maker: _Maker) -> Mapping[str, float] | None:
    """Run the stage in every process of the run; rank 0 notes the time, and clears up if the stage refuses its input."""
    is_main, of = maker.processes.is_main, _shard(node)[1]
    try:
        with work.timed(folder) if is_main else nullcontext():
            return maker.run_stage(resolved(node.stage.config), node.stage.stage, folder, inputs)
    except InvalidInput:
        if of == 1 and is_main:  # with shards another process may be working in the folder
            _remove_if_untouched(folder)
        raise


def _complete(artefact: Artefact, commit: str, inputs: dict[str, Artefact], metrics: Mapping[str, float]) -> None:
    """Mark the artefact as complete, unless the process of another shard, which saw all shards done as well, has just done it."""
    with store.exclusive_lock(artefact.folder):
        if not store.is_complete(artefact.folder):
            made_by = {**lineage.environment(), **machine(), **used_decoders()}
            store.complete(artefact, commit, made_by, inputs, metrics)
            remove_leftovers(
                artefact.folder
            )  # after the marker: a kill before it must find the checkpoint to resume from


def _remove_if_untouched(folder: Path) -> None:
    """Remove the folder of a stage that refused its input before it wrote any result."""
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith((store.LOCK, store.TURN))}
    if names <= {store.CONFIG, store.COMMITS, EXPERIMENT, work.WORK}:
        shutil.rmtree(folder, ignore_errors=True)
