"""HuggingFace checkpoint folders: `config.json`, a tokenizer, and weights in one or several safetensors files.

Such a folder is untrusted input. We open no pickle, run none of its code, and refuse an index that names a file in another folder
(links are followed, as HuggingFace's cache needs). The names, shapes and types of all tensors are compared with the model's before
the first value is copied. Files are read and written one tensor at a time; of a model whose rows are divided over processes each
reads its own (files are mapped, so the rest stays on the disk), and in FP8 the tensors of which it holds something.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1_lightning.artefacts.files import input_folder, replacing, sha256_of, write_json
from r1_lightning.artefacts.fingerprint import fingerprint
from r1_lightning.artefacts.hf_json import described_model, json_object
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.tensor_file import Streamed, write_tensors
from r1_lightning.artefacts.weights import FORMAT, opened
from r1_lightning.functional.fp8_blocks import dequantise_blocks
from r1_lightning.functional.shards import Window
from r1_lightning.types.errors import InvalidInput, require

KIND = "huggingface"  # an imported model's stage name
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PLAIN_NAME = re.compile(r"[\w.-]+\.safetensors", re.ASCII)  # no folder, nothing that the hub takes for a pattern
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
SCALE = "_scale_inv"  # name of an FP8 weight + this = name of its scales
FP8 = "F8_E4M3"
HEAD, EMBEDDINGS = "lm_head.weight", ("embed_tokens.weight", "wte.weight")
FLOATS = ("F64", "F32", "F16", "BF16")
Targets = Sequence[Tensor | Window]  # side by side along the last dimension of a stored tensor


class Stored(NamedTuple):
    """A stored tensor's file, shape and type, read from the file's header."""

    file: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class HFFolder:
    """A folder whose `config.json` and headers have been read. Made by `open_hf_folder`."""

    folder: Path
    config: Mapping[str, Any]
    stored: Mapping[str, Stored]

    @property
    def files(self) -> list[str]:
        """The weight files, sorted by name."""
        return sorted({place.file for place in self.stored.values()})

    def fingerprint(self) -> str:
        """SHA-256 over every file that defines the model: configurations, tokenizer and weights."""
        # The third may add EOS tokens, the last asks questions under task.template=checkpoint.
        small = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
        names = [CONFIG, *(name for name in small if (self.folder / name).is_file())]
        digests = {name: sha256_of(self.folder / name) for name in (*names, *self.files)}
        return fingerprint({"kind": "HuggingFace folder", "files": digests})

    def fill(self, targets: Mapping[str, Targets], leave_out: Callable[[str], bool] = lambda name: False) -> None:
        """Copy every stored tensor into its views, in the views' types; of windows what this process holds.

        Raises InvalidInput and copies nothing if a tensor is missing, has another shape or a type that is not allowed, or is not
        part of the model (unless `leave_out(name)` is true). Raises it, too, at the first tensor with NaN or infinity; the tensors
        before it have been copied by then.
        """
        self.check(targets, leave_out)
        with torch.no_grad(), _one_thread():
            windows = {
                name: [view if isinstance(view, Window) else Window.of(view) for view in views]
                for name, views in targets.items()
            }
            for file in self.files:
                with opened(self.folder / file) as tensors:
                    for name in tensors.keys():  # noqa: SIM118 - no mapping
                        if any(map(_is_held, windows.get(name, ()))):
                            self._copy(name, tensors, windows[name])

    def _copy(self, name: str, file: Any, windows: Sequence[Window]) -> None:
        tensor = file.get_tensor(name)
        if self.stored[name].dtype == FP8:
            tensor = self._dequantised(name, tensor)
        sides = tensor.split([window.shape[-1] for window in windows], dim=-1)
        for window, side in zip(windows, sides, strict=True):
            if not _is_held(window):
                continue
            part = side[window.held]
            # The sum is the cheap look; it can overflow for finite weights, so only the second look decides.
            if not part.sum().isfinite() and not bool(part.isfinite().all()):
                raise self._refusal(f"{self.stored[name].file} holds NaN or infinity in {name}")
            window.target.copy_(part)

    def check(self, targets: Mapping[str, Targets], leave_out: Callable[[str], bool] = lambda name: False) -> None:
        """Raise the errors of `fill` that the headers show, without copying; the views may be on the meta device."""
        for name, views in targets.items():
            wanted = (*views[0].shape[:-1], sum(view.shape[-1] for view in views))
            if name not in self.stored:
                raise self._refusal(f"no file of it holds {name}, which this model needs as {_shown(wanted)}")
            place = self.stored[name]
            if place.shape != wanted:
                raise self._refusal(
                    f"{place.file} holds {name} as {_shown(place.shape)}, this model needs {_shown(wanted)}"
                )
            if place.dtype == FP8:
                self._check_scales(name, place)
            elif place.dtype not in FLOATS:
                allowed = f"allowed are {', '.join(FLOATS)} and {FP8}"
                raise self._refusal(f"{place.file} holds {name} as {place.dtype}; {allowed}")
        for name in sorted(self.stored):
            is_scale = name.endswith(SCALE) and name.removesuffix(SCALE) in targets
            if name not in targets and not is_scale and not leave_out(name):
                raise self._refusal(f"{self.stored[name].file} holds {name}, which belongs nowhere in this model")

    def _check_scales(self, name: str, place: Stored) -> None:
        if name + SCALE not in self.stored:
            raise self._refusal(f"{place.file} holds {name} in FP8, and no file holds its scales {name + SCALE}")
        scales = self.stored[name + SCALE]
        if len(place.shape) != 2 or scales.dtype not in FLOATS:
            raise self._refusal(
                f"{place.file} holds {name} in FP8, which must be a matrix with scales of {', '.join(FLOATS)}"
            )
        wanted = tuple(-(-size // block) for size, block in zip(place.shape, self._block(), strict=True))
        if scales.shape != wanted:
            found = f"{scales.file} holds {name + SCALE} as {_shown(scales.shape)}"
            raise self._refusal(f"{found}, its blocks need {_shown(wanted)}")

    def _block(self) -> tuple[int, int]:
        """Return (rows, columns) of the blocks that share one FP8 scale."""
        settings = self.config.get("quantization_config")
        settings = settings if isinstance(settings, dict) else {}
        block: Any = settings.get("weight_block_size")
        is_known = settings.get("quant_method") == "fp8" and settings.get("fmt", "e4m3") == "e4m3"
        is_pair = isinstance(block, list) and len(block) == 2 and all(type(size) is int and size > 0 for size in block)
        if not is_known or not is_pair:
            raise self._refusal(f"{CONFIG} must describe FP8 weights (quant_method fp8, fmt e4m3, weight_block_size)")
        return block[0], block[1]

    def _dequantised(self, name: str, tensor: Tensor) -> Tensor:
        with opened(self.folder / self.stored[name + SCALE].file) as tensors:
            return dequantise_blocks(tensor, tensors.get_tensor(name + SCALE), self._block())

    def _refusal(self, why: str) -> InvalidInput:
        return InvalidInput(f"the folder {self.folder} is not allowed: {why}")


def _is_held(window: Window) -> bool:
    return window.target.numel() > 0


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: a copy waits for the disk, and threads that wait for each other between hundreds of tensors
    take longer beside a busy process than the copies do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class ImportedModel(Artefact):
    """A HuggingFace folder used as a stage's input in place of an artefact. It is never written."""

    source: HFFolder = field(kw_only=True)

    @property
    def tokenizer_folder(self) -> Path:
        return self.folder


def import_model(folder: Path) -> ImportedModel:
    """Open `folder` as a stage's input; reads all of its files, for the fingerprint."""
    source = open_hf_folder(folder)
    return ImportedModel(folder, KIND, source.fingerprint(), complete=True, source=source)


def is_hf_folder(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def open_hf_folder(folder: Path) -> HFFolder:
    """Read `config.json` and the headers of all weight files. InvalidInput names a missing, damaged or disallowed file."""
    with input_folder(folder):
        config = described_model(folder / CONFIG)
        files = _files(folder)
        stored: dict[str, Stored] = {}
        for file, names in files.items():
            header = _header(folder / file)
            for name in header if names is None else names:
                require(
                    name in header, "the folder", str(folder), f"{INDEX} says that {file} holds {name}, and it does not"
                )
                stored[name] = Stored(file, *header[name])
        if _has_head_of_its_own(folder, config, stored):
            config["tie_word_embeddings"] = False
    return HFFolder(folder, config, stored)


def _has_head_of_its_own(folder: Path, config: Mapping[str, Any], stored: Mapping[str, Stored]) -> bool:
    """True if the files hold an output head that differs from the embedding, although `config.json` does not untie them.

    As in `transformers`, the stored numbers win over the flag: the head is used as it is stored.
    """
    embedding = next((name for name in stored if name.endswith(EMBEDDINGS)), None)
    if config.get("tie_word_embeddings") is False or HEAD not in stored or embedding is None:
        return False
    tensors = []
    for name in (embedding, HEAD):
        with opened(folder / stored[name].file) as file:
            tensors.append(file.get_tensor(name))
    return not torch.equal(*tensors)


def indexed_files(folder: Path) -> dict[str, list[str] | None] | None:
    """Return the files that the index names, each with its tensors; None if there is no index. The files need not be there."""
    if not (folder / INDEX).is_file():
        return None
    places = json_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InvalidInput(f"{folder / INDEX} is not allowed: it must hold a weight_map")
    files: dict[str, list[str] | None] = {}
    for name, file in places.items():
        plain = isinstance(file, str) and PLAIN_NAME.fullmatch(file) is not None
        require(plain, f"{folder / INDEX}", file, "weights must be safetensors files of the same folder")
        names = files.setdefault(file, [])
        assert names is not None
        names.append(name)
    return files


def _files(folder: Path) -> dict[str, list[str] | None]:
    """Return the weight files, each with the tensor names that the index lists for it (None: all tensors in the file)."""
    files = indexed_files(folder)
    if files is not None:
        missing = [file for file in files if not (folder / file).is_file()]
        require(not missing, "the folder", str(folder), f"{INDEX} names {missing[:1]}, and there is no such file")
        return files
    if (folder / WEIGHTS).is_file():
        return {WEIGHTS: None}
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    why = (
        f"it holds {pickles[0]}, a pickle, which can run code when opened; convert it to safetensors" if pickles else ""
    )
    raise InvalidInput(f"the folder {folder} is not allowed: {why or f'it holds neither {WEIGHTS} nor {INDEX}'}")


def _header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    with opened(path) as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
        return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


def write_hf_weights(folder: Path, tensors: Mapping[str, Streamed], max_shard_bytes: int) -> None:
    """Write `tensors` as safetensors files of at most `max_shard_bytes`, with an index if there are several.

    Each tensor is made when it is written. One larger than `max_shard_bytes` gets a file of its own.
    """
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and tensor.bytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= tensor.bytes
    total = len(shards)
    files = [WEIGHTS] if total == 1 else [f"model-{i:05d}-of-{total:05d}.safetensors" for i in range(1, total + 1)]
    for file, names in zip(files, shards, strict=True):
        with replacing(folder / file) as temporary:
            write_tensors(temporary, {name: tensors[name] for name in names}, FORMAT)
    if total > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total_size = sum(tensor.bytes for tensor in tensors.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total_size}, "weight_map": places})
