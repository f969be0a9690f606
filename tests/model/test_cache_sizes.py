"""Cache per token: V2's Table 1 by hand, and the cache that a backbone really makes."""

from __future__ import annotations

from r1_lightning.model.cache_sizes import GQA_GROUPS, cache_bytes_per_token, cache_elements, own_elements
from r1_lightning.model.cost import meta_backbone
from tests.model.test_config import V3
from tests.model.tiny import backbone, tiny


def test_v3_by_hand() -> None:
    # 61 layers; 128 heads of 128; d_c + d_h^R = 512 + 64
    assert cache_elements(V3) == {
        "MHA": 2 * 128 * 128 * 61,  # 1,998,848
        "GQA": 2 * 8 * 128 * 61,
        "MQA": 2 * 128 * 61,
        "MLA": 35_136,
    }
    # V2's Table 1 calls MLA's cache 9/2 d_h l: as much as GQA with 2.25 groups
    assert cache_elements(V3)["MLA"] == 9 * 128 * 61 // 2 == cache_elements(V3)["GQA"] * 2.25 / GQA_GROUPS
    assert cache_bytes_per_token(V3)["MLA"] == 70_272


def test_it_is_what_a_cache_holds() -> None:
    model = backbone()
    assert model.new_cache(3, 7).bytes == 3 * 7 * 4 * cache_elements(model.config)["MLA"]  # FP32
    hybrid = meta_backbone(tiny(n_layers=4, attention_kind="lightning", softmax_attention_every=2))
    grown = hybrid.new_cache(1, 8).bytes - hybrid.new_cache(1, 7).bytes
    assert grown == 4 * cache_elements(hybrid.config)["MLA"] == 4 * 2 * hybrid.config.cache_width
    assert own_elements(hybrid.config) == 2 * (16 + 4)  # of four layers two have MLA


def test_there_are_no_more_groups_than_heads() -> None:
    assert cache_elements(tiny())["GQA"] == cache_elements(tiny())["MHA"]  # two heads
