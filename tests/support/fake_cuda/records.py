"""What happened on the pretend device: one counter for each kind of event, by operator and line of our code."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

PACKAGE = "/r1_lightning/"
# Operators that compute with weights: one of them on the CPU means that a model works beside the device.
WORK = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::linear",
    "aten::embedding",
    "aten::_grouped_mm",
    "aten::grouped_mm",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_attention_math",
}
# Operators whose result the host needs before it can go on.
WAITS = {
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::bincount",  # its result is as long as the largest number
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
# Operators with no deterministic kernel on CUDA (documentation of `torch.use_deterministic_algorithms`, the second list), as far as
# a language model could meet them. `cumsum` and `bincount` have one for whole numbers, and are looked at more closely below.
UNDETERMINED = {
    "aten::_ctc_loss_backward",
    "aten::_histogramdd_from_bin_cts",
    "aten::histc",
    "aten::kthvalue",
    "aten::median.dim",
    "aten::nanmedian.dim",
    "aten::put_",
    "aten::grid_sampler_2d_backward",
    "aten::reflection_pad1d_backward",
    "aten::replication_pad1d_backward",
    "aten::nll_loss2d_forward",
    "aten::upsample_linear1d_backward",
}
FLOATING_ONLY = {"aten::cumsum", "aten::cumsum_", "aten::cumprod", "aten::logcumsumexp"}


@dataclass
class Records:
    """Counters by "operator at file:line function"; `launches` by operator alone."""

    launches: Counter[str] = field(default_factory=Counter)
    host_work: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    undetermined: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, operator: str) -> None:
        """Count an event of `kind`, the name of a counter, at the innermost line of our package."""
        getattr(self, kind)[f"{operator} at {line_of_ours()}"] += 1

    def take(self) -> Mapping[str, Mapping[str, int]]:
        """Return all counters, and begin anew."""
        taken = {item.name: dict(getattr(self, item.name)) for item in fields(self)}
        for item in fields(self):
            getattr(self, item.name).clear()
        return taken


RECORDS = Records()


def line_of_ours() -> str:
    """The innermost line of our package that led here, as "model/mla.py:99 forward"."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if PACKAGE in name and "/tests/" not in name:
            return f"{name.rpartition(PACKAGE)[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "(outside)"
