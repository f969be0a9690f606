"""The chat template of a configuration: one of ours by name, or the one that a checkpoint brings along, read from its folder.

Training, sampling, evaluation, comparison, judges and export ask here, so that a model is asked in one way everywhere.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from r1_lightning.text.chat_template import INSTRUCTIONS, TEMPLATES, ChatTemplate, is_checkpoints
from r1_lightning.text.checkpoint_template import read_template
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require_choice


def template_of(
    name: str, instruction: str | None, folder: Path | None, tokenizer: TextTokenizer
) -> tuple[ChatTemplate, TextTokenizer]:
    """Return the template `name`, followed by the named `instruction`, and the tokenizer with the template's end of a reply.

    `folder` holds the files of `tokenizer`; None for a tokenizer that has been trained just now. Raises InvalidInput for an unknown
    name, and for a checkpoint's template without a checkpoint or in a folder whose template cannot be used.
    """
    require_choice("task.template", name, TEMPLATES)
    require_choice("task.instruction", instruction, INSTRUCTIONS)
    if not is_checkpoints(name):
        template = TEMPLATES[name]
        return (
            dataclasses.replace(template, instruction=INSTRUCTIONS[instruction]) if instruction else template
        ), tokenizer
    if folder is None:
        raise InvalidInput(f"task.template={name} is not allowed: there is no checkpoint; init_from=FOLDER names one")
    found = read_template(folder, name, tokenizer.control, INSTRUCTIONS[instruction])
    return found, tokenizer.ending_with(found.end)
