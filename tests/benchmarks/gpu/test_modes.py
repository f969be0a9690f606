"""What is tried again and how, what is not, and what a row then says."""

from __future__ import annotations

import torch

from benchmarks.gpu.modes import Mode
from benchmarks.gpu.report import Row
from benchmarks.pairs import STRICT
from r1_lightning.model import masked_attention
from r1_lightning.model.masked_attention import DenseRows, DocumentRows, VariableLengthRows, row_attention

CUMSUM = RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set ...")
FLASH = RuntimeError("FlashAttention forward only supports head dimension at most 256\nmore")
LONG = torch.ones(1, 300, dtype=torch.long)


def test_an_operator_without_a_deterministic_kernel_and_then_attention():
    first = Mode(strict=True)
    second = first.after(CUMSUM)
    assert second == Mode(strict=False, reasons=("not deterministic (cumsum_cuda_kernel)",))
    assert second.after(CUMSUM) is None  # it was not refused any more: hopeless
    third = second.after(FLASH)
    assert (third.strict, third.dense) == (False, True)
    assert third.after(FLASH) is None
    row = third.told(Row("grpo", "work", "s/step", 1.0, "beside"))
    assert row.failed and row.value == 1.0
    assert row.beside == (
        "beside; not deterministic (cumsum_cuda_kernel); with dense masks, because attention failed: RuntimeError: "
        "FlashAttention forward only supports head dimension at most 256"
    )
    assert not second.told(row.__class__("grpo", "work", "s/step", 1.0)).failed


def test_other_errors_are_not_tried_again():
    assert Mode(strict=True).after(ValueError("12 tokens were expected")) is None


def test_an_error_in_attentions_file_is_attentions():
    def broken():
        try:
            masked_attention.widened(
                torch.ones(2), None, None
            )  # where `varlen_attn` is called with what it does not take
        except AttributeError as error:
            return error

    assert Mode(strict=True).after(broken()).dense


def test_dense_masks_take_the_place_of_every_kernel_and_go_again():
    before = (VariableLengthRows.of, DocumentRows.of)
    assert isinstance(row_attention(LONG), DocumentRows)
    with Mode(strict=True, dense=True).applied():
        assert STRICT.get()
        assert isinstance(row_attention(LONG), DenseRows) and isinstance(VariableLengthRows.of(LONG), DenseRows)
    assert not STRICT.get() and (VariableLengthRows.of, DocumentRows.of) == before
    with Mode(strict=False).applied():
        assert isinstance(row_attention(LONG), DocumentRows)
