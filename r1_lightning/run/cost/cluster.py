"""Memory and communication of pre-training over many GPUs: pipeline x experts x ZeRO-1, by arithmetic (DeepSeek-V3, section 3.2).

Stages of the pipeline hold contiguous layers; within a stage, routed experts are shared out over EP ranks and all else stands on
every rank, whose data differ. ZeRO-1 shares masters and moments out over the ranks that hold the same weights; gradients are whole.
This program does not train like that: it says what such a layout takes, for those who hand the model to an engine that does
(docs/scale.md). Loads of experts are taken to be equal, and the copies, buffers and fragments of an engine are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from r1_lightning.functional.pipeline import ChunkTimes
from r1_lightning.functional.pipeline_schedules import SCHEDULES, Schedule
from r1_lightning.model import cost
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.cost import MicroBatch
from r1_lightning.model.precision import BF16, FP32
from r1_lightning.types.errors import require, require_choice, require_int

FP8 = 1
WEIGHT_TYPES = {
    "bf16": BF16,
    "fp8": FP8,
}  # of linear layers; embedding, head, router and norms are BF16 (V3 section 3.3.1)
PER_NODE = 8  # GPUs that reach each other by NVLink
TILE, SCALE = 128, FP32  # FP8 activations travel with a scale for every 128 channels (V3 section 3.3.2)


@dataclass(frozen=True)
class Layout:
    """`gpus` in a pipeline of `ranks` stages, each with experts over `expert_ranks` and as many replicas as are left.

    A step takes `sequences` of `tokens` each, one sequence per micro-batch. Raises `InvalidInput` if that does not go up.
    """

    gpus: int
    ranks: int = 16
    expert_ranks: int = 64
    schedule: str = "dualpipe"
    weights: str = "bf16"
    sequences: int = 15360
    tokens: int = 4096

    def __post_init__(self) -> None:
        for field in ("gpus", "ranks", "expert_ranks", "sequences", "tokens"):
            require_int(field, getattr(self, field), 1)
        require_choice("schedule", self.schedule, SCHEDULES)
        require_choice("weights", self.weights, WEIGHT_TYPES)
        cells = self.ranks * self.expert_ranks
        allowed = f"it must be a multiple of {cells:,}, {self.ranks} stages x {self.expert_ranks} ranks of experts"
        require(self.gpus % cells == 0, "gpus", self.gpus, allowed)
        allowed = f"it must be a multiple of {self.data_ranks:,}, the GPUs of a stage"
        require(self.sequences % self.data_ranks == 0, "sequences", self.sequences, allowed)
        self.plan.check(self.ranks, self.micro_batches)

    @property
    def plan(self) -> Schedule:
        return SCHEDULES[self.schedule]

    @property
    def data_ranks(self) -> int:
        """Ranks of one stage, each with data of its own."""
        return self.gpus // self.ranks

    @property
    def replicas(self) -> int:
        """How often a stage has each expert."""
        return self.data_ranks // self.expert_ranks

    @property
    def micro_batches(self) -> int:
        return self.sequences // self.data_ranks

    @property
    def nodes(self) -> int:
        """Nodes over which the experts of a stage stand."""
        return math.ceil(self.expert_ranks / PER_NODE)


@dataclass(frozen=True)
class Weights:
    """Counts of weights: of `routed` experts, of other `linear` layers, and the `rest` (embedding, head, router, norms)."""

    routed: int = 0
    linear: int = 0
    rest: int = 0

    def __add__(self, other: Weights) -> Weights:
        return Weights(self.routed + other.routed, self.linear + other.linear, self.rest + other.rest)

    def on_a_rank(self, expert_ranks: int) -> int:
        """Weights that one of the ranks of a stage holds."""
        return self.routed // expert_ranks + self.linear + self.rest


def weights_of(module: nn.Module) -> Weights:
    """Count the weights of a block or an MTP module; stacked experts have three dimensions."""
    counts = Weights()
    for name, p in module.named_parameters():
        if p.dim() == 3:
            counts += Weights(routed=p.numel())
        elif p.dim() == 2 and "router" not in name:
            counts += Weights(linear=p.numel())
        else:
            counts += Weights(rest=p.numel())
    return counts


def stages_of(backbone: DeepSeekBackbone, stages: int) -> list[list[nn.Module]]:
    """Cut blocks and MTP modules into contiguous stages. The first and last, which hold embedding and head, take the fewest."""
    layers = [*backbone.blocks, *backbone.mtp_modules]
    require(stages <= len(layers), "ranks", stages, f"the model has {len(layers)} layers, MTP modules included")
    each, more = divmod(len(layers), stages)
    sizes = [each + (0 < stage <= more) for stage in range(stages)]
    ends = [sum(sizes[: stage + 1]) for stage in range(stages)]
    return [layers[end - size : end] for size, end in zip(sizes, ends, strict=True)]


@dataclass(frozen=True)
class Cluster:
    """A model on a layout. Bytes are those of one GPU."""

    backbone: DeepSeekBackbone
    layout: Layout

    def __post_init__(self) -> None:
        experts, ranks = self.backbone.config.n_routed_experts, self.layout.expert_ranks
        require(experts % ranks == 0, "expert_ranks", ranks, f"it must divide the model's {experts} routed experts")

    @cached_property
    def stages(self) -> list[Weights]:
        """Weights of each stage, embedding and head in the first and the last."""
        counts = [sum(map(weights_of, layers), Weights()) for layers in self.layers]
        counts[0] += Weights(rest=self.backbone.embedding.weight.numel())
        head = 0 if self.backbone.config.tie_embeddings else self.backbone.head.weight.numel()
        counts[-1] += Weights(rest=head + sum(p.numel() for p in self.backbone.norm.parameters()))
        return counts

    @cached_property
    def layers(self) -> list[list[nn.Module]]:
        return stages_of(self.backbone, self.layout.ranks)

    def held(self, rank: int) -> Weights:
        """Weights of the stages that the rank of this place in the pipeline holds: with DualPipe two of them."""
        mine, other = self.stages[rank], self.stages[-1 - rank]
        return mine + other if self.layout.plan.parameters == 2 else mine

    def weight_bytes(self, held: Weights) -> int:
        number = WEIGHT_TYPES[self.layout.weights]
        ours = held.routed // self.layout.expert_ranks + held.linear
        return number * ours + BF16 * held.rest

    def gradient_bytes(self, held: Weights) -> int:
        """FP32 (V3 section 3.3.1), whole on each rank."""
        return FP32 * held.on_a_rank(self.layout.expert_ranks)

    def shared_out(self, held: Weights, number: int) -> int:
        """Bytes of a value of `number` bytes per weight, shared out over all ranks that hold that weight (ZeRO-1)."""
        layout, copies = self.layout, self.layout.plan.parameters
        routed = held.routed // layout.expert_ranks / (layout.replicas * copies)
        return math.ceil(number * (routed + (held.linear + held.rest) / (layout.data_ranks * copies)))

    @cached_property
    def in_flight(self) -> list[int]:
        """Micro-batches, of one stage each, that a rank keeps; they do not grow with the number of micro-batches."""
        timeline = self.layout.plan.run(self.layout.ranks, 2 * self.layout.ranks, ChunkTimes())
        return [timeline.activations(rank) for rank in range(self.layout.ranks)]

    def activation_bytes(self, rank: int, recompute: bool) -> int:
        """Bytes that micro-batches in flight keep on a rank: all, or with `recompute` their blocks' inputs, and one block."""
        batch = MicroBatch(1, self.layout.tokens, self.layout.tokens, 0)
        here = (rank, -1 - rank) if self.layout.plan.parameters == 2 else (rank,)
        blocks = self.in_flight[rank] * max(len(self.layers[stage]) for stage in here)
        block, _ = cost.block_bytes(self.backbone.config, batch, BF16)
        inputs = self.layout.tokens * self.backbone.config.d_model * FP32  # our stream between blocks is FP32
        return blocks * inputs + block if recompute else blocks * block

    def memory(self, rank: int) -> dict[str, int]:
        """Return the bytes of each kind of memory on a GPU of this place in the pipeline."""
        held = self.held(rank)
        return {
            "weights": self.weight_bytes(held),
            "gradients, FP32": self.gradient_bytes(held),
            "masters, FP32, shared out": self.shared_out(held, FP32),
            "moments, two in BF16, shared out": self.shared_out(held, 2 * BF16),
            "activations, recomputed": self.activation_bytes(rank, recompute=True),
        }

    @cached_property
    def fullest(self) -> int:
        """The place in the pipeline whose GPUs are fullest."""
        return max(range(self.layout.ranks), key=lambda rank: sum(self.memory(rank).values()))

    # -------------------------------------------------------------------------------------------------- communication

    @property
    def most_nodes(self) -> int:
        """Nodes that a token reaches at most: node-limited routing (V3 section 2.1.2), else as many as it has experts."""
        config = self.backbone.config
        groups = config.n_limited_groups if config.n_expert_groups > 1 else config.n_activated_experts
        return min(groups, self.layout.nodes)

    @property
    def most_other_nodes(self) -> int:
        """The same without the token's own node, where it must be one of them."""
        return min(self.most_nodes, self.layout.nodes - 1)

    @property
    def mean_nodes_without_limit(self) -> float:
        """Mean number of nodes with one of K experts, if any K of E were as likely: n (1 - C(E - E/n, K) / C(E, K))."""
        config, nodes = self.backbone.config, self.layout.nodes
        experts, chosen = config.n_routed_experts, config.n_activated_experts
        return nodes * (1 - math.comb(experts - experts // nodes, chosen) / math.comb(experts, chosen))

    def dispatch_bytes(self) -> int:
        """Bytes that a token sends between nodes in one layer, at most: FP8 and its scales, to every node once."""
        width = self.backbone.config.d_model
        return self.most_other_nodes * (FP8 * width + SCALE * math.ceil(width / TILE))

    def combine_bytes(self) -> int:
        """Bytes that come back for a token in one layer, at most: BF16, summed within a node before it travels."""
        return self.most_other_nodes * BF16 * self.backbone.config.d_model

    def chunk_bytes(self) -> int:
        """Bytes between nodes that one GPU sends in a forward (or in a backward) of one micro-batch through its fullest stage."""
        mixtures = max(sum(weights_of(layer).routed > 0 for layer in layers) for layers in self.layers)
        return mixtures * self.layout.tokens * (self.dispatch_bytes() + self.combine_bytes())

    def pipeline_bytes(self) -> int:
        """Bytes that a stage sends to the next for one micro-batch, and the next one back: hidden states in BF16."""
        return self.layout.tokens * self.backbone.config.d_model * BF16

    def reduce_bytes(self) -> tuple[int, int]:
        """Bytes that a GPU sends once per step: gradients scattered (FP32), new weights gathered (in the weights' type).

        In a ring of g ranks each sends (g - 1) / g of what it holds.
        """
        layout, copies = self.layout, self.layout.plan.parameters
        held = self.held(self.fullest)
        routed, others = layout.replicas * copies, layout.data_ranks * copies
        experts = Weights(routed=held.routed)
        rest = Weights(0, held.linear, held.rest)
        sent = [
            size(experts) * (routed - 1) / routed + size(rest) * (others - 1) / others
            for size in (self.gradient_bytes, self.weight_bytes)
        ]
        return math.ceil(sent[0]), math.ceil(sent[1])

    def step_flops(self) -> float:
        """FLOPs of an optimizer step over the whole batch, attention and MTP included; recomputation is not."""
        config, counts = self.backbone.config, cost.count_parameters(self.backbone)
        tokens = self.layout.sequences * self.layout.tokens
        forward = cost.forward_flops(config, counts, tokens, tokens, self.layout.tokens / 2, config.mtp_depth)
        return forward * cost.TRAINING_FLOPS / cost.FORWARD_FLOPS

    def sampling_bytes(self) -> Sequence[tuple[str, int]]:
        """Bytes of all weights that sample (without MTP modules), by type: what a policy version sends to the engine."""
        whole = sum(self.stages, Weights())
        mtp = sum(map(weights_of, self.backbone.mtp_modules), Weights())
        linear, rest = whole.routed + whole.linear - mtp.routed - mtp.linear, whole.rest - mtp.rest
        return [(name.upper(), number * linear + BF16 * rest) for name, number in WEIGHT_TYPES.items()]
