"""Memory and communication on many GPUs: DeepSeek-V3 by hand, and totals that must add up to the model."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import count_parameters, meta_backbone
from r1_lightning.run.cost.cluster import Cluster, Layout, Weights, stages_of, weights_of
from r1_lightning.run.cost.model_sizes import shape_of
from r1_lightning.types.errors import InvalidInput

D, E, H = 7168, 256, 2048
# A block's attention: q down and up, kv down and up, out. And experts: gate, up and down.
ATTENTION = D * 1536 + 1536 * 24576 + D * 576 + 512 * 32768 + 16384 * D
EXPERT = 3 * D * H
NORMS = 2 * D + 1536 + 512


@pytest.fixture(scope="module")
def v3():
    return meta_backbone(shape_of("v3_671b"))


def layout(**changes) -> Layout:
    return Layout(**{"gpus": 2048, **changes})


def test_the_weights_of_a_block_by_hand(v3):
    mixture, dense = weights_of(v3.blocks[3]), weights_of(v3.blocks[0])
    assert mixture == Weights(
        routed=E * EXPERT, linear=ATTENTION + EXPERT, rest=NORMS + E * D
    )  # one shared expert; router
    assert dense == Weights(linear=ATTENTION + 3 * D * 18432, rest=NORMS)
    assert (mixture + dense).on_a_rank(
        64
    ) == E * EXPERT // 64 + 2 * ATTENTION + EXPERT + 3 * D * 18432 + 2 * NORMS + E * D


@pytest.mark.parametrize("ranks", [1, 2, 8, 16, 31, 62])
def test_stages_hold_every_layer_once_in_order(v3, ranks):
    cut = stages_of(v3, ranks)
    assert [layer for stage in cut for layer in stage] == [*v3.blocks, *v3.mtp_modules]
    sizes = list(map(len, cut))
    assert len(sizes) == ranks and max(sizes) - min(sizes) <= 1 and sizes[0] == sizes[-1] == min(sizes)


@pytest.mark.parametrize(("ranks", "schedule"), [(16, "dualpipe"), (16, "1f1b"), (8, "zb1p")])
def test_all_gpus_together_hold_the_model(v3, ranks, schedule):
    """Masters are there once, FP32, however many copies of a weight there are."""
    cluster = Cluster(v3, layout(ranks=ranks, schedule=schedule))
    total = count_parameters(v3).total
    assert sum(cluster.stages, Weights()).on_a_rank(1) == total
    masters = sum(cluster.shared_out(cluster.held(rank), 4) for rank in range(ranks)) * cluster.layout.data_ranks
    assert masters == pytest.approx(4 * total, rel=1e-6)


def test_one_rank_of_v3s_layout_by_hand(v3):
    """Place 7 of 16 holds stages 7 and 8 under DualPipe: 8 mixture blocks. Experts have 2 x 2 copies, the rest 128 x 2."""
    cluster = Cluster(v3, layout(weights="fp8"))
    routed, linear, rest = 8 * E * EXPERT // 64, 8 * (ATTENTION + EXPERT), 8 * (NORMS + E * D)
    memory = cluster.memory(7)
    assert memory["weights"] == routed + linear + 2 * rest
    assert memory["gradients, FP32"] == 4 * (routed + linear + rest)
    shared = routed / 4 + (linear + rest) / 256
    assert memory["masters, FP32, shared out"] == memory["moments, two in BF16, shared out"] == math.ceil(4 * shared)
    # 17 micro-batches in flight, 4 layers each, whose inputs are 4096 x 7168 in FP32, and one block with all it keeps.
    block = memory["activations, recomputed"] - 17 * 4 * 4096 * D * 4
    assert cluster.activation_bytes(7, recompute=False) == 17 * 4 * block


def test_activations_of_1f1b_are_fewer_at_the_end(v3):
    cluster = Cluster(v3, layout(schedule="1f1b"))
    assert cluster.in_flight == list(range(16, 0, -1))
    assert Cluster(v3, layout()).in_flight == [17] * 16


def test_what_a_token_sends_by_hand(v3):
    """To 4 other nodes: 7,168 bytes of FP8 and 56 scales of 4 bytes each; back 2 bytes per channel. 4 nodes have 3 others."""
    cluster = Cluster(v3, layout())
    assert (cluster.most_nodes, cluster.dispatch_bytes(), cluster.combine_bytes()) == (4, 29_568, 57_344)
    assert cluster.chunk_bytes() == 4 * 4096 * (29_568 + 57_344)
    assert cluster.pipeline_bytes() == 58_720_256
    four = Cluster(v3, layout(gpus=256, ranks=8, expert_ranks=32))
    assert (four.dispatch_bytes(), four.combine_bytes()) == (22_176, 43_008)
    assert Cluster(v3, layout(gpus=128, expert_ranks=8)).chunk_bytes() == 0  # one node


def test_nodes_without_a_limit_by_enumeration():
    """2 of 8 experts on 4 nodes, two each: all 28 pairs. 4 pairs stand on one node, 24 on two: (4 + 48) / 28."""
    config = ModelConfig(
        vocab_size=32,
        d_model=16,
        n_layers=2,
        n_dense_layers=1,
        n_heads=2,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=4,
        d_ff_dense=32,
        d_ff_expert=8,
        n_routed_experts=32,
        n_shared_experts=1,
        n_activated_experts=2,
        max_positions=64,
    )
    cluster = Cluster(meta_backbone(config), Layout(64, 2, 32, "1f1b", sequences=64, tokens=8))
    pairs = list(combinations(range(32), 2))
    wanted = sum(len({expert // 8 for expert in pair}) for pair in pairs) / len(pairs)
    assert cluster.layout.nodes == 4
    assert cluster.mean_nodes_without_limit == pytest.approx(wanted, rel=1e-12)
    assert cluster.most_nodes == 2


def test_once_per_step_by_hand(v3):
    """1F1B on 2,048 GPUs: 2 replicas of an expert, so half of its bytes is sent; 128 of the rest, so 127/128."""
    cluster = Cluster(v3, layout(schedule="1f1b"))
    held = cluster.held(cluster.fullest)
    routed, rest = held.routed // 64, held.linear + held.rest
    scattered, gathered = cluster.reduce_bytes()
    assert scattered == math.ceil(4 * (routed / 2 + rest * 127 / 128))
    assert gathered == math.ceil(2 * (routed / 2 + rest * 127 / 128))


def test_a_policy_version_is_the_model_without_mtp(v3):
    counts = count_parameters(v3)
    bf16, fp8 = cluster_bytes = [size for _, size in Cluster(v3, layout()).sampling_bytes()]
    assert bf16 == 2 * (counts.total - counts.mtp)
    kept = counts.embeddings + counts.norms + 58 * E * D  # BF16 as well: embedding, head, norms, routers
    assert fp8 == counts.total - counts.mtp + kept and cluster_bytes == [1_342_052_808_704, fp8]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gpus": 2000}, "gpus=2000 is not allowed: it must be a multiple of 1,024, 16 stages x 64 ranks of experts"),
        ({"sequences": 15_361}, "sequences=15361 is not allowed: it must be a multiple of 128, the GPUs of a stage"),
        ({"ranks": 0}, "ranks=0 is not allowed"),
        ({"sequences": 128}, "micro_batches=1 is not allowed: DualPipe needs"),
        ({"schedule": "gpipe"}, "schedule='gpipe' is not allowed: it must be one of 1f1b, zb1p, dualpipe"),
        ({"weights": "int8"}, "weights='int8' is not allowed"),
    ],
)
def test_layouts_that_do_not_go_up(changes, says):
    with pytest.raises(InvalidInput, match=says):
        layout(**changes)


def test_layouts_that_the_model_cannot_fill(v3):
    with pytest.raises(
        InvalidInput, match="expert_ranks=96 is not allowed: it must divide the model's 256 routed experts"
    ):
        Cluster(v3, layout(gpus=3072, ranks=16, expert_ranks=96, sequences=15_360))
    with pytest.raises(InvalidInput, match="ranks=64 is not allowed: the model has 62 layers"):
        Cluster(v3, layout(ranks=64, expert_ranks=32, sequences=15_360)).memory(0)
