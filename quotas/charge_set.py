"""Parameters and result columns of the PostgreSQL function quotas_charge_set, declared once by name.

The call, its values and the SQL text of the function's newest version are generated from these declarations.
`python -m quotas.charge_set` renders the text from sql/charge_set.template.sql; see docs/developers.md, "The set
function".
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
    """One column of an order: its name and type in SQL, and the attribute path of a SetEntry that it is read from.

    `encode` turns a value into text where str() would be wrong or slow. `has_default` marks a column that relays of
    the previous version do not send: its parameter comes last and is empty by default, so its values are NULL.
    """

    name: str
    sql_type: str
    path: str
    encode: Callable[[Any], str | None] | None = None
    has_default: bool = False


class SetEntry(NamedTuple):
    """An order, its place in the set, and the id that its usage record gets when one is written."""

    place: int
    record: str
    order: Any


@dataclass(frozen=True)
class ParameterGroup:
    """The array parameters for one kind of order, one per column, named <kind>_<column>."""

    kind: str
    columns: tuple[OrderColumn, ...]

    @cached_property
    def types(self) -> dict[str, str]:
        return {f"{self.kind}_{column.name}": f"{column.sql_type}[]" for column in self.columns}

    @cached_property
    def with_defaults(self) -> dict[str, str]:
        return {
            f"{self.kind}_{column.name}": f"{column.sql_type}[] DEFAULT '{{}}'"
            for column in self.columns
            if column.has_default
        }

    @cached_property
    def _read(self) -> Callable[[SetEntry], tuple[Any, ...]]:
        # One attrgetter for all columns, because a Python call per column would be slower.
        return attrgetter(*(column.path for column in self.columns))

    @cached_property
    def _encoders(self) -> list[tuple[str, Callable[[Any], str | None] | None]]:
        return [(name, column.encode) for name, column in zip(self.types, self.columns, strict=True)]

    def arrays(self, entries: Sequence[SetEntry]) -> dict[str, str]:
        if not entries:
            return dict.fromkeys(self.types, "{}")
        columns = zip(*map(self._read, entries), strict=True)
        return {
            name: array_text(tuple(map(encode, values)) if encode else values)
            for (name, encode), values in zip(self._encoders, columns, strict=True)
        }


def _without_zone(address: str | None) -> str | None:
    # The type inet does not accept the zone of an IPv6 address (fe80::1%eth0).
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
        OrderColumn("quantities", "jsonb", "order.call.quantities", _json, has_default=True),
        OrderColumn("details", "jsonb", "order.call.details", _json, has_default=True),
        OrderColumn("upstream_cost", "bigint", "order.call.upstream_cost", has_default=True),
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
        OrderColumn("usual", "bigint", "order.usual_nanos", has_default=True),
        OrderColumn("details", "jsonb", "order.details", _json, has_default=True),
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

# During an upgrade, relays of the previous version keep calling until they are restarted. A new version must therefore
# keep these names and give a new parameter a default (`has_default`).
PARAMETERS: Mapping[str, str] = {
    "moment": "timestamptz",
    "wallets": "uuid[]",
    "are_all": "boolean",
    **SETTLED.types,
    **ASKED.types,
    **RENEWED.types,
}


class ChargeSetRow(NamedTuple):
    """One result row of the function; annotations are SQL types. Which amounts are set depends on the outcome."""

    place: Annotated[int, "int"]
    outcome: Annotated[str, "text"]
    nanos: Annotated[int, "bigint"]
    free_nanos: Annotated[int, "bigint"]
    spent_nanos: Annotated[int, "bigint"]
    limit_nanos: Annotated[int, "bigint"]
    models: Annotated[str, "text"]
    # The wallet that the key spends from, unless the caller had hints for all keys of the set.
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
    return {
        "moment": moment,
        "wallets": f"{{{','.join(wallets)}}}",
        "are_all": are_all,
        **SETTLED.arrays(settled),
        **ASKED.arrays(asked),
        **RENEWED.arrays(renewed),
    }


def array_text(column: tuple[str | int | None, ...]) -> str:
    """Return an array literal in PostgreSQL's text format. All values must be of one type, apart from None.

    Without None and special characters it avoids a Python call per value, because this runs for every set.
    """
    if None in column:
        return f"{{{','.join(map(_element, column))}}}"
    if isinstance(column[0], int):
        # str() of a list separates with commas as well and is one C call.
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


# -- Rendering the SQL of the function --------------------------------------------------------------------------------


class _SqlTemplate(Template):
    """Placeholders are @{name}, because `$$` quotes function bodies in PostgreSQL."""

    delimiter = "@"


def render() -> str:
    kinds = (SETTLED, ASKED, RENEWED)
    fixed = {name: type_ for name, type_ in PARAMETERS.items() if not any(name in orders.types for orders in kinds)}
    answer = get_type_hints(ChargeSetRow, include_extras=True)
    added = {name: type_ for orders in kinds for name, type_ in orders.with_defaults.items()}
    always = [{name: type_ for name, type_ in orders.types.items() if name not in added} for orders in kinds]
    parts = {
        "parameters": ",\n\n".join(map(_typed, (fixed, *always, added))),
        "answer": _typed({name: answer[name].__metadata__[0] for name in ChargeSetRow._fields}),
        "access_rules": _refusals(ACCESS_RULES),
        "funds_rules": _refusals(FUNDS_RULES),
        "refusal_statuses": _statuses(),
        "funds_codes": ", ".join(f"'{rule.code}'" for rule in FUNDS_RULES),
    }
    for orders in kinds:
        parts[f"{orders.kind}_arrays"] = _wrapped(", ".join(orders.types))
        parts[f"{orders.kind}_columns"] = _wrapped(", ".join(column.name for column in orders.columns))
    return "\n".join(_indented(line, parts) for line in TEMPLATE_PATH.read_text(encoding="utf-8").splitlines()) + "\n"


def _indented(line: str, parts: Mapping[str, str]) -> str:
    # Every line of a multi-line part is indented like its placeholder.
    indent = line[: len(line) - len(line.lstrip())]
    return _SqlTemplate(line).substitute(parts).replace("\n", f"\n{indent}").replace(f"\n{indent}\n", "\n\n")


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 100, break_on_hyphens=False))


def _typed(types: Mapping[str, str]) -> str:
    # NUL stands for the space between a name and its type, so that textwrap does not break there.
    return _wrapped(", ".join(f"{name}\0{type_}" for name, type_ in types.items())).replace("\0", " ")


def _refusals(rules: Sequence[Rule[Any]]) -> str:
    # In the order of the rules, because CASE takes the first branch that is true.
    return "\n".join(_wrapped(f"WHEN {rule.sql} THEN '{rule.code}'").replace("\n", "\n    ") for rule in rules)


def _statuses() -> str:
    by_status: dict[int, list[str]] = {}
    for code, status in REFUSAL_STATUS.items():
        by_status.setdefault(status, []).append(f"'{code}'")
    cases = (f"WHEN refusal IN ({', '.join(codes)}) THEN {status}" for status, codes in by_status.items())
    return "\n".join(_wrapped(case).replace("\n", "\n    ") for case in cases)


if __name__ == "__main__":
    sys.stdout.write(render())
