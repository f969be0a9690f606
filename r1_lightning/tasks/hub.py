"""Data sets of the hub: `datasets` fetches and caches them, and an address that does not answer is known as such in seconds.

`huggingface_hub` tries a request six times and waits longer each time, and `datasets` makes several such requests: without a
network the first word came after 47 s. So the address is asked once, before anything else. Where it is silent, the library is told
that it is offline: what it has cached still serves, and what it has not is refused at once.
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

ANSWER_S = 5.0  # a single answer takes well below a second, over a satellite about one
DEADLINE_S = 8.0  # looking a name up is not bounded by the limit above


def load(name: str, config: str | None, split: str, revision: str | None, files: Sequence[str]) -> Iterable[Any]:
    """The rows of one split, or of the named JSON `files` alone; no code of the data set is run. Raises what `datasets` raises."""
    import datasets  # takes a second, and only the hub needs it

    with _offline_where_silent():
        if not files:
            rows: Iterable[Any] = datasets.load_dataset(name, config, split=split, revision=revision)
            return rows
        place = f"hf://datasets/{name}@{revision or 'main'}"
        rows = datasets.load_dataset("json", data_files=[f"{place}/{file}" for file in files], split="train")
        return rows


def answers() -> bool:
    """Whether the hub's address says anything, an error too, within `DEADLINE_S` seconds."""
    import datasets

    heard: list[bool] = []

    def ask() -> None:
        try:
            with urlopen(f"{datasets.config.HF_ENDPOINT}/api/datasets?limit=1", timeout=ANSWER_S):
                heard.append(True)
        except HTTPError:  # a refusal is an answer, too
            heard.append(True)
        except (OSError, HTTPException, ValueError):
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(DEADLINE_S)
    return bool(heard)


@contextmanager
def _offline_where_silent() -> Iterator[None]:
    """The libraries read the switch when they are imported and look at their copies of it afterwards, so these are turned."""
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
