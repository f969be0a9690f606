"""Loads data sets from the HuggingFace hub through `datasets`, and detects a missing network within seconds.

`huggingface_hub` retries a request six times with growing delays, and `datasets` makes several requests: without a network the
first message appeared after 47 s. So one request tests the hub's address first. If the hub does not answer, the library is switched
to offline mode: cached data sets still load, others fail at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

ANSWER_S = 5.0  # timeout of the request; an answer takes well below a second, over a satellite about one
DEADLINE_S = 8.0  # total limit, because ANSWER_S does not bound the name lookup


def load(name: str, config: str | None, split: str, revision: str | None, files: Sequence[str]) -> Iterable[Any]:
    """Load the rows of one split, or of the named JSON `files` only; runs no code of the data set. Raises `datasets`' errors."""
    import datasets  # here, because the import takes a second and only hub data sets need it

    with _offline_where_silent():
        if not files:
            rows: Iterable[Any] = datasets.load_dataset(name, config, split=split, revision=revision)
            return rows
        place = f"hf://datasets/{name}@{revision or 'main'}"
        rows = datasets.load_dataset("json", data_files=[f"{place}/{file}" for file in files], split="train")
        return rows


def answers() -> bool:
    """True if the hub's address answers within `DEADLINE_S` seconds, even with an error."""
    import datasets

    heard: list[bool] = []

    def ask() -> None:
        try:
            with urlopen(f"{datasets.config.HF_ENDPOINT}/api/datasets?limit=1", timeout=ANSWER_S):
                heard.append(True)
        except HTTPError:  # an HTTP error is an answer, too
            heard.append(True)
        except (OSError, HTTPException, ValueError):
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(DEADLINE_S)
    return bool(heard)


@contextmanager
def _offline_where_silent() -> Iterator[None]:
    """Switch the libraries offline if the hub is silent; they copied the setting at import, so the copies are changed."""
    import datasets

    hub_constants: Any = datasets.config.constants  # huggingface_hub's own module
    switches = [(hub_constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in switches]
    if any(before) or answers():
        yield
        return
    try:
        for module, name in switches:
            setattr(module, name, True)
        yield
    except Exception as error:
        silent = f"{datasets.config.HF_ENDPOINT} does not answer{_proxy()}, and the data set is not in the cache"
        raise ConnectionError(silent) from error
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def _proxy() -> str:
    return " (asked by a proxy)" if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") else ""
