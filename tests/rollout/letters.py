"""A tokenizer of letters, problems and completions small enough to judge by hand, and reward functions for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r1_lightning.rollout.results import Samples
from r1_lightning.types.text import Completion, Problem, Verdict
from tests.rollout.fakes import generation_of
from tests.support.prompts import PlainPrompts

SPECIAL = 3  # ids below are special: padding 0, start 1, end 2
EOS = 2


class Letters(PlainPrompts):
    """A tokenizer whose token 3 is `a`, 4 is `b`, ...; padding shows as `_`, the start as `^`, the end as `$`."""

    eos_id, pad_id = EOS, 0

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") + SPECIAL for letter in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return self.decode_batch([ids], skip_special)[0]

    def decode_batch(self, batch: Sequence[Sequence[int]], skip_special: bool = True) -> list[str]:
        def shown(token: int) -> str:
            if token >= SPECIAL:
                return chr(token - SPECIAL + ord("a"))
            return "" if skip_special else "_^$"[token]

        return ["".join(map(shown, ids)) for ids in batch]


@dataclass
class Matches:
    """Scores 1 where the text is the answer; remembers everything it was asked."""

    name: str = "accuracy"

    def __post_init__(self) -> None:
        self.seen: list[tuple[str, Completion]] = []

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        self.seen.append((problem.problem_id, completion))
        return Verdict(float(completion.text == problem.answer), "")


@dataclass
class Short:
    """Scores a tenth of a point for each token fewer than ten."""

    name: str = "brevity"

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        return Verdict((10 - completion.n_tokens) / 10, f"{completion.n_tokens} tokens")


PROBLEMS = [Problem("x", "a", "p0"), Problem("yz", "bc", "p1")]
A, B, C, D = range(SPECIAL, SPECIAL + 4)
COMPLETIONS = [[A, EOS], [B, EOS], [A, A, A], [B, C, EOS], [B, C, EOS], [D]]  # three of p0, three of p1
FINISHED = [True, True, False, True, True, False]
GENERATION = generation_of(COMPLETIONS, FINISHED)
TEXTS = ["a", "b", "aaa", "bc", "bc", "d"]
SAMPLES = Samples(
    problems=PROBLEMS, prompts=[Letters().encode(p.question) for p in PROBLEMS], texts=TEXTS, generation=GENERATION
)
