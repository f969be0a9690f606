"""Networks with the weights of a HuggingFace folder: DeepSeek's published form (FP8, an expert per tensor) and the stacked one."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from r1_lightning.artefacts import hf_folder
from r1_lightning.artefacts.hf_folder import ImportedModel, import_model, open_hf_folder
from r1_lightning.artefacts.store import WEIGHTS, Artefact
from r1_lightning.artefacts.weights import opened, save_weights
from r1_lightning.functional.shards import fill, is_sharded, keep_rows, local
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.hf_config import config_to_hf
from r1_lightning.model.hf_model import HFModelConfig
from r1_lightning.model.hf_weights import state_to_hf
from r1_lightning.model.lora import LoraSettings, fold_adapters, is_adapter, without_adapters
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.run.build.models import make_backbone, vocab_size_of
from r1_lightning.stages.reference import ReferencePolicy
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import Processes
from tests.model.tiny import backbone, tiny
from tests.support.hf_folders import DENSE, VOCABULARY, adapted, dense_folder, move_adapters, write_tokenizer
from tests.support.memory import LiveTensors
from tests.support.processes import in_processes

CONFIG = tiny(vocab_size=VOCABULARY, d_model=160)  # wider than a block of 128


def published(folder: Path, config: ModelConfig = CONFIG, stacked: bool = False, fp8: bool = False) -> ImportedModel:
    """A folder as DeepSeek publishes: MTP layer with its copies of embedding and head; optionally in FP8."""
    write_tokenizer(folder)
    model = backbone(config)
    state = {name: tensor.clone() for name, tensor in state_to_hf(model.state_dict(), config, True, stacked).items()}
    extra = f"model.layers.{config.n_layers}."
    state[f"{extra}embed_tokens.weight"] = state["model.embed_tokens.weight"].clone()
    state[f"{extra}shared_head.head.weight"] = state["lm_head.weight"].clone()
    fields = config_to_hf(config)
    if fp8:
        fields["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
        for name in [name for name in state if name.endswith("_proj.weight") and "eh_proj" not in name]:
            rows, columns = state[name].shape
            scales = torch.rand(-(-rows // 128), -(-columns // 128)) / 448
            state[name] = torch.randn(rows, columns).mul(100).to(torch.float8_e4m3fn)
            state[f"{name}_scale_inv"] = scales
    (folder / "config.json").write_text(json.dumps(fields))
    save_file(state, folder / "model.safetensors")
    return import_model(folder)


@pytest.mark.parametrize("stacked", [False, True])
def test_both_forms_of_experts_are_read(tmp_path: Path, stacked: bool) -> None:
    base = published(tmp_path, stacked=stacked)
    found = make_backbone(CONFIG, PlainPrecision(), base)
    expected = backbone(CONFIG).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())


def test_fp8_is_dequantised_block_by_block(tmp_path: Path) -> None:
    base = published(tmp_path, fp8=True)
    found = make_backbone(CONFIG, PlainPrecision(), base)
    stored = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.experts.3.up_proj"  # 16 x 160: two blocks of 128 and 32 columns
    scales = stored[f"{name}.weight_scale_inv"]
    assert scales.shape == (1, 2)
    spread = torch.cat([scales[:, :1].expand(16, 128), scales[:, 1:].expand(16, 32)], dim=1)
    expected = stored[f"{name}.weight"].float() * spread
    assert torch.equal(found.state_dict()["blocks.1.feed_forward.experts.gate_up.weight"][3, :, 16:].T, expected)


def test_loading_never_holds_the_folder_beside_the_model(tmp_path: Path) -> None:
    """The largest tensors are embedding and head: beside the model there are never more than those two, of 1.5 MB in one file."""
    base = published(tmp_path)
    with LiveTensors() as live:
        model = make_backbone(CONFIG, PlainPrecision(), base)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert live.peak <= 1.01 * size + 2 * model.embedding.weight.nbytes < 1.5 * size


class _Work(TorchDispatchMode):
    """Names of the operators that ran, and the bytes that were copied."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()
        self.copied = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        name = function.overloadpacket.__name__
        if isinstance(result, torch.Tensor) and result.device.type != "meta":
            self.operators.add(name)
            self.copied += result.nbytes if name == "copy_" else 0
        return result


def _counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many times each stored tensor is read from here on."""
    reads: Counter[str] = Counter()

    class Counting:
        def __init__(self, path: Path) -> None:
            self.file = opened(path)

        def __enter__(self) -> Any:
            file = self.file.__enter__()

            def get_tensor(name: str) -> torch.Tensor:
                reads[name] += 1
                return file.get_tensor(name)

            return SimpleNamespace(keys=file.keys, get_slice=file.get_slice, get_tensor=get_tensor)

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

    monkeypatch.setattr(hf_folder, "opened", Counting)
    return reads


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_loading_reads_each_weight_once_and_draws_none(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is copied is as many bytes as the file holds, and the only draw is that of a few hidden states for the head's check."""
    dense_folder(tmp_path, kind)
    reads = _counted(monkeypatch)
    source = open_hf_folder(tmp_path)
    base = ImportedModel(tmp_path, "huggingface", "", complete=True, source=source)
    with _Work() as work:
        model = make_backbone(HFModelConfig(source.config), PlainPrecision(), base)
    assert reads == dict.fromkeys(source.stored, 1)
    file_bytes = sum(4 * math.prod(place.shape) for place in source.stored.values())
    assert work.copied == file_bytes == sum(parameter.nbytes for parameter in model.parameters())
    draws = {"normal_", "uniform_", "trunc_normal_", "rand", "bernoulli_", "randperm"}
    assert "copy_" in work.operators and not work.operators & draws


def test_a_deepseek_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The MTP layer's copies of embedding and head are not read at all."""
    base = published(tmp_path)
    reads = _counted(monkeypatch)
    make_backbone(CONFIG, PlainPrecision(), base)
    extra = f"model.layers.{CONFIG.n_layers}."
    copies = {f"{extra}embed_tokens.weight", f"{extra}shared_head.head.weight"}
    assert reads == dict.fromkeys(base.source.stored.keys() - copies, 1)


def test_the_vocabulary_is_that_of_the_embedding(tmp_path: Path) -> None:
    base = published(tmp_path / "hf")
    tokenizer = TextTokenizer.load(base.tokenizer_folder)
    assert vocab_size_of(tokenizer, base) == VOCABULARY > tokenizer.vocab_size
    assert vocab_size_of(tokenizer, None) == tokenizer.vocab_size
    artefact = Artefact(tmp_path / "ours", "grpo", "f")
    artefact.folder.mkdir()
    save_weights(backbone(CONFIG), artefact.weights_path)
    assert vocab_size_of(tokenizer, artefact) == VOCABULARY
    save_weights(backbone(tiny(vocab_size=64)), artefact.weights_path)
    with pytest.raises(InvalidInput, match=r"vocab_size=64 is not allowed: the tokenizer has \d+ tokens"):
        vocab_size_of(tokenizer, artefact)


def test_another_shape_is_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    base = published(tmp_path)
    with pytest.raises(
        InvalidInput, match=r"holds model\.layers\.0\.self_attn\.q_a_proj\.weight as 12 x 160, this .* needs 20 x 160"
    ):
        make_backbone(tiny(vocab_size=VOCABULARY, d_model=160, q_lora_rank=20), PlainPrecision(), base)


def dense(**changes: object) -> HFModelConfig:
    return HFModelConfig({"model_type": "qwen2", **DENSE, "tie_word_embeddings": True}, **changes)


def stored(folder: Path, model: torch.nn.Module) -> Artefact:
    folder.mkdir()
    base = Artefact(folder, "pretrain", "", complete=True)
    save_weights(model, base.weights_path)
    return base


@torch.no_grad()
@pytest.mark.parametrize("kind", ["a checkpoint in HuggingFace's form", "an artefact without adapters"])
def test_weights_without_adapters_fill_the_base(tmp_path: Path, kind: str) -> None:
    folder, ids = import_model(dense_folder(tmp_path / "hf", "qwen2")), torch.arange(20)[None]
    plain = make_backbone(dense(), PlainPrecision(), folder)
    base = folder if kind.startswith("a checkpoint") else stored(tmp_path / "artefact", plain)
    model = make_backbone(dense(lora=LoraSettings(2, 8)), PlainPrecision(), base, seed=3)
    assert torch.equal(model(ids), plain(ids))
    with without_adapters(move_adapters(model)):
        assert torch.equal(model(ids), plain(ids))


def test_an_artefact_with_adapters_is_loaded_as_it_is(tmp_path: Path) -> None:
    model = move_adapters(adapted(seed=5))
    again = make_backbone(dense(lora=LoraSettings(2, 8)), PlainPrecision(), stored(tmp_path / "artefact", model))
    expected = model.state_dict()
    assert any(is_adapter(name) for name in expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    with pytest.raises(InvalidInput, match="it was made by another architecture"):
        make_backbone(dense(), PlainPrecision(), stored(tmp_path / "other", model))


PUBLISHED: dict[str, dict[str, Any]] = {"folder": {}, "stacked": {"stacked": True}, "fp8": {"fp8": True}}


def start(kind: str, folder: Path) -> tuple[Any, PlainPrecision, Artefact | None]:
    """Shape, precision and input of a model; the folder has been written."""
    if kind == "dense":
        source = open_hf_folder(folder)
        return HFModelConfig(source.config), PlainPrecision(), import_model(folder)
    if kind in ("drawn", "bf16"):
        return CONFIG, PlainPrecision("bf16" if kind == "bf16" else "fp32"), None
    return CONFIG, PlainPrecision(), Artefact(folder, "x", "y", True) if kind == "artefact" else import_model(folder)


def made_in_shares(processes: Processes, kind: str, folder: Path) -> dict[str, float]:
    """Make a model and its reference in shares, compare both with whole ones, and measure.

    Returns the bytes that were alive at one time beside shares and buffers, for both; those of the largest tensor; and the share.
    """
    config, precision, base = start(kind, folder)
    mesh = init_device_mesh("cpu", (processes.count,))
    with LiveTensors() as live:
        model = make_backbone(config, precision, base, seed=3, mesh=mesh)
    with LiveTensors([*model.parameters(), *model.buffers()]) as more:
        reference = ReferencePolicy(model, 0)
    alone = make_backbone(config, precision, base, seed=3)
    again = ReferencePolicy(alone, 0)
    for found, expected in ((model, alone), (reference, again)):
        state = expected.state_dict()
        names = [name for name, _ in found.named_parameters(remove_duplicate=False)]
        assert names == [name for name, _ in expected.named_parameters(remove_duplicate=False)]
        for name, tensor in found.state_dict().items():
            assert is_sharded(tensor) == (name in names)
            assert tensor.dtype == state[name].dtype and torch.equal(local(tensor), keep_rows(state[name], tensor)), (
                name
            )
        for one, other in zip(found.buffers(), expected.buffers(), strict=True):
            assert torch.equal(one, other)
    weights = [parameter.nbytes for parameter in alone.parameters()]
    buffers = sum(buffer.nbytes for buffer in alone.buffers())
    held = sum(local(parameter).nbytes for parameter in model.parameters())
    frozen = sum(local(parameter).nbytes for parameter in reference.parameters())
    return {
        "peak": live.peak - held - buffers,
        "largest": max(weights),
        "share": held / sum(weights),
        "reference": more.peak - frozen - buffers,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["artefact", "drawn", "bf16", "folder", "stacked", "fp8", "dense"])
def test_a_process_of_several_makes_its_share_alone(tmp_path: Path, kind: str) -> None:
    if kind == "artefact":
        save_weights(backbone(CONFIG), tmp_path / WEIGHTS)
    elif kind == "dense":
        dense_folder(tmp_path, "qwen2")
    elif kind in PUBLISHED:
        published(tmp_path, **PUBLISHED[kind])
    for found in in_processes(2, made_in_shares, kind, tmp_path):
        assert found["peak"] <= 1.05 * found["largest"]
        assert found["share"] == pytest.approx(0.5, abs=0.02)
        assert found["reference"] <= 0.05 * found["largest"]


def adapted_in_shares(processes: Processes, folder: Path) -> int:
    """Make a model with adapters in shares, and fold adapters that have learned into it; returns how many adapters there are."""
    base = import_model(folder)
    config = HFModelConfig(base.source.config, lora=LoraSettings(2, 8))
    mesh = init_device_mesh("cpu", (processes.count,))
    model = make_backbone(config, PlainPrecision(), base, seed=3, mesh=mesh)
    alone = make_backbone(config, PlainPrecision(), base, seed=3)
    state, adapters = alone.state_dict(), 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(local(tensor), keep_rows(state[name], tensor)), name
        if ".lora_B." in name:
            learned = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
            fill(tensor, learned)
            state[name].copy_(learned)
            adapters += 1
    fold_adapters(model, 4)
    fold_adapters(alone, 4)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(local(tensor), keep_rows(state[name], tensor), rtol=0, atol=1e-6, msg=name)
    return adapters


@pytest.mark.slow
def test_a_model_with_adapters_is_made_and_folded_in_shares(tmp_path: Path) -> None:
    """Two layers with adapters of queries and values."""
    dense_folder(tmp_path, "llama")
    assert in_processes(2, adapted_in_shares, tmp_path) == [4, 4]
