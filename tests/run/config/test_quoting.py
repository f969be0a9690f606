"""Values that Hydra reads only in quotes get them; what it reads already stays as it is."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from r1_lightning.run.config.quoting import readable

NAMES = [
    "runs(1)", "(a)", "a=b", "a#b", "#a", "it's", "中文", "/tmp/a b/中文", "a&b", "a;b", "a{b}", "a[b]", "a!b", 'a"b', "~/x",
    "é", "a^b", "a`b", "a<b>", "x(1), y(2)", 'end"', "back\\slash(", 'b\\"c', "tail(\\", "emoji 🙂", "a=b=c", "Пуск", "50 % (half)",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_arrives_as_it_was_typed(name: str) -> None:
    (argument,) = readable([f"paths.root={name}"])
    assert OverridesParser.create().parse_override(argument).value() == name


@pytest.mark.parametrize("key", ["paths.root", "+stage.inputs.base.folder", "init_from", "++a.b"])
def test_keys_of_every_kind_are_kept(key: str) -> None:
    assert readable([f"{key}=runs(1)"]) == [f'{key}="runs(1)"']


@pytest.mark.parametrize(
    "argument",
    [
     "seed=1", "stage=grpo", "seed=0,1", "~logger", "-m", "--config-dir=a(b", "a=[1,2]", "a={b: 1}", "a='x(1)'", "a=range(3)",
     "a=[1,", "a={"],
)  # fmt: skip
def test_what_hydra_reads_or_a_person_quoted_stays(argument: str) -> None:
    assert readable([argument]) == [argument]
