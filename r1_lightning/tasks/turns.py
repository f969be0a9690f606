"""Conversations as rows hold them: lists of messages, in any of the spellings that are published.

    {"role": "user", "content": "..."}        OpenAI's, and everybody's since; the content may be a list of parts of text
    {"from": "human", "value": "..."}         ShareGPT's; "gpt" is the assistant

**Thinking** stands in the content between tags, or apart: `reasoning_content` (DeepSeek, Qwen3), `reasoning` (vLLM, OpenRouter),
`thinking` (gpt-oss), a part of the type `thinking` (Anthropic), or inside Sky-T1's marks `<|begin_of_thought|>`. All become the one
text that a model of this kind writes: `<think>`, the thinking, `</think>`, the reply. Where a field and the tags in the content
hold thinking, they must say the same, and the content stands as it is; two that differ are refused, because nobody can tell which
one belongs to the reply.

**Calls of tools** are refused, in every spelling: what they would look like in a prompt depends on a model, and leaving them out
teaches to answer without what the tool had said.

A conversation is a system message, earlier turns (a question and its reply each), and a last question, perhaps with its reply.
Earlier replies are shown without their thinking, as the published templates of DeepSeek-R1 and Qwen3 show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1_lightning.tasks.fields import Row
from r1_lightning.text.reasoning_format import THINK_CLOSE, THINK_OPEN, parse_r1

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
ROLES: Mapping[str, str] = {
    **dict.fromkeys(("system", "developer"), SYSTEM),
    **dict.fromkeys(("user", "human", "prompter"), USER),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bard", "bing", "model"), ASSISTANT),
}
THINKING = ("reasoning_content", "reasoning", "thinking")  # the fields of a message, or of a row, that hold thinking
CALLS = ("tool_calls", "function_call", "tools", "functions")
_THOUGHT = ("<|begin_of_thought|>", "<|end_of_thought|>")
_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")
_IN_TURNS = (
    "it must be messages of user and assistant in turns, the user first, with at most a system message before them"
)
_BOTH = "thinking stands beside the text and in it, and the two differ"

Turn = tuple[str, str]  # what was asked, and what was replied


@dataclass(frozen=True)
class Dialogue:
    """What a conversation says: `turns` that are over, then `question`, and `reply`, "" where it is still to be given."""

    question: str
    reply: str = ""
    earlier: tuple[Turn, ...] = ()
    system: str = ""

    def shown(self, with_system: bool = True) -> tuple[str, tuple[Turn, ...]]:
        """The last question and the earlier turns as a prompt has them: our templates have no place for a system message, so it
        opens the first question, and a blank line follows it."""
        opening = f"{self.system.strip()}\n\n" if with_system and self.system.strip() else ""
        if not self.earlier:
            return opening + self.question, ()
        (first, reply), *others = self.earlier
        return self.question, ((opening + first, reply), *others)

    @property
    def asked(self) -> tuple[str, ...]:
        """Everything that the user said, in order: what makes it the same problem as another."""
        return (*(question for question, _ in self.earlier), self.question)


def dialogue_of(row: Row, name: str, ends_with_reply: bool) -> Dialogue:
    """The conversation in the list `name`; its last message is the assistant's where `ends_with_reply`, otherwise the user's."""
    refuse_calls(row)
    messages = _messages(row, name)
    system = ""
    if messages and _role(messages[0]) == SYSTEM:
        system = content_of(messages.pop(0), may_be_empty=True)[0]
    roles = [_role(message) for message in messages]
    n_turns, rest = divmod(len(messages), 2)
    in_turns = roles == [USER, ASSISTANT] * n_turns + [USER] * rest
    if not in_turns or not messages or bool(rest) == ends_with_reply:
        last = "the assistant" if ends_with_reply else "the user"
        row.refuse(
            name,
            [role or message.fields for role, message in zip(roles, messages, strict=True)],
            f"{_IN_TURNS}, the last one of {last}",
        )
    texts = [message_text(message) for message in messages]
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    if ends_with_reply:
        *over, (question, reply) = pairs
    else:
        over, question, reply = pairs, texts[-1], ""
    return Dialogue(
        question.strip(), reply, tuple((asked.strip(), without_thinking(said)) for asked, said in over), system
    )


def reply_in(row: Row, name: str) -> str:
    """The reply under `name`: text, or a list of one message of the assistant; thinking beside it comes before it."""
    if not isinstance(row.value(name), list):
        return with_thinking(row, name, row.text(name), thinking_of(row))
    messages = _messages(row, name)
    if [_role(message) for message in messages] != [ASSISTANT]:
        found = [_role(message) for message in messages]
        row.refuse(name, found, "text, or one message of the assistant, is needed")
    return message_text(messages[0])


def message_text(message: Row) -> str:
    """All that one message says, with its thinking in tags."""
    refuse_calls(message)
    text, thinking = content_of(message)
    return with_thinking(message, _content_name(message), text, thinking or thinking_of(message))


def content_of(message: Row, may_be_empty: bool = False) -> tuple[str, str]:
    """The text of a message, and the thinking among its parts, "" where it has no such part."""
    name = _content_name(message)
    value = message.value(name)
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        parts = [Row(part, f"{message.where}, {name}[{number}]") for number, part in enumerate(value)]
        texts, thoughts = [], []
        for part in parts:
            kind = part.fields.get("type", "text")
            if kind in ("thinking", "reasoning"):
                thoughts.append(part.text("thinking" if "thinking" in part.fields else "text"))
            elif kind == "text":
                texts.append(part.text("text"))
            else:
                part.refuse("type", kind, "only parts of text and of thinking are read")
        return "\n".join(texts), "\n".join(thoughts)
    return (message.optional_text(name) if may_be_empty else message.text(name)), ""


def thinking_of(row: Row, names: Sequence[str] = THINKING) -> str:
    """The thinking in those fields of `row` that hold something; two that say different things are refused."""
    found = {name: text for name in names if (text := row.optional_text(name).strip())}
    if len(set(found.values())) > 1:
        first, second = list(found)[:2]
        row.refuse(second, found[second], f"{first} holds other thinking")
    return next(iter(found.values()), "")


def with_thinking(row: Row, name: str, text: str, thinking: str) -> str:
    """`text`, which stands in the field `name`, after its `thinking`; this module has the rule for text that has some already."""
    text = _plain_tags(text)
    if not thinking.strip():
        return text
    if THINK_OPEN not in text and THINK_CLOSE not in text:
        return f"{THINK_OPEN}\n{thinking.strip()}\n{THINK_CLOSE}\n\n{text.strip()}"
    inside = parse_r1(text).think if THINK_OPEN in text else text.partition(THINK_CLOSE)[0]
    if inside is None or inside.strip() != thinking.strip():
        row.refuse(name, text, _BOTH)
    return text if THINK_OPEN in text else f"{THINK_OPEN}{text}"


def without_thinking(reply: str) -> str:
    """What a reader is shown of a reply."""
    shown = reply.rpartition(THINK_CLOSE)[2].strip()
    return shown or reply.strip()


def refuse_calls(row: Row) -> None:
    """Raise `InvalidInput` for a row or a message that calls tools, or offers some."""
    for name in CALLS:
        if row.fields.get(name) not in (None, "", "[]", [], {}):
            row.refuse(name, row.fields[name], "calls of tools are not read")


def _messages(row: Row, name: str) -> list[Row]:
    value: Any = row.value(name)
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        row.refuse(name, value, "it must be a list of messages with role and content (or from and value)")
    return [Row(message, f"{row.where}, {name}[{number}]") for number, message in enumerate(value)]


def _role(message: Row) -> str:
    name = "from" if "role" not in message.fields and "from" in message.fields else "role"
    role = message.text(name).strip().lower()
    if role not in ROLES:
        message.refuse(name, role, f"it must be one of {', '.join(ROLES)}; turns of tools are not read")
    return ROLES[role]


def _content_name(message: Row) -> str:
    return "value" if "content" not in message.fields and "value" in message.fields else "content"


def _plain_tags(text: str) -> str:
    """Sky-T1's and Bespoke-Stratos' marks as tags."""
    if _THOUGHT[0] not in text:
        return text
    for mark, tag in zip((*_THOUGHT, *_SOLUTION), (THINK_OPEN, THINK_CLOSE, "", ""), strict=True):
        text = text.replace(mark, tag)
    return text.strip()
