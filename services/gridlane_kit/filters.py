"""Filters of listings: a small subset of AIP-160, only in combinations that are documented.

Responsible for the syntax and for refusing what has no index. Which fields a listing has, how their
values read, and which may be combined is data that the service gives.

The syntax: comparisons joined by AND; a comparison is a field, one of `=`, `<`, `<=`, `>`, `>=`,
    and a value: a
word, or text in double quotes in which `\\` takes the next character as it is. A field occurs once,
or twice when it is bounded from both sides.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, and_, true

from gridlane_kit import errors

_MAX_LENGTH = 2000
_TOKEN = re.compile(
    r"""\s*(?:(?P<operator><=|>=|=|<|>)|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>[^\s"=<>()]+))\s*""",
    re.DOTALL,
)

EQUAL: frozenset[str] = frozenset({"="})
RANGE: frozenset[str] = frozenset({"=", "<", "<=", ">", ">="})

_COMPARE: Mapping[str, Callable[[Column[Any], Any], ColumnElement[bool]]] = {
    "=": lambda column, value: column == value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a listing can be filtered by.

    Parameters:
        parse: reads a value; raises ValueError that says what is expected.
        operators: EQUAL or RANGE.
    """

    parse: Callable[[str], Any]
    operators: frozenset[str] = EQUAL


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison, its value parsed."""

    field: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was read; equal for texts that mean the same."""

    clauses: tuple[Clause, ...] = ()

    @property
    def canonical(self) -> str:
        """One text for all ways to write the filter; part of a page token's binding."""
        return repr([(clause.field, clause.operator, clause.value) for clause in self.clauses])

    def value(self, field: str) -> Any:
        """The value that `field` must equal, None when the filter does not say."""
        for clause in self.clauses:
            if clause.field == field and clause.operator == "=":
                return clause.value
        return None

    def where(self, columns: Mapping[str, Column[Any]]) -> ColumnElement[bool]:
        """The condition.

        Parameters:
            columns: the column of each field.
        """
        return and_(
            true(),
            *(
                _COMPARE[clause.operator](columns[clause.field], clause.value)
                for clause in self.clauses
            ),
        )


class FilterRules:
    """What a listing can be filtered by.

    Parameters:
        fields: by name.
        combinations: the sets of fields that may stand together; the empty filter is always
            allowed.
    """

    def __init__(
        self, fields: Mapping[str, Field], *, combinations: Collection[Collection[str]]
    ) -> None:
        self._fields = fields
        self._combinations = frozenset(frozenset(names) for names in combinations)
        unknown = frozenset().union(*self._combinations) - fields.keys()
        if unknown:
            raise ValueError(f"the combinations name fields that are not given: {sorted(unknown)}")

    @property
    def documentation(self) -> str:
        """The combinations in words, for messages and documents."""
        listed = sorted(" AND ".join(sorted(names)) for names in self._combinations)
        return "one of: " + "; ".join(listed)

    def parse(self, text: str) -> Filter:
        """Read a filter as it came.

        Raises:
            GridlaneError: FILTER_UNSUPPORTED, with a message that says what is supported.
        """
        try:
            clauses = tuple(sorted(self._clauses(text), key=lambda c: (c.field, c.operator)))
            self._check(clauses)
        except ValueError as error:
            raise errors.filter_unsupported(text, str(error)) from error
        return Filter(clauses)

    def _clauses(self, text: str) -> Iterator[Clause]:
        tokens = list(_tokens(text))
        while tokens:
            if len(tokens) < 3 or not (tokens[0].plain and tokens[1].operator):
                raise ValueError(
                    'write field = value, joined by AND, for example state = "RUNNING"'
                )
            name, operator, value = tokens[0].text, tokens[1].text, tokens[2]
            if value.operator:
                raise ValueError(f"{name} {operator} is not followed by a value")
            yield self._clause(name, operator, value.text)
            tokens = tokens[3:]
            if tokens:
                if not (tokens[0].plain and tokens[0].text == "AND") or len(tokens) == 1:
                    raise ValueError("comparisons are joined by AND, and by nothing else")
                tokens = tokens[1:]

    def _clause(self, name: str, operator: str, value: str) -> Clause:
        field = self._fields.get(name)
        if field is None:
            raise ValueError(f"{name} is not a field to filter by; {self.documentation}")
        if operator not in field.operators:
            raise ValueError(
                f"{name} can be compared with {', '.join(sorted(field.operators))} only"
            )
        if "\0" in value:
            raise ValueError(f"{name}: no text has a NUL")
        try:
            return Clause(name, operator, field.parse(value))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def _check(self, clauses: tuple[Clause, ...]) -> None:
        names = frozenset(clause.field for clause in clauses)
        if names and names not in self._combinations:
            together = " AND ".join(sorted(names))
            raise ValueError(f"{together} cannot be asked for together; {self.documentation}")
        for name in names:
            # The direction of each comparison: the same twice says nothing or too little.
            sides = [clause.operator[0] for clause in clauses if clause.field == name]
            if len(sides) > 1 and sorted(sides) != ["<", ">"]:
                raise ValueError(f"{name} may stand twice only as a lower and an upper bound")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    operator: bool = False
    plain: bool = False


def _tokens(text: str) -> Iterator[_Token]:
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"longer than {_MAX_LENGTH} characters")
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            if not text[position:].strip():
                return
            raise ValueError(f"cannot be read at character {position + 1}")
        position = match.end()
        if match["operator"]:
            yield _Token(match["operator"], operator=True)
        elif match["quoted"] is not None:
            yield _Token(re.sub(r"\\(.)", r"\1", match["quoted"], flags=re.DOTALL))
        else:
            yield _Token(match["word"], plain=True)
