"""`dry_run=true`: prints the estimated cost of a stage before anything is made or trained.

Bytes, tokens and FLOPs come from `stage_cost` (`sampling_cost` for stages that only sample); the last lines say whether that fits
(`verdict`). Seconds come from `probe`, for pre-training and GRPO of our backbone where it fits this machine. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from statistics import mean

import torch
from omegaconf import DictConfig

from r1_lightning.artefacts import store
from r1_lightning.artefacts.described import DescribedModel
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.build.torch_setup import silence_warnings
from r1_lightning.run.checks.evaluation import evaluation_settings
from r1_lightning.run.checks.models import check_installed
from r1_lightning.run.config.declarations import class_of, is_of_transformers, line_of
from r1_lightning.run.config.place import asks_for_several
from r1_lightning.run.config.stage_config import BASE, resolved
from r1_lightning.run.cost.beside import complete, described
from r1_lightning.run.cost.counted_rows import Examples
from r1_lightning.run.cost.probe import PROBES, measure
from r1_lightning.run.cost.sampling_cost import EmptySampling, Memory, device_type_of
from r1_lightning.run.cost.sharing import DDP, FSDP, starting
from r1_lightning.run.cost.stage_cost import EmptyStage
from r1_lightning.run.cost.verdict import GIB, SHARED_OUT, Change, Machine, device_memory, verdict
from r1_lightning.run.graph.node import Node
from r1_lightning.types.errors import InvalidInput

# Tensors are estimated to within 25 %, and in runs glibc kept up to 45 % more than the tensors take (docs/log.md).
HEADROOM = 1.5
ACCURACY = {  # of the peak memory: measured by tests on the CPU, never on a GPU
    "cpu": "tensors, to within 25 %; libraries and the allocator on top",
    "cuda": "tensors, an estimate that was compared with runs on the CPU only",
}
DECIMAL = ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"), (1e18, "E"), (1e21, "Z"))
DRAWN, AT_MOST = ("sampling", "drafting", "old log-probs"), ", at most (dynamic sampling)"
WORDS = ((1, ""), (1e3, "k"), (1e6, "M"), (1e9, "B"), (1e12, "T"))
TIMES = ((1e-3, "ms"), (1, "s"), (60, "minutes"), (3600, "hours"), (86400, "days"))


def dry_run(target: Node, say: Callable[[str], None], fresh: bool = False) -> None:
    """Print which inputs of `target` are missing and would be made first, then the estimated cost of `target`.

    `fresh`: the stage would be made anew, even if its artefact exists. Raises `InvalidInput` as the stage itself would.
    """
    silence_warnings()
    for line in (*target.stage.notes, *_inputs(target)):
        say(line)
    stage = _empty(target) if trains(target.stage.config) else _sampling(target)
    for line in _table(target, stage, fresh):
        say(line)
    for machine in machines(target.stage.config):
        for line in (*_shares(stage, machine), *verdict(stage, machine)):
            say(line)


def machines(config: DictConfig) -> list[Machine]:
    """Return the machine that the configuration asks about: so many devices of so many GiB, or this one.

    Devices are those of the Trainer, unless `dry_run_devices` are more. On a CPU the processes share its memory.
    """
    strategy, devices = _devices(config)
    gib = config.get("dry_run_memory_gib")
    if gib is None and (device_type_of(config) == "cpu" or torch.cuda.is_available()):
        memory = _memory_here(device_type_of(config))
        each = memory / (devices if device_type_of(config) == "cpu" else 1)
        many = f", {devices} processes" if devices > 1 else ""
        return [Machine(devices, each, f"this machine ({memory / GIB:,.0f} GiB{many})", strategy)]
    if gib is None:
        return []
    count = "one device" if devices == 1 else f"{devices} devices"
    return [Machine(devices, gib * GIB, f"{count} of {gib:g} GiB", strategy)]


def _devices(config: DictConfig) -> tuple[str, int]:
    """Return the strategy and the number of devices: those of the Trainer, or shares of weights on `dry_run_devices`."""
    trainer = config.get("trainer") or {}
    devices = trainer.get("devices", 1)
    devices = devices if isinstance(devices, int) else len(devices)
    own, asked = devices * trainer.get("num_nodes", 1), config.get("dry_run_devices") or 1
    named = str(trainer.get("strategy"))
    return named if named in SHARED_OUT else DDP if own > 1 else FSDP, max(own, asked)


def _shares(stage: EmptyStage | EmptySampling, machine: Machine) -> Iterator[str]:
    """Yield what each of several devices holds."""
    if machine.devices == 1:
        return
    memory = device_memory(stage, Change(devices=machine.devices, strategy=machine.strategy))
    yield f"memory of each of {machine.devices:,} devices ({SHARED_OUT[machine.strategy]})"
    yield from _memory(line for lines in memory for line in lines if line.size)
    yield _row("at one time", f"{_human(memory.peak)}B")
    yield from _memory(starting(stage, machine.devices, machine.strategy))


def _memory_here(device_type: str) -> int:
    if device_type == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(torch.cuda.mem_get_info()[1])


def trains(config: DictConfig) -> bool:
    """Whether the stage takes optimizer steps; one that has no data module (`data: null`) takes none."""
    return class_of(config.get("data")) is not None


def _inputs(node: Node) -> Iterator[str]:
    for role, source in node.inputs.items():
        if isinstance(source, Artefact):
            yield f"{role}: taking {source.folder} ({'init_from' if role == BASE else f'stage.inputs.{role}'})"
            continue
        found = store.find(source.root, source.stage.stage, source.fingerprint)
        if found is not None and found.complete:
            yield f"{role}: reusing {found.folder}"
            continue
        yield from _inputs(source)
        state = (
            "missing, would be built first" if found is None else f"incomplete, {found.folder} would be resumed first"
        )
        if not trains(source.stage.config):
            yield f"{role}: {state} (stage {source.stage.stage}, time not measured)"
            continue
        steps = source.stage.config.stage.max_steps
        is_timed = line_of(PROBES, class_of(source.stage.config.data)) is not None
        *_, whole = _time(source, _empty(source)) if is_timed else ["time not measured"]
        length = "as many optimizer steps as its data need" if steps is None else f"{steps:,} optimizer steps"
        yield f"{role}: {state} (stage {source.stage.stage}, {length}, {' '.join(whole.split())})"


def _base(node: Node) -> Artefact | None:
    """Return the input from which the stage would start, if it exists already."""
    return complete(node.inputs.get(BASE))


def _resolved(node: Node) -> DictConfig:
    """Return the configuration, with the description of the checkpoint from which a stage of `transformers`' model begins."""
    config = node.stage.config.copy()
    config.model = described(node)
    return resolved(config)


def _empty(node: Node) -> EmptyStage:
    return EmptyStage.of(_resolved(node), _base(node), node.inputs)


def _sampling(node: Node) -> EmptySampling:
    return EmptySampling.of(_resolved(node), _base(node), node.inputs)


def _table(node: Node, stage: EmptyStage | EmptySampling, fresh: bool) -> Iterator[str]:
    name, choices = node.stage.stage, node.stage.choices
    found = None if fresh else store.find(node.root, name, node.fingerprint)
    if found is not None:
        state = "is complete already" if found.complete else "would be resumed; below is the cost of the whole"
        yield f"{name}: {found.folder} {state}"
    if isinstance(stage, EmptySampling):
        yield f"{name}: samples on task {choices['task']}; nothing is run"
        yield from _parameters(stage)
        yield "memory (completions at their limit)"
        yield from _memory((*stage.lasting_memory(), *stage.sampling_memory()))
        yield _row("at one time", f"{_human(stage.peak_bytes())}B", ACCURACY[stage.device_type])
        work = stage.work()
        yield "sampling of one wave"
        yield _row(work.name, f"{_human(work.flops)}FLOPs", f"{work.tokens:,.0f} tokens")
        yield "time: not measured, only training is timed"
        return
    steps = _steps(stage)
    yield f"{name}: {steps} of model {choices['model']} on task {choices['task']}; nothing is run"
    yield from _parameters(stage)
    limit = f" (completions at their limit of {stage.load().new_tokens:,.0f} tokens)" if stage.prompts else ""
    assumed = f" ({stage.data.assumption})" if stage.data.assumption else ""
    yield f"memory{limit}{assumed}"
    yield from _memory((*stage.lasting_memory(), *stage.sampling_memory(), *stage.update_memory()))
    if stage.engine is not None:
        yield _row(
            "vLLM", f"{stage.engine.gpu_memory_utilization:.0%}", "of the GPU's memory, all the time, and on top"
        )
    taking_turns = "sampling and update take turns; " if stage.prompts else ""
    yield _row("at one time", f"{_human(stage.peak_bytes())}B", f"{taking_turns}{ACCURACY[stage.device_type]}")
    yield f"one optimizer step{limit}"
    for work in stage.work(stage.load()):
        at_most = stage.attempts > 1 and work.name in DRAWN
        yield _row(work.name, f"{_human(work.flops)}FLOPs", f"{work.tokens:,.0f} tokens{AT_MOST * at_most}")
    yield from _time(node, stage)


def _steps(stage: EmptyStage) -> str:
    steps = stage.config.stage.max_steps
    if steps is None and isinstance(stage.data, Examples) and stage.data.is_here:
        steps = stage.data.steps()
    return "as many optimizer steps as its data need" if steps is None else f"{steps:,} optimizer steps"


def _memory(lines: Iterable[Memory]) -> Iterator[str]:
    for line in lines:
        yield _row(line.name, f"{_human(line.size)}B", line.note)


def _parameters(stage: EmptyStage | EmptySampling) -> Iterator[str]:
    counts, vocabulary = stage.network.parameters(), stage.network.vocab_size
    yield "parameters"
    yield _row("total", _human(counts.total, WORDS), f"{counts.total:,} with a vocabulary of {vocabulary:,}")
    yield _row("without embedding and head", _human(counts.total - counts.embeddings, WORDS))
    if counts.mtp:
        yield _row("without MTP", _human(counts.total - counts.mtp, WORDS))
    yield _row("activated per token", _human(counts.activated, WORDS), "with the head, without embedding and MTP")
    yield _row("activated, without the head", _human(counts.activated - counts.head, WORDS))


def _time(node: Node, stage: EmptyStage) -> list[str]:
    """Return lines with the seconds per step by part, and the total as the last line."""
    obstacle = _obstacle(stage, isinstance(_base(node), DescribedModel))
    if obstacle:
        return [f"time: not measured, {obstacle}"]
    base = _base(node)
    speed = measure(stage.config, base)
    untrained = "" if base is not None or not stage.prompts else ", weights untrained"
    lines = [f"time per step, from a probe of {speed.probe_s:.0f} s on this machine ({_device(stage)}{untrained})"]
    steps, new_tokens, note = stage.config.stage.max_steps, speed.new_tokens, ""
    if stage.prompts:
        seen = "as in the probe"
        if new_tokens is None:
            seen = "their limit, which the probe did not reach"
            new_tokens = mean(stage.parts["rollout"].max_new_tokens_at(step) for step in range(steps))
        note = f"{1 / speed.sampling_s:,.0f} tokens/s, completions of {new_tokens:,.0f} tokens ({seen})"
        note += AT_MOST * (stage.attempts > 1)
    rewarded = "rewards and packing" if stage.critic is None else "rewards, values, reference, packing"
    load = stage.load(new_tokens)
    parts = (
        ("sampling", load.sampled_tokens * speed.sampling_s, note),
        ("data", load.tokens * speed.data_s, rewarded if stage.prompts else "tokenizing and packing"),
        ("forward and backward", load.tokens * speed.training_s, f"{1 / speed.training_s:,.0f} tokens/s"),
        ("optimizer", speed.optimizer_s, ""),
    )
    lines += [_row(name, _duration(seconds), note) for name, seconds, note in parts if seconds]
    total_s = steps * sum(seconds for _, seconds, _ in parts)
    settings = evaluation_settings(stage.config)
    if settings is not None and new_tokens is None:
        lines.append(_row("evaluation, once", "-", "not measured: this stage samples nothing else"))
    elif settings is not None and new_tokens is not None:
        sampled = settings.problems * settings.samples * min(new_tokens, settings.max_new_tokens)
        models = 1 + (BASE in node.inputs)  # the stage's model and its base
        evaluation_s = models * sampled * speed.sampling_s
        lines.append(_row("evaluation, once", _duration(evaluation_s), f"models compared: {models}"))
        total_s += evaluation_s
    return [*lines, f"about {_duration(total_s)} for the whole stage on this machine, checkpoints apart"]


def _obstacle(stage: EmptyStage, is_described: bool) -> str:
    """Return the reason why the stage cannot be probed here; empty if it can."""
    try:
        check_installed(stage.config)
    except InvalidInput as error:
        return str(error)
    if asks_for_several(stage.config.get("trainer") or {}):
        return "several processes are not timed"  # a probe would start them
    if is_of_transformers(stage.config.model) or line_of(PROBES, class_of(stage.config.data)) is None:
        return "only pre-training and GRPO of our own backbone are timed"
    if is_described:
        return "the checkpoint's weights are not read"
    models = getattr(stage.parts.get("reward"), "part_of_model", {})
    if models:
        return f"a probe has no reward model to ask ({', '.join(models)})"
    if stage.device_type == "cuda" and not torch.cuda.is_available():
        return "this machine has no GPU"
    memory = _memory_here(stage.device_type)
    needed = HEADROOM * stage.peak_bytes()
    if needed <= memory:
        return ""
    return f"with a reserve of {HEADROOM - 1:.0%} it takes {_human(needed)}B, and this machine has {_human(memory)}B"


def _device(stage: EmptyStage) -> str:
    return torch.cuda.get_device_name() if stage.device_type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _row(name: str, value: str, note: str = "") -> str:
    return f"  {name:<28}{value:>14}  {note}".rstrip()


def _human(number: float, steps: tuple[tuple[float, str], ...] = DECIMAL) -> str:
    """Format with three digits and a decimal prefix: 1234567 is 1.23 M."""
    size, prefix = max((step for step in steps if step[0] <= number), default=steps[0])
    return f"{_three_digits(number / size)} {prefix}"


def _duration(seconds: float) -> str:
    size, unit = max((step for step in TIMES if step[0] <= seconds), default=TIMES[0])
    return f"{_three_digits(seconds / size)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}"
