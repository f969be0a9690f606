"""Sampling tokens/s with `model=hf` on a CPU: our sampler beside `generate` and beside CTranslate2.

    python benchmarks/hf_sampling.py [--rows 64] [--tokens 32] [--pairs 3]

A Qwen2 in the shape of Qwen2.5-0.5B (`--shape`) with random weights, so that nothing is downloaded. Equal on all sides: weights,
prompts of random tokens, temperature 1 over the whole vocabulary, no end of sequence, the number of new tokens (checked). Tried,
the best taken: FP32 and BF16. Not equal: ours returns the log-prob of each token, which RL needs, the others ids alone;
the others hold their weights in the type in which they compute, ours casts FP32 weights once per rollout.

CTranslate2 is an engine of its own in C++, no dependency of ours (`pip install ctranslate2`); without it that contest is left out.
It reads a converted copy of the weights, so in RL each new policy would go through files. Its INT8 is not tried: that is another
policy.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, installed or not

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from benchmarks.command import BAD_INPUT, silence_warnings
from benchmarks.pairs import Contest, Measurement, compare
from benchmarks.setting import NEVER
from benchmarks.table import Machine, render
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.sampler import Sampler, SamplerSettings, SamplingConfig
from r1_lightning.run.build.torch_setup import keep_freed_memory
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int

ENGINE = "ctranslate2"
PROMPT_TOKENS, SPECIAL_TOKENS = 32, 4
HEADS = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
FIELDS = ("hidden_size", "intermediate_size", "vocab_size", *HEADS)
# In the order of `FIELDS`; the first as published with Qwen2.5-0.5B.
SHAPES = {"qwen2.5-0.5b": (896, 4864, 151_936, 24, 14, 2), "tiny": (32, 64, 128, 2, 4, 2)}
COMPUTE = {"fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class World:
    """The work: `rows` prompts, `tokens` new tokens of each, and the folder of the model."""

    folder: Path
    rows: int
    tokens: int

    @property
    def prompts(self) -> list[list[int]]:
        vocabulary = AutoConfig.from_pretrained(self.folder).vocab_size
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(SPECIAL_TOKENS, vocabulary, (self.rows, PROMPT_TOKENS), generator=generator)
        ids: list[list[int]] = drawn.tolist()
        return ids

    def timed(self, sample: Callable[[], int]) -> Measurement:
        """New tokens/s of `sample`, which returns how many it made."""

        def measure() -> float:
            start_s = time.perf_counter()
            made = sample()
            elapsed_s = time.perf_counter() - start_s
            require(made == self.rows * self.tokens, "new tokens", made, "every side must make all of them")
            return made / elapsed_s

        return measure


def write_model(shape: str, folder: Path) -> None:
    """Write a checkpoint with random weights, and the tokenizer that CTranslate2's converter asks for."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    fields = dict(zip(FIELDS, SHAPES[shape], strict=True))
    config = AutoConfig.for_model("qwen2", max_position_embeddings=4096, tie_word_embeddings=True, **fields)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    words = Tokenizer(WordLevel({_word(number): number for number in range(config.vocab_size)}, _word(0)))
    special = {name: _word(number) for number, name in enumerate(("unk_token", "bos_token", "eos_token", "pad_token"))}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)


def _word(number: int) -> str:
    return f"t{number}"


def _ours(world: World, precision: str) -> Measurement:
    model = AutoModelForCausalLM.from_pretrained(world.folder, dtype=torch.float32)
    config = HFModelConfig(model.config.to_dict())
    backbone = HFBackbone(config, PlainPrecision(precision), is_drawn=False).eval()  # type: ignore[arg-type]
    backbone.model.load_state_dict(model.state_dict())
    sampling = SamplingConfig(max_new_tokens=world.tokens)
    sampler = Sampler(backbone, SamplerSettings(sampling, [NEVER], pad_id=0, seed=0, max_rows=world.rows))
    prompts, keys = world.prompts, rollout_keys(0, world.rows, 1)
    return world.timed(lambda: int(sampler(prompts, 1, keys).completion_mask.sum()))


def _generate(world: World, precision: str) -> Measurement:
    dtype = getattr(torch, COMPUTE[precision])
    model = AutoModelForCausalLM.from_pretrained(world.folder, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=world.tokens, pad_token_id=0
    )
    ids = torch.tensor(world.prompts)
    mask = torch.ones_like(ids)

    def sample() -> int:
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        return int(out[:, PROMPT_TOKENS:].numel())

    return world.timed(sample)


def _engine(world: World, precision: str) -> Measurement:
    engine_module, converters = importlib.import_module(ENGINE), importlib.import_module(f"{ENGINE}.converters")
    place = world.folder.parent / ENGINE
    if not place.exists():
        converters.TransformersConverter(str(world.folder)).convert(str(place))
    engine = engine_module.Generator(
        str(place), device="cpu", compute_type=COMPUTE[precision], intra_threads=torch.get_num_threads()
    )
    settings: dict[str, Any] = {"max_length": world.tokens, "min_length": world.tokens}
    settings |= {"sampling_topk": 0, "sampling_temperature": 1.0, "include_prompt_in_result": False}
    words = [[_word(number) for number in prompt] for prompt in world.prompts]

    def sample() -> int:
        return sum(len(found.sequences_ids[0]) for found in engine.generate_batch(words, **settings))

    return world.timed(sample)


def contests(world: World) -> list[Contest]:
    """Beside `generate`, and beside CTranslate2 if it is installed."""
    ours = {precision: _ours(world, precision) for precision in COMPUTE}
    theirs = {"transformers": {precision: _generate(world, precision) for precision in COMPUTE}}
    if importlib.util.find_spec(ENGINE):
        able = importlib.import_module(ENGINE).get_supported_compute_types("cpu")
        theirs["CTranslate2"] = {name: _engine(world, name) for name, its_name in COMPUTE.items() if its_name in able}
    work = f"sampling with model=hf, {world.rows} rows x {world.tokens} tokens behind {PROMPT_TOKENS}"
    return [Contest(work, "tokens/s", name, ours, measurements) for name, measurements in theirs.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each pair and the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python benchmarks/hf_sampling.py", description="Engines for model=hf.")
    parser.add_argument("--shape", default="qwen2.5-0.5b", help=f"{', '.join(SHAPES)} (%(default)s)")
    parser.add_argument("--rows", type=int, default=64, help="prompts sampled at a time (%(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens of each (%(default)s)")
    parser.add_argument("--pairs", type=int, default=3, help="pairs per contest (%(default)s)")
    options = parser.parse_args(arguments)
    silence_warnings()
    keep_freed_memory()
    try:
        require_choice("--shape", options.shape, tuple(SHAPES))
        for name in ("rows", "tokens", "pairs"):
            require_int(f"--{name}", getattr(options, name), 1)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            write_model(options.shape, folder)
            world = World(folder, options.rows, options.tokens)
            results = [compare(contest, options.pairs) for contest in contests(world)]
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    print(render(results, Machine.here()))
    if len(results) == 1:
        print(f"{ENGINE} is not installed: its contest is left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
