"""Short requests without a reference answer, typical replies to them, and a rule for the quality of a reply.

Real preferences come from people; here they come from a rule, so that a learned reward can be compared with the truth. A request
asks for *pieces* (a name, a thing, a greeting) or for a number of *items* of a kind. The quality of a reply, in 0..1, is

    done x manners:    done = share of the requested pieces and items in the reply;   manners = 1 polite, 0.7 plain, 0.2 rude

and 0 for a reply in the wrong language. Surplus items and excessive length reduce `done`. The rule depends on the request and the
reply alone.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from r1_lightning.tasks.words import DAYS, EVENTS, KINDS, MEMBERS, PEOPLE, PLACES, THINGS, WEATHER, Words
from r1_lightning.text.language import count_words, language_of
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Language

POLITE, PLAIN, RUDE = 1.0, 0.7, 0.2
MAX_WORDS = 40  # every good reply is shorter; a Chinese word is one character
# The ways in which a reply can be faulty; `plain` and `good` are the two without a fault.
FAULTS = ("good", "plain", "rude", "incomplete", "too_short", "off_topic", "wrong_language")

_POLITE_WORDS = {
    "en": ("Gladly! ", "Of course. ", "With pleasure. "),
    "zh": ("很乐意！", "当然可以。", "没问题。"),
}
_RUDE_WORDS = {
    "en": ("How boring. ", "What a silly wish. ", "Leave me alone. "),
    "zh": ("真无聊。", "真烦人。", "别来烦我。"),
}
_SHORT = {"en": ("Ok.", "Done.", "Yes."), "zh": ("好。", "行。", "嗯。")}


class Form(NamedTuple):
    """One kind of request. Text in [] in the reply is optional; a reply must contain one of the `marker` words."""

    level: int
    slots: tuple[tuple[str, Words], ...]
    question: dict[Language, str]
    reply: dict[Language, str]
    marker: dict[Language, tuple[str, ...]]


FORMS: dict[str, Form] = {
    "greet": Form(
        1,
        (("name", PEOPLE), ("thing", THINGS)),
        {"en": "Greet {name} and ask about the {thing}", "zh": "向{name}问好，并问问{thing}怎么样"},
        {"en": "Hello[, {name}]![ How is the {thing}?]", "zh": "你好[，{name}]！[{thing}怎么样？]"},
        {"en": ("hello", "hi"), "zh": ("你好",)},
    ),
    "thank": Form(
        1,
        (("name", PEOPLE), ("thing", THINGS)),
        {"en": "Thank {name} for the {thing}", "zh": "感谢{name}送的{thing}"},
        {"en": "Thank you[ for the {thing}][, {name}]!", "zh": "谢谢[{name}][送的{thing}]！"},
        {"en": ("thank", "thanks"), "zh": ("谢谢", "感谢")},
    ),
    "weather": Form(
        2,
        (("place", PLACES), ("one", WEATHER), ("two", WEATHER)),
        {
            "en": "It is {one} and {two} in {place} today. Describe the weather",
            "zh": "今天{place}天气{one}，而且{two}。请描述天气",
        },
        {"en": "Today[ in {place}] the weather is {one}[ and {two}].", "zh": "今天[{place}]的天气{one}[，而且{two}]。"},
        {"en": ("weather",), "zh": ("天气",)},
    ),
    "invite": Form(
        3,
        (("name", PEOPLE), ("event", EVENTS), ("day", DAYS)),
        {"en": "Invite {name} to the {event} on {day}", "zh": "邀请{name}{day}来{event}"},
        {"en": "[{name}, ]come to the {event}[ on {day}]!", "zh": "[{name}，][{day}]一起来{event}吧！"},
        {"en": ("come", "join"), "zh": ("一起来", "来参加")},
    ),
}
COUNTS = (2, 3, 4, 5)
_LIST_QUESTION = {"en": "Name {} {}", "zh": "说出{}种{}"}
_LIST_REPLY = {"en": "Here are some {}: {}.", "zh": "这些是{}：{}。"}
_LIST_JOINT = {"en": ", ", "zh": "、"}
_CARE = {
    "en": "I should be polite and leave nothing out: {}.",
    "zh": "我要有礼貌，而且不能漏掉：{}。",
}


class Request(NamedTuple):
    """A request: `kind` is a key of FORMS, or "list"; `places` are its slots' word indices, for a list (kind of item, count)."""

    kind: str
    places: tuple[int, ...]

    @property
    def level(self) -> int:
        return 1 + (self.places[1] > 3) if self.kind == "list" else FORMS[self.kind].level

    def key(self) -> str:
        return f"{self.kind}:" + ",".join(map(str, self.places))

    def slots(self, language: Language) -> dict[str, str]:
        """Return the words, by slot name."""
        form = FORMS[self.kind]
        return {name: words[language][place] for (name, words), place in zip(form.slots, self.places, strict=True)}

    def question(self, language: Language) -> str:
        """Return the request's text without its final mark."""
        if self.kind == "list":
            return _LIST_QUESTION[language].format(self.places[1], KINDS[language][self.places[0]])
        return FORMS[self.kind].question[language].format(**self.slots(language))

    def needs(self, language: Language) -> Needs:
        """Return the requirements of a reply."""
        if self.kind == "list":
            return Needs(items=MEMBERS[language][self.places[0]], count=self.places[1])
        return Needs((FORMS[self.kind].marker[language], *((word,) for word in self.slots(language).values())))


@dataclass(frozen=True, slots=True)
class Needs:
    """The requirements of a reply: one word of each of the `pieces`, and `count` different `items`."""

    pieces: tuple[tuple[str, ...], ...] = ()
    items: tuple[str, ...] = ()
    count: int = 0

    def to_json(self) -> str:
        """One line for a problem's metadata."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Needs:
        """Parse the output of `to_json`. `InvalidInput` for anything else."""
        try:
            data: Any = json.loads(text)
            pieces = tuple(tuple(map(str, piece)) for piece in data["pieces"])
            return cls(pieces, tuple(map(str, data["items"])), int(data["count"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput(f"needs={text[:60]!r} is not allowed: pieces, items and count are needed") from error


def quality(needs: Needs, language: Language, reply: str) -> float:
    """Return the quality of a reply in 0..1 by the rule above; `reply` has neither thinking nor tags."""
    if language_of(reply) != language:
        return 0.0
    said = sum(any(_holds(reply, word) for word in piece) for piece in needs.pieces)
    listed = sum(_holds(reply, item) for item in needs.items)
    asked = len(needs.pieces) + needs.count
    done = (said + min(listed, needs.count)) / (asked + max(0, listed - needs.count))
    if sum(count_words(reply).values()) > MAX_WORDS:
        done /= 2
    return done * _manners(reply, language)


def draw_request(rng: random.Random, min_level: int, max_level: int) -> Request:
    """Draw a request of level `min_level` .. `max_level`; all kinds of these levels are equally likely."""
    while True:
        kind = rng.choice((*FORMS, "list"))
        if kind == "list":
            places: tuple[int, ...] = (rng.randrange(len(KINDS["en"])), rng.choice(COUNTS))
        else:
            places = tuple(rng.randrange(len(words["en"])) for _, words in FORMS[kind].slots)
        request = Request(kind, places)
        twice = kind == "weather" and places[1] == places[2]
        if min_level <= request.level <= max_level and not twice:
            return request


def write_reply(rng: random.Random, request: Request, language: Language, fault: str, other: Request) -> str:
    """Write a reply with the fault `fault` (see FAULTS); an off-topic reply answers the request `other`."""
    if fault == "too_short":
        return rng.choice(_SHORT[language])
    if fault == "wrong_language":
        language = "zh" if language == "en" else "en"
    body = _body(rng, other if fault == "off_topic" else request, language, is_complete=fault != "incomplete")
    if fault == "plain":
        return body
    return rng.choice((_RUDE_WORDS if fault == "rude" else _POLITE_WORDS)[language]) + body


def care(request: Request, language: Language) -> str:
    """Return a sentence of thinking before a good reply."""
    if request.kind == "list":
        words: Sequence[str] = (str(request.places[1]), KINDS[language][request.places[0]])
    else:
        words = tuple(request.slots(language).values())
    return _CARE[language].format(_LIST_JOINT[language].join(words))


def _body(rng: random.Random, request: Request, language: Language, is_complete: bool) -> str:
    if request.kind == "list":
        kind, count = request.places
        items = rng.sample(MEMBERS[language][kind], count if is_complete else rng.randrange(1, count))
        return _LIST_REPLY[language].format(KINDS[language][kind], _LIST_JOINT[language].join(items))
    template = FORMS[request.kind].reply[language]
    clauses = re.findall(r"\[[^]]*\]", template)
    if not is_complete:
        template = template.replace(rng.choice(clauses), "")
    body = template.replace("[", "").replace("]", "").format(**request.slots(language))
    return body[0].upper() + body[1:]


def _manners(reply: str, language: Language) -> float:
    lower = reply.casefold()
    if any(words.strip().casefold() in lower for words in _RUDE_WORDS[language]):
        return RUDE
    return POLITE if any(words.strip().casefold() in lower for words in _POLITE_WORDS[language]) else PLAIN


def _holds(text: str, word: str) -> bool:
    """True if `text` contains `word`: a Chinese word anywhere, an English one as a whole word in any case."""
    if word.isascii():
        return re.search(rf"(?<![a-z]){re.escape(word.casefold())}(?![a-z])", text.casefold()) is not None
    return word in text
