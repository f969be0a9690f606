"""The miniature's general data: short requests, good and bad replies, and preference pairs for a reward model.

`tasks/general_text.py` writes the requests and defines the quality of a reply. No policy is trained on this true quality:
`rewards/known_quality.py` logs it next to the learned reward, and `GeneralPreferences` orders its pairs by it, as people's
judgements do in the paper (R1v2 section 3.1: helpfulness).

**Held-out by construction.** The key of a request is its kind and the indices of its words, in either language. A hash of the key
decides the side of the train/test split; replies, also those off the topic, are about requests of the same side.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from r1_lightning.tasks.general_text import FAULTS, Needs, Request, care, draw_request, quality, write_reply
from r1_lightning.tasks.generated import GeneratedPreferences, LevelledTask
from r1_lightning.tasks.keyed import is_held_out_key
from r1_lightning.tasks.solved import Solved, reply_document
from r1_lightning.text.language import LANGUAGES
from r1_lightning.text.reasoning_format import reasoned
from r1_lightning.types.errors import require_int, require_number
from r1_lightning.types.text import Language, Preference, Problem

HELD_OUT_SEED = 20_261_124
MAX_LEVEL = 3
NEEDS = "needs"  # the key in a problem's metadata
MIN_QUALITY_GAP = 0.2  # between the replies of a pair; below it the preference would be a matter of taste


@dataclass(frozen=True)
class GeneralTask(LevelledTask[Request]):
    """The problem source (see `types/text.py`) of requests of level `min_level` .. `max_level`.

    A problem's answer is one good reply of many, so comparing other replies with it says nothing. `wrong_share` is the share of the
    corpus's replies that have a fault.
    """

    content_version: ClassVar[str] = "general-1"
    stream: ClassVar[str] = "general"
    item_plural: ClassVar[str] = "requests"
    held_out_seed: ClassVar[int] = HELD_OUT_SEED

    def draw(self, rng: random.Random) -> Request:
        return draw_request(rng, self.min_level, self.max_level)

    def may_train_on(self, request: Request) -> bool:
        return may_train_on(request)

    def may_test_on(self, request: Request) -> bool:
        return may_test_on(request)

    def solve(self, rng: random.Random, request: Request, language: Language) -> Solved:
        """Return the request as a problem, with a thought and a good reply."""
        reply = write_reply(rng, request, language, "good", request)
        metadata = {NEEDS: request.needs(language).to_json()}
        problem = Problem(request.question(language), reply, request.key(), language, request.level, metadata)
        return Solved(problem, (care(request, language),), is_prose=True, summary=reply)

    def document(self, rng: random.Random) -> str:
        """Return a document: a request with a good or a bad reply."""
        request, language = self.draw_training(rng), rng.choice(LANGUAGES)
        fault = rng.choice(FAULTS[1:]) if rng.random() < self.wrong_share else "good"
        reply = write_reply(rng, request, language, fault, self.draw_training(rng))
        return reply_document(rng, request.question(language), care(request, language), reply)


@dataclass(frozen=True)
class GeneralPreferences(GeneratedPreferences):
    """An endless source of reply pairs; the chosen reply's quality is higher by `MIN_QUALITY_GAP` or more.

    In `reasoned_share` of the pairs both replies stand in answer blocks after the same thought, as in R1-Zero's form.
    """

    min_level: int = 1
    max_level: int = 3
    reasoned_share: float = 0.5
    content_version: ClassVar[str] = "general-preferences-1"
    stream: ClassVar[str] = "general-preference"
    held_out_seed: ClassVar[int] = HELD_OUT_SEED

    def __post_init__(self) -> None:
        require_int("data.preferences.min_level", self.min_level, 1, MAX_LEVEL)
        require_int("data.preferences.max_level", self.max_level, self.min_level, MAX_LEVEL)
        require_number("data.preferences.reasoned_share", self.reasoned_share, 0.0, 1.0)

    def item(self, rng: random.Random, is_held_out: bool) -> Preference:
        allowed = may_test_on if is_held_out else may_train_on
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
    """True if the request is not held out."""
    return not may_test_on(request)


def may_test_on(request: Request) -> bool:
    """True if the request is held out."""
    return is_held_out_key(request.key())


def quality_of(problem: Problem, reply: str) -> float:
    """Return the true quality of `reply`, 0..1. InvalidInput if `problem` is not a request of this task."""
    return quality(Needs.from_json(problem.metadata.get(NEEDS, "")), problem.language, reply)
