"""The miniature's general data: short requests, good and bad replies, and pairs of them that a reward model can learn from.

What is asked and how good a reply is: `tasks/general_text.py`. The true quality stands beside the learned score and never in its
place: `rewards/known_quality.py` reads it in an evaluation, `GeneralPreferences` orders its pairs by it, as people's judgements do
in the paper (R1v2 section 3.1: helpfulness).

**Held-out by construction.** A request is known by its kind and the numbers of its words, in either language. A hash of that says
on which side of the wall it stands; replies, also those off the topic, are about requests of the same side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from r1_lightning.tasks.chains import is_held_out_key, keyed_random
from r1_lightning.tasks.general_text import FAULTS, Needs, Request, care, draw_request, quality, write_reply
from r1_lightning.tasks.solved import Solved, distinct_held_out
from r1_lightning.text.chat_template import r1_zero_prompt
from r1_lightning.text.language import LANGUAGES
from r1_lightning.text.reasoning_format import ANSWER_CLOSE, ANSWER_OPEN, reasoned
from r1_lightning.types.errors import require_int, require_number
from r1_lightning.types.text import Language, Preference, Problem

HELD_OUT_SEED = 20_261_124
DRAWS_PER_HELD_OUT_PROBLEM = 500  # one request in eight is held out; far more are needed only where there are no more
MAX_LEVEL = 3
NEEDS = "needs"  # the key in a problem's metadata
MIN_QUALITY_GAP = 0.2  # of a pair: below it the better one is a matter of taste


@dataclass(frozen=True)
class GeneralTask:
    """The problem source (see `types/text.py`) of requests of level `min_level` .. `max_level`.

    A problem's answer is a good reply, one of many; no rule for answers can judge another one. `wrong_share` is how many of the
    corpus's replies have a fault.
    """

    min_level: int = 1
    max_level: int = 3
    wrong_share: float = 0.35
    content_version: ClassVar[str] = "general-1"

    def __post_init__(self) -> None:
        require_int("task.min_level", self.min_level, 1, MAX_LEVEL)
        require_int("task.max_level", self.max_level, self.min_level, MAX_LEVEL)
        require_number("task.wrong_share", self.wrong_share, 0.0, 1.0)

    def train_problem(self, seed: int, index: int) -> Problem:
        """Problem number `index` of the endless training stream of `seed`."""
        return self.solved_problem(seed, index).problem

    def solved_problem(self, seed: int, index: int) -> Solved:
        """The same with a thought and a good reply."""
        rng = keyed_random("general", "train", seed, index)
        return _solved(rng, self._draw(rng, may_train_on), rng.choice(LANGUAGES))

    def held_out_problems(self, count: int) -> Sequence[Problem]:
        """The first `count` distinct held-out requests, the same for every seed, languages alternating."""
        rng = keyed_random("general", "held-out", HELD_OUT_SEED)

        def draw(language: Language) -> Problem | None:
            request = draw_request(rng, self.min_level, self.max_level)
            return _solved(rng, request, language).problem if may_test_on(request) else None

        return distinct_held_out(draw, count, DRAWS_PER_HELD_OUT_PROBLEM, "requests")

    def documents(self, seed: int, start: int, count: int) -> Iterator[str]:
        """Pre-training documents, numbered, each a function of (seed, number): a request and a reply, good or not."""
        for number in range(start, start + count):
            rng = keyed_random("general", "document", seed, number)
            request, language = self._draw(rng, may_train_on), rng.choice(LANGUAGES)
            fault = rng.choice(FAULTS[1:]) if rng.random() < self.wrong_share else "good"
            reply = write_reply(rng, request, language, fault, self._draw(rng, may_train_on))
            forms = (f" {reply}", f" {ANSWER_OPEN}{reply}{ANSWER_CLOSE}", reasoned(care(request, language), reply))
            yield r1_zero_prompt(request.question(language)) + rng.choices(forms, (0.5, 0.2, 0.3))[0]

    def _draw(self, rng: random.Random, allowed: Callable[[Request], bool]) -> Request:
        while True:
            request = draw_request(rng, self.min_level, self.max_level)
            if allowed(request):
                return request


@dataclass(frozen=True)
class GeneralPreferences:
    """A `PreferenceSource` of endless pairs of replies to one request; the chosen one is better by `MIN_QUALITY_GAP` or more.

    With `reasoned_share` both replies stand in answer blocks, after the same thought, as R1-Zero's form has it.
    """

    min_level: int = 1
    max_level: int = 3
    reasoned_share: float = 0.5
    content_version: ClassVar[str] = "general-preferences-1"

    def __post_init__(self) -> None:
        require_int("data.preferences.min_level", self.min_level, 1, MAX_LEVEL)
        require_int("data.preferences.max_level", self.max_level, self.min_level, MAX_LEVEL)
        require_number("data.preferences.reasoned_share", self.reasoned_share, 0.0, 1.0)

    def training_items(self, seed: int, wanted: int) -> Sequence[Preference]:
        """Pairs 0 .. `wanted` - 1 of `seed`."""
        return [self._pair(f"general-preference/{seed}/{index}", may_train_on) for index in range(wanted)]

    def held_out_items(self, count: int) -> Sequence[Preference]:
        """The first `count` held-out pairs, the same for every seed."""
        return [
            self._pair(f"held-out-general-preference/{HELD_OUT_SEED}/{index}", may_test_on) for index in range(count)
        ]

    def _pair(self, key: str, allowed: Callable[[Request], bool]) -> Preference:
        rng = keyed_random(key)
        language = rng.choice(LANGUAGES)
        while True:
            request, other = (draw_request(rng, self.min_level, self.max_level) for _ in range(2))
            if not (allowed(request) and allowed(other)) or request == other:
                continue
            needs = request.needs(language)
            replies = [write_reply(rng, request, language, fault, other) for fault in rng.sample(FAULTS, 2)]
            worse, better = sorted(replies, key=lambda reply: quality(needs, language, reply))
            if quality(needs, language, better) - quality(needs, language, worse) < MIN_QUALITY_GAP:
                continue
            if rng.random() < self.reasoned_share:
                thought = care(request, language)
                better, worse = reasoned(thought, better), reasoned(thought, worse)
            return Preference(request.question(language), better, worse)


def may_train_on(request: Request) -> bool:
    """True where the request is not held out."""
    return not may_test_on(request)


def may_test_on(request: Request) -> bool:
    """True where the request is held out."""
    return is_held_out_key(request.key())


def quality_of(problem: Problem, reply: str) -> float:
    """The true quality, 0..1, of what `reply` says to its reader. InvalidInput for a problem that is no request of this task."""
    return quality(Needs.from_json(problem.metadata.get(NEEDS, "")), problem.language, reply)


def _solved(rng: random.Random, request: Request, language: Language) -> Solved:
    reply = write_reply(rng, request, language, "good", request)
    metadata = {NEEDS: request.needs(language).to_json()}
    problem = Problem(request.question(language), reply, request.key(), language, request.level, metadata)
    return Solved(problem, (care(request, language),), is_prose=True, summary=reply)
