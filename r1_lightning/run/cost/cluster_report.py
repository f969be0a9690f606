"""The lines of `r1 plan-pipeline --gpus N`: memory, pipeline and communication of a published model on many GPUs (`cluster`).

Speeds of links are those that DeepSeek-V3 names for its H800 cluster (section 3.2.2): 50 GB/s between nodes, 160 GB/s within one.
They turn bytes into the least seconds that the bytes can take; nothing was measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from r1_lightning.functional.pipeline import ChunkTimes
from r1_lightning.model.cache_sizes import cache_bytes_per_token
from r1_lightning.run.cost.cluster import Cluster
from r1_lightning.types.errors import require_int, require_number

BETWEEN_NODES, WITHIN_NODE = 50e9, 160e9  # bytes per second and GPU
GIB = 2**30


def lines(name: str, cluster: Cluster, times: ChunkTimes, sampling_gpus: int, gpu_hours: float | None) -> Iterator[str]:
    """Yield the report. `sampling_gpus` share the weights of an engine that samples; `gpu_hours` per 1e12 tokens is to compare."""
    require_int("--sampling-gpus", sampling_gpus, 1)
    layout = cluster.layout
    yield (
        f"{name} on {layout.gpus:,} GPUs: {layout.ranks} stages ({layout.plan.name}) x {layout.expert_ranks} ranks of experts "
        f"x {layout.replicas} replicas; ZeRO-1"
    )
    yield (
        f"a step: {layout.sequences:,} sequences of {layout.tokens:,} tokens, {layout.micro_batches} micro-batches of one "
        "sequence per rank"
    )
    yield from _memory(cluster)
    yield from _pipeline(cluster, times)
    yield from _experts(cluster)
    yield from _once_per_step(cluster)
    if gpu_hours is not None:
        yield from _compared(cluster, gpu_hours)
    yield from _sampling(cluster, sampling_gpus)


def _memory(cluster: Cluster) -> Iterator[str]:
    layout, rank = cluster.layout, cluster.fullest
    kinds = cluster.memory(rank)
    total = sum(kinds.values())
    yield f"memory of the fullest GPU, at place {rank} of the pipeline ({layout.weights.upper()} weights)"
    for kind, size in kinds.items():
        yield _row(kind, _gib(size))
    yield _row("together", _gib(total), f"emptiest GPU {_gib(_least(cluster))}")
    everything = cluster.activation_bytes(rank, recompute=False)
    yield _row(
        "activations, all kept", _gib(everything), f"then {_gib(total - kinds['activations, recomputed'] + everything)}"
    )
    yield _row("micro-batches in flight", f"{cluster.in_flight[rank]}", "of one stage each")


def _least(cluster: Cluster) -> int:
    return min(sum(cluster.memory(rank).values()) for rank in range(cluster.layout.ranks))


def _pipeline(cluster: Cluster, times: ChunkTimes) -> Iterator[str]:
    layout = cluster.layout
    timeline = layout.plan.run(layout.ranks, layout.micro_batches, times)
    share = timeline.bubble / timeline.end
    sent = cluster.pipeline_bytes()
    yield "pipeline"
    yield _row(
        "bubble",
        f"{share:.2%}",
        f"of a step; {layout.plan.formula}, F={times.forward:g} B={times.backward:g} W={times.weights:g} F&B={times.overlapped:g}",
    )
    yield _row(
        "to the next stage",
        _decimal(sent),
        f"per micro-batch and direction, {_seconds(sent / BETWEEN_NODES)} at 50 GB/s",
    )
    flops = cluster.step_flops()
    yield _row("computing", f"{flops / layout.gpus:.3g}", "FLOPs per GPU and step, nothing computed again")


def _experts(cluster: Cluster) -> Iterator[str]:
    layout, config = cluster.layout, cluster.backbone.config
    reached, chunk = cluster.most_nodes, cluster.chunk_bytes()
    yield f"all-to-all of experts over {layout.nodes} nodes: a token reaches at most {reached}, its own among them or not"
    yield _row("without the limit", f"{cluster.mean_nodes_without_limit:.2f}", "nodes on average, by an even router")
    there, back = cluster.dispatch_bytes(), cluster.combine_bytes()
    yield _row("dispatch", f"{there:,} B", "per token and layer, between nodes, FP8 with scales")
    yield _row("combine", f"{back:,} B", "per token and layer, between nodes, BF16")
    yield _row(
        "a forward chunk",
        _decimal(chunk),
        f"per GPU; {_seconds(chunk / BETWEEN_NODES)} at 50 GB/s, a backward chunk the same",
    )
    yield _row(
        "a step",
        _decimal(2 * layout.micro_batches * chunk),
        f"per GPU; {_seconds(2 * layout.micro_batches * chunk / BETWEEN_NODES)}, to be hidden behind computing",
    )
    within, most = config.n_activated_experts / reached, reached * WITHIN_NODE / BETWEEN_NODES
    yield _row(
        "experts per node",
        f"{within:.1f}",
        f"of {WITHIN_NODE / BETWEEN_NODES:.1f} that NVLink carries in that time: {most:.0f} experts per token would cost the same",
    )


def _once_per_step(cluster: Cluster) -> Iterator[str]:
    gradients, weights = cluster.reduce_bytes()
    yield "once per step, over replicas (ZeRO-1)"
    yield _row(
        "gradients scattered", _decimal(gradients), f"per GPU, FP32, {_seconds(gradients / BETWEEN_NODES)} at 50 GB/s"
    )
    yield _row("weights gathered", _decimal(weights), f"per GPU, {_seconds(weights / BETWEEN_NODES)} at 50 GB/s")


def _compared(cluster: Cluster, gpu_hours: float) -> Iterator[str]:
    require_number("--gpu-hours", gpu_hours, 0.0, open_minimum=True)
    layout = cluster.layout
    step_s = gpu_hours * 3600 * layout.sequences * layout.tokens / 1e12 / layout.gpus
    yield f"at {gpu_hours:,.0f} GPU hours per trillion tokens"
    yield _row("a step", _seconds(step_s))
    yield _row(
        "a GPU computes", f"{cluster.step_flops() / layout.gpus / step_s / 1e12:,.0f} TFLOP/s", "nothing computed again"
    )
    sent = 2 * layout.micro_batches * cluster.chunk_bytes() / BETWEEN_NODES
    yield _row("all-to-all of experts", f"{sent / step_s:.0%}", "of a step, if it were not hidden")


def _sampling(cluster: Cluster, gpus: int) -> Iterator[str]:
    yield f"sampling by an engine of {gpus} GPUs: once per policy version"
    for kind, size in cluster.sampling_bytes():
        each = size / gpus
        yield _row(
            f"weights in {kind}",
            _decimal(size),
            f"{_gib(each)} per GPU, {_seconds(each / BETWEEN_NODES)} at 50 GB/s each",
        )
    per_token = cache_bytes_per_token(cluster.backbone.config)["MLA"]
    yield _row("cache", f"{per_token:,} B", f"per token (BF16); {_gib(per_token * 32768)} for 32,768 tokens")


def _row(name: str, value: str, note: str = "") -> str:
    return f"  {name:<34}{value:>12}  {note}".rstrip()


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"


def _decimal(size: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.2f} {name}"
    return f"{size:,.0f} B"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1e3:,.1f} ms"
