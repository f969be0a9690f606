"""Templates by name: ours, those of a checkpoint's folder, with an instruction, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from r1_lightning.run.build.templates import template_of
from r1_lightning.text.chat_template import BOX_INSTRUCTION, DEEPSEEK_R1, R1
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput
from tests.support.chat_templates import CHATML, R1_PUBLISHED, chat_folder


def test_names_and_instructions(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path / "a", CHATML)
    tokenizer = TextTokenizer.load(folder)
    assert template_of("r1", None, folder, tokenizer) == (R1, tokenizer)
    boxed, same = template_of("deepseek_r1", "boxed", None, tokenizer)
    assert boxed.render("x") == DEEPSEEK_R1.render(f"x{BOX_INSTRUCTION}") and same is tokenizer
    template, ended = template_of("checkpoint", "boxed", folder, tokenizer)
    assert template.render("x").endswith(f"x{BOX_INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n")
    assert ended.eos_ids == (*tokenizer.eos_ids, tokenizer.token_to_id("<|im_end|>"))
    folder = chat_folder(tmp_path / "b", R1_PUBLISHED)
    template, same = template_of("checkpoint_opened", None, folder, tokenizer)
    assert template.render("x") == "<s>" + DEEPSEEK_R1.render("x") and same is tokenizer


def test_what_is_refused(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(chat_folder(tmp_path, CHATML))
    with pytest.raises(InvalidInput, match="there is no checkpoint; init_from=FOLDER names one"):
        template_of("checkpoint", None, None, tokenizer)
    with pytest.raises(InvalidInput, match=r"task\.template='x' is not allowed"):
        template_of("x", None, None, tokenizer)
    with pytest.raises(InvalidInput, match=r"task.instruction='x' is not allowed: it must be one of None, boxed"):
        template_of("r1", "x", None, tokenizer)
