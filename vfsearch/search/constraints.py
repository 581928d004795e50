"""Constraints as written in a sweep file: ``classifier.norm_bound <= 50``.

Names are dotted settings or metrics (``time/evaluation_seconds``); a slash within a name belongs to
it, so a division needs spaces around its sign. Nothing is ever evaluated as Python.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"|(?P<name>[A-Za-z_][\w-]*(?:[./][\w-]+)*)"
    r"|(?P<sign><=|>=|[-+*/()]))"
)


@dataclass(frozen=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True)
class Name:
    """A setting or a metric."""

    name: str


@dataclass(frozen=True)
class Binary:
    """Two operands and one of ``+ - * /``."""

    sign: str
    left: "Node"
    right: "Node"


Node = Number | Name | Binary


@dataclass(frozen=True)
class Constraint:
    """``left <= right``, kept with the text it was written as."""

    text: str
    left: Node
    right: Node

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order of appearance, each once."""
        return tuple(dict.fromkeys((*_names(self.left), *_names(self.right))))

    def violation(self, values: Mapping[str, object]) -> float | None:
        """Return left - right: positive when violated, in the constraint's own unit.

        Returns:
            None when a name has no number among ``values`` (an absent or null setting), or when a
            division by zero leaves nothing to compare.
        """
        left, right = _evaluate(self.left, values), _evaluate(self.right, values)
        return None if left is None or right is None else left - right


def parse_constraint(text: str) -> Constraint:
    """Parse one constraint.

    Raises:
        ValueError: with what is wrong and where in the text.
    """
    tokens = _tokens(text)
    left = _sum(text, tokens)
    sign = tokens.pop(0)[1] if tokens else ""
    if sign not in ("<=", ">="):
        raise ValueError(f"{text!r} must compare two sides by <= or >=, like loss.margin <= 20")
    right = _sum(text, tokens)
    if tokens:
        raise ValueError(f"{text!r}: {tokens[0][1]!r} is not expected after {sign} and its side")
    return Constraint(text, left, right) if sign == "<=" else Constraint(text, right, left)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            hint = " (use <= or >=)" if text[position:].lstrip()[:1] in "<>=!" else ""
            raise ValueError(f"{text!r}: {text[position:].strip()!r} cannot be read{hint}")
        found.append((str(match.lastgroup), match.group(str(match.lastgroup))))
        position = match.end()
    return found


def _sum(text: str, tokens: list[tuple[str, str]]) -> Node:
    node = _product(text, tokens)
    while tokens and tokens[0][1] in ("+", "-"):
        sign = tokens.pop(0)[1]
        node = Binary(sign, node, _product(text, tokens))
    return node


def _product(text: str, tokens: list[tuple[str, str]]) -> Node:
    node = _factor(text, tokens)
    while tokens and tokens[0][1] in ("*", "/"):
        sign = tokens.pop(0)[1]
        node = Binary(sign, node, _factor(text, tokens))
    return node


def _factor(text: str, tokens: list[tuple[str, str]]) -> Node:
    if not tokens:
        raise ValueError(f"{text!r} ends where a name or a number is expected")
    kind, token = tokens.pop(0)
    if kind == "number":
        return Number(float(token))
    if kind == "name":
        return Name(token)
    if token == "-":
        return Binary("-", Number(0.0), _factor(text, tokens))
    if token == "(":
        node = _sum(text, tokens)
        if not tokens or tokens.pop(0)[1] != ")":
            raise ValueError(f"{text!r}: a parenthesis is not closed")
        return node
    raise ValueError(f"{text!r}: {token!r} stands where a name or a number is expected")


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, Name):
        yield node.name
    elif isinstance(node, Binary):
        yield from _names(node.left)
        yield from _names(node.right)


def _evaluate(node: Node, values: Mapping[str, object]) -> float | None:
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Name):
        value = values.get(node.name)
        return float(value) if isinstance(value, int | float) else None
    left, right = _evaluate(node.left, values), _evaluate(node.right, values)
    if left is None or right is None or (node.sign == "/" and right == 0):
        return None
    if node.sign == "+":
        return left + right
    if node.sign == "-":
        return left - right
    return left * right if node.sign == "*" else left / right
