"""Which documents a question is about: conditions on metadata, the same for every store.

The language is what MongoDB, Chroma and Pinecone share: ``{"year": {"$gte": 2020}, "lang": {"$in": ["en", "es"]}}``.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any

Metadata = Mapping[str, Any]
Predicate = Callable[[Metadata], bool]
Where = Mapping[str, Any] | Predicate

_ABSENT = object()


class FilterError(ValueError):
    """A condition that is none."""


def predicate(where: Where) -> Predicate:
    """The function that tells whether a document's metadata fits.

    Args:
        where: field -> value, or field -> ``{operator: operand}``; all must hold. Operators: $eq, $ne, $gt, $gte, $lt,
            $lte, $in, $nin, $exists; over whole conditions $and, $or (lists) and $not. A field that is a list fits
            where one of its elements does. Numbers compare with numbers and texts with texts only; a missing field
            fits only $ne, $nin and ``{"$exists": False}``. A function of the metadata is taken as it is.

    Raises:
        FilterError: naming the unknown operator or the operand that does not fit it.
    """
    if callable(where):
        return where
    if not isinstance(where, Mapping):
        raise FilterError(f"where is a {type(where).__name__}; give a dict such as {{'lang': 'en'}}, or a function")
    return _all([_part(name, value) for name, value in where.items()])


def _part(name: str, value: Any) -> Predicate:
    if name in ("$and", "$or"):
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise FilterError(f"{name}: give a list of conditions, not {value!r}")
        parts = [predicate(one) for one in value]
        return _all(parts) if name == "$and" else lambda about: any(part(about) for part in parts)
    if name == "$not":
        inner = predicate(value)
        return lambda about: not inner(about)
    if name.startswith("$"):
        raise FilterError(f"{name!r} is no operator over conditions; known: $and, $or, $not")
    rules = value if isinstance(value, Mapping) else {"$eq": value}
    if not rules:
        raise FilterError(f"{name}: no operator; such as {{'$gte': 2020}}")
    return _all([_rule(name, operator, operand) for operator, operand in rules.items()])


def _rule(name: str, operator: str, operand: Any) -> Predicate:
    if operator not in _OPERATORS:
        raise FilterError(f"{name}: unknown operator {operator!r}; known: {', '.join(_OPERATORS)}")
    if operator in ("$in", "$nin") and (isinstance(operand, str) or not isinstance(operand, Sequence)):
        raise FilterError(f"{name}: {operator} takes a list, not {operand!r}")
    test = _OPERATORS[operator]
    return lambda about: test(about.get(name, _ABSENT), operand)


def _all(parts: Sequence[Predicate]) -> Predicate:
    return lambda about: all(part(about) for part in parts)


def _equal(value: Any, operand: Any) -> bool:
    if isinstance(value, list) and not isinstance(operand, list):
        return any(_equal(one, operand) for one in value)
    # True is no 1 here, as it is none in JSON.
    return bool(value == operand) and isinstance(value, bool) == isinstance(operand, bool)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compared(value: Any, operand: Any) -> bool:
        if isinstance(value, list):
            return any(compared(one, operand) for one in value)
        if isinstance(value, bool) or isinstance(operand, bool):
            return False
        alike = all(isinstance(side, str) for side in (value, operand))
        return (alike or all(isinstance(side, Number) for side in (value, operand))) and test(value, operand)

    return compared


def _within(value: Any, operands: Sequence[Any]) -> bool:
    return any(_equal(value, one) for one in operands)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda value, operand: not _equal(value, operand),
    "$gt": _compare(lambda value, operand: value > operand),
    "$gte": _compare(lambda value, operand: value >= operand),
    "$lt": _compare(lambda value, operand: value < operand),
    "$lte": _compare(lambda value, operand: value <= operand),
    "$in": _within,
    "$nin": lambda value, operands: not _within(value, operands),
    "$exists": lambda value, wanted: (value is not _ABSENT) == bool(wanted),
}
