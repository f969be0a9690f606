"""Parses conversations in data rows: lists of messages, in all published spellings.

    {"role": "user", "content": "..."}        OpenAI's format, now the usual one; the content may be a list of text parts
    {"from": "human", "value": "..."}         ShareGPT's format; "gpt" is the assistant

**Thinking** is in the content between tags, or separate: `reasoning_content` (DeepSeek, Qwen3), `reasoning` (vLLM, OpenRouter),
`thinking` (gpt-oss), a content part of type `thinking` (Anthropic), or inside Sky-T1's marks `<|begin_of_thought|>`. All become the
text that a reasoning model writes: `<think>`, the thinking, `</think>`, the reply. If both a field and tags in the content hold
thinking, they must be equal, and the content is kept; if they differ, the row is refused, because nobody can tell which one belongs
to the reply.

**Tool calls** are refused, in every spelling: their form in a prompt depends on the model, and dropping them would teach the model
to answer without the tool's result.

A conversation is a system message, earlier turns (each a question and its reply), and a last question, perhaps with its reply.
Earlier replies are shown without their thinking, as in the published templates of DeepSeek-R1 and Qwen3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1_lightning.tasks.fields import Row
from r1_lightning.text.chat_template import with_system as before_question
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

Turn = tuple[str, str]  # question, reply


@dataclass(frozen=True)
class Dialogue:
    """A parsed conversation: the earlier `turns`, the last `question`, and its `reply` ("" if there is none yet)."""

    question: str
    reply: str = ""
    earlier: tuple[Turn, ...] = ()
    system: str = ""

    def shown(self, with_system: bool = True) -> tuple[str, tuple[Turn, ...]]:
        """Return the last question and the earlier turns for a prompt.

        Our templates have no place for a system message, so it is put before the first question, with a blank line between; where
        a checkpoint's template has one, `rollout/prompts.py` puts it there.
        """
        system = self.system if with_system else ""
        if not self.earlier:
            return before_question(system, self.question), ()
        (first, reply), *others = self.earlier
        return self.question, ((before_question(system, first), reply), *others)

    @property
    def asked(self) -> tuple[str, ...]:
        """Return all user messages in order; conversations with the same ones are the same problem."""
        return (*(question for question, _ in self.earlier), self.question)


def dialogue_of(row: Row, name: str, ends_with_reply: bool) -> Dialogue:
    """Parse the conversation in the list `name`; it must end with the assistant if `ends_with_reply`, else with the user."""
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
    """Return the reply under `name`: text, or a list of one assistant message; thinking from other fields is put before it."""
    if not isinstance(row.value(name), list):
        return with_thinking(row, name, row.text(name), thinking_of(row))
    messages = _messages(row, name)
    if [_role(message) for message in messages] != [ASSISTANT]:
        found = [_role(message) for message in messages]
        row.refuse(name, found, "text, or one message of the assistant, is needed")
    return message_text(messages[0])


def message_text(message: Row) -> str:
    """Return the text of one message, with its thinking in tags."""
    refuse_calls(message)
    text, thinking = content_of(message)
    return with_thinking(message, _content_name(message), text, thinking or thinking_of(message))


def content_of(message: Row, may_be_empty: bool = False) -> tuple[str, str]:
    """Return the text of a message, and the thinking among its content parts ("" if there is none)."""
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
    """Return the thinking in the non-empty fields `names` of `row`; refuse two fields with different content."""
    found = {name: text for name in names if (text := row.optional_text(name).strip())}
    if len(set(found.values())) > 1:
        first, second = list(found)[:2]
        row.refuse(second, found[second], f"{first} holds other thinking")
    return next(iter(found.values()), "")


def with_thinking(row: Row, name: str, text: str, thinking: str) -> str:
    """Put `thinking` before `text` (from the field `name`); the module docstring has the rule for text with its own thinking."""
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
    """Return a reply without its thinking."""
    shown = reply.rpartition(THINK_CLOSE)[2].strip()
    return shown or reply.strip()


def refuse_calls(row: Row) -> None:
    """Raise `InvalidInput` for a row or a message with tool calls or tool definitions."""
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
    """Replace Sky-T1's and Bespoke-Stratos' marks by tags."""
    if _THOUGHT[0] not in text:
        return text
    for mark, tag in zip((*_THOUGHT, *_SOLUTION), (THINK_OPEN, THINK_CLOSE, "", ""), strict=True):
        text = text.replace(mark, tag)
    return text.strip()
