"""What stand-ins for a tokenizer without special tokens have in common with `TextTokenizer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from r1_lightning.text.chat_template import ChatTemplate


class PlainPrompts:
    """Prompts and continuations of a stand-in that has `eos_id` and `encode`, and may begin texts with a token."""

    eos_id: int
    encode: Callable[[str], list[int]]
    begins_with_bos = False
    other_ends: tuple[int, ...] = ()

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (self.eos_id, *self.other_ends)

    def digest(self) -> str:
        return type(self).__name__

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_prompts(self, template: ChatTemplate, questions: Sequence[str], after: str = "") -> list[list[int]]:
        return self.encode_batch([template.render(question) + after for question in questions])

    def encode_continuations(self, texts: Sequence[str]) -> list[list[int]]:
        return [ids[self.begins_with_bos :] for ids in self.encode_batch(texts)]
