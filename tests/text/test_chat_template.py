"""The template of R1-Zero against the text printed in the paper, and its Jinja form against its Python form."""

from __future__ import annotations

from dataclasses import replace

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_lightning.text.chat_template import (
    DEEPSEEK_R1,
    INSTRUCTIONS,
    PLAIN,
    R1,
    R1_ZERO,
    R1_ZERO_PREAMBLE,
    R1_ZERO_SUFFIX,
    TEMPLATES,
    ChatTemplate,
    r1_zero_prompt,
    with_system,
    without_system,
)
from r1_lightning.types.errors import InvalidInput

# DeepSeek-R1, arXiv:2501.12948, table 1, joined into one line; `prompt` is the question's place.
PRINTED = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>. User: prompt. Assistant:"
)


def render_jinja(template: ChatTemplate, messages: list[dict[str, str]]) -> str:
    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template.jinja()).render(messages=messages, eos_token="<EOS>")


def test_prompt_is_the_printed_text() -> None:
    assert r1_zero_prompt("prompt") == PRINTED
    assert f"{R1_ZERO_PREAMBLE} prompt{R1_ZERO_SUFFIX}" == PRINTED
    assert TEMPLATES["r1_zero"].render("prompt") == PRINTED


def test_question_takes_the_place_of_the_word_prompt_and_of_nothing_else() -> None:
    assert r1_zero_prompt("What is 2+3?") == PRINTED.replace("User: prompt.", "User: What is 2+3?.")


def test_phrases_are_the_constant_pieces() -> None:
    assert R1_ZERO.phrases() == (R1_ZERO_PREAMBLE, ". Assistant:")
    assert PLAIN.phrases() == ()


@given(st.text())
def test_question_is_never_changed(question: str) -> None:
    prompt = R1_ZERO.render(question)
    assert prompt[len(R1_ZERO.prefix) : len(prompt) - len(R1_ZERO.suffix)] == question
    assert PLAIN.render(question) == question


@given(st.text())
def test_jinja_renders_the_same_prompt(question: str) -> None:
    assert render_jinja(R1_ZERO, [{"role": "user", "content": question}]) == R1_ZERO.render(question)


def test_jinja_keeps_quotes_and_backslashes_of_a_template() -> None:
    template = ChatTemplate("awkward", 'say "\\n" \n', " 'done'\\")
    assert render_jinja(template, [{"role": "user", "content": "x"}]) == "say \"\\n\" \nx 'done'\\"


def test_jinja_ends_an_assistant_message_with_the_end_of_sequence() -> None:
    messages = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<answer> 2 </answer>"}]
    assert render_jinja(R1_ZERO, messages) == R1_ZERO.render("1+1?") + " <answer> 2 </answer><EOS>"


def test_jinja_refuses_a_system_message() -> None:
    with pytest.raises(ValueError, match="only user and assistant"):
        render_jinja(R1_ZERO, [{"role": "system", "content": "be brief"}])


def test_template_needs_a_name() -> None:
    with pytest.raises(InvalidInput, match="name=''"):
        ChatTemplate("", "a", "b")


# ------------------------------------------------------------------------------------------------------------------- R1


def test_r1_asks_without_instruction() -> None:
    assert TEMPLATES["r1"] is R1 and R1.render("What is 2+3?") == "User: What is 2+3?\n\nAssistant:"
    assert R1.phrases() == ("User:", "Assistant:")
    assert R1.render("x").isascii()  # the published one has special tokens, <｜User｜> and <｜Assistant｜>


def test_an_instruction_follows_the_question() -> None:
    """The words of DeepSeek-R1's model card, in R1's published prompt."""
    asked = replace(DEEPSEEK_R1, instruction=INSTRUCTIONS["boxed"])
    assert asked.render("2+3?") == (
        "<｜User｜>2+3?\nPlease reason step by step, and put your final answer within \\boxed{}.<｜Assistant｜><think>\n"
    )
    assert asked.pieces("<｜User｜>")[1] == "<｜User｜>", "the question is a piece of its own"


def test_a_system_message_before_a_question_can_be_told_apart() -> None:
    assert with_system(" S ", "Q") == "S\n\nQ" and with_system(" ", "Q") == "Q"
    assert without_system("S", "S\n\nQ") == "Q"
    assert without_system("S", "Q") is None and without_system("", "Q") is None


def test_each_template_names_its_form() -> None:
    assert {name: template.form for name, template in TEMPLATES.items()} == {
        "r1_zero": "r1_zero",
        "r1": "r1",
        "deepseek_r1": "r1_opened",
        "plain": "r1_zero",
        "checkpoint": "r1",
        "checkpoint_opened": "r1_opened",
    }
    with pytest.raises(InvalidInput, match="form='r2' is not allowed: it must be one of r1_zero, r1,"):
        ChatTemplate("t", "a", "b", "r2")  # type: ignore[arg-type]


@given(st.sampled_from([R1, R1_ZERO]), st.text(min_size=1).filter(lambda text: text == text.strip()))
def test_a_completion_follows_as_the_jinja_form_has_it(template: ChatTemplate, text: str) -> None:
    messages = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": text}]
    assert render_jinja(template, messages) == template.render("1+1?") + template.respond(f"\n {text} ") + "<EOS>"


# -------------------------------------------------------------------------------------------- a prompt that opens the think block


def test_r1_as_it_is_published_opens_the_think_block() -> None:
    assert DEEPSEEK_R1.render("1+1?") == "<｜User｜>1+1?<｜Assistant｜><think>\n"
    assert DEEPSEEK_R1.opens_think and not R1.opens_think
    for written in ("<think>\n1+1\n</think>\n2", " 1+1\n</think>\n2", "<think>1+1\n</think>\n2\n"):
        assert DEEPSEEK_R1.respond(written) == "1+1\n</think>\n2"
        messages = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": written}]
        assert render_jinja(DEEPSEEK_R1, messages) == DEEPSEEK_R1.render("1+1?") + "1+1\n</think>\n2<EOS>"


@pytest.mark.parametrize(("suffix", "form"), [("A:<think>", "r1"), ("A:", "r1_opened"), ("A: <think> \n", "r1_zero")])
def test_a_template_that_opens_the_think_block_says_so(suffix: str, form: str) -> None:
    with pytest.raises(InvalidInput, match="a form is called opened where the suffix ends in <think>"):
        ChatTemplate("t", "Q: ", suffix, form)  # type: ignore[arg-type]
