"""Everything a stage needs, as small as it gets: 16 characters, a 2-layer backbone with experts and MTP, toy problems.

A real tokenizer has at least 263 tokens, of which a fresh model hardly ever draws the one that ends a completion. Here the
alphabet is that of sums, so that completions end at all lengths, experts are really chosen, and a fit takes milliseconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from r1_lightning.data.chat_data import ChatDataModule
from r1_lightning.data.on_policy_data import OnPolicyDataModule
from r1_lightning.data.preference_data import PreferenceDataModule
from r1_lightning.data.pretrain_data import PretrainDataModule
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.data.teacher_data import CachedTeacherDataModule, TeacherTracesDataModule
from r1_lightning.functional.distillation import Distillation, GeneralisedJS
from r1_lightning.functional.policy_loss import TokenLevelGRPO
from r1_lightning.functional.preference_loss import DPO, BradleyTerry
from r1_lightning.functional.shards import whole
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rewards.verifiers.pool import VerifierPool
from r1_lightning.rollout.groups import RolloutConfig, RolloutMaker
from r1_lightning.rollout.sampler import Sampler
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.rollout.value_baseline import ValueBaseline
from r1_lightning.stages.base import AdamWConfig
from r1_lightning.stages.distill import DistillModule
from r1_lightning.stages.dpo import DPOModule
from r1_lightning.stages.fsdp import sharded_models
from r1_lightning.stages.grpo import GRPOModule
from r1_lightning.stages.ppo import PPOModule
from r1_lightning.stages.pretrain import PretrainModule
from r1_lightning.stages.reward_model import RewardModelModule
from r1_lightning.stages.sft import SFTModule
from r1_lightning.tasks.reading import Reading
from r1_lightning.text.chat_template import PLAIN
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.text import ChatExample, Completion, Preference, Problem, Verdict
from tests.model.tiny import randomise, tiny
from tests.support.prompts import PlainPrompts

ALPHABET = "0123456789+-=? "
EOS, PAD = len(ALPHABET), len(ALPHABET) + 1


class CharTokenizer(PlainPrompts):
    """One token per character of `ALPHABET`, then EOS and padding: what the parts use of a `TextTokenizer`."""

    eos_id, pad_id, vocab_size = EOS, PAD, len(ALPHABET) + 2

    def vocabulary(self) -> dict[str, int]:
        return {token: number for number, token in enumerate((*ALPHABET, "<eos>", "<pad>"))}

    def encode(self, text: str) -> list[int]:
        return [ALPHABET.index(character) for character in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode_batch(self, batch: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        # EOS and padding have no text either way: what the golden losses were written with.
        return ["".join(ALPHABET[token] for token in ids if token < EOS) for ids in batch]


@dataclass(frozen=True)
class Sums:
    """Sums as a `ProblemSource`: problem and document number i are functions of (seed, i) and of nothing else."""

    content_version: str = "sums-1"

    def train_problem(self, seed: int, index: int) -> Problem:
        left, right = 10 + (7 * index + 3 * seed) % 90, (11 * index + seed) % 10
        return Problem(f"{left}+{right}=", str(left + right), f"{index}")

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        return [self.train_problem(10_000, index) for index in range(count)]

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        for index in range(start, start + count):
            problem = self.train_problem(seed, index)
            yield problem.question + problem.answer + " ?" * (index % 4)


@dataclass(frozen=True)
class SumPairs:
    """A `PreferenceSource`: the right sum is better than one that is off by one."""

    content_version: str = "sum-pairs-1"

    def training_items(self, seed: int, wanted: int) -> Sequence[Preference]:
        return [self._pair(Sums().train_problem(seed, index)) for index in range(wanted)]

    def held_out_items(self, count: int) -> Sequence[Preference]:
        return [self._pair(problem) for problem in Sums().held_out_problems(count)]

    def _pair(self, problem: Problem) -> Preference:
        return Preference(problem.question, problem.answer, str(int(problem.answer) + 1))


@dataclass(frozen=True)
class SumExamples:
    """What a `ChatExamples` is asked for: 20 sums with their answers, which no cache keeps."""

    key: ClassVar[str] = ""
    size: ClassVar[int] = 0
    reading: ClassVar[Reading] = Reading()

    def stream(self) -> Iterator[ChatExample]:
        yield from self.read()

    def read(self) -> Sequence[ChatExample]:
        problems = [Sums().train_problem(0, index) for index in range(20)]
        return [ChatExample(problem.question, problem.answer, f"sum {problem.problem_id}") for problem in problems]


@dataclass(frozen=True)
class HashReward:
    """0, 1/2 or 1 by a hash of the completion: deterministic, and different within nearly every group."""

    name: str = "accuracy"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict(zlib.crc32(completion.text.encode()) % 3 / 2, "a hash")


@dataclass
class PooledHash:
    """`HashReward` that asks a verifier first, whose process kills itself in call n of a rank if a file n is in `folder`."""

    folder: str
    name: str = "pooled"
    calls: int = 0

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return self.judge_many([(problem, completion)])[0]

    def judge_many(self, pairs: Sequence[tuple[Problem, Completion]]) -> list[Verdict]:
        if not self.calls:
            self.pool = VerifierPool(workers=1, program="tests.rewards.verifiers.dying_worker")
        self.calls += 1
        asked = [(f"{self.folder}/{self.calls}", ""), *((completion.text, "") for _, completion in pairs)]
        _, *found = self.pool.compare_many(asked)
        right = HashReward()
        return [right(*pair) if each.same else Verdict(0.0, each.why) for pair, each in zip(pairs, found, strict=True)]


def backbone(seed: int = 0, **changes: Any) -> DeepSeekBackbone:
    """A randomised backbone over `CharTokenizer`'s vocabulary: 4 experts, 2 chosen, in one layer and in the MTP module."""
    shape = {
        "vocab_size": CharTokenizer.vocab_size,
        "d_model": 16,
        "n_routed_experts": 4,
        "n_expert_groups": 1,
        "n_limited_groups": 1,
        "d_ff_expert": 8,
        "d_ff_dense": 16,
    }
    model = DeepSeekBackbone(tiny(**{**shape, **changes}), seed=seed)
    randomise(model, seed)
    return model


@dataclass
class Miniature:
    """A backbone with its stage, its data module and its sampler, wired as `run` wires them."""

    model: DeepSeekBackbone = field(default_factory=backbone)
    seed: int = 0
    max_steps: int = 6
    rollout: RolloutConfig = field(default_factory=lambda: rollout_config())
    optim: AdamWConfig = field(default_factory=lambda: AdamWConfig(lr=0.01))
    processes: Processes = ONE

    def sampler(self, model: Any = None) -> Sampler:
        tokenizer: Any = CharTokenizer()
        return Sampler(model or self.model, self.rollout.sampler_settings(tokenizer, self.seed))

    def maker(self, sampler: Any = None) -> RolloutMaker:
        tokenizer: Any = CharTokenizer()
        return RolloutMaker(
            sampler or self.sampler(), tokenizer, PLAIN, WeightedSum([HashReward()]), self.rollout, self.processes
        )

    def grpo(self, **settings: Any) -> GRPOModule:
        settings = {"objective": TokenLevelGRPO(kl_coef=0.1), "reference_refresh_steps": 0, **settings}
        temperature = settings.pop("sampling_temperature", self.rollout.sampling_temperature)
        return GRPOModule(self.model, self.optim, sampling_temperature=temperature, **self._training(), **settings)

    def ppo(self, **settings: Any) -> PPOModule:
        """With `rollout` of `ppo_rollouts`."""
        tokenizer: Any = CharTokenizer()
        settings = {
            "objective": TokenLevelGRPO(kl_coef=0.0),
            "reference_refresh_steps": 0,
            "value_lr": 0.02,
            **settings,
        }
        temperature = self.rollout.sampling_temperature
        given = {"rollout": self.rollout, "tokenizer": tokenizer, **self._training(), **settings}
        return PPOModule(self.model, self.optim, sampling_temperature=temperature, **given)

    def rollouts(self, generate: Any = None) -> GroupedRolloutsDataModule:
        tokenizer: Any = CharTokenizer()
        reward = WeightedSum([HashReward()])
        sampler = generate or self.sampler()
        return GroupedRolloutsDataModule(
            Sums(), tokenizer, PLAIN, sampler, reward, self.rollout, self.seed, self.max_steps, self.processes
        )

    def _training(self) -> dict[str, Any]:
        return {"max_steps": self.max_steps, "processes": self.processes}

    def pretrain(self, **settings: Any) -> PretrainModule:
        return PretrainModule(self.model, self.optim, **self._training(), **settings)

    def reward_model(self, objective: Any = None) -> RewardModelModule:
        return RewardModelModule(self.model, self.optim, objective or BradleyTerry(), **self._training())

    def dpo(self, objective: Any = None, **settings: Any) -> DPOModule:
        return DPOModule(self.model, self.optim, objective or DPO(), **self._training(), **settings)

    def preferences(self, items_per_batch: int = 4, row_tokens: int = 24, **settings: Any) -> PreferenceDataModule:
        tokenizer: Any = CharTokenizer()
        return PreferenceDataModule(
            preferences=SumPairs(),
            tokenizer=tokenizer,
            template=PLAIN,
            seed=self.seed,
            max_steps=self.max_steps,
            items_per_batch=items_per_batch,
            row_tokens=row_tokens,
            processes=self.processes,
            **{"part": "whole", **settings},
        )

    def sft(self, **settings: Any) -> SFTModule:
        return SFTModule(self.model, self.optim, **self._training(), **settings)

    def examples(self, examples_per_batch: int = 6, row_tokens: int = 24) -> ChatDataModule:
        tokenizer: Any = CharTokenizer()
        source: Any = SumExamples()
        sizes: dict[str, Any] = {"examples_per_batch": examples_per_batch, "row_tokens": row_tokens}
        sizes["processes"] = self.processes
        return ChatDataModule(source, tokenizer, PLAIN, self.seed, self.max_steps, **sizes)

    def text(self, row_tokens: int = 24, rows_per_batch: int = 4) -> PretrainDataModule:
        tokenizer: Any = CharTokenizer()
        sizes = {"row_tokens": row_tokens, "rows_per_batch": rows_per_batch}
        return PretrainDataModule(Sums(), tokenizer, self.seed, self.max_steps, **sizes, processes=self.processes)

    def teacher(self) -> Teacher:
        """Wider and deeper than the student, and of another kind: without experts."""
        make = partial(backbone, 7, d_model=24, n_layers=3, n_dense_layers=3)
        return Teacher(make, "teacher-1", CharTokenizer.vocab_size, "fp32")

    def distill(self, objective: Any = None, teacher: Teacher | None = None, **settings: Any) -> DistillModule:
        objective = objective or Distillation(GeneralisedJS(0.3), 0.7, 2.0)
        return DistillModule(
            self.model, teacher or self.teacher(), self.optim, objective, **self._training(), **settings
        )

    def traces(self, **settings: Any) -> TeacherTracesDataModule:
        tokenizer: Any = CharTokenizer()
        sizes = {"items_per_batch": 6, "row_tokens": 24, "processes": self.processes, **settings}
        return TeacherTracesDataModule(Sums(), tokenizer, PLAIN, self.seed, self.max_steps, **sizes)

    def cached(self, folder: Path, teacher: Teacher | None = None, **settings: Any) -> CachedTeacherDataModule:
        tokenizer: Any = CharTokenizer()
        sizes = {"items_per_batch": 6, "row_tokens": 24, "top_k": 4, "distill_temperature": 2.0}
        sizes = {**sizes, "processes": self.processes, **settings}
        given = (Sums(), tokenizer, PLAIN, teacher or self.teacher(), self.seed, self.max_steps, str(folder))
        return CachedTeacherDataModule(*given, **sizes)

    def on_policy(self, fraction: float = 1.0, **settings: Any) -> OnPolicyDataModule:
        tokenizer: Any = CharTokenizer()
        sizes = {"items_per_batch": 6, "row_tokens": 24, "processes": self.processes, **settings}
        given = (Sums(), tokenizer, PLAIN, self.sampler(), self.rollout, self.seed, self.max_steps, fraction)
        return OnPolicyDataModule(*given, **sizes)


def ppo_rollouts(baseline: ValueBaseline | None = None, **changes: Any) -> RolloutConfig:
    """`rollout_config` with the advantages of a value model, and a KL in the rewards."""
    return rollout_config(advantages=baseline or ValueBaseline(kl_coef=0.1), advantage_scale="none", **changes)


def rollout_config(**changes: Any) -> RolloutConfig:
    """3 prompts x 4 completions of at most 10 tokens, two minibatches."""
    settings: dict[str, Any] = {
        "prompts_per_rollout": 3,
        "group_size": 4,
        "minibatches_per_rollout": 2,
        "max_new_tokens": 10,
        "row_tokens": 24,
    }
    return RolloutConfig(**{**settings, **changes})


def trainer(
    max_steps: int,
    folder: Path,
    callbacks: Sequence[L.Callback] = (),
    processes: Processes = ONE,
    **settings: Any,
) -> L.Trainer:
    """Lightning's own Trainer, silent, as `run.stages.train` sets it up, writing nothing but what `callbacks` write.

    Several `processes`, those of `tests.support.processes`, train by DDP.
    """
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    settings = {"accelerator": "cpu", **settings}
    if processes.count > 1:
        settings.setdefault("strategy", DDPStrategy(find_unused_parameters=True))
    return L.Trainer(
        devices=processes.count,
        max_steps=max_steps,
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        **{**quiet, **settings},
    )


@dataclass(frozen=True)
class Here:
    """The place of a process whose machine has all of them."""

    rank: int
    count: int

    @property
    def local_rank(self) -> int:
        return self.rank

    @property
    def local_count(self) -> int:
        return self.count


def sharded(processes: Processes, limit_s: int = 60) -> dict[str, Any]:
    """Settings for `trainer`: processes that divide the weights among them."""
    settings = sharded_models(torch.device("cpu"), Here(processes.rank, processes.count), limit_s)
    return {name: value for name, value in settings.items() if name != "devices"}


def fingerprint(model: nn.Module) -> int:
    """A number that changes with any bit of any weight or buffer in the state of `model`."""
    result = 0
    for tensor in model.state_dict().values():
        result = zlib.crc32(tensor.detach().contiguous().numpy().tobytes(), result)
    return result


class Spy(L.Callback):
    """Calls `function(trainer, module)` at a hook by name: `Spy("on_train_batch_start", ...)`."""

    def __init__(self, hook: str, function: Any) -> None:
        setattr(self, hook, lambda trainer, module, *rest: function(trainer, module, *rest))


def grad_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the gradients by parameter name; parameters without one are left out."""
    return {name: whole(p.grad).clone() for name, p in module.named_parameters() if p.grad is not None}


@dataclass(frozen=True)
class Batches:
    """Batches as a loader: Lightning takes a bare list for a list of loaders."""

    items: Sequence[Any]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


@dataclass(frozen=True)
class Backward:
    """What one optimizer step did: the loss of its last micro-batch as returned, and the unclipped gradients."""

    loss: float
    gradients: dict[str, torch.Tensor]
    metrics: dict[str, float]


def backwards(module: L.LightningModule, batches: Sequence[Any], folder: Path, **settings: Any) -> list[Backward]:
    """Train `module` on `batches` under a real Trainer and note every optimizer step."""
    losses: list[float] = []
    steps: list[dict[str, torch.Tensor]] = []
    metrics: list[dict[str, float]] = []

    def after(fit: L.Trainer, *_: Any) -> None:
        metrics.append({name: float(value) for name, value in fit.callback_metrics.items()})

    spies = [
        Spy("on_before_backward", lambda _, __, loss: losses.append(float(loss.detach()))),
        Spy("on_before_optimizer_step", lambda _, stage, optimizer: steps.append(grad_of(stage.backbone))),
        Spy("on_train_batch_end", after),
        *settings.pop("callbacks", ()),
    ]
    per_step = settings.get("accumulate_grad_batches", 1)
    trainer(len(batches) // per_step, folder, spies, **settings).fit(module, Batches(batches))
    ends = range(per_step - 1, len(losses), per_step)
    return [Backward(losses[end], gradients, metrics[end]) for end, gradients in zip(ends, steps, strict=True)]
