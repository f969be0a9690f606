"""Three lines for a notebook:

    import r1_lightning as r1
    model, tokenizer = r1.load("folder")
    logits = model(token_ids)

A folder is a HuggingFace folder or an artefact of ours; `save` writes a HuggingFace folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from r1_lightning.model.precision import PlainPrecision, Precision
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.native_sampler import NativeSampler
from r1_lightning.rollout.sampler import SamplerSettings, SamplingConfig
from r1_lightning.run.build.device import default_compute, here
from r1_lightning.run.build.models import AnyBackbone
from r1_lightning.run.build.stored import open_folder, open_model
from r1_lightning.run.build.torch_setup import fix_workspace
from r1_lightning.run.commands.export import ExportConfig, write_folder
from r1_lightning.text.chat_template import PLAIN, ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require, require_int


def load(
    folder: str | Path, precision: Precision | None = None, device: torch.device | str | None = None
) -> tuple[AnyBackbone, TextTokenizer]:
    """Load the model (in evaluation mode) and tokenizer of a HuggingFace folder, of `hub:OWNER/NAME`, or an artefact of ours.

    DeepSeek checkpoints become our own backbone, others stay models of `transformers` in an adapter; `model(token_ids)` maps
    B x T ids to B x T x V logits. Without a `device` it is on a GPU where torch finds one, and computes there in BF16; on a CPU,
    in FP32. `token_ids` must be on its device; `generate` takes care of that. Raises `InvalidInput` naming file, tensor and shape
    if the folder is wrong or damaged.
    """
    place = here() if device is None else torch.device(device)
    if place.type == "cuda":
        fix_workspace()
    chosen = precision or PlainPrecision(default_compute(place))
    model = open_model(open_folder(folder), chosen, "folder")
    return model.backbone(place).eval(), model.tokenizer


def generate(
    model: AnyBackbone,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    max_new_tokens: int = 128,
    copies: int = 1,
    sampling_temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    template: ChatTemplate | None = None,
) -> list[list[str]]:
    """Sample `copies` completions of each prompt from `seed`.

    Without a template the caller writes the whole prompt: special tokens that it spells (`<|im_start|>`) are parsed as tokens. With
    a template, `prompts` are untrusted questions, in which such spellings are plain text.

    Raises `InvalidInput` if prompts are not a list, are empty, or are too long for the model together with `max_new_tokens`.
    """
    require(not isinstance(prompts, str), "prompts", prompts, "it must be a list of texts")
    require_int("copies", copies, 1)
    sampling = SamplingConfig(sampling_temperature, top_p, max_new_tokens)
    if template is None:
        ids = [tokenizer.encode_prompts(ChatTemplate("prompt", prompt, ""), [""])[0] for prompt in prompts]
    else:
        ids = tokenizer.encode_prompts(template, prompts)
    require(bool(ids) and all(ids), "prompts", list(prompts), "there must be at least one, and none empty")
    longest = max(map(len, ids)) + max_new_tokens
    allowed = f"with the longest prompt that is {longest} tokens, and the model takes {model.config.max_positions}"
    require(longest <= model.config.max_positions, "max_new_tokens", max_new_tokens, allowed)
    sampler = NativeSampler(model, SamplerSettings(sampling, tokenizer.eos_ids, tokenizer.pad_id, seed))
    drawn = sampler(ids, copies, rollout_keys(0, len(prompts), copies))
    lengths = (drawn.completion_mask.sum(1) - drawn.finished.long()).tolist()  # without EOS
    texts = tokenizer.decode_batch([ids[:n] for ids, n in zip(drawn.completion_ids.tolist(), lengths, strict=True)])
    return [texts[start : start + copies] for start in range(0, len(texts), copies)]


def save(
    model: AnyBackbone,
    tokenizer: TextTokenizer,
    folder: str | Path,
    template: ChatTemplate = PLAIN,
    dtype: str = "float32",
    mtp: bool = False,
) -> Path:
    """Write a folder that `transformers` and `load` read; `template` becomes its chat template. Overwrites nothing.

    MTP modules are written with `mtp`; without it they are left out, as `transformers` has no place for them.
    """
    settings = ExportConfig("a model in memory", str(folder), dtype, "true" if mtp else "false")
    with torch.no_grad():
        return write_folder(model, tokenizer, template, settings)
