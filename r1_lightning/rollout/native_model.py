"""What the native decoder computes on: a backbone's weights in its layout, and the cache of one wave of rows.

`native/decode.cpp` takes addresses, so the structures here mirror its own field by field, and the tensors behind the addresses are
kept beside them. Weights are copied into panels anew for every call of the sampler, because training changes them in between.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.model.config import ModelConfig
from r1_lightning.model.mla import LATENT_NORM_EPS
from r1_lightning.model.rope import softmax_scale

# Shape legend: P prompts, R rows of the wave, A rows still decoding, S columns of the prompts, W cached elements, L mixtures,
# K chosen experts, V vocabulary, D model width.

# A chunk of rows should stay in a core's cache, and give an expert enough rows for a product.
LEAST_ROWS, MOST_ROWS, ROWS_PER_EXPERT = 64, 512, 12


# The fields of decode.cpp's structures, in its order.
LAYER = (
    "attention_norm query_down query_norm query_up latent_down latent_norm key_up value_up out "
    "feed_forward_norm gate_up down router expert_bias expert_gate_up expert_down"
)
SIZES = "width layers heads query_rank nope rope value latent dense_ff shared_ff expert_ff experts chosen vocabulary"
SCALES, TABLES = "norm_eps latent_eps softmax_scale route_scale", "layer embedding norm head cos sin"
COUNTS, INPUTS = (
    "rows column chunk threads own_blocks prefix_blocks",
    "token slot position prompt prefix_columns own prefix uniform",
)
RESULTS = "drawn routes logprob hidden"


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Layer(ctypes.Structure):
    _fields_ = _fields(LAYER, ctypes.c_void_p)


class _Model(ctypes.Structure):
    _fields_ = [
        *_fields(SIZES, ctypes.c_int64),
        *_fields(SCALES, ctypes.c_float),
        *_fields(TABLES, ctypes.c_void_p),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        *_fields(COUNTS, ctypes.c_int64),
        *_fields(INPUTS, ctypes.c_void_p),
        ("temperature", ctypes.c_float),
        *_fields(RESULTS, ctypes.c_void_p),
    ]


def in_panels(weight: Tensor, width: int) -> Tensor:
    """Return ... x outputs x inputs as ... x panels x inputs x `width`, outputs filled up with zeros."""
    filled = F.pad(weight, (0, 0, 0, -weight.shape[-2] % width))
    return filled.unflatten(-2, (-1, width)).transpose(-1, -2).contiguous()


def in_blocks(columns_PSW: Tensor, lanes: int) -> Tensor:
    """Return P x S x W as P x blocks x W x `lanes`, columns filled up with zeros."""
    filled = F.pad(columns_PSW, (0, 0, 0, -columns_PSW.shape[1] % lanes))
    return filled.unflatten(1, (-1, lanes)).transpose(2, 3).contiguous()


def rows_at_once(config: ModelConfig) -> int:
    """Return how many rows go through the layers together."""
    for_experts = ROWS_PER_EXPERT * config.n_routed_experts // config.n_activated_experts
    return min(max(for_experts, LEAST_ROWS), MOST_ROWS)


class NativeModel:
    """The weights of an MLA backbone (FP32, on the CPU) in the layout of `library`, as they are now."""

    def __init__(self, library: ctypes.CDLL, backbone: Any) -> None:
        self.library, self.config = library, backbone.config
        self.lanes = int(library.lanes())
        self.kept: list[Any] = []  # what the addresses below point to
        self.weights: dict[str, Tensor] = {name: value.detach() for name, value in backbone.state_dict().items()}
        layers = (_Layer * self.config.n_layers)(*(self._layer(f"blocks.{i}.", i) for i in range(self.config.n_layers)))
        self.kept.append(layers)
        addresses = [self._kept(x) for x in (self.weights["embedding.weight"], self.weights["norm.weight"])]
        addresses += [self._packed(self.weights["head.weight"]), self._kept(backbone.cos), self._kept(backbone.sin)]
        scales = (self.config.norm_eps, LATENT_NORM_EPS, softmax_scale(self.config.qk_head_dim, self.config.yarn))
        self.model = _Model(*self._sizes(), *scales, self.config.route_scale, ctypes.addressof(layers), *addresses)

    def _sizes(self) -> list[int]:
        config = self.config
        shared = config.n_shared_experts * config.d_ff_expert
        head = (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, config.kv_lora_rank)
        hidden = (config.d_ff_dense, shared, config.d_ff_expert, config.n_routed_experts, config.n_activated_experts)
        return [
            config.d_model,
            config.n_layers,
            config.n_heads,
            config.q_lora_rank or 0,
            *head,
            *hidden,
            config.vocab_size,
        ]

    def _kept(self, values: Tensor) -> int:
        self.kept.append(values.contiguous())
        return int(self.kept[-1].data_ptr())

    def _packed(self, weight: Tensor) -> int:
        return self._kept(in_panels(weight, 2 * self.lanes))

    def _layer(self, prefix: str, number: int) -> _Layer:
        config, layer = self.config, _Layer()

        def of(name: str) -> Tensor:
            return self.weights[prefix + name + ".weight"]

        layer.attention_norm, layer.feed_forward_norm = (
            self._kept(of(f"{x}_norm")) for x in ("attention", "feed_forward")
        )
        if config.q_lora_rank is None:
            layer.query_up = self._packed(of("attention.q_proj"))
        else:
            layer.query_down, layer.query_up = (self._packed(of(f"attention.q_{x}")) for x in ("down", "up"))
            layer.query_norm = self._kept(of("attention.q_norm"))
        layer.latent_down, layer.latent_norm = (
            self._packed(of("attention.kv_down")),
            self._kept(of("attention.kv_norm")),
        )
        w_up = of("attention.kv_up").view(config.n_heads, -1, config.kv_lora_rank)
        w_k_NPC, w_v_NUC = w_up.split([config.qk_nope_head_dim, config.v_head_dim], 1)
        layer.key_up, layer.value_up = self._packed(w_k_NPC.transpose(1, 2)), self._packed(w_v_NUC)
        layer.out = self._packed(of("attention.out"))
        shared = "feed_forward." if number < config.n_dense_layers else "feed_forward.shared."
        layer.gate_up, layer.down = self._packed(of(shared + "gate_up")), self._packed(of(shared + "down"))
        if number >= config.n_dense_layers:
            layer.router = self._packed(of("feed_forward.router"))
            layer.expert_bias = self._kept(self.weights[prefix + "feed_forward.router.expert_bias"])
            experts = (of(f"feed_forward.experts.{x}").transpose(1, 2) for x in ("gate_up", "down"))
            layer.expert_gate_up, layer.expert_down = map(self._packed, experts)
        return layer


class NativeStep(NamedTuple):
    """One step of A rows: the experts chosen L x A x K, the tokens drawn and their log-probs, A each."""

    routes: Tensor
    token: Tensor
    logprob: Tensor


class NativeWave:
    """R rows that decode, each behind its prompt; a prompt's columns are held once, however many rows continue it.

    `states` are a cache's after the prefill of P prompts, `is_token` P x S, `prompt_R` each row's prompt, `limit` the number of new
    tokens. The cache of new columns is allocated for all of them, but the system gives memory only to those that are used.
    """

    def __init__(
        self, model: NativeModel, states: list[Tensor], is_token: Tensor, prompt_R: Tensor, limit: int
    ) -> None:
        self.native, self.is_token, self.prompt_R = model, is_token, prompt_R
        lengths = is_token.sum(1)
        columns = (
            torch.arange(is_token.shape[1]) + (is_token.shape[1] - lengths)[:, None]
        )  # a prompt begins in column 0
        columns = columns.clamp(max=is_token.shape[1] - 1)[..., None]
        self.prefix, self.own = [], []
        for layer, state in enumerate(states):
            self.prefix.append(in_blocks(state.gather(1, columns.expand(-1, -1, state.shape[2])), model.lanes))
            states[layer] = torch.empty(0)
            blocks = -(-limit // model.lanes)
            self.own.append(torch.empty(len(prompt_R), blocks, state.shape[2], model.lanes))
        self.lengths = lengths

    def step(self, active_A: Tensor, token_A: Tensor, column: int, uniform_A: Tensor, temperature: float) -> NativeStep:
        """Decode the rows `active_A`, whose last tokens `token_A` go into `column` behind their prompts, and draw the next ones."""
        routes, drawn = self._routes(len(active_A)), torch.empty_like(active_A)
        logprob = torch.empty(len(active_A))
        self._run(active_A, token_A, column, (uniform_A.contiguous(), temperature, drawn, routes, logprob, None))
        return NativeStep(routes, drawn, logprob)

    def hidden(self, active_A: Tensor, token_A: Tensor, column: int) -> tuple[Tensor, Tensor]:
        """The same without a draw: returns the normed hidden states A x D and the routes L x A x K."""
        routes, hidden = self._routes(len(active_A)), torch.empty(len(active_A), self.native.config.d_model)
        self._run(active_A, token_A, column, (None, 1.0, None, routes, None, hidden))
        return hidden, routes

    def _routes(self, rows: int) -> Tensor:
        config = self.native.config
        return torch.empty(config.n_layers - config.n_dense_layers, rows, config.n_activated_experts, dtype=torch.long)

    def _run(self, active_A: Tensor, token_A: Tensor, column: int, results: tuple[Any, ...]) -> None:
        prompt = self.prompt_R[active_A]
        given = [token_A.contiguous(), active_A.contiguous(), self.lengths[prompt] + column, prompt, self.lengths]
        pointers = [(ctypes.c_void_p * len(x))(*(y.data_ptr() for y in x)) for x in (self.own, self.prefix)]
        threads = torch.get_num_threads()
        chunk = max(1, min(rows_at_once(self.native.config), -(-len(active_A) // threads)))
        step = _Step(
            *(len(active_A), column, chunk, threads, self.own[0].shape[1], self.prefix[0].shape[1]),
            *(x.data_ptr() for x in given),
            *(ctypes.addressof(x) for x in pointers),
            *(x.data_ptr() if isinstance(x, Tensor) else x for x in results),
        )
        if self.native.library.decode_step(ctypes.byref(self.native.model), ctypes.byref(step)):
            raise MemoryError("the native decoder found no memory for a step")
