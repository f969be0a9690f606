"""A hub that does not answer: detected within seconds, and the libraries' settings are restored."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import datasets
import pytest
from huggingface_hub import constants

from r1_lightning.tasks import hub
from r1_lightning.tasks.rows import Rows
from r1_lightning.types.errors import InvalidInput


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that was not told to stay offline, as this suite is."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


@pytest.fixture
def silent(online: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """A port of this machine at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
    return address


@pytest.mark.parametrize("files", [(), ("x.jsonl",)], ids=["a split", "its files"])
def test_a_silent_hub_is_one_line_within_ten_seconds(silent: str, files: tuple[str, ...]) -> None:
    start = time.monotonic()
    with pytest.raises(
        InvalidInput, match=f"'a/b' cannot be had from the hub .ConnectionError: {silent} does not"
    ) as refused:
        Rows(hub="a/b", hub_files=files).read()
    assert time.monotonic() - start < 10 and "\n" not in str(refused.value)
    assert constants.HF_HUB_OFFLINE is False and datasets.config.HF_HUB_OFFLINE is False


def test_a_socket_that_never_answers_is_given_up(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ANSWER_S", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        start = time.monotonic()
        assert not hub.answers()
        assert time.monotonic() - start < 2


def test_a_name_that_is_never_found_is_given_up(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a name up has no limit of its own: the deadline is that of the whole question."""
    monkeypatch.setattr(hub, "DEADLINE_S", 0.3)

    def slow(*arguments: object, **named: object) -> None:
        time.sleep(1.5)
        raise OSError

    monkeypatch.setattr(hub, "urlopen", slow)
    start = time.monotonic()
    assert not hub.answers()
    assert time.monotonic() - start < 1.2


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 503 Busy\r\n\r\n"])
def test_an_error_is_an_answer(online: None, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{there.getsockname()[1]}")

        def reply() -> None:
            connection, _ = there.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        replying = threading.Thread(target=reply, daemon=True)
        replying.start()
        assert hub.answers()
        replying.join(5)


@pytest.fixture
def asked(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """What the switch said while the data set was loaded."""
    seen: list[bool] = []

    def load(*arguments: object, **named: object) -> list[dict[str, str]]:
        seen.append(bool(datasets.config.HF_HUB_OFFLINE))
        return [{"a": "1"}]

    monkeypatch.setattr("datasets.load_dataset", load)
    yield seen


def test_what_is_cached_is_read_without_the_hub_and_one_that_answers_is_asked(
    asked: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for is_there in (False, True):
        monkeypatch.setattr(hub, "answers", lambda there=is_there: there)
        assert list(hub.load("a/b", None, "train", None, ())) == [{"a": "1"}]
    assert asked == [True, False] and datasets.config.HF_HUB_OFFLINE is False


def test_who_is_offline_by_choice_is_not_asked(asked: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "answers", lambda: pytest.fail("asked"))
    assert list(hub.load("a/b", None, "train", None, ())) == [{"a": "1"}]
