"""Constraints of a space file: comparisons and arithmetic of config paths, and nothing else that Python can say."""

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.In: lambda one, many: one in many, ast.NotIn: lambda one, many: one not in many,
    ast.Is: operator.eq, ast.IsNot: operator.ne,
}  # fmt: skip
_WORDS = {"true": True, "false": False, "null": None, "none": None}


class ExpressionError(ValueError):
    """A constraint that cannot be read, or not computed with these values."""


@dataclass(frozen=True)
class Expression:
    """``train.batch_size * train.group_size <= 256``.

    Args:
        text: as written. paths: the config paths in it.
    """

    text: str
    paths: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """The expression of a line.

        Raises:
            ExpressionError: naming what is not allowed in it.
        """
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise ExpressionError(
                f"{text!r}: {error.msg}; write it as train.batch_size * train.group_size <= 256"
            ) from None
        found: dict[str, None] = {}
        _walk(tree, text, lambda path: found.setdefault(path) or 1, compute=False)
        return cls(text, tuple(found))

    def holds(self, look_up: Callable[[str], Any]) -> bool:
        """Whether it is true of these values.

        Raises:
            ExpressionError: where a value has no order or no arithmetic (``null < 3``).
        """
        tree = ast.parse(self.text, mode="eval").body
        try:
            return bool(_walk(tree, self.text, look_up, compute=True))
        except (TypeError, ArithmeticError) as error:
            values = ", ".join(f"{path} = {look_up(path)!r}" for path in self.paths)
            raise ExpressionError(f"{self.text!r} cannot be computed with {values}: {error}") from None


def _walk(node: ast.AST, text: str, look_up: Callable[[str], Any], compute: bool) -> Any:
    """The value of a node; with ``compute`` False only look whether all of it is allowed."""
    inner = lambda part: _walk(part, text, look_up, compute)  # noqa: E731
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bool | None):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        return _name(node, text, look_up)
    if isinstance(node, ast.List | ast.Tuple):
        return [inner(part) for part in node.elts]
    if isinstance(node, ast.BoolOp):
        # All parts are looked at, so that a mistake in the second is found although the first decides.
        values = [inner(part) for part in node.values] if not compute else (inner(part) for part in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        value = inner(node.operand)
        return not value if isinstance(node.op, ast.Not) else -value if compute else value
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = inner(node.left), inner(node.right)
        return _ARITHMETIC[type(node.op)](left, right) if compute else 1
    if isinstance(node, ast.Compare):
        return _compare(node, [inner(part) for part in (node.left, *node.comparators)], compute)
    raise ExpressionError(
        f"{text!r}: {ast.unparse(node)!r} is not allowed; a constraint holds paths, numbers, texts, lists, "
        "+ - * / // %, comparisons, in, and, or, not"
    )


def _compare(node: ast.Compare, values: list[Any], compute: bool) -> bool:
    pairs = zip(node.ops, values, values[1:], strict=False)
    return not compute or all(_COMPARISONS[type(op)](one, other) for op, one, other in pairs)


def _name(node: ast.AST, text: str, look_up: Callable[[str], Any]) -> Any:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ExpressionError(f"{text!r}: {ast.unparse(node)!r} is no config path")
    path = ".".join([node.id, *reversed(parts)])
    return _WORDS[path] if path in _WORDS else look_up(path)
