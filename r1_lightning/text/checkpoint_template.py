"""The chat template that a published checkpoint brings along (`task.template=checkpoint`), with its end of a turn.

The template is a Jinja program, rendered by `text/jinja_sandbox.py` over the whole conversation: a system message, earlier turns,
the question, and the opening of the assistant's turn (`add_generation_prompt`). What comes after, the completion and the control
token that ends the assistant's turn (`<|im_end|>`), is what the model learns and samples; the text that the template writes behind
that token belongs to the next turn.

**Control tokens**: the spelling of one is that token where the template writes it, and plain text where a message does. So each
spelling in a message is marked before rendering, and cut out afterwards as a piece of its own; a template that changes a marked
spelling is refused.

**Three things are checked when the template is read**: a prompt is the beginning of the conversation with its reply, for one turn
and for two; the reply stands in it as it was written; and a control token ends it. A template whose opening ends in `<think>` opens
the think block (R1's do): its name is `task.template=checkpoint_opened`, so that rewards read completions without the opening
tag. Such templates drop the thinking of the replies that they render, so completions are always learned as they were written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1_lightning.text.chat_template import CHECKPOINT, CHECKPOINT_OPENED, ChatTemplate, Turn, with_system
from r1_lightning.text.jinja_sandbox import MAX_TEMPLATE_CHARS, rendered
from r1_lightning.text.published_tokenizer import token_name
from r1_lightning.text.reasoning_format import THINK_OPEN
from r1_lightning.types.errors import InvalidInput, require

TEMPLATE_FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
NAMED = ("bos", "eos", "pad", "unk")
_MARKS = [
    chr(code) for code in range(0xFDD0, 0xFDF0)
]  # characters that Unicode leaves to programs: no text should have them
_FIRST, _SECOND, _REPLY, _RULES = "What is 2+3?", "And 3+4?", "That is 5.", "Count well."


@dataclass(frozen=True)
class CheckpointTemplate(ChatTemplate):
    """A checkpoint's chat template, as `read_template` makes it.

    `source` is Jinja; `special` are the names and spellings of the tokens that it may ask for; `control` the spellings that only it
    may turn into tokens; `end` is the control token that ends a reply; `before` and `after` are white space around a reply.
    """

    source: str = ""
    special: tuple[tuple[str, str], ...] = ()
    control: tuple[str, ...] = ()
    end: str = ""
    before: str = ""
    after: str = ""
    takes_system: bool = False

    @property
    def writes_whole_text(self) -> bool:
        """True: the template writes a whole conversation."""
        return True

    def pieces(self, question: str) -> tuple[str, ...]:
        """Return the prompt of a question without earlier turns, in pieces as `ChatTemplate.pieces`."""
        return self.conversation(question)

    def conversation(self, question: str, earlier: Sequence[Turn] = (), system: str = "") -> tuple[str, ...]:
        """Return the prompt of a conversation in pieces: the spellings of control tokens in messages are its odd ones."""
        if system and not self.takes_system:
            first, *others = [*earlier, (question, "")]
            merged = [(with_system(system, first[0]), first[1]), *others]
            return self.conversation(merged[-1][0], merged[:-1])
        messages = _messages(f"{question}{self.instruction}", earlier, system)
        marks = [mark for mark in _MARKS if not any(mark in message["content"] for message in messages)]
        require(bool(marks), "a message", "U+FDD0 to U+FDEF", "it must leave one of these characters unused")
        mark, spelled = marks[0], _any_of(self.control)
        for message in messages:
            message["content"] = spelled.sub(
                lambda match: f"{mark}{match[0][0]}{mark}{match[0][1:]}", message["content"]
            )
        text = self._rendered(messages, opens=True)
        parts = re.split(
            f"({mark}.{mark}(?:{_any_of([name[1:] for name in self.control]).pattern}))", text, flags=_FLAGS
        )
        found = tuple(part.replace(mark, "") if number % 2 else part for number, part in enumerate(parts))
        changed = any(mark in part for part in found)
        require(
            not changed,
            f"task.template={self.name}",
            "a control token in a message",
            "the template changes its spelling",
        )
        return found

    def respond(self, completion: str) -> str:
        """Return `completion` as it follows a prompt, without the control token that ends it."""
        text = completion.strip()
        if self.opens_think:
            return text.removeprefix(THINK_OPEN).lstrip()
        return f"{self.before}{text}{self.after}"

    def phrases(self) -> tuple[str, ...]:
        """A checkpoint's tokenizer is there already."""
        return ()

    def jinja(self, begins_with_bos: bool = False) -> str:
        """Return the template as it was read."""
        return self.source

    def _rendered(self, messages: Sequence[dict[str, str]], opens: bool) -> str:
        special = {f"{name}_token": token for name, token in self.special}
        values = {"messages": messages, "add_generation_prompt": opens, "tools": None, "documents": None, **special}
        return rendered(self.source, values, f"task.template={self.name}")


_FLAGS = re.IGNORECASE | re.DOTALL  # a template may change case


def read_template(folder: Path, name: str, control: Sequence[str], instruction: str = "") -> CheckpointTemplate:
    """Return the chat template in `folder`, under `name` (`checkpoint` or `checkpoint_opened`).

    `control` are the control tokens of the folder's tokenizer. Raises InvalidInput, one line: without a template, for one that
    fails, breaks a rule of the module's docstring, or goes with the other name.
    """
    config = _json_object(folder / CONFIG_FILE)
    source = _source(folder, config)
    if source is None:
        where = f"{TEMPLATE_FILE} and {CONFIG_FILE} hold no chat template; use another task.template"
        raise InvalidInput(f"task.template={name} is not allowed: {folder}: {where}")
    special = tuple((role, token) for role in NAMED if (token := token_name(config.get(f"{role}_token"))))
    form, suffix = (CHECKPOINT.form, "") if name == CHECKPOINT.name else (CHECKPOINT_OPENED.form, THINK_OPEN)
    plain = CheckpointTemplate(name, "", suffix, form, instruction, source, special, tuple(control))
    prompt = plain._rendered(_messages(_FIRST), opens=True)
    opens = prompt.rstrip().endswith(THINK_OPEN)
    other = CHECKPOINT_OPENED.name if opens else CHECKPOINT.name
    opened = f"the chat template of {folder} {'opens' if opens else 'does not open'} the think block"
    require(opens == plain.opens_think, "task.template", name, f"{opened}: task.template={other}")
    before, end, after = _around_reply(plain, folder)
    return replace(plain, end=end, before=before, after=after, takes_system=_takes_system(plain))


def _around_reply(template: CheckpointTemplate, folder: Path) -> tuple[str, str, str]:
    """Return what stands before the reply, the token that ends it, and white space between; checks the rules."""
    field = f"task.template={template.name}: {folder}"
    found = [_of_reply(template, earlier, field) for earlier in ((), ((_SECOND, "That is 7."),))]
    require(found[0] == found[1], field, list(found), "every reply must have the same end")
    return found[0]


def _of_reply(template: CheckpointTemplate, earlier: Sequence[Turn], field: str) -> tuple[str, str, str]:
    prompt = template._rendered(_messages(_FIRST, earlier), opens=True)
    whole = template._rendered([*_messages(_FIRST, earlier), _message("assistant", _REPLY)], opens=False)
    begun = prompt.rstrip().removesuffix(THINK_OPEN) if template.opens_think else prompt
    if not whole.startswith(begun):
        why = "the prompt, with add_generation_prompt, is not the beginning of the conversation with its reply"
        raise InvalidInput(f"{field} is not allowed: {why}")
    before, found, rest = whole[len(begun) :].partition(_REPLY)
    match = re.match(rf"(\s*)({_any_of(template.control).pattern})", rest)
    if not found or match is None:
        shown = f"after the reply comes {rest[:40]!r}" if found else "the reply is not in what it writes"
        raise InvalidInput(f"{field} is not allowed: a control token must end each reply, and {shown}")
    return "" if before.strip() else before, match[2], match[1]


def _takes_system(template: CheckpointTemplate) -> bool:
    try:
        return _RULES in template._rendered(_messages(_FIRST, (), _RULES), opens=True)
    except InvalidInput:
        return False


def _messages(question: str, earlier: Sequence[Turn] = (), system: str = "") -> list[dict[str, str]]:
    turns = [_message(role, text) for turn in earlier for role, text in zip(("user", "assistant"), turn, strict=True)]
    return [*([_message("system", system)] if system else []), *turns, _message("user", question)]


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)", _FLAGS)


def _source(folder: Path, config: dict[str, Any]) -> str | None:
    """Return the template of `chat_template.jinja`, or of `tokenizer_config.json`, where it may be one of several by name."""
    if (folder / TEMPLATE_FILE).is_file():
        return _template_text(folder / TEMPLATE_FILE)
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {str(item.get("name")): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    require(
        found is None or isinstance(found, str), f"{folder / CONFIG_FILE}: chat_template", type(found).__name__, "text"
    )
    return found or None


def _template_text(path: Path) -> str:
    limit, size = 4 * MAX_TEMPLATE_CHARS, path.stat().st_size  # UTF-8 has at most four bytes a character
    require(size <= limit, str(path), f"{size} bytes", f"a template has at most {limit}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not allowed: a template must be UTF-8: {error.reason}") from error


def _json_object(path: Path) -> dict[str, Any]:
    """Return the settings; the tokenizer has been read from the same file, so they are an object."""
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return fields
