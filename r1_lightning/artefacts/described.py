"""A checkpoint of which only `config.json` is known: enough to say what it would cost, and not to run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from r1_lightning.artefacts.files import input_folder
from r1_lightning.artefacts.fingerprint import fingerprint
from r1_lightning.artefacts.hf_folder import CONFIG, KIND, HFFolder, ImportedModel
from r1_lightning.artefacts.hf_json import described_model

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class DescribedModel(ImportedModel):
    """Its `source` holds no tensors; there may be no tokenizer either."""

    @property
    def has_tokenizer(self) -> bool:
        return (self.folder / TOKENIZER).is_file()


def describe_model(path: Path) -> DescribedModel:
    """Describe the checkpoint of a folder, or of a `config.json` alone, without its weights. `InvalidInput` for bad JSON."""
    file = path / CONFIG if path.is_dir() else path
    with input_folder(file.parent):
        source = HFFolder(file.parent, described_model(file), {})
    digest = fingerprint({"kind": "description of a HuggingFace folder", "config": dict(source.config)})
    return DescribedModel(file.parent, KIND, digest, complete=True, source=source)
