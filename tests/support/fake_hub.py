"""A HuggingFace hub on this machine: an HTTP server that gives the models in a folder, as far as `snapshot_download` asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = "gated/model"


class FakeHub:
    """`models` maps OWNER/NAME to its folder; `asked` are the paths of the files that were downloaded, in order."""

    def __init__(self, address: str, models: dict[str, Path], asked: list[str]) -> None:
        self.address, self.models, self.asked = address, models, asked
        self.commit = COMMIT


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """Run a hub that the library takes for the real one, with an empty cache in the folder `cache`."""
    hub = FakeHub("", {}, [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    point_at(hub.address, monkeypatch, cache)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def point_at(address: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let the libraries ask `address`, as on a machine that was not told to stay offline, as this suite is."""
    for module in (constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, *arguments: Any) -> None:
            """The tests' output stays their own."""

        def _answer(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            if path == "api/datasets":
                return self._send(b"[]")
            is_api = path.startswith("api/models/")
            words = path.removeprefix("api/models/").split("/", 4)
            if len(words) < 4:
                return self._refuse(404, "EntryNotFound")
            owner, name, kind, revision, *file = words
            model = f"{owner}/{name}"
            if model == GATED and not is_api:
                return self._refuse(403, "GatedRepo")
            folder = hub.models.get(model)
            if folder is None:
                return self._refuse(401, "RepoNotFound")
            if revision not in ("main", "v1", hub.commit):
                return self._refuse(404, "RevisionNotFound")
            if kind == "revision":
                return self._send(_json({"id": model, "sha": hub.commit, "siblings": []}))
            if kind == "tree":
                paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
                listed = [{"type": "file", "path": str(path.relative_to(folder)), **_facts(path)} for path in paths]
                return self._send(_json(listed))
            found = folder / file[0]
            if not found.is_file():
                return self._refuse(404, "EntryNotFound")
            if self.command == "GET":
                hub.asked.append(file[0])
            headers = {"ETag": f'"{_facts(found)["oid"]}"', "X-Repo-Commit": hub.commit}
            return self._send(found.read_bytes(), **headers)

        def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _refuse(self, status: int, code: str) -> None:
            self._send(b"{}", status, **{"X-Error-Code": code})

    return Handler


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
