"""Prompts that leave no room for an answer: they are replaced and counted, and the first of them is named.

A published file may hold a few prompts that are longer than all others. The run must neither end at one of them, at step 900, nor
cut it short. So a problem whose prompt has more than `most_tokens` is replaced by another one of the same stream: number `index`
by number `index + STRIDE`, and so on. The problems stay a function of (seed, index), and a pass over a file still contains every
row that fits. All prompts of a run are checked before its first step; if more than half would be replaced, the setting is wrong,
not the file, and the run is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem, ProblemSource

STRIDE = 2**40 + 15  # more than the problems of any run; a prime, so that no period of a source divides it
MAX_SHARE = 0.5  # largest share of a run's problems that may be replaced
MAX_TRIES = 64  # at half, one problem in 2**64 would need more


@dataclass
class PromptRoom:
    """Finds problems whose prompts leave room for an answer, and counts the others.

    `setting` and `value` name the limit in messages: a row of `value` tokens, of which `new_tokens` are the answer's.
    """

    tokenizer: TextTokenizer
    template: ChatTemplate
    setting: str
    value: int
    new_tokens: int
    lengths: dict[int, int] = field(default_factory=dict)  # tokens of the prompts seen, by a hash of question and turns
    asked: int = 0
    too_long: dict[int, tuple[int, Problem]] = field(default_factory=dict)  # hash -> (tokens, problem)
    replaced: int = 0

    @property
    def most_tokens(self) -> int:
        """The longest prompt that leaves room for an answer, in tokens."""
        return self.value - self.new_tokens

    def problems(self, source: ProblemSource, seed: int, indices: Iterable[int]) -> list[Problem]:
        """Return the problems `indices` of the stream of `source`, each with room for its answer. Raises `InvalidInput`."""
        places = list(indices)
        found = [source.train_problem(seed, place) for place in places]
        self.asked += len(found)
        waiting = self._long(found)
        self.replaced += len(waiting)
        for attempt in range(1, MAX_TRIES + 1):
            if not waiting:
                return found
            for number in waiting:
                found[number] = source.train_problem(seed, places[number] + attempt * STRIDE)
            still = self._long([found[number] for number in waiting])
            waiting = [waiting[number] for number in still]
        self._refuse(source, "hardly any prompt fits")

    def check(self, source: ProblemSource) -> str:
        """Return a line about the problems left out so far, "" if all fit. Raises `InvalidInput` if more than half do not."""
        if self.replaced > MAX_SHARE * self.asked:
            self._refuse(source, f"{self.replaced} of {self.asked} prompts leave no room")
        return self.text(source)

    def kept(self, problems: Sequence[Problem]) -> list[Problem]:
        """Return those of `problems` that fit, and count the others as too long."""
        long = set(self._long(problems))
        return [problem for number, problem in enumerate(problems) if number not in long]

    def text(self, source: Any) -> str:
        """Return a line with the number of problems left out and the first of them; "" if there are none."""
        if not self.too_long:
            return ""
        noun = "problem leaves" if len(self.too_long) == 1 else "problems leave"
        return (
            f"prompts: {len(self.too_long)} {noun} no room for {self.new_tokens} tokens of an answer ({self.setting}="
            f"{self.value}) and {'is' if len(self.too_long) == 1 else 'are'} left out; the first: {self._first(source)}"
        )

    def _long(self, problems: Sequence[Problem]) -> list[int]:
        """Return the indices of those of `problems` that leave no room."""
        keys = [hash((problem.question, *map(tuple, problem.earlier))) for problem in problems]
        new = [number for number, key in enumerate(keys) if key not in self.lengths]
        for number, ids in zip(new, prompt_ids([problems[n] for n in new], self.tokenizer, self.template), strict=True):
            self.lengths[keys[number]] = len(ids)
        long = [number for number, key in enumerate(keys) if self.lengths[key] > self.most_tokens]
        for number in long:
            self.too_long.setdefault(keys[number], (self.lengths[keys[number]], problems[number]))
        return long

    def _first(self, source: Any) -> str:
        tokens, problem = next(iter(self.too_long.values()))
        place = getattr(source, "place_of", lambda problem: "")(problem) or problem.problem_id
        return f"{place}, {tokens} tokens"

    def _refuse(self, source: Any, why: str) -> NoReturn:
        longest = max(tokens for tokens, _ in self.too_long.values())
        needed = f"with max_new_tokens = {self.new_tokens} needs a row of {longest + self.new_tokens}"
        raise InvalidInput(
            f"{self.setting}={self.value!r} is not allowed: {why}: a prompt of {longest} tokens {needed} "
            f"(the first: {self._first(source)})"
        )
