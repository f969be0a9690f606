"""A finished artefact as a folder that `transformers` loads: `r1 export artefact=RUN out=DIR`.

The folder holds `config.json`, `generation_config.json`, the tokenizer with its chat template, and weights in safetensors files,
with a tensor per expert as DeepSeek publishes them. `AutoModelForCausalLM.from_pretrained` reads it without code of ours; vLLM
reads the same form, which has not been tried here. It is written beside its place and moved there whole; what exists is not
overwritten.

MTP modules are left out unless `mtp=true`: `transformers` has no place for them in its model, and passes them over with a warning
unless they are V3's layer 61. LoRA adapters are added to the weights that they adapt, so that the folder is a plain checkpoint.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r1_lightning.artefacts import store
from r1_lightning.artefacts.files import output_folder, write_json
from r1_lightning.artefacts.hf_folder import CONFIG, write_hf_weights
from r1_lightning.artefacts.tensor_file import Streamed
from r1_lightning.model.hf_config import config_to_hf, rope_in_both_forms
from r1_lightning.model.hf_model import HFBackbone, hf_model_views
from r1_lightning.model.hf_weights import hf_views, joined
from r1_lightning.model.lora import merged
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.run.build.models import AnyBackbone
from r1_lightning.run.build.stored import open_model
from r1_lightning.run.commands.base import run_command
from r1_lightning.run.config.program import usage
from r1_lightning.text.chat_template import PLAIN, ChatTemplate
from r1_lightning.text.published_tokenizer import GENERATION_FILE
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require, require_choice
from r1_lightning.types.tensors import Views

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
ARGUMENTS = "artefact=RUN out=DIR [dtype=float32|bfloat16|float16] [mtp=false|true] [max_file=5GB]"
ROUTER_BIAS = ".e_score_correction_bias"


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Settings of an export: the type on disk, MTP modules or not, and the size limit of a file."""

    artefact: str
    out: str
    dtype: str = "float32"
    mtp: str = "false"
    max_file: str = "5GB"

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, DTYPES)
        require_choice("mtp", self.mtp, ("true", "false"))
        parsed = re.fullmatch(r"(\d+)(KB|MB|GB)", self.max_file) is not None and self.max_file[0] != "0"
        require(parsed, "max_file", self.max_file, "it must be a number with KB, MB or GB, such as 5GB")

    @property
    def max_file_bytes(self) -> int:
        return int(self.max_file[:-2]) * UNITS[self.max_file[-2:]]


def export(settings: ExportConfig) -> Path:
    """Write the folder and return it. Raises InvalidInput for a bad artefact, and if `out` exists already."""
    artefact = store.open_artefact(Path(settings.artefact))
    store.verify(artefact)
    model = open_model(artefact, PlainPrecision())
    template, temperature = model.template(PLAIN), model.setting("rollout.sampling_temperature") or 1.0
    return write_folder(model.backbone(), model.tokenizer, template, settings, temperature)


def write_folder(
    backbone: AnyBackbone,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    settings: ExportConfig,
    sampling_temperature: float = 1.0,
) -> Path:
    """Write the folder of a model in memory, completely or not at all."""
    out = Path(settings.out).expanduser()
    require(
        not (out.exists() or out.is_symlink()), "out", settings.out, "it exists already, and nothing is overwritten"
    )
    views, fields = _described(backbone, settings.mtp == "true")
    ends = tokenizer.eos_id if len(tokenizer.eos_ids) == 1 else list(tokenizer.eos_ids)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": ends, "pad_token_id": tokenizer.pad_id}
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    with output_folder(out.parent):
        partial.mkdir(parents=True)
        try:
            # No pad id: as `padding_idx` it would give its embedding row no gradient, and that row may be EOS's.
            write_json(partial / CONFIG, {**fields, **ids, "pad_token_id": None, "dtype": settings.dtype})
            sampling = {"do_sample": True, "temperature": sampling_temperature, "top_k": 0, "top_p": 1.0}
            tokenizer.save(partial, template)
            write_json(partial / GENERATION_FILE, {**ids, **sampling})
            made = merged(backbone.model) if isinstance(backbone, HFBackbone) else {}
            _write_weights(partial, views, made, DTYPES[settings.dtype], settings.max_file_bytes)
            partial.rename(out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return out


def _described(backbone: AnyBackbone, with_mtp: bool) -> tuple[dict[str, Views], dict[str, Any]]:
    """Return the views of the weights by HuggingFace's names, and the fields of `config.json`."""
    if isinstance(backbone, HFBackbone):
        return hf_model_views(backbone), rope_in_both_forms(backbone.config.fields())
    config = backbone.config
    views = hf_views(backbone.state_dict(), config, with_mtp)
    return views, config_to_hf(config if with_mtp else dataclasses.replace(config, mtp_depth=0))


def _write_weights(
    folder: Path,
    views: Mapping[str, Views],
    made: Mapping[str, Callable[[], Tensor]],
    dtype: torch.dtype,
    max_file_bytes: int,
) -> None:
    """Write the tensors of `views`, one at a time; `made` computes those that are not stored as such (merged adapters)."""

    def maker(name: str, parts: Views) -> Callable[[], Tensor]:
        def make() -> Tensor:
            tensor = (made[name]() if name in made else joined(parts)).detach().cpu()
            cast = tensor.to(types[name]).contiguous()
            overflown = bool(tensor.isfinite().all()) and not bool(cast.isfinite().all())
            require(not overflown, "dtype", str(dtype), f"{name} has numbers that are too large for it")
            return cast

        return make

    # The router's bias decides which experts are chosen, so it keeps its precision.
    types = {name: torch.float32 if name.endswith(ROUTER_BIAS) else dtype for name in views}
    streamed = {
        name: Streamed(types[name], (*parts[0].shape[:-1], sum(view.shape[-1] for view in parts)), maker(name, parts))
        for name, parts in views.items()
    }
    write_hf_weights(folder, streamed, max_file_bytes)


def parse(arguments: Sequence[str]) -> ExportConfig:
    """Parse `key=value` arguments; InvalidInput names the one that is unknown, missing or malformed."""
    names = [field.name for field in dataclasses.fields(ExportConfig)]
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        require(bool(equals) and bool(value), "the argument", argument, f"it must be key=value; {_usage()}")
        require_choice("the argument", key, names)
        values[key] = value
    missing = [name for name in ("artefact", "out") if name not in values]
    require(not missing, "arguments", list(arguments), f"{' and '.join(missing)} must be given; {_usage()}")
    return ExportConfig(**values)


def main() -> int:
    """The command line of `r1 export`; returns the exit code."""
    return run_command(__doc__, _usage(), _export_as_typed)


def _usage() -> str:
    return usage("export", ARGUMENTS)


def _export_as_typed(arguments: Sequence[str]) -> str:
    out = export(parse(arguments))
    return (
        f"export: {out} holds config.json, the tokenizer and {len(list(out.glob('*.safetensors')))} file(s) of weights"
    )
