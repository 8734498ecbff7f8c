"""Each migration installs its own version of the PostgreSQL function, and that version works at that migration."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Sum
from django.utils import timezone
from psycopg.rows import dict_row
from psycopg.types.json import Json

from accounts.keys import KeyTerms, create_key, parse_key
from accounts.models import User
from core.ids import new_id
from core.money import NANOS_PER_USD as USD
from quotas import charge_set
from quotas.charging import Call
from quotas.models import Wallet
from quotas.sets import ChargeSet, HoldOrder, SettleOrder
from usage.models import HourlyUsage, UsageRecord

SQL = Path(apps.get_app_config("quotas").path) / "sql"
# One a process, because the tests of this module may run in several workers at once.
DATABASE = f"charge_set_versions_{secrets.token_hex(4)}"
HASH = "a" * 64
Target = tuple[str, str]
Fresh = psycopg.Connection[dict[str, Any]]
STEPS: list[tuple[Target, str]] = [
    (("quotas", "0003_charge_set"), "charge_set_v1.sql"),
    (("usage", "0006_space_hours"), "charge_set_v2.sql"),
    (("quotas", "0005_charge_set"), "charge_set_v3.sql"),
    (("quotas", "0006_charge_set"), "charge_set_v4.sql"),
    (("quotas", "0007_charge_set"), "charge_set_v5.sql"),
    (("quotas", "0008_charge_set"), "charge_set_v6.sql"),
]
# A migration runs once per database, so editing an installed file would change new databases only.
CHECKSUMS = {
    "charge_set_v1.sql": "40bae7f26020e69b",
    "charge_set_v2.sql": "061b58864393586d",
    "charge_set_v3.sql": "7ac26ba61b78a37d",
    "charge_set_v4.sql": "23a53a270cc01979",
    "charge_set_v5.sql": "891df2dd62fcb19f",
    "charge_set_v6.sql": "d97e6c7271fa77ab",
}


@pytest.fixture
def fresh() -> Iterator[Fresh]:
    """Point Django's connection at an empty database; yields a second connection to the same database."""
    drop = f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"
    usual = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(drop)
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()
    connection.settings_dict["NAME"] = DATABASE
    try:
        parameters = connection.get_connection_params()
        known = {name: parameters[name] for name in ("host", "port", "user", "password") if name in parameters}
        with psycopg.connect(**known, dbname=DATABASE, autocommit=True, row_factory=dict_row) as own:
            yield own
    finally:
        connection.close()
        connection.settings_dict["NAME"] = usual
        with connection.cursor() as cursor:
            cursor.execute(drop)


def migrate(*targets: Target) -> Any:
    """Migrate to these targets, or to the newest, and return the models of that state."""
    executor = MigrationExecutor(connection)
    wanted = list(targets) or executor.loader.graph.leaf_nodes()
    executor.migrate(wanted)
    return executor.loader.project_state(wanted).apps


def body_of(file: str) -> str:
    return (SQL / file).read_text().split("$$")[1]


def installed(fresh: Fresh) -> list[str]:
    """The bodies of the installed functions of this name: one, or none before the first migration."""
    return [row["prosrc"] for row in fresh.execute("SELECT prosrc FROM pg_proc WHERE proname = 'quotas_charge_set'")]


def make_member(models: Any) -> int:
    """Create a member with an API key and $5.00 and return their space's id.

    Rows are created directly, because services do not work with the models of a migration state.
    """
    now = timezone.now()
    space = models.get_model("tenants", "Space").objects.create(name="steps", created_at=now)
    user = models.get_model("accounts", "User").objects.create(username="jun", space=space, number=2)
    models.get_model("accounts", "ApiKey").objects.create(
        id=new_id(), space=space, user=user, number=1, name="laptop", hash=HASH, created_at=now
    )
    models.get_model("quotas", "Wallet").objects.create(
        id=new_id(), space=space, user=user, kind="member", total=5 * USD
    )
    return int(space.pk)


def charge(fresh: Fresh, space_id: int) -> list[Any]:
    """Hold, then settle; return both outcomes."""
    request = new_id()
    hold = {"place": 0, "record": new_id(), "request": request, "space": space_id, "hash": HASH, "address": None}
    hold |= {"model": "m", "least": 1, "most": USD, "lifetime_s": 60, "status": 0, "code": ""}
    settlement = {"place": 0, "record": new_id(), "space": space_id, "request": request, "cost": USD // 4}
    settlement |= dict.fromkeys(("input_tokens", "cached_tokens", "output_tokens", "images", "seconds"), 0)
    settlement |= {"price": Json({}), "duration_ms": 1, "first_token_ms": None, "status": 200, "code": ""}
    settlement |= {"is_estimated": False}
    # Columns that version 6 added, last in each kind; a version without them is not sent any.
    hold |= {"usual": 0, "details": Json({})}
    settlement |= {"quantities": Json({"searches": 2}), "details": Json({}), "upstream_cost": 7}
    return [call(fresh, asked=hold)["outcome"], call(fresh, settled=settlement)["outcome"]]


def call(fresh: Fresh, **orders: dict[str, Any]) -> dict[str, Any]:
    """Call the installed version: versions 1 and 2 take JSON, later ones an array per column."""
    parameters = fresh.execute(
        """
        SELECT name, format_type(type, NULL) AS type
        FROM pg_proc, unnest(proargnames, proargtypes::oid[]) AS parameter(name, type)
        WHERE proname = 'quotas_charge_set' AND type IS NOT NULL
        """
    ).fetchall()
    given: dict[str, Any] = {"moment": timezone.now(), "are_all": False}
    if {"name": "asks", "type": "json"} in parameters:
        documents = {"settlements": orders.get("settled"), "asks": orders.get("asked"), "renewals": None}
        given |= {name: as_json(order) for name, order in documents.items()}
    for prefix, order in orders.items():
        columns = [each["name"] for each in parameters if each["name"].startswith(f"{prefix}_")]
        given |= dict(zip(columns, [[value] for value in order.values()], strict=False))
    arguments = ", ".join(f"{each['name']} => %s::{each['type']}" for each in parameters)
    values = [given.get(each["name"], []) for each in parameters]
    row = fresh.execute(f"SELECT * FROM quotas_charge_set({arguments})", values).fetchone()
    assert row is not None
    return row


def as_json(order: dict[str, Any] | None) -> str:
    plain = {name: value.obj if isinstance(value, Json) else value for name, value in (order or {}).items()}
    return json.dumps([plain] if plain else [], default=str)


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql("SQLite has no such functions")
def test_a_database_at_any_migration_has_that_version_and_can_be_migrated_further(fresh: Fresh) -> None:
    space_id = 0
    for target, file in STEPS:
        models = migrate(target)
        space_id = space_id or make_member(models)

        assert installed(fresh) == [body_of(file)]
        assert charge(fresh, space_id) == ["allowed", "settled"]
    migrate()

    assert installed(fresh) == [body_of(STEPS[-1][1])]
    assert charge(fresh, space_id) == ["allowed", "settled"]
    charges = len(STEPS) + 1
    assert Wallet.objects.values_list("total", "spent", "held").get() == (5 * USD, charges * USD // 4, 0)
    assert HourlyUsage.objects.aggregate(Sum("requests"), Sum("errors")) == {
        "requests__sum": charges,
        "errors__sum": 0,
    }


@pytest.mark.django_db(transaction=True)
@pytest.mark.postgresql("SQLite has no such functions")
def test_reversing_a_migration_installs_the_previous_version(fresh: Fresh) -> None:
    migrate(STEPS[-1][0])
    undone = {
        ("quotas", "0007_charge_set"): "charge_set_v5.sql",
        ("quotas", "0006_charge_set"): "charge_set_v4.sql",
        ("quotas", "0005_charge_set"): "charge_set_v3.sql",
        ("quotas", "0004_no_constraint"): "charge_set_v2.sql",
        ("usage", "0005_no_constraint"): "charge_set_v1.sql",
    }
    for target, file in undone.items():
        migrate(target)
        assert installed(fresh) == [body_of(file)]
    migrate(("quotas", "0002_append_only"))

    assert installed(fresh) == []


def test_the_newest_version_equals_what_is_rendered_from_declarations_and_rules() -> None:
    """A change of either needs a new version: see docs/developers.md, "The set function"."""
    assert (SQL / STEPS[-1][1]).read_text() == charge_set.render()


@pytest.mark.django_db
@pytest.mark.postgresql("SQLite has no such functions")
def test_a_relay_of_the_previous_version_charges_until_it_is_restarted(member: User) -> None:
    """It calls by the names that it knows, so new parameters have defaults."""
    presented = parse_key(create_key(owner=member, terms=KeyTerms(name="laptop"))[1])
    assert presented is not None
    hold = HoldOrder(request_id=new_id(), presented=presented, model="m", address=None, least_nanos=1, most_nanos=USD)
    settle = SettleOrder(space_id=presented.space_id, request_id=hold.request_id, cost_nanos=7, call=Call(model="m"))
    known = set(re.findall(r"(\w+) (?:timestamptz|boolean|\w+\[\])", (SQL / "charge_set_v5.sql").read_text()))

    for order in (hold, settle):
        values = {name: value for name, value in ChargeSet([order], {}).values.items() if name in known}
        arguments = ", ".join(f"{name} => %({name})s::{charge_set.PARAMETERS[name]}" for name in values)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT outcome FROM quotas_charge_set({arguments})", values)
            assert cursor.fetchall() == [("allowed",) if order is hold else ("settled",)]

    record = UsageRecord.objects.get()
    assert (record.cost, record.quantities, record.details, record.upstream_cost) == (7, {}, {}, None)


def test_an_installed_version_never_changes() -> None:
    files = sorted(SQL.glob("charge_set_v*.sql"))

    assert {file.name: sha256(file.read_bytes()).hexdigest()[:16] for file in files} == CHECKSUMS
    assert [file for _target, file in STEPS] == [file.name for file in files]
