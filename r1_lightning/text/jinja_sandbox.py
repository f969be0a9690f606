"""Renders the chat templates of other people's checkpoints: Jinja programs, which are hostile input.

The environment is the one of `transformers` (sandboxed and immutable, `trim_blocks`, `lstrip_blocks`, loop controls, the blocks
`{% generation %}`, `tojson` and `raise_exception`), so that a published template gives the same text. Three limits are ours: the
size of a template, the size of what it writes, and its time, which is looked at in every turn of a loop, every call and every sum.
Products of text and formats with widths could fill the memory in one step, so they are refused.

There is no `strftime_now`: a prompt must not change from day to day. Templates that ask for it have a date of their own.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from r1_lightning.types.errors import InvalidInput

MAX_TEMPLATE_CHARS = 200_000  # the longest published ones have some 20,000
MAX_TEXT_CHARS = 4_000_000  # of one rendered conversation: a million tokens
MAX_SECONDS = 2.0
_WIDENING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate"})
_REMOVED_FILTERS = ("center", "format", "wordwrap", "urlize", "xmlattr", "pprint", "indent", "filesizeformat")
_ITERATE, _CONCATENATE = "checked_items", "checked_concatenation"


class _TooMuch(TemplateError):
    """A limit was passed."""


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says for masks; here its body is rendered and the mark has no effect."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Checks(NodeTransformer):
    """Sends what loops run over, and what `~` joins, through the checks of the environment."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _ITERATE, [], [], None, None)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), _CONCATENATE, [], [], None, None)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], cache_size=0)
        self.deadline_s = 0.0
        for name in _REMOVED_FILTERS:
            del self.filters[name]
        added: dict[str, Callable[..., Any]] = {
            "tojson": _to_json,
            "replace": _replaced,
            "join": _joined,
            _ITERATE: self._items,
            _CONCATENATE: self._concatenated,
        }
        self.filters.update(added)
        self.globals["raise_exception"] = _raise
        del self.globals["lipsum"]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Checks().visit(super()._parse(source, name, filename))
        return tree

    def check(self, value: Any = None) -> Any:
        """Return `value`; `_TooMuch` if the time is over or the value is too long."""
        if time.monotonic() > self.deadline_s:
            raise _TooMuch(f"it takes more than {MAX_SECONDS:g} s")
        if isinstance(value, (str, list, tuple, dict)) and len(value) > MAX_TEXT_CHARS:
            raise _TooMuch(f"it writes more than {MAX_TEXT_CHARS} characters")
        return value

    def _items(self, values: Any) -> Any:
        if isinstance(values, (list, tuple, dict, str, range)) and len(values) < 10_000:
            # A copy keeps `loop.length` and costs little; each turn asks for the next item, and so looks at the clock.
            return _Items(list(values), self.check)
        return _Items(values, self.check)

    def _concatenated(self, values: Sequence[Any]) -> str:
        self.check()
        return _joined(values)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if operator != "+" and not (numbers and operator != "**"):
            raise _TooMuch(f"it uses {operator} on values that are no numbers, which is not allowed")
        return self.check(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _WIDENING and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is not None:
            raise _TooMuch("it uses str.format, which is not allowed")
        return None

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.check()
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name in ("replace", "join"):
            return _replaced(owner, *args) if name == "replace" else _joined(args[0], owner)
        return self.check(super().call(context, function, *args, **kwargs))


class _Items:
    """What a loop runs over, with a look at the clock before each item."""

    def __init__(self, values: Iterable[Any], check: Callable[[], Any]) -> None:
        self.values, self.check = values, check

    def __iter__(self) -> Iterator[Any]:
        for value in self.values:
            self.check()
            yield value

    def __len__(self) -> int:
        return len(self.values)  # type: ignore[arg-type]  # a TypeError tells Jinja to count


def _replaced(text: Any, old: str, new: str, count: int = -1) -> str:
    text = str(text)
    if len(text) * max(len(new), 1) > 100 * MAX_TEXT_CHARS:
        raise _TooMuch(f"it writes more than {MAX_TEXT_CHARS} characters")
    result = text.replace(old, new, -1 if count is None else count)
    if len(result) > MAX_TEXT_CHARS:
        raise _TooMuch(f"it writes more than {MAX_TEXT_CHARS} characters")
    return result


def _joined(values: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
    texts, size = [], 0
    for value in values:
        texts.append(str(value if attribute is None else value[attribute]))
        size += len(texts[-1]) + len(between)
        if size > MAX_TEXT_CHARS:
            raise _TooMuch(f"it writes more than {MAX_TEXT_CHARS} characters")
    return between.join(texts)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    kept = {name: options[name] for name in ("separators", "sort_keys") if name in options}
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=min(indent or 0, 8) or None, **kept)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> tuple[_Sandbox, Any]:
    sandbox = _Sandbox()
    return sandbox, sandbox.from_string(source)


def rendered(source: str, values: Mapping[str, Any], where: str) -> str:
    """Return what the template `source` writes with `values`.

    Raises InvalidInput, one line that begins with `where`, for a template that is too long, is no Jinja, raises, or passes a limit.
    """
    try:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise _TooMuch(f"it has more than {MAX_TEMPLATE_CHARS} characters")
        sandbox, template = _compiled(source)
        sandbox.deadline_s = time.monotonic() + MAX_SECONDS
        parts, size = [], 0
        for part in template.generate(values):
            sandbox.check()
            size += len(part)
            if size > MAX_TEXT_CHARS:
                raise _TooMuch(f"it writes more than {MAX_TEXT_CHARS} characters")
            parts.append(part)
        return "".join(parts)
    except (InvalidInput, KeyboardInterrupt):
        raise
    except Exception as error:  # a template may provoke any error of Python's
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise InvalidInput(f"{where} is not allowed: the template fails: {why}") from error
