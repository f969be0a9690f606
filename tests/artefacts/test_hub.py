"""Models of the hub by name, from a hub on this machine: what is downloaded, what the cache gives, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from r1_lightning.artefacts import hub as hub_module
from r1_lightning.artefacts.hf_folder import INDEX, WEIGHTS, open_hf_folder, write_hf_weights
from r1_lightning.artefacts.hub import described_folder, import_hub_model, is_hub_name, snapshot
from r1_lightning.artefacts.tensor_file import Streamed
from r1_lightning.types.errors import InvalidInput
from tests.support.fake_hub import COMMIT, GATED, FakeHub, point_at, serving

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "c": torch.ones(5)}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with a model in one file (a/one) and one in two files (a/two), both beside files that nobody asks for."""
    snapshot.cache_clear()
    with serving(monkeypatch, tmp_path / "cache") as made:
        made.models = {"a/one": model(tmp_path / "one", 10**9), "a/two": model(tmp_path / "two", 24)}
        yield made
    snapshot.cache_clear()


def model(folder: Path, shard_bytes: int) -> Path:
    (folder / "original").mkdir(parents=True)
    for name in ("pytorch_model.bin", "modeling_own.py", "consolidated.safetensors", "original/model.safetensors"):
        (folder / name).write_text("not asked for")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({"vocab_size": 3, "file": name}))
    made = {name: Streamed(tensor.dtype, tuple(tensor.shape), tensor.clone) for name, tensor in TENSORS.items()}
    write_hf_weights(folder, made, shard_bytes)
    return folder


def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody listens at port 1; a new process has resolved nothing yet."""
    point_at("http://127.0.0.1:1", monkeypatch, tmp_path / "cache")
    snapshot.cache_clear()


SMALL = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
TWO = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(("name", "weights"), [("a/one", [WEIGHTS]), ("a/two", [INDEX, *TWO])])
def test_only_configuration_tokenizer_and_weights_are_downloaded(hub: FakeHub, name: str, weights: list[str]) -> None:
    found = snapshot(f"hub:{name}")
    assert (found.name, found.commit, found.folder.name) == (name, COMMIT, COMMIT)
    assert sorted(hub.asked) == sorted([*SMALL, *weights])
    assert sorted(path.name for path in found.folder.iterdir()) == sorted([*SMALL, *weights])
    views = {name: (torch.zeros_like(tensor),) for name, tensor in TENSORS.items()}
    open_hf_folder(found.folder).fill(views)
    assert all(torch.equal(view, TENSORS[name]) for name, (view,) in views.items())


def test_what_is_in_the_cache_is_not_downloaded_again(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = snapshot("hub:a/one@v1")
    hub.asked.clear()
    snapshot.cache_clear()
    assert snapshot("hub:a/one@v1") == first and not hub.asked
    offline(monkeypatch, tmp_path)
    assert snapshot("hub:a/one@v1") == first
    with pytest.raises(
        InvalidInput, match=r"the model hub:a/one@v2 is not allowed: http://127.0.0.1:1 does not answer, and"
    ):
        snapshot("hub:a/one@v2")


def test_a_commit_in_the_cache_needs_no_question(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = snapshot(f"hub:a/one@{COMMIT}")
    snapshot.cache_clear()
    monkeypatch.setattr(hub_module, "answers", lambda: pytest.fail("the hub was asked"))
    assert snapshot(f"hub:a/one@{COMMIT}") == first


def test_a_machine_told_to_stay_offline_asks_nobody(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = snapshot("hub:a/one")
    snapshot.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_module, "answers", lambda: pytest.fail("the hub was asked"))
    assert snapshot("hub:a/one") == first


def test_half_a_model_in_the_cache_is_finished_or_refused(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = snapshot("hub:a/two")
    (found.folder / TWO[1]).unlink()
    address = hub.address
    offline(monkeypatch, tmp_path)
    with pytest.raises(InvalidInput, match=r"does not answer, and .* not in the cache$") as refused:
        snapshot("hub:a/two")
    assert "\n" not in str(refused.value)
    point_at(address, monkeypatch, tmp_path / "cache")
    assert snapshot("hub:a/two") == found and (found.folder / TWO[1]).is_file()


def test_a_commit_is_the_fingerprint(hub: FakeHub) -> None:
    """The same commit of the same model by any name; another commit or another model is another fingerprint."""
    digests = [import_hub_model(name).fingerprint for name in ("hub:a/one", "hub:a/one@v1", f"hub:a/one@{COMMIT}")]
    assert len(set(digests)) == 1
    digests.append(import_hub_model("hub:a/two").fingerprint)
    hub.commit = COMMIT[::-1]
    snapshot.cache_clear()
    moved = import_hub_model("hub:a/one")
    assert moved.folder.name == COMMIT[::-1]
    assert len({*digests, moved.fingerprint}) == 3


def test_one_process_has_one_commit(hub: FakeHub) -> None:
    first = snapshot("hub:a/one")
    hub.commit = COMMIT[::-1]  # somebody pushes while the graph is planned
    assert snapshot("hub:a/one") == first


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:one", r"the model='hub:one' is not allowed: it must be hub:OWNER/NAME or hub:OWNER/NAME@REVISION"),
        ("hub:a/../one", r"it must be hub:OWNER/NAME"),
        ("hub:a/one@../x", r"it must be hub:OWNER/NAME"),
        ("hub:a/one@", r"it must be hub:OWNER/NAME"),
        ("hub:nobody/nothing", r"has no such model, or it is private \(hf auth login\)$"),
        ("hub:a/one@v9", r"the model hub:a/one@v9 is not allowed: the model has no revision v9$"),
        (f"hub:{GATED}", r"it is gated: accept its terms at http://127\.0\.0\.1:\d+/gated/model and log in"),
        ("hub:a/pickled", r"it holds no model\.safetensors; models must have config\.json and weights as safetensors$"),
        ("hub:a/strange", r"weights must be safetensors files of the same folder"),
        ("hub:a/starred", r"weights must be safetensors files of the same folder"),
    ],
)
def test_what_cannot_be_had_is_one_line(hub: FakeHub, tmp_path: Path, name: str, message: str) -> None:
    hub.models[GATED] = hub.models["a/one"]
    for other, places in (("pickled", None), ("strange", "../x.safetensors"), ("starred", "*.safetensors")):
        hub.models[f"a/{other}"] = model(tmp_path / other, 10**9)
        (tmp_path / other / WEIGHTS).unlink()
        if places:
            (tmp_path / other / INDEX).write_text(json.dumps({"weight_map": {"c": places}}))
    with pytest.raises(InvalidInput, match=message) as refused:
        snapshot(name)
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_hub_name(tmp_path: Path) -> None:
    assert is_hub_name("hub:a/b") and is_hub_name(Path("hub:a/b@main"))
    assert not is_hub_name(tmp_path) and not is_hub_name("./hub:a/b") and not is_hub_name("~/hub")


def test_a_description_downloads_no_weights(hub: FakeHub) -> None:
    folder = described_folder("hub:a/two")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*SMALL, INDEX]) and hub.asked
    with pytest.raises(InvalidInput, match="it must be hub:OWNER/NAME"):
        described_folder("hub:two")
