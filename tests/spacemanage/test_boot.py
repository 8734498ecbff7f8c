"""Start-up: the settings and databases that production refuses, and the health checks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import Client

from spacemanage.boot import refuse_published_passwords
from tenants.models import Space
from tests.postgres import free_port
from tests.relay.conftest import Process, database_url, wait_for

ROOT = Path(__file__).parent.parent.parent
SECRET = "q8Zr2mXw7Lk4Vb9Nc3Jt6Hg1Fd5Sa0Py-Ue_Io7Tr4Wq2Ez8Xv6Cb1N"


def start(**env: str) -> tuple[int, str]:
    """Import the settings in a new process that has only these environment variables."""
    code = "from django.conf import settings; print(settings.DATABASES['default']['ENGINE'], settings.DEMO)"
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=kept | {"DJANGO_SETTINGS_MODULE": "spacemanage.settings"} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({}, "SECRET_KEY is not set"),
        ({"SECRET_KEY": "short", "ALLOWED_HOSTS": "x.org"}, "SECRET_KEY: give at least 50"),
        ({"SECRET_KEY": "a" * 60, "ALLOWED_HOSTS": "x.org"}, "SECRET_KEY: give at least 50"),
        ({"SECRET_KEY": SECRET}, "ALLOWED_HOSTS is not set"),
        ({"DEMO": "maybe"}, "DEMO"),
        ({"DEMO": "true", "DATABASE_URL": "mysql://x/y"}, "DATABASE_URL"),
        ({"DEMO": "true", "DATABASE_URL": "nonsense"}, "DATABASE_URL"),
        ({"DEMO": "true", "TRUSTED_PROXIES": "10.0.0.300"}, "TRUSTED_PROXIES"),
        ({"DEMO": "true", "LOG_LEVEL": "LOUD"}, "LOG_LEVEL"),
    ],
)
def test_a_bad_environment_stops_the_start_and_names_the_variable(env: dict[str, str], text: str) -> None:
    code, said = start(**env)

    assert code != 0 and text in said


def test_production_starts_with_a_secret_and_its_hosts() -> None:
    url = "postgres://u:p@db/x"

    assert start(SECRET_KEY=SECRET, ALLOWED_HOSTS="x.org", DATABASE_URL=url) == (
        0,
        "django.db.backends.postgresql False\n",
    )


@pytest.mark.django_db
def test_production_refuses_a_database_with_the_demo_space(space: Space, settings: Any) -> None:
    Space.objects.update(is_demo=True)
    refuse_published_passwords()

    settings.DEMO = False
    with pytest.raises(ImproperlyConfigured, match="published"):
        refuse_published_passwords()


@pytest.mark.django_db
def test_production_starts_on_a_database_of_its_own(space: Space, settings: Any) -> None:
    settings.DEMO = False

    refuse_published_passwords()


@pytest.fixture
def production() -> dict[str, str]:
    keys = {"SECRET_KEY": SECRET, "CREDENTIAL_KEYS": Fernet.generate_key().decode()}
    return keys | {"DEMO": "false", "ALLOWED_HOSTS": "127.0.0.1", "DATABASE_URL": database_url()}


@pytest.mark.django_db(transaction=True)
def test_the_production_server_starts_on_its_own_database_and_not_on_the_demos(
    space: Space, production: dict[str, str]
) -> None:
    port = free_port()
    served = [sys.executable, "-m", "spacemanage.serve", "--port", str(port)]
    process = Process(*served, env=production)
    wait_for(lambda: requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200)
    process.stop()

    Space.objects.update(is_demo=True)
    done = subprocess.run(
        # Shorter than the 30 s for which the supervisor waits for a silent worker: it notices a dead one before.
        served,
        cwd=ROOT,
        env=os.environ | production,
        capture_output=True,
        text=True,
        check=False,
        timeout=25,
    )

    assert done.returncode == 3 and "whose passwords are published" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "99999"], "99999 is not a port: give a number from 1 to 65535"),
        (["--workers", "0"], "0 is not a number of workers"),
        (["--grace-s", "-1"], "-1 is not a number of seconds"),
        (["--host", "192.0.2.1"], "Cannot assign"),
    ],
)
def test_an_invalid_option_is_reported_without_a_traceback(options: list[str], said: str) -> None:
    served = [sys.executable, "-m", "spacemanage.serve", *options]
    done = subprocess.run(served, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.django_db
def test_readyz_answers_503_when_migrations_are_missing(client: Client) -> None:
    assert client.get("/readyz").content == b"ready\n"
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'quotas' AND name = '0008_charge_set'")

    response = client.get("/readyz")

    assert (response.status_code, response.content) == (503, b"1 migrations not applied\n")


def test_healthz_needs_no_database(client: Client) -> None:
    assert client.get("/healthz").content == b"ok\n"


@pytest.mark.django_db
def test_every_response_has_the_strict_content_security_policy(client: Client) -> None:
    for path in ("/login/", "/nope", "/healthz"):
        policy = client.get(path)["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
