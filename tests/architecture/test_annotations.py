"""Annotations are checked while tests run: jaxtyping's hook with beartype, switched on in pyproject.toml, is really on.

In every process, that is: pytest-xdist's workers load their plugins anew, and a hook that came too late would be
silent.
"""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from r1_lightning.functional.advantages import per_token
from r1_lightning.functional.cross_entropy import masked_cross_entropy
from r1_lightning.functional.kl import k3


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeCheckError, match="policy_logprobs"):
        k3([-1.0, -2.0], torch.zeros(2))


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError, match="ref_logprobs"):
        k3(torch.zeros(2), torch.zeros(1))  # would broadcast without a word
    with pytest.raises(TypeCheckError, match="completion_mask_RT"):
        per_token(torch.zeros(2, 3), torch.ones(6, dtype=torch.bool))
    with pytest.raises(TypeCheckError, match="mask_N"):
        masked_cross_entropy(torch.zeros(2), torch.ones(3, dtype=torch.bool))


def test_the_right_type_passes():
    assert k3(torch.zeros(2), torch.zeros(2)).tolist() == [0.0, 0.0]  # r = 1, so (r - 1) - log r = 0
