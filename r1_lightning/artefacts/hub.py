"""Models of the HuggingFace hub, by name: `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION` wherever a checkpoint's folder is named.

`huggingface_hub` downloads into its own cache and shows its progress bar. Only files that `hf_folder` reads are asked for, by their
full names: configuration, tokenizer, and the safetensors files that the index lists. So a repository's code, pickles and copies of
the weights in other formats stay where they are. The revision is resolved once per process to a commit, which is the model's
fingerprint: files of a commit never change, so they need not be read for one.

Without a network the newest commit in the cache is taken. A commit given by its 40 digits is taken from the cache at once.
"""

from __future__ import annotations

import functools
import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from r1_lightning.artefacts.fingerprint import fingerprint
from r1_lightning.artefacts.hf_folder import CONFIG, INDEX, KIND, WEIGHTS, ImportedModel, indexed_files, open_hf_folder
from r1_lightning.tasks.hub import answers
from r1_lightning.types.errors import InvalidInput, require

PREFIX = "hub:"
WORD = r"[A-Za-z0-9](?:[\w.-]*\w)?"
NAME = re.compile(rf"hub:({WORD}/{WORD})(?:@({WORD}(?:/{WORD})*))?", re.ASCII)
HTTP_LIBRARIES = ("httpx", "httpx2")  # each logs a line per request, which a command would print
COMMIT = re.compile(r"[0-9a-f]{40}")
SMALL_FILES = (
    CONFIG,
    INDEX,
    "generation_config.json",  # more tokens that end a text
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class Snapshot(NamedTuple):
    """A commit of the model `name` (OWNER/NAME) in the cache's `folder`."""

    name: str
    commit: str
    folder: Path


def is_hub_name(folder: str | Path) -> bool:
    return str(folder).startswith(PREFIX)


def import_hub_model(name: str | Path) -> ImportedModel:
    """Return the model `hub:OWNER/NAME[@REVISION]` as a stage's input; downloads what the cache lacks.

    Raises InvalidInput, one line, for a wrong name or revision, a model that is gated or has no safetensors, and without a network
    if the cache does not hold the model.
    """
    found = snapshot(str(name))
    digest = fingerprint({"kind": "HuggingFace hub", "name": found.name, "commit": found.commit})
    return ImportedModel(found.folder, KIND, digest, complete=True, source=open_hf_folder(found.folder))


def described_folder(name: str | Path) -> Path:
    """Return the cache's folder with configuration and tokenizer, downloading no weights. Errors as in `import_hub_model`."""
    return _folder(str(name), *_parts(str(name)), SMALL_FILES, _is_online())


def _parts(name: str) -> tuple[str, str]:
    """Return the repository and the revision of `hub:OWNER/NAME[@REVISION]`."""
    parts = NAME.fullmatch(name)
    require(parts is not None, "the model", name, f"it must be {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION")
    assert parts is not None
    return parts[1], parts[2] or "main"


@functools.cache
def snapshot(name: str) -> Snapshot:
    """Download the files of `hub:OWNER/NAME[@REVISION]` that the cache lacks. Errors as in `import_hub_model`."""
    repository, revision = _parts(name)
    if COMMIT.fullmatch(revision):
        with suppress(InvalidInput):
            return _fetched(name, repository, revision, is_online=False)
    return _fetched(name, repository, revision, _is_online())


def _fetched(name: str, repository: str, revision: str, is_online: bool) -> Snapshot:
    """Fetch the small files, then the weights that the index names, of one and the same commit."""
    folder = _folder(name, repository, revision, SMALL_FILES, is_online)
    files = indexed_files(folder) or {WEIGHTS: None}
    _folder(name, repository, folder.name, tuple(files), is_online)
    missing = [file for file in (CONFIG, *files) if not (folder / file).is_file()]
    if missing and is_online:
        raise _refusal(name, f"it holds no {missing[0]}; models must have {CONFIG} and weights as safetensors")
    if missing:
        raise _refusal(name, f"{_endpoint()} does not answer, and {missing[0]} is not in the cache")
    return Snapshot(repository, folder.name, folder)


def _folder(name: str, repository: str, revision: str, files: tuple[str, ...], is_online: bool) -> Path:
    """Return the cache's folder of the commit, with those of `files` that the repository has."""
    import huggingface_hub
    from huggingface_hub import errors

    for library in HTTP_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        found: Any = huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(files), local_files_only=not is_online
        )
    except errors.GatedRepoError as error:
        page = f"{_endpoint()}/{repository}"
        raise _refusal(name, f"it is gated: accept its terms at {page} and log in (hf auth login)") from error
    except errors.RepositoryNotFoundError as error:
        raise _refusal(name, f"{_endpoint()} has no such model, or it is private (hf auth login)") from error
    except errors.RevisionNotFoundError as error:
        raise _refusal(name, f"the model has no revision {revision}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _refusal(name, f"{_endpoint()} does not answer, and the model is not in the cache") from error
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a full disk, a broken connection, whichever library reports it
        line = " ".join(str(error).split())[:200]
        raise _refusal(name, f"it cannot be downloaded ({type(error).__name__}: {line})") from error
    return Path(found)


def _is_online() -> bool:
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and answers()


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _refusal(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"the model {name} is not allowed: {why}")
