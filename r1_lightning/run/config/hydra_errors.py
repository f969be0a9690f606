"""Explains an error of Hydra's composition in one line: the key or option that is wrong, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import hydra
import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def explain(error: BaseException, overrides: Iterable[str], config_name: str) -> str | None:
    """Return one line that explains a composition error; None if the error is not about the configuration."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option!r} is not allowed: it must be one of {', '.join(sorted(error.options))}"
    if isinstance(error, OverrideParseException):
        return f"the override {error.override!r} is not allowed: {_one_line(_first_line(error))}; it must be key=value"
    if isinstance(error, ConfigCompositionException):
        match = re.search(r"Could not (?:override|delete from config) '?([\w./@-]+?)'?\.(?:\s|$)", str(error))
        if match:
            return _unknown_key(match[1], overrides, config_name)
    if isinstance(error, ValueError) and "Config group override must be a string" in str(error):
        groups = [o for o in overrides if "." not in o.partition("=")[0]]
        return f"one of {', '.join(groups)} is not allowed: a group takes the name of one of its options"
    if isinstance(error, (HydraException, OmegaConfBaseException, yaml.YAMLError)):
        return f"the configuration is not allowed: {_one_line(str(error).partition('Config search path')[0])}"
    return None


def _first_line(error: BaseException) -> str:
    text = str(error).split("See https://", 1)[0]
    return text.split("\n", 1)[1] if text.startswith("Error parsing override") and "\n" in text else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unknown_key(key: str, overrides: Iterable[str], config_name: str) -> str:
    """Return the line about a mistyped key with its nearest keys; falls back to the defaults' keys if other overrides fail."""
    typed = [override for override in overrides if override.lstrip("+~").partition("=")[0] != key]
    known: list[str] = []
    for attempt in (typed, []):
        try:
            known = list(_dotted(OmegaConf.to_container(hydra.compose(config_name, overrides=attempt), resolve=False)))
            break
        except Exception:  # another override is wrong as well: try without
            continue
    last = key.rpartition(".")[2]
    same_name = [candidate for candidate in known if candidate.rpartition(".")[2] == last]
    close = difflib.get_close_matches(key, [k for k in known if "._" not in k and k.count(".") >= key.count(".")], n=3)
    near = list(dict.fromkeys(close + same_name))[:3]
    value = next((o.partition("=")[2] for o in overrides if o.lstrip("+~").partition("=")[0] == key), "")
    hint = f"did you mean {' or '.join(near)}?" if near else "--cfg job prints the keys there are"
    return f"{key}={value} is not allowed: there is no such key; {hint}"


def _dotted(node: object, prefix: str = "") -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")
