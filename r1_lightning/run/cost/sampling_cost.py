"""Counts what sampling takes: a wave of rows, and the stages that only sample (`stage=sample`, `stage=compare`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig

from r1_lightning.artefacts.hf_folder import ImportedModel
from r1_lightning.artefacts.store import CONFIG, Artefact
from r1_lightning.evaluation.comparison import Comparison
from r1_lightning.evaluation.runner import EvaluationConfig
from r1_lightning.model import cost
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.rejection_sampling import RejectionSampling
from r1_lightning.run.build.device import role_device, stage_device
from r1_lightning.run.build.parts import build_parts, build_tokenizer
from r1_lightning.run.build.templates import template_of
from r1_lightning.run.checks.evaluation import evaluation_settings
from r1_lightning.run.config.declarations import class_of, line_of
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.stage_config import BASE
from r1_lightning.run.config.stored import read_model
from r1_lightning.run.cost.beside import Source, complete, empty_model, models_beside
from r1_lightning.run.cost.load import StepLoad, Wave
from r1_lightning.run.cost.networks import Network, network_of
from r1_lightning.run.graph.node import Node
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require

PREFILL, DECODING, DRAWING = "prefill, sampling", "decoding step, sampling", "logits, sampling"
HELD_OUT_LOOKED_AT = 200  # prompts, for the longest


class Memory(NamedTuple):
    """One kind of memory: its name, its size in bytes, and a note."""

    name: str
    size: int
    note: str


class Work(NamedTuple):
    """One part of an optimizer step: its tokens and FLOPs."""

    name: str
    tokens: float
    flops: float


def device_type_of(config: DictConfig) -> str:
    """Return the type of device on which a stage would run: "cpu" or "cuda"."""
    return stage_device(config).type


def is_elsewhere(config: DictConfig, role: str) -> bool:
    """True if `trainer.role_devices` puts the model of this role on another device than the stage's."""
    told, here = role_device(config, role), stage_device(config)
    return (told.type, told.index or 0) != (here.type, here.index or 0)


def wave_memory(network: Network, wave: Wave, spare: int = 0, is_drafting: bool = False) -> list[Memory]:
    """Return what a wave of sampling adds to the weights; `spare` columns more than the tokens need."""
    length = wave.length + spare
    note = f"{wave.rows:,} rows x {length:,} tokens"
    drafts = network.backbone.new_mtp_cache(wave.rows, length).bytes if is_drafting else 0
    prefill = network.prefill(wave.prompts, wave.prompt_tokens)
    tables = cost.SAMPLER_TABLES * cost.FP32 * wave.rows * network.vocab_size
    lines = [
        Memory(f"{network.cache_name}, sampling", network.cache(wave.rows, length), note),
        Memory("MTP module's cache, sampling", drafts, note),
        Memory(DECODING, network.decoding(wave.rows, length), "one layer at a time"),
        Memory(PREFILL, prefill, f"{wave.prompts:,} prompts x {wave.prompt_tokens:,} tokens"),
        Memory(DRAWING, tables, f"{wave.rows:,} rows x {network.vocab_size:,} entries"),
        Memory("weights in BF16, sampling", network.converted(is_drafting, is_decoding=True), "made once per rollout"),
        Memory("weights in FP8, sampling", network.held(is_drafting), "made once per rollout"),
    ]
    return [line for line in lines if line.size]


def sampling_bytes(lines: Sequence[Memory]) -> int:
    """Bytes that sampling takes at one time: the prompts are read first, then tokens are drawn."""
    sizes = {line.name: line.size for line in lines}
    reading = sizes.get(PREFILL, 0)
    drawing = sum(sizes.get(name, 0) for name in (DECODING, DRAWING))
    return sum(sizes.values()) - min(reading, drawing)


@dataclass(frozen=True)
class EmptySampling:
    """A stage that samples and does not train: one model at a time, by name; `beside` stay in memory with each."""

    config: DictConfig
    models: Mapping[str, Any]
    beside: Mapping[str, Any]
    waves: Mapping[str, Wave]
    prompts: Sequence[Sequence[int]]
    samples: int

    @classmethod
    def of(cls, config: DictConfig, base: Artefact | None, inputs: Mapping[str, Source]) -> EmptySampling:
        """Build from a resolved configuration. `InvalidInput` for a bad input, and for a kind of stage that cannot be counted."""
        make = line_of(SAMPLING, class_of(config.stage))
        allowed = f"what {config.stage['_target_']} takes is not known"
        require(make is not None, "dry_run", True, allowed)
        require(bool(inputs), "stage.inputs", dict(inputs), "it needs a model")
        return make(config, base, inputs) if make else cls(config, {}, {}, {}, [], 1)

    @property
    def device_type(self) -> str:
        return device_type_of(self.config)

    @cached_property
    def network(self) -> Network:
        """The model that takes most while it samples."""
        networks = {name: network_of(model, self.device_type) for name, model in self.models.items()}
        return networks[max(networks, key=lambda name: _bytes(networks[name], self.waves[name]))]

    def wave(self) -> Wave | None:
        return next(self.waves[name] for name, model in self.models.items() if model is self.network.backbone)

    def lasting_memory(self) -> list[Memory]:
        """Return the memory of the weights of the model, and of those beside it."""
        beside = [Memory(role, cost.tensor_bytes(model), "frozen") for role, model in self.beside.items()]
        return [Memory("weights", cost.tensor_bytes(self.network.backbone), "FP32"), *beside]

    def sampling_memory(self, wave: Wave | None = None) -> list[Memory]:
        """Return what this wave, or the largest, adds."""
        wave = wave or self.wave()
        assert wave is not None, "there is a model"
        return wave_memory(self.network, wave)

    def peak_bytes(self) -> int:
        """Peak memory in bytes."""
        return sum(line.size for line in self.lasting_memory()) + sampling_bytes(self.sampling_memory())

    def work(self) -> Work:
        """Return tokens and FLOPs of one wave of the largest model."""
        wave, network = self.wave(), self.network
        assert wave is not None, "there is a model"
        load = StepLoad(0, 0, 0, wave.prompts, math.ceil(wave.rows / wave.prompts), wave.prompt_tokens, wave.new_tokens)
        return Work("sampling", load.sampled_tokens, network.sampling_flops(load, wave.new_tokens))


def _bytes(network: Network, wave: Wave) -> int:
    return cost.tensor_bytes(network.backbone) + sampling_bytes(wave_memory(network, wave))


def _of_rejection(config: DictConfig, base: Artefact | None, inputs: Mapping[str, Source]) -> EmptySampling:
    parts = build_parts(config, base, is_empty=True)
    settings: RejectionSampling = inject(config.stage, {})
    block = next(iter(settings.blocks))
    problems = [parts["source"].train_problem(config.seed, number) for number in block]
    prompts = prompt_ids(problems, parts["tokenizer"], parts["template"])
    drawn = len(prompts) * settings.samples
    rows, new_tokens = min(parts["rollout"].max_rows, drawn), parts["rollout"].max_new_tokens
    wave = Wave(rows, math.ceil(rows / settings.samples), max(map(len, prompts)), new_tokens, drawn)
    name = config.stage.get("name") or "base"
    beside = {role: model for role, model in models_beside(inputs, parts).items() if not is_elsewhere(config, role)}
    return EmptySampling(config, {name: parts["backbone"]}, beside, {name: wave}, prompts, settings.samples)


def _asked(config: DictConfig, source: Any, given: Source) -> tuple[ChatTemplate, TextTokenizer]:
    """Return how a compared model is asked: in its training's template, or in the task's if it is a checkpoint.

    A model that is still to be made has the tokenizer of what it begins from, if that is there.
    """
    found = complete(given)
    task, begun = config.task, given
    if isinstance(found, Artefact) and not isinstance(found, ImportedModel):
        task = read_model(found.folder / CONFIG).task
    elif isinstance(given, Node) and found is None:
        task = given.stage.config.task
    while isinstance(begun, Node) and complete(begun) is None and BASE in begun.inputs:
        begun = begun.inputs[BASE]
    base = complete(begun)
    folder = None if base is None else base.tokenizer_folder
    return template_of(task.template, task.get("instruction"), folder, build_tokenizer(config, source, base))


def _of_comparison(config: DictConfig, base: Artefact | None, inputs: Mapping[str, Source]) -> EmptySampling:
    comparison: Comparison = inject(config.stage, {})
    settings = comparison.settings(evaluation_settings(config) or EvaluationConfig())
    source, precision = instantiate(config.task.source, _convert_="all"), instantiate(config.precision)
    problems = source.held_out_problems(min(settings.problems, HELD_OUT_LOOKED_AT))
    drawn = settings.problems * settings.samples
    rows = min(settings.max_rows, drawn)
    models, waves, prompts = {}, {}, []
    for name, given in inputs.items():
        template, tokenizer = _asked(config, source, given)
        models[name] = empty_model(given, precision, tokenizer, f"stage.inputs.{name}")
        prompts = prompt_ids(problems, tokenizer, template)
        longest = max(map(len, prompts))
        waves[name] = Wave(rows, math.ceil(rows / settings.samples), longest, settings.max_new_tokens, drawn)
    return EmptySampling(config, models, {}, waves, prompts, settings.samples)


SAMPLING: dict[type, Callable[[DictConfig, Artefact | None, Mapping[str, Source]], EmptySampling]] = {
    RejectionSampling: _of_rejection,
    Comparison: _of_comparison,
}
