"""The fingerprint of a stage: which parts of the configuration, content versions and inputs it covers.

It covers everything that changes the result of the stage: the groups in `COUNTED`, the seed, the content versions of their targets,
and the fingerprints of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from r1_lightning.artefacts.file_names import DECIDING_GROUPS
from r1_lightning.artefacts.fingerprint import fingerprint
from r1_lightning.run.config.keys import counted
from r1_lightning.run.config.moved_names import NAMES, with_names
from r1_lightning.run.config.stage_config import StageConfig
from r1_lightning.run.config.targets import PACKAGE, source_digest

FORMAT_VERSION = 1  # of the fingerprint itself; another version makes every artefact again


COUNTED = (*DECIDING_GROUPS, "seed")


def stage_fingerprint(stage: StageConfig, inputs: Mapping[str, str]) -> str:
    """Return the fingerprint of the artefact that `stage` would make from inputs with these fingerprints.

    Folders do not count: a value that refers to `paths` enters under that name, so that other machines get the same fingerprint.
    """
    config = stage.config.copy()
    for key in config.paths:
        config.paths[key] = f"<paths.{key}>"
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    values = with_names(values, NAMES.first)  # a class is the same wherever it lies today
    parts = {key: counted(key, values[key]) for key in COUNTED if values.get(key) is not None}
    plain = OmegaConf.to_container(stage.config, resolve=True)
    assert isinstance(plain, dict)
    versions = {path: version for key in COUNTED for path, version in _content_versions(key, plain.get(key))}
    return fingerprint(
        {"format": FORMAT_VERSION, "name": stage.stage, "inputs": dict(inputs), "content_versions": versions, **parts}
    )


def _content_versions(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, version) for every target with a `content_version`: with another version equal values give other content.

    A source's version may depend on its files; then the source is instantiated and asked. Code that is not ours and names no
    version counts with the hash of its file, so that an edited reward is another reward.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _content_versions(f"{path}.{key}", value)
        if "_target_" in node:
            target = get_object(node["_target_"])
            version = getattr(target, "content_version", None)
            if isinstance(version, property) or (path.startswith("task.") and not isinstance(version, str)):
                version = getattr(instantiate(node, _convert_="all"), "content_version", None)
            if version is None and not node["_target_"].startswith(PACKAGE):
                version = source_digest(target)
            if version is not None:
                yield path, str(version)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _content_versions(f"{path}[{index}]", value)
