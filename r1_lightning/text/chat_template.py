"""Chat templates turn a question into a prompt: R1-Zero's, word for word, and several for R1.

R1-Zero starts from a *base* model, so its prompt is plain text: no system role, no example, only a sentence that asks for
`<think> ... </think> <answer> ... </answer>` (DeepSeek-R1, arXiv:2501.12948, table 1 in both versions). The template fixes the
structure but not the content, so the model itself discovers what to write between the tags. In the paper the word `prompt` marks
the place of the question.

R1's prompt has no instruction, because the cold-start data have taught it the format. Its published prompt uses special tokens,
<｜User｜> and <｜Assistant｜>, and opens the think block (`deepseek_r1`, for published checkpoints). Our own template says the same
in ASCII, so that the tokenizer of any student model can read it.

A completion follows its prompt after one space; if the prompt has opened the think block, directly and without the opening tag.
Each template names the format (`text/reasoning_format.py`) of its completions.

`phrases()` returns a template's constant pieces. A miniature tokenizer holds each of them as one token, so that the original
sentence of some seventy words takes a small model one position.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from r1_lightning.text.reasoning_format import FORMS, R1_FORM, R1_OPENED_FORM, R1_ZERO_FORM, THINK_OPEN, FormName
from r1_lightning.types.errors import require, require_choice

R1_ZERO_PREAMBLE = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. "
    "The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User:"
)
R1_ZERO_SUFFIX = ". Assistant:"

# How the published R1 and its students are asked about mathematics (their model cards, and the paper's benchmarks).
BOX_INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
InstructionName = Literal["boxed"]
INSTRUCTIONS: Mapping[str | None, str] = MappingProxyType({None: "", "boxed": BOX_INSTRUCTION})

Turn = tuple[str, str]  # question, reply


@dataclass(frozen=True)
class ChatTemplate:
    """A template: a prompt is `prefix`, the question, `suffix`; the completion follows the suffix. Both may be empty.

    `form` is the format of completions that the template asks for; `instruction` follows the last question.
    """

    name: str
    prefix: str
    suffix: str
    form: FormName = R1_ZERO_FORM
    instruction: str = ""

    def __post_init__(self) -> None:
        require(bool(self.name), "name", self.name, "a template needs a name")
        require_choice("form", self.form, FORMS)
        opens, allowed = (
            self.suffix.rstrip().endswith(THINK_OPEN),
            "a form is called opened where the suffix ends in <think>",
        )
        require(FORMS[self.form].is_opened == opens, "form", self.form, allowed)

    @property
    def opens_think(self) -> bool:
        """True if the prompt opens the think block."""
        return FORMS[self.form].is_opened

    @property
    def end(self) -> str:
        """The token that ends a reply; "" for the tokenizer's end of sequence."""
        return ""

    @property
    def writes_whole_text(self) -> bool:
        """True if the template writes a whole conversation, with the token that begins a text; false if turns are joined."""
        return False

    def render(self, question: str) -> str:
        """Return the prompt for `question`; nothing is stripped or escaped, the model sees exactly this text."""
        return "".join(self.pieces(question))

    def pieces(self, question: str) -> tuple[str, ...]:
        """Return the prompt in pieces that alternate between template text and question text, starting and ending with template.

        A tokenizer reads special tokens in the template's pieces only (`TextTokenizer.encode_prompts`).
        """
        return (self.prefix, question, f"{self.instruction}{self.suffix}")

    def respond(self, completion: str) -> str:
        """Return `completion` as it follows a prompt: stripped, after one space, without an end-of-sequence token.

        If the prompt has opened the think block, the completion's opening tag and the space are dropped.
        """
        text = completion.strip()
        return text.removeprefix(THINK_OPEN).lstrip() if self.opens_think else f" {text}"

    def phrases(self) -> tuple[str, ...]:
        """Return the constant pieces, stripped, which a small tokenizer may hold as single tokens."""
        return tuple(piece for piece in (self.prefix.strip(), self.suffix.strip()) if piece)

    def jinja(self, begins_with_bos: bool = False) -> str:
        """Return the template in Jinja, for HuggingFace's `apply_chat_template`.

        A user message becomes the prompt; an assistant message follows after a space and ends with the end-of-sequence token. The
        template has no place for a system message, so one raises an error. `begins_with_bos` adds the token with which some
        tokenizers begin every text, because `apply_chat_template` does not.
        """
        begin = "{{- bos_token -}}" if begins_with_bos else ""
        prefix, suffix = _jinja_string(self.prefix), _jinja_string(self.suffix)
        said = "{{- ' ' + message['content'] + eos_token -}}"
        if self.opens_think:
            said = (
                "{%- set said = message['content'] | trim -%}"
                f"{{%- if said.startswith('{THINK_OPEN}') -%}}{{%- set said = said[{len(THINK_OPEN)}:] | trim -%}}{{%- endif -%}}"
                "{{- said + eos_token -}}"
            )
        return (
            f"{begin}"
            "{%- for message in messages -%}"
            "{%- if message['role'] == 'user' -%}"
            f"{{{{- {prefix} + message['content'] + {suffix} -}}}}"
            "{%- elif message['role'] == 'assistant' -%}"
            f"{said}"
            "{%- else -%}"
            "{{- raise_exception('this template has only user and assistant messages') -}}"
            "{%- endif -%}"
            "{%- endfor -%}"
        )


def _jinja_string(text: str) -> str:
    """Return `text` as a Jinja string literal, for which Jinja accepts JSON's double-quoted form."""
    return json.dumps(text, ensure_ascii=False)


R1_ZERO = ChatTemplate("r1_zero", R1_ZERO_PREAMBLE + " ", R1_ZERO_SUFFIX)

R1 = ChatTemplate("r1", "User: ", "\n\nAssistant:", R1_FORM)

# As published with DeepSeek-R1 and its distilled models, without a system message; <｜...｜> are their tokenizers' special tokens.
DEEPSEEK_R1 = ChatTemplate("deepseek_r1", "<｜User｜>", "<｜Assistant｜><think>\n", R1_OPENED_FORM)

# The question alone: for documents that are complete prompts already, and for tests.
PLAIN = ChatTemplate("plain", "", "")

# Names for the template that the checkpoint brings along, of which only the form is known before its folder is read
# (`text/checkpoint_template.py`).
CHECKPOINT = ChatTemplate("checkpoint", "", "", R1_FORM)
CHECKPOINT_OPENED = ChatTemplate("checkpoint_opened", "", THINK_OPEN, R1_OPENED_FORM)

TEMPLATES: Mapping[str, ChatTemplate] = MappingProxyType(
    {template.name: template for template in (R1_ZERO, R1, PLAIN, DEEPSEEK_R1, CHECKPOINT, CHECKPOINT_OPENED)}
)


def is_checkpoints(name: str) -> bool:
    """True for the names of the template that a checkpoint brings along."""
    return name in (CHECKPOINT.name, CHECKPOINT_OPENED.name)


def with_system(system: str, question: str) -> str:
    """Return `question` after a system message and a blank line, for templates that have no place for one."""
    return f"{system.strip()}\n\n{question}" if system.strip() else question


def without_system(system: str, question: str) -> str | None:
    """Return the question of `with_system`; None if `question` does not begin with the system message."""
    opening = with_system(system, "")
    return question.removeprefix(opening) if opening and question.startswith(opening) else None


def r1_zero_prompt(question: str) -> str:
    """Return R1-Zero's prompt for `question`, exactly as printed (arXiv:2501.12948, table 1)."""
    return R1_ZERO.render(question)
