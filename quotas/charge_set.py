"""PostgreSQL's function quotas_charge_set: its parameters and its answer, declared once by name.

From these declarations come the call, the values that it sends and the text of the function's newest version, which
`python -m quotas.charge_set` renders from sql/charge_set.template.sql. See docs/developers.md, "The set function".
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from string import Template
from typing import Annotated, Any, NamedTuple, get_type_hints

import msgspec

from accounts.spending import ACCESS_RULES, FUNDS_RULES, REFUSAL_STATUS, Rule

FUNCTION_NAME = "quotas_charge_set"
TEMPLATE_PATH = Path(__file__).parent / "sql" / "charge_set.template.sql"


@dataclass(frozen=True)
class OrderColumn:
    """One value of each order: its name and type in SQL, and the attribute of an SetEntry that it is read from.

    `encode` makes text of a value for which str() is wrong or slow.
    """

    name: str
    sql_type: str
    path: str
    encode: Callable[[Any], str | None] | None = None


class SetEntry(NamedTuple):
    """An order with its place in the set, and the id of the usage record that it may lead to."""

    place: int
    record: str
    order: Any


@dataclass(frozen=True)
class ParameterGroup:
    """The orders of one kind, for which the function takes an array for each column: <kind>_<column>."""

    kind: str
    columns: tuple[OrderColumn, ...]

    @cached_property
    def types(self) -> dict[str, str]:
        return {f"{self.kind}_{column.name}": f"{column.sql_type}[]" for column in self.columns}

    @cached_property
    def _read(self) -> Callable[[SetEntry], tuple[Any, ...]]:
        # One attrgetter for all columns reads an order without a Python call for each.
        return attrgetter(*(column.path for column in self.columns))

    @cached_property
    def _encoders(self) -> list[tuple[str, Callable[[Any], str | None] | None]]:
        return [(name, column.encode) for name, column in zip(self.types, self.columns, strict=True)]

    def arrays(self, entries: Sequence[SetEntry]) -> dict[str, str]:
        """The parameters of these orders, as PostgreSQL's text."""
        if not entries:
            return dict.fromkeys(self.types, "{}")
        columns = zip(*map(self._read, entries), strict=True)
        return {
            name: array_text(tuple(map(encode, values)) if encode else values)
            for (name, encode), values in zip(self._encoders, columns, strict=True)
        }


def _without_zone(address: str | None) -> str | None:
    """PostgreSQL's inet takes no zone of an IPv6 address."""
    return address.partition("%")[0] if address else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


SETTLED = ParameterGroup(
    "settled",
    (
        OrderColumn("place", "int", "place"),
        OrderColumn("record", "uuid", "record"),
        OrderColumn("space", "bigint", "order.space_id"),
        OrderColumn("request", "uuid", "order.request_id.hex"),
        OrderColumn("cost", "bigint", "order.cost_nanos"),
        OrderColumn("input_tokens", "bigint", "order.call.input_tokens"),
        OrderColumn("cached_tokens", "bigint", "order.call.cached_tokens"),
        OrderColumn("output_tokens", "bigint", "order.call.output_tokens"),
        OrderColumn("images", "bigint", "order.call.images"),
        OrderColumn("seconds", "bigint", "order.call.seconds"),
        OrderColumn("price", "jsonb", "order.call.price", _json),
        OrderColumn("duration_ms", "int", "order.call.duration_ms"),
        OrderColumn("first_token_ms", "int", "order.call.first_token_ms"),
        OrderColumn("status", "smallint", "order.call.status"),
        OrderColumn("code", "text", "order.call.code"),
        OrderColumn("is_estimated", "boolean", "order.call.is_estimated"),
    ),
)
ASKED = ParameterGroup(
    "asked",
    (
        OrderColumn("place", "int", "place"),
        OrderColumn("record", "uuid", "record"),
        OrderColumn("request", "uuid", "order.request_id.hex"),
        OrderColumn("space", "bigint", "order.presented.space_id"),
        OrderColumn("hash", "text", "order.presented.hash"),
        OrderColumn("address", "inet", "order.address", _without_zone),
        OrderColumn("model", "text", "order.model"),
        OrderColumn("least", "bigint", "order.least_nanos"),
        OrderColumn("most", "bigint", "order.most_nanos"),
        OrderColumn("lifetime_s", "int", "order.lifetime_s"),
        OrderColumn("status", "smallint", "order.status"),
        OrderColumn("code", "text", "order.code"),
    ),
)
RENEWED = ParameterGroup(
    "renewed",
    (
        OrderColumn("place", "int", "place"),
        OrderColumn("space", "bigint", "order.space_id"),
        OrderColumn("request", "uuid", "order.request_id.hex"),
        OrderColumn("delivered_bytes", "bigint", "order.delivered_bytes"),
        OrderColumn("accrued", "bigint", "order.accrued_nanos"),
        OrderColumn("lifetime_s", "int", "order.lifetime_s"),
    ),
)

# The relay of the version before calls until it is restarted, so a new version keeps these names and gives a new
# parameter a default. Relays for version 4 call by position: version 5 has the order and types that it had.
PARAMETERS: Mapping[str, str] = {
    "moment": "timestamptz",
    "wallets": "uuid[]",
    "are_all": "boolean",
    **SETTLED.types,
    **ASKED.types,
    **RENEWED.types,
}


class ChargeSetRow(NamedTuple):
    """One row of the function's answer, with its type in SQL; which figures are there depends on the outcome."""

    place: Annotated[int, "int"]
    outcome: Annotated[str, "text"]
    nanos: Annotated[int, "bigint"]
    free_nanos: Annotated[int, "bigint"]
    spent_nanos: Annotated[int, "bigint"]
    limit_nanos: Annotated[int, "bigint"]
    models: Annotated[str, "text"]
    # The wallet of a key that was not known to the caller.
    spent_from: Annotated[str | None, "text"]


CALL_SQL = (
    f"SELECT {', '.join(ChargeSetRow._fields)} FROM {FUNCTION_NAME}("  # noqa: S608
    + ", ".join(f"{name} => %({name})s::{sql_type}" for name, sql_type in PARAMETERS.items())
    + ")"
)


def values_of(
    *,
    moment: datetime,
    wallets: Iterable[str],
    are_all: bool,
    settled: Sequence[SetEntry],
    asked: Sequence[SetEntry],
    renewed: Sequence[SetEntry],
) -> dict[str, Any]:
    """The values of CALL_SQL, by name."""
    return {
        "moment": moment,
        "wallets": f"{{{','.join(wallets)}}}",
        "are_all": are_all,
        **SETTLED.arrays(settled),
        **ASKED.arrays(asked),
        **RENEWED.arrays(renewed),
    }


def array_text(column: tuple[str | int | None, ...]) -> str:
    """PostgreSQL's text of an array, by Python's own loops where no value needs care. A column is of one type."""
    if None in column:
        return f"{{{','.join(map(_element, column))}}}"
    if isinstance(column[0], int):
        # The text of a list has the same commas, and is written in one call.
        return f"{{{str(list(column))[1:-1]}}}"
    text = '","'.join(map(str, column))
    if "\\" in text or text.count('"') != 2 * (len(column) - 1):
        text = '","'.join([_escaped(str(value)) for value in column])
    return f'{{"{text}"}}'


def _element(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    return f'"{_escaped(value)}"' if isinstance(value, str) else str(value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


# -- The text of the function -----------------------------------------------------------------------------------------


class _SqlTemplate(Template):
    """`$` quotes bodies in PostgreSQL, so a placeholder is @{name}."""

    delimiter = "@"


def render() -> str:
    """The newest version of the function, as these declarations and the rules of accounts/spending.py have it."""
    kinds = (SETTLED, ASKED, RENEWED)
    fixed = {name: type_ for name, type_ in PARAMETERS.items() if not any(name in orders.types for orders in kinds)}
    answer = get_type_hints(ChargeSetRow, include_extras=True)
    parts = {
        "parameters": ",\n\n".join(_typed(types) for types in (fixed, *(orders.types for orders in kinds))),
        "answer": _typed({name: answer[name].__metadata__[0] for name in ChargeSetRow._fields}),
        "access_rules": _refusals(ACCESS_RULES),
        "funds_rules": _refusals(FUNDS_RULES),
        "refusal_statuses": _statuses(),
    }
    for orders in kinds:
        parts[f"{orders.kind}_arrays"] = _wrapped(", ".join(orders.types))
        parts[f"{orders.kind}_columns"] = _wrapped(", ".join(column.name for column in orders.columns))
    return "\n".join(_indented(line, parts) for line in TEMPLATE_PATH.read_text(encoding="utf-8").splitlines()) + "\n"


def _indented(line: str, parts: Mapping[str, str]) -> str:
    """Fill in a line; a part of several lines is indented as the line is."""
    indent = line[: len(line) - len(line.lstrip())]
    return _SqlTemplate(line).substitute(parts).replace("\n", f"\n{indent}").replace(f"\n{indent}\n", "\n\n")


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 100, break_on_hyphens=False))


def _typed(types: Mapping[str, str]) -> str:
    # A name stays on one line with its type.
    return _wrapped(", ".join(f"{name}\0{type_}" for name, type_ in types.items())).replace("\0", " ")


def _refusals(rules: Sequence[Rule[Any]]) -> str:
    """WHEN branches in the order of the rules: the first that is true is the refusal."""
    return "\n".join(_wrapped(f"WHEN {rule.sql} THEN '{rule.code}'").replace("\n", "\n    ") for rule in rules)


def _statuses() -> str:
    by_status: dict[int, list[str]] = {}
    for code, status in REFUSAL_STATUS.items():
        by_status.setdefault(status, []).append(f"'{code}'")
    cases = (f"WHEN refusal IN ({', '.join(codes)}) THEN {status}" for status, codes in by_status.items())
    return "\n".join(_wrapped(case).replace("\n", "\n    ") for case in cases)


if __name__ == "__main__":
    sys.stdout.write(render())
