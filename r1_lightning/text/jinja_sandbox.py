"""Renders the chat templates of other people's checkpoints: Jinja programs, which are hostile input.

The environment is the one of `transformers` (sandboxed and immutable, `trim_blocks`, `lstrip_blocks`, loop controls, the blocks
`{% generation %}`, `tojson` and `raise_exception`), so that a published template gives the same text. The limits are ours:

- the size of a template, of a value (`text/jinja_values.py`), of all values of a rendering together, and its time. Every value
  that a template builds (list, sum, slice, result of a filter, a test, a call) and everything it writes is measured when it is
  made, so none can double unseen; `_Checks` rewrites the program for that. A part that stands twice in a value counts twice;
- only the filters, and the attributes of texts, numbers, lists and dicts, that published templates use;
- no `**`, no products of text, no formats with widths, no searches from the end for a long text: one such step could take the
  memory or the time before anything looks. What has no text of its own (a function, an iterator) is not written.

The clock is looked at between steps, not in one, and not while Jinja and Python compile the template (up to 4 s and 450 MB for the
longest). Sizes keep a step short (some tenths of a second) but do not bound it exactly; nothing here bounds memory as an operating
system would.

There is no `strftime_now` and no `random`: a prompt must not change from day to day. Templates that ask for a date have their own.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from r1_lightning.text.jinja_values import (
    ATTRIBUTES,
    FILTERS,
    MAX_TEXT_CHARS,
    OWN_TEXT,
    SOUGHT,
    TOO_LONG,
    Items,
    PlainNamespace,
    TooMuch,
    check_sought,
    rounded,
    size_of,
    to_json,
)
from r1_lightning.types.errors import InvalidInput

MAX_TEMPLATE_CHARS = 200_000  # the longest published ones have some 20,000
MAX_ALL = 100_000_000  # characters and parts of all values of one rendering
MAX_ITERATORS = 2_000  # of one rendering: iterators over iterators are freed by recursion
MAX_SECONDS = 2.0


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says for masks; here its body is rendered and the mark has no effect."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Checks(NodeTransformer):
    """Sends the values that a template makes through the methods of `_Sandbox`, which no template can name."""

    def _checked(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _through("check", node)

    visit_Filter = visit_Test = visit_Compare = visit_List = visit_Dict = _checked

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._checked(node) if node.ctx == "load" else node

    def visit_Name(self, node: nodes.Name) -> nodes.Expr:
        return _through("check", node) if node.ctx == "load" and node.name in ("varargs", "kwargs") else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        return self._checked(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _through("items", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through("concatenated", nodes.List(node.nodes))

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:
        self.generic_visit(node)
        node.filter = _filter_in(node.filter)
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> list[nodes.Node]:
        self.generic_visit(node)
        if node.filter is not None:
            node.filter = _filter_in(node.filter)
        target = node.target
        made: nodes.Expr = nodes.Name(target.name, "load")  # type: ignore[attr-defined]
        if isinstance(target, nodes.NSRef):
            made = nodes.Getattr(made, target.attr, "load")
        return [node, nodes.ExprStmt(_through("check", made))]

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> NoReturn:
        raise TooMuch("it uses autoescape, which is not allowed")


def _through(method: str, node: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), [cast(nodes.Expr, node)], [], None, None)


def _filter_in(checked: nodes.Node) -> nodes.Filter:
    """Return the filter whose check `_Checks` has just put around it: a block takes nothing else."""
    found = cast(nodes.Call, checked).args[0]
    return cast(nodes.Filter, found)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        own = (_Generation, loopcontrols)
        # What is optimized, or written without a context, is computed while compiling, when nothing is checked.
        write = pass_context(lambda context, value: self.text(value))
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=own, cache_size=0, optimized=False, finalize=write
        )
        self.begin()
        self.filters = {name: self.filters[name] for name in FILTERS}
        for name in OWN_TEXT:
            self.filters[name] = self._of_text(self.filters[name])
        added: dict[str, Callable[..., Any]] = {
            "tojson": to_json,
            "replace": self._replaced,
            "join": self._joined,
            "sum": self._sum,
            "round": rounded,
        }
        self.filters.update(added)
        self.globals.update(namespace=PlainNamespace, raise_exception=self._raise)
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]

    def begin(self) -> None:
        """Start the clock and the counts of a rendering."""
        self.deadline_s, self.measured, self.iterators = time.monotonic() + MAX_SECONDS, 0, 0

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Checks().visit(super()._parse(source, name, filename))
        return tree

    def on_time(self) -> None:
        """Raise `TooMuch` if the time is over."""
        if time.monotonic() > self.deadline_s:
            raise TooMuch(f"it takes more than {MAX_SECONDS:g} s")

    def check(self, value: Any, written: bool = False) -> Any:
        """Return `value`, an iterator with checked items; `TooMuch` if time or a size is over."""
        self.on_time()
        if isinstance(value, Iterator) and not written:
            self.iterators += 1
            if self.iterators > MAX_ITERATORS:
                raise TooMuch(f"it makes more than {MAX_ITERATORS} iterators")
            return iter(Items(value, self.on_time))
        self.measured += size_of(value, written)
        if self.measured > MAX_ALL:
            raise TooMuch(f"it makes more than {MAX_ALL} characters")
        return value

    def text(self, value: Any) -> Any:
        """Return `value`, whose text may be written."""
        return self.check(value, written=True)

    def _of_text(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def of_text(value: Any, *args: Any, **options: Any) -> Any:
            for item in (*args, *options.values()):
                check_sought(item)
            return function(self.text(value), *args, **options)

        return of_text

    def items(self, values: Any) -> Any:
        """Return what a loop runs over."""
        if isinstance(values, (list, tuple, dict, str, range)) and len(values) < 10_000:
            # A copy keeps `loop.length` and costs little; each turn asks for the next item, and so looks at the clock.
            return Items(list(values), self.on_time)
        return Items(values, self.on_time)

    def concatenated(self, values: Sequence[Any]) -> str:
        """Return the value of `~`."""
        return self._joined(values)

    def call_filter(self, name: str, *args: Any, **options: Any) -> Any:
        """Return what a filter named by `map` makes, checked."""
        return self.check(super().call_filter(name, *args, **options))

    def call_test(self, name: str, *args: Any, **options: Any) -> Any:
        """Return what a test named by `select` finds, checked."""
        return self.check(super().call_test(name, *args, **options))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item, after a look at the clock."""
        self.on_time()
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise TooMuch("it uses **, which is not allowed")
        if operator != "+" and not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
            raise TooMuch(f"it uses {operator} on values that are no numbers, which is not allowed")
        return self.check(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        jinjas = type(obj).__module__.startswith("jinja2.") or isinstance(obj, Namespace)
        allowed = jinjas or (attr in ATTRIBUTES and not isinstance(obj, type))
        return allowed and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is not None:
            raise TooMuch("it uses str.format, which is not allowed")
        return None

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if owner is self:
            return function(*args)  # without what Jinja adds for loops
        self.on_time()
        given = {key: value for key, value in kwargs.items() if not key.startswith("_")}
        if isinstance(owner, str) and name in ("replace", "join"):
            return self._replaced(owner, *args, **given) if name == "replace" else self._joined(args[0], owner)
        if name in SOUGHT:
            for item in (*args, *given.values()):
                check_sought(item)
        return self.check(super().call(context, function, *args, **kwargs))

    def _replaced(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(self.text(text))
        found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
        if len(text) + found * (len(new) - len(old)) > MAX_TEXT_CHARS:
            raise TooMuch(TOO_LONG)
        result: str = self.check(text.replace(old, new, found))
        return result

    def _joined(self, values: Iterable[Any], between: str = "", attribute: str | int | None = None) -> str:
        texts, size = [], 0
        for value in values:
            texts.append(str(self.text(value if attribute is None else self.getitem(value, attribute))))
            size += len(texts[-1]) + len(between)
            if size > MAX_TEXT_CHARS:
                raise TooMuch(TOO_LONG)
        return between.join(texts)

    def _sum(self, values: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
        for value in values:
            start = self.call_binop(None, "+", start, value if attribute is None else self.getitem(value, attribute))
        return start

    def _raise(self, message: Any) -> NoReturn:
        raise TemplateError(str(self.text(message)))


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
            raise TooMuch(f"it has more than {MAX_TEMPLATE_CHARS} characters")
        sandbox, template = _compiled(source)
        sandbox.begin()
        parts, size = [], 0
        for part in template.generate(values):
            sandbox.on_time()
            size += len(part)
            if size > MAX_TEXT_CHARS:
                raise TooMuch(TOO_LONG)
            parts.append(part)
        return "".join(parts)
    except (InvalidInput, KeyboardInterrupt):
        raise
    except Exception as error:  # a template may provoke any error of Python's
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise InvalidInput(f"{where} is not allowed: the template fails: {why}") from error
