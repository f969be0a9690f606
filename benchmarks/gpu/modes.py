"""How a part is measured on a GPU, and how once more where that is refused: device time is scarce, and a number with a reason is
worth more than the reason alone.

As in every run of ours, torch refuses operators without a deterministic kernel. A part that meets one is measured again without
that promise. A part in which the kernel of attention fails is measured again with dense masks, and counts as failed all the same.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest import mock

from benchmarks.gpu.report import Row
from benchmarks.pairs import STRICT
from r1_lightning.model import masked_attention

# torch's words where `use_deterministic_algorithms(True)` meets an operator without such a kernel.
NO_KERNEL = "does not have a deterministic implementation"
# The file in which attention's kernels are called, and words in the errors of their backward, which has no line of ours.
ATTENTION, ATTENTION_WORDS = "masked_attention.py", ("flash", "varlen", "_attention", "fmha")


@dataclass(frozen=True)
class Mode:
    """`strict` refuses operators without a deterministic kernel; `dense` gives attention dense masks; `reasons` say why."""

    strict: bool
    dense: bool = False
    reasons: tuple[str, ...] = ()

    def after(self, error: Exception) -> Mode | None:
        """The mode in which to try again after `error`; None where it is hopeless."""
        text = str(error)
        if self.strict and NO_KERNEL in text:
            return self._because(f"not deterministic ({text.split(NO_KERNEL)[0].strip()})", strict=False)
        if not self.dense and is_of_attention(error):
            first = (text.splitlines() or [""])[0]
            return self._because(
                f"with dense masks, because attention failed: {type(error).__name__}: {first}", dense=True
            )
        return None

    def _because(self, reason: str, **changes: bool) -> Mode:
        return replace(self, reasons=(*self.reasons, reason), **changes)  # type: ignore[arg-type]

    def told(self, row: Row) -> Row:
        """The row with the reasons of this mode."""
        beside = "; ".join(text for text in (row.beside, *self.reasons) if text)
        return replace(row, beside=beside, failed=row.failed or self.dense)

    @contextmanager
    def applied(self) -> Iterator[None]:
        token = STRICT.set(self.strict)
        try:
            if not self.dense:
                yield
                return
            dense = masked_attention.DenseRows.of
            with (
                mock.patch.object(masked_attention.VariableLengthRows, "of", dense),
                mock.patch.object(masked_attention.DocumentRows, "of", dense),
            ):
                yield
        finally:
            STRICT.reset(token)


def is_of_attention(error: Exception) -> bool:
    """Whether attention's kernel raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    is_here = any(frame.filename.endswith(ATTENTION) for frame in frames)
    return is_here or any(word in str(error).lower() for word in ATTENTION_WORDS)
