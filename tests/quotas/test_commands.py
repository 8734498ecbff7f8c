from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.models import Transfer, Wallet
from tenants.models import Space

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD


def run(name: str, *args: str) -> str:
    out = io.StringIO()
    call_command(name, *args, stdout=out, stderr=out)
    return out.getvalue()


def create(monkeypatch: Any, password: str = "long enough", **options: str) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    given = {"name": "Northwind", "manager": "nora", "grant": "500.00"} | options
    return run("create_space", *(f"--{name}={value}" for name, value in given.items()), "--password-stdin")


def test_create_space_makes_space_manager_and_grant(monkeypatch: Any) -> None:
    assert "Northwind" in create(monkeypatch)

    nora = User.objects.get(username="nora")
    assert nora.check_password("long enough") and nora.number == 1
    assert Wallet.objects.get(space=nora.space).total == 500 * USD


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "halcyon LABS"}, "--name is taken"),
        ({"manager": "MIRA"}, "not available"),
        ({"manager": "x"}, "at least 3"),
        ({"grant": "1e9"}, "--grant"),
        ({"password": "short"}, "at least 8"),
        ({"name": " "}, "--name"),
    ],
)
def test_create_space_with_invalid_input_says_why_and_creates_nothing(
    monkeypatch: Any, space: Space, options: dict[str, str], text: str
) -> None:
    with pytest.raises(CommandError, match=text):
        create(monkeypatch, **options)

    assert list(Space.objects.all()) == [space] and User.objects.count() == 1


def test_grant_and_take_back(space: Space) -> None:
    out = run("grant", "--space=halcyon labs", "--amount=-20.00", "--reason=Unused")

    assert out.strip() == "Halcyon Labs: total $480.00, available $480.00"
    assert Transfer.objects.latest("id").reason == "Unused"


def test_a_grant_with_a_key_is_made_once(space: Space) -> None:
    for _ in range(2):
        run("grant", "--space=Halcyon Labs", "--amount=5", "--reason=Top-up", "--key=inv-7")

    assert Wallet.objects.get(space=space).total == 505 * USD
    with pytest.raises(CommandError, match="another amount"):
        run("grant", "--space=Halcyon Labs", "--amount=6", "--reason=Top-up", "--key=inv-7")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--space=None", "--amount=5"], "there is no space"),
        (["--space=Halcyon Labs", "--amount=x"], "not a number"),
        (["--space=Halcyon Labs", "--amount=0"], "must not be zero"),
        (["--space=Halcyon Labs", "--amount=-500.01"], r"only \$500.00 is available"),
        (["--space=Halcyon Labs", "--amount=999999999"], "can take at most"),
    ],
)
def test_a_wrong_grant_says_why(space: Space, args: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        run("grant", *args, "--reason=x")

    assert Wallet.objects.get(space=space).total == 500 * USD


def test_the_demo_never_touches_data_that_is_there(space: Space) -> None:
    assert "was not added" in run("demo")
    assert list(Space.objects.all()) == [space] and User.objects.count() == 1


def test_the_demo_is_refused_in_production(settings: Any) -> None:
    settings.DEMO = False

    with pytest.raises(CommandError, match="published"):
        run("demo")

    assert not User.objects.exists()
