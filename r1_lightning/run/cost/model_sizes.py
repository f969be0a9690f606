"""The sizes of the published models in configs/model, counted: `r1 models`; in a checkout `--write` rewrites docs/models.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from r1_lightning.artefacts.files import write_text
from r1_lightning.model.cache_sizes import GQA_GROUPS, cache_bytes_per_token
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import Parameters, count_parameters, meta_backbone
from r1_lightning.run.config.compose import compose_stage, composing
from r1_lightning.run.config.inject import inject
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.types.errors import InvalidInput

# Options of the group `model` with a published model's shape -> rows of its embedding (a run takes them from its tokenizer).
PUBLISHED = {"v3_671b": 129_280, "v2_lite": 102_400, "moonlight_16b": 163_840}
DOCUMENT = Path("docs/models.md")
HEAD = f"""# Published models, counted

Written by `python scripts/model_sizes.py --write`; a test compares it with the configurations. Parameters are counted on the meta
device, in billions. "Activated" are the weights that work on a token, norms and head included: without MTP modules, and with or
without the embedding, which is looked up. The cache is bytes per token in BF16 (DeepSeek-V2 report, Table 1): MLA's is the model's
own; the others are what the same heads would need ({GQA_GROUPS} groups in GQA).

"""


def shape_of(option: str) -> ModelConfig:
    """Return the shape in `configs/model/<option>.yaml`, with the published vocabulary."""
    with composing():
        node = compose_stage(["stage=pretrain", f"model={option}"]).config.model
    config: ModelConfig = inject(node, {"vocab_size": PUBLISHED[option]})
    return config


def counts_of(option: str) -> Parameters:
    """Count the parameters of that model."""
    return count_parameters(meta_backbone(shape_of(option)))


def activated_of(counts: Parameters) -> tuple[int, int]:
    """Return the weights activated by a token, without and with the embedding (V3: "37 B activated")."""
    without = counts.activated + counts.norms
    return without, without + counts.embeddings - counts.head


def document() -> str:
    """Return the text of docs/models.md."""
    columns = [
        "model",
        "total without MTP",
        "MTP",
        "activated",
        "activated with the embedding",
        "MLA",
        "MHA",
        "GQA",
        "MQA",
    ]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for option in PUBLISHED:
        counts, cache = counts_of(option), cache_bytes_per_token(shape_of(option))
        billions = (counts.total - counts.mtp, counts.mtp, *activated_of(counts))
        cells = [f"`{option}`", *(f"{count / 1e9:.2f}" for count in billions)]
        cells += [f"{cache[kind]:,}" for kind in columns[5:]]
        lines.append("| " + " | ".join(cells) + " |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """The command line of `r1 models`."""
    return run_as_command(_print)


def _print() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--write", action="store_true", help=f"rewrite {DOCUMENT}")
    options = parser.parse_args()
    if options.write and not DOCUMENT.parent.is_dir():
        raise InvalidInput(
            f"--write is not allowed: there is no folder {DOCUMENT.parent} here to write {DOCUMENT} into"
        )
    text = document()
    if options.write:
        write_text(DOCUMENT, text)
    print(text, end="")
    return 0
