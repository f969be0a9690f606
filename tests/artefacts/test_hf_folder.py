"""Folders in HuggingFace's form: read strictly, shard by shard, and never halfway."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from r1_lightning.artefacts.hf_folder import INDEX, WEIGHTS, HFFolder, open_hf_folder, write_hf_weights
from r1_lightning.artefacts.tensor_file import Streamed
from r1_lightning.types.errors import InvalidInput
from tests.support.memory import LiveTensors

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b.weight": torch.arange(4.0).view(2, 2) + 10, "c": torch.ones(5)}


def folder(path: Path, tensors: dict[str, Tensor] | None = None, shard_bytes: int = 10**9, **config: object) -> Path:
    tensors = TENSORS if tensors is None else tensors
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    made = {name: Streamed(tensor.dtype, tuple(tensor.shape), tensor.clone) for name, tensor in tensors.items()}
    write_hf_weights(path, made, shard_bytes)
    return path


def targets() -> dict[str, tuple[Tensor, ...]]:
    return {name: (torch.zeros_like(tensor),) for name, tensor in TENSORS.items()}


def fill(opened: HFFolder, **changes: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
    views = targets() | changes
    opened.fill(views)
    return views


@pytest.mark.parametrize(("shard_bytes", "files"), [(10**9, [WEIGHTS]), (40, 2), (1, 3)])
def test_there_and_back(tmp_path: Path, shard_bytes: int, files: object) -> None:
    """24, 16 and 20 bytes: together in one file, or in files of at most 40 bytes, or each alone."""
    opened = open_hf_folder(folder(tmp_path, shard_bytes=shard_bytes))
    assert opened.files == files or len(opened.files) == files
    for name, (view,) in fill(opened).items():
        assert torch.equal(view, TENSORS[name])


def test_an_index_is_what_transformers_writes(tmp_path: Path) -> None:
    folder(tmp_path, shard_bytes=40)
    index = json.loads((tmp_path / INDEX).read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index["weight_map"] == {"a.weight": first, "b.weight": first, "c": second}
    assert index["metadata"] == {"total_size": 60}


def test_a_tensor_fills_views_side_by_side(tmp_path: Path) -> None:
    left, right = torch.zeros(2, 2), torch.zeros(2, 1)
    opened = open_hf_folder(folder(tmp_path))
    opened.fill(targets() | {"a.weight": (right, left)})  # one column, then two
    assert right.tolist() == [[0.0], [3.0]] and left.tolist() == [[1.0, 2.0], [4.0, 5.0]]


def test_other_floating_types_are_cast(tmp_path: Path) -> None:
    opened = open_hf_folder(folder(tmp_path, {name: tensor.bfloat16() for name, tensor in TENSORS.items()}))
    assert torch.equal(fill(opened)["a.weight"][0], TENSORS["a.weight"])


def test_fp8_blocks_are_dequantised(tmp_path: Path) -> None:
    stored = {**TENSORS, "a.weight": TENSORS["a.weight"].to(torch.float8_e4m3fn)}
    stored["a.weight_scale_inv"] = torch.tensor([[2.0, 3.0]])
    settings = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [2, 2]}
    opened = open_hf_folder(folder(tmp_path, stored, quantization_config=settings))
    assert fill(opened)["a.weight"][0].tolist() == [[0.0, 2.0, 6.0], [6.0, 8.0, 15.0]]


def _without(name: str) -> Callable[[Path], None]:
    return lambda path: folder(path, {key: value for key, value in TENSORS.items() if key != name}) and None


def _damage(path: Path) -> None:
    folder(path)
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[:-4])


def _pointer(path: Path) -> None:
    folder(path)
    (path / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _pickled(path: Path) -> None:
    (path / "config.json").write_text("{}")
    torch.save(TENSORS, path / "pytorch_model.bin")


def _index(path: Path, **places: object) -> None:
    folder(path)
    (path / INDEX).write_text(json.dumps({"weight_map": places}))


def _quantised(path: Path, **changes: object) -> None:
    stored = {
        **TENSORS,
        "a.weight": TENSORS["a.weight"].to(torch.float8_e4m3fn),
        "a.weight_scale_inv": torch.ones(1, 2),
    }
    settings = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [2, 2]}
    folder(path, stored, quantization_config=settings | changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_without("c"), r"no file of it holds c, which this model needs as 5"),
        (lambda p: folder(p, TENSORS | {"c": torch.ones(4)}), r"model\.safetensors holds c as 4, this model needs 5"),
        (lambda p: folder(p, TENSORS | {"d": torch.ones(4)}), r"model\.safetensors holds d, which belongs nowhere"),
        (lambda p: folder(p, TENSORS | {"c": torch.ones(5).long()}), r"holds c as I64; allowed are F64, F32"),
        (_damage, r"model\.safetensors' is not allowed: the file is truncated or damaged"),
        (_pointer, r"it is a pointer of Git LFS, and `git lfs pull` brings the file"),
        (_pickled, r"pytorch_model\.bin, a pickle, which can run code when opened; convert it to safetensors"),
        (
            lambda p: (p / "config.json").write_text("{}"),
            r"it holds neither model\.safetensors nor model\.safetensors\.index",
        ),
        (lambda p: (p / "config.json").write_text("{"), r"config\.json cannot be read: it is no JSON"),
        (
            lambda p: (p / "config.json").write_text("[]"),
            r"config\.json='list' is not allowed: it must be a JSON object",
        ),
        (lambda p: None, r"it holds no config\.json"),
        (lambda p: _index(p, c="../model.safetensors"), r"weights must be safetensors files of the same folder"),
        (lambda p: _index(p, c="weights.bin"), r"weights must be safetensors files of the same folder"),
        (lambda p: _index(p, c="x.safetensors"), r"index\.json names \['x\.safetensors'\], and there is no such file"),
        (lambda p: _index(p, z=WEIGHTS), r"says that model\.safetensors holds z, and it does not"),
        (lambda p: _index(p), r"it must hold a weight_map"),
        (lambda p: _quantised(p, fmt="e5m2"), r"config\.json must describe FP8 weights"),
        (
            lambda p: _quantised(p, weight_block_size=[1, 1]),
            r"holds a\.weight_scale_inv as 1 x 2, its blocks need 2 x 3",
        ),
        (
            lambda p: folder(p, TENSORS | {"a.weight": TENSORS["a.weight"].to(torch.float8_e4m3fn)}),
            r"holds a\.weight in FP8, and no file holds its scales",
        ),
    ],
)
def test_a_wrong_folder_says_what_is_wrong_and_fills_nothing(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path)
    views = targets()
    with pytest.raises(InvalidInput, match=message):
        open_hf_folder(tmp_path).fill(views)
    assert not any(bool(view.any()) for (view,) in views.values())


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [[NAN], [INF], [-INF], [INF, -INF], [1.0, NAN, 2.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_none_are_one_line(tmp_path: Path, bad: list[float], dtype: torch.dtype) -> None:
    tensors = {**TENSORS, "c": torch.cat([torch.tensor(bad), torch.ones(5 - len(bad))]).to(dtype)}
    with pytest.raises(InvalidInput, match=r"model\.safetensors holds NaN or infinity in c$") as error:
        fill(open_hf_folder(folder(tmp_path, tensors)))
    assert "\n" not in str(error.value)


def test_numbers_whose_sum_is_too_large_are_numbers(tmp_path: Path) -> None:
    """5 x 3e38 is above FP32's 3.4e38; FP16 ends at 65,504."""
    for name, tensor in (("one", torch.full((5,), 3e38)), ("two", torch.full((5,), 6e4).half())):
        views = fill(open_hf_folder(folder(tmp_path / name, {**TENSORS, "c": tensor})))
        assert torch.equal(views["c"][0], tensor.float())


EMBEDDING, OWN_HEAD = torch.arange(6.0).view(3, 2), torch.arange(6.0).view(3, 2) + 1


@pytest.mark.parametrize(
    ("head", "flags", "expected"),
    [
        (OWN_HEAD, {"tie_word_embeddings": True}, False),
        (OWN_HEAD, {}, False),
        (EMBEDDING, {"tie_word_embeddings": True}, True),
        (EMBEDDING, {}, None),  # the family's default
        (EMBEDDING, {"tie_word_embeddings": False}, False),
        (None, {"tie_word_embeddings": True}, True),
        (EMBEDDING * (1 + 2**-20), {"tie_word_embeddings": True}, False),  # nearly the same is not the same
        (EMBEDDING[:2], {"tie_word_embeddings": True}, False),
    ],
)
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "transformer.wte.weight"])
@pytest.mark.parametrize("shard_bytes", [10**9, 1])
def test_a_head_of_its_own_is_believed(
    tmp_path: Path, head: Tensor | None, flags: dict[str, bool], expected: bool | None, name: str, shard_bytes: int
) -> None:
    tensors = {name: EMBEDDING} | ({} if head is None else {"lm_head.weight": head})
    opened = open_hf_folder(folder(tmp_path, tensors, shard_bytes, **flags))
    assert opened.config.get("tie_word_embeddings") is expected


def test_names_that_may_be_passed_over(tmp_path: Path) -> None:
    opened = open_hf_folder(folder(tmp_path, TENSORS | {"old.inv_freq": torch.ones(2)}))
    views = targets()
    opened.fill(views, leave_out=lambda name: name.endswith("inv_freq"))
    assert torch.equal(views["b.weight"][0], TENSORS["b.weight"])


def test_another_weight_or_setting_is_another_fingerprint(tmp_path: Path) -> None:
    found = {
        open_hf_folder(folder(tmp_path / "one")).fingerprint(),
        open_hf_folder(folder(tmp_path / "same")).fingerprint(),
        open_hf_folder(folder(tmp_path / "other", TENSORS | {"c": torch.zeros(5)})).fingerprint(),
        open_hf_folder(folder(tmp_path / "setting", rope_theta=1)).fingerprint(),
        open_hf_folder(_with_ends(folder(tmp_path / "ends"))).fingerprint(),
    }
    assert len(found) == 4


def _with_ends(path: Path) -> Path:
    (path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    return path


def test_files_are_read_and_written_one_after_the_other(tmp_path: Path) -> None:
    """Eight tensors of 4,000 bytes in four files: never more than one tensor beside the views."""
    big = {f"w{i}": torch.full((1000,), float(i)) for i in range(8)}
    with LiveTensors() as live:
        folder(tmp_path, big, shard_bytes=8000)
    assert live.peak <= 8000
    views = {name: (torch.zeros_like(tensor),) for name, tensor in big.items()}
    opened = open_hf_folder(tmp_path)
    with LiveTensors() as live:
        opened.fill(views)
    assert live.peak <= 8 * 4000 + 4000 + 16  # the views themselves, one tensor, and its sum
    assert all(torch.equal(view, big[name]) for name, (view,) in views.items())


def test_what_is_written_is_plain_safetensors(tmp_path: Path) -> None:
    folder(tmp_path, shard_bytes=1)
    whole = {name: tensor for path in tmp_path.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert whole.keys() == TENSORS.keys()
    save_file(whole, tmp_path / "again.safetensors")
