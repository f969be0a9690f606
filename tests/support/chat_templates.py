"""Chat templates as published checkpoints have them, by family, written from memory of their forms; folders with one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.published_tokenizers import BYTE_LEVEL, LEGACY, METASPACE, tokenizer_of, write

# SmolLM2 and Qwen2.5: a system message of their own where the conversation has none; white space behind the end of a turn.
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The same with the marks that transformers needs to tell which tokens the assistant wrote.
CHATML_MARKED = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Llama 2 and Mistral: spaces around a trimmed reply, the sequence's own end, and no place for a system message.
INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# DeepSeek-R1: replies lose their thinking, and the prompt opens the think block.
R1_PUBLISHED = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + eos_token}}{%- endif %}"
    "{%- endfor -%}{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
PUBLISHED = {"chatml": CHATML, "marked": CHATML_MARKED, "instruct": INSTRUCT, "r1": R1_PUBLISHED}
TOKENIZERS = {"chatml": BYTE_LEVEL, "marked": BYTE_LEVEL, "instruct": METASPACE, "r1": BYTE_LEVEL}
KINDS = (*((name, kind) for name, kind in TOKENIZERS.items()), ("instruct", LEGACY), ("chatml", METASPACE))


def chat_folder(
    folder: Path, template: str | None, kind: str = BYTE_LEVEL, in_file: bool = True, **config: Any
) -> Path:
    """A tokenizer of one of `published_tokenizers.KINDS` with a chat template, in a file of its own or among the settings."""
    write(folder, tokenizer_of(kind), **config)
    if template is not None and in_file:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    elif template is not None:
        path = folder / "tokenizer_config.json"
        fields = {**json.loads(path.read_text(encoding="utf-8")), "chat_template": template}
        path.write_text(json.dumps(fields), encoding="utf-8")
    return folder
