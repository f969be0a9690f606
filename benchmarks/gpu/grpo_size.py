"""The size of the GRPO step that a GPU is measured on: the same for our side and for TRL's."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.grpo_work import Work

SEED = 0


@dataclass(frozen=True)
class GrpoSize:
    """`prompts` x `group_size` completions of `new_tokens`; the model's shape; our packed rows; TRL's batches to try."""

    prompts: int
    group_size: int
    new_tokens: int
    row_tokens: int
    trl_batches: tuple[int, ...]
    tokenizer_documents: int
    width: int
    n_layers: int
    n_routed_experts: int
    repeats: int
    vocab_size: int = 0  # that of the model, where it is larger than the tokenizer's

    @property
    def completions(self) -> int:
        return self.prompts * self.group_size

    @property
    def work(self) -> Work:
        return Work("GRPO step", (self.new_tokens,) * self.completions)


def title(size: GrpoSize) -> str:
    counts = f"{size.prompts} prompts x {size.group_size} completions x {size.new_tokens} tokens"
    return f"GRPO step, width {size.width:,}, {counts}, BF16"
