"""Tuning constants of the source, found by reading it, and their halved and doubled values."""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("scheduler/*.py", "scheduler/dispatch/*.py", "scheduler/estimators/*.py")
LEFT_OUT = frozenset({"scheduler/cli.py", "scheduler/fc_client.py", "scheduler/workloads.py"})
"""No decision is made in these modules."""
_NAME = re.compile(r"_?[A-Z][A-Z0-9_]*")
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}

Value = float | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """Tuning constant in the source.

    Attributes:
        module: name of the module, for instance `scheduler.dispatch.edge_side`.
        name: name of the constant.
        value: a number or a tuple of numbers.
        meaning: first line of the docstring below it; empty without one.
    """

    module: str
    name: str
    value: Value
    meaning: str


def find_constants(root: Path = ROOT, sources: Sequence[str] = SOURCES) -> list[Constant]:
    """Returns the constants of all modules that match one of the patterns, by module and line."""
    paths = sorted({path for pattern in sources for path in root.glob(pattern)} - {root / name for name in LEFT_OUT})
    return [constant for path in paths for constant in _constants_of(path, root)]


def _constants_of(path: Path, root: Path) -> Iterator[Constant]:
    module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    known: dict[str, float] = {}
    for node, following in zip_longest(body, body[1:]):
        name, value = _assigned(node, known)
        if value is None:
            continue
        if isinstance(value, (int, float)):
            known[name] = value
        match following:
            case ast.Expr(ast.Constant(str(text))):
                meaning = text.strip().partition("\n")[0]
            case _:
                meaning = ""
        yield Constant(module, name, value, meaning)


def _assigned(node: ast.stmt, known: Mapping[str, float]) -> tuple[str, Value | None]:
    """Returns the name and the value of a constant; None as its value for any other statement."""
    match node:
        case ast.Assign([ast.Name(name)], expression) | ast.AnnAssign(ast.Name(name), _, ast.expr() as expression):
            if _NAME.fullmatch(name):
                return name, _value(expression, known)
    return "", None


def _value(node: ast.expr, known: Mapping[str, float]) -> Value | None:
    if not isinstance(node, ast.Tuple):
        return _number(node, known)
    numbers = [_number(element, known) for element in node.elts]
    return tuple(number for number in numbers if number is not None) if numbers and None not in numbers else None


def _number(node: ast.expr, known: Mapping[str, float]) -> float | None:
    match node:
        case ast.Constant(bool()):
            return None
        case ast.Constant(int() | float() as number):
            return number
        case ast.Name(name):
            return known.get(name)
        case ast.UnaryOp(ast.USub(), operand):
            negated = _number(operand, known)
            return None if negated is None else -negated
        case ast.BinOp(left, symbol, right) if type(symbol) in _OPERATORS:
            first, second = _number(left, known), _number(right, known)
            return None if first is None or second is None else _OPERATORS[type(symbol)](first, second)
    return None


def half(value: Value) -> Value:
    """Returns half the value; a whole number stays whole, and at least 1 if it was.

    >>> half(0.3), half(5), half(1), half((2.0, 8))
    (0.15, 2, 1, (1.0, 4))
    """
    if isinstance(value, tuple):
        return tuple(_whole_if(part, part / 2) for part in value)
    return _whole_if(value, value / 2)


def double(value: Value) -> Value:
    """Returns twice the value; for a value between 0.5 and 1, halves its distance to 1.

    >>> double(0.3), double(5), double(0.9)
    (0.6, 10, 0.95)
    """
    if isinstance(value, tuple):
        return tuple(_twice(part) for part in value)
    return _twice(value)


def _twice(number: float) -> float:
    return _whole_if(number, 1 - (1 - number) / 2 if 0.5 < number < 1 else 2 * number)


def _whole_if(number: float, changed: float) -> float:
    if not isinstance(number, int):
        return changed
    return max(1, int(changed)) if number >= 1 else int(changed)
