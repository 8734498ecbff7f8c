"""Kinds, names, headers, query, settings and proxy of upstreams: by command and in Django admin."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import User
from audit.models import AuditEvent
from operators.pairs import KEPT
from relay.catalogue import target_of
from relay.models import Model, Upstream
from relay.profiles import KINDS

pytestmark = pytest.mark.django_db

SECRET = "sk-upstream-5f2c"
HEADER_SECRET = "team-token-77aa"
EAST = ["--name=east", "--base-url=https://east.example/v1", "--models=gpt-4o"]


def add(*args: str) -> str:
    out = io.StringIO()
    call_command("add_upstream", *args, stdout=out, stderr=out)
    return out.getvalue()


def recorded() -> str:
    return str([(event.before, event.after) for event in AuditEvent.objects.all()])


# -- add_upstream -------------------------------------------------------------------------------------------------


def test_every_option_reaches_the_target() -> None:
    shown = add(
        *EAST,
        "--kind=azure",
        "--models=gpt-4o=my-dep,@cf/meta/llama,/data/models/x=x",
        f"--header=X-Team: {HEADER_SECRET}",
        "--header=HTTP-Referer: https://spaces.example/a?b=c",
        "--query=api-version=2024-10-21",
        "--set=limit_field=max_tokens",
        "--set=retries=2",
        "--proxy=http://user:p%40ss@proxy.example:3128/",
    )

    upstream = Upstream.objects.get()
    target = target_of(upstream)
    assert target is not None
    assert target.headers == (("HTTP-Referer", "https://spaces.example/a?b=c"), ("X-Team", HEADER_SECRET))
    assert (target.query, target.proxy) == ((("api-version", "2024-10-21"),), "http://user:p%40ss@proxy.example:3128")
    assert target.models == {"gpt-4o": "my-dep", "/data/models/x": "x"}
    profile = target.profile
    assert (profile.kind, profile.auth, profile.limit_field, profile.retries) == ("azure", "api-key", "max_tokens", 2)
    assert {model.name for model in upstream.models.all()} == {"gpt-4o", "@cf/meta/llama", "/data/models/x"}
    # In clear nowhere.
    stored = str(list(Upstream.objects.values()))
    for secret in (HEADER_SECRET, "p%40ss"):
        assert secret not in stored + shown + recorded() + repr(target)
    assert "gpt-4o (there my-dep)" in shown


def test_options_change_single_entries_and_empty_values_remove_them() -> None:
    add(
        *EAST, "--header=X-A: 1", "--header=X-B: 2", "--query=a=1", "--query=b=2", "--set=retries=2", "--proxy=http://p"
    )

    add("--name=east", "--header=x-a: 3", "--header=X-B:", "--query=a=", "--set=retries=", "--proxy=")

    upstream = Upstream.objects.get()
    assert upstream.unseal_headers() == (("x-a", "3"),)
    assert (upstream.query, upstream.settings, upstream.proxy, upstream.kind) == ({"b": "2"}, {}, "", "openai")


def test_models_given_again_replace_names_and_models() -> None:
    add(*EAST[:2], "--models=a=x,b=y")
    add("--name=east", "--models=b,c=z")

    upstream = Upstream.objects.get()
    assert upstream.model_names == {"c": "z"}
    assert [model.name for model in upstream.models.all()] == ["b", "c"]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--kind=acme"], "--kind: One of openai, azure"),
        (["--set=limit_field=n_predict"], "--set: limit_field: one of max_completion_tokens, max_tokens, both, none"),
        (["--set=limits=1"], "--set: limits: there is no such setting; one of auth"),
        (["--set=retries"], "--set: Write a name, “=” and a value."),
        (["--header=X-A 1"], "--header: Write a name, “:” and a value."),
        (["--header=X-A: b\r\nX-Evil: 1"], "--header: Header X-A: use only visible"),
        (["--header=X A: b"], "--header: “X A” is not the name of a header."),
        (["--header=Host: b"], "--header: The header Host cannot be set."),
        (["--header=Content-Length: 3"], "--header: The header Content-Length cannot be set."),
        (["--header=Authorization: Bearer x"], "--header: Authorization carries the credential"),
        (["--header=X-A: ü"], "--header: Header X-A: use only visible"),
        ([f"--header=X-{n}: 1" for n in range(21)], "headers: Give at most 20."),
        (["--query=key=abc"], "--query: key looks like a credential"),
        (["--query=x=sk-abcdefghijklmnop"], "--query: x looks like a credential"),
        (["--query=x=a\r\nb"], "--query: Use only visible"),
        (["--proxy=socks5://p"], "--proxy: Enter an http:// address"),
        (["--proxy=https://p"], "--proxy: Enter an http:// address"),
        (["--proxy=http://p/x"], "--proxy: Leave out everything after the proxy's port."),
        (["--proxy=http://p\r\nx: y"], "--proxy: Enter an http:// address"),
        (["--models=a=b c"], "--models: a: the upstream's name is not valid"),
        (["--models=a="], "--models: write PUBLIC=THERE"),
        (["--models=a b=c"], "--models: Use only the letters"),
    ],
)
@pytest.mark.any_database
def test_the_option_that_is_not_valid_is_named_and_nothing_is_written(args: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=re.escape(text)):
        add(*EAST, *args)

    assert not Upstream.objects.exists() and not Model.objects.exists()


def test_an_upstream_whose_headers_cannot_be_decrypted_is_left_out(settings: Any) -> None:
    add(*EAST, "--header=X-A: 1")
    settings.CREDENTIAL_KEYS = []

    with pytest.raises(ImproperlyConfigured):
        Upstream.objects.get().unseal_headers()
    assert target_of(Upstream.objects.get()) is None


def test_an_upstream_of_before_is_of_kind_openai() -> None:
    target = target_of(Upstream.objects.create(name="old", base_url="https://old.example/v1"))

    assert target is not None and target.profile == KINDS["openai"]


# -- Django admin -------------------------------------------------------------------------------------------------

FORM = {
    "name": "east",
    "kind": "azure",
    "base_url": "https://east.example",
    "priority": "0",
    "weight": "1",
    "timeout_s": "60",
    "is_enabled": "on",
    "model_names": "gpt-4o=my-dep\r\n",
    "new_headers": f"X-Team: {HEADER_SECRET}\r\nX-B: 2",
    "query": "api-version=2024-10-21",
    "settings": "limit_field=max_tokens\r\nretries=1",
    "new_proxy": "http://user:hunter22@proxy.example:3128",
    "new_credential": SECRET,
}


@pytest.fixture
def signed_in(client: Client, operator: User) -> Client:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    return client


@pytest.fixture
def upstream(signed_in: Client) -> Upstream:
    response = signed_in.post("/admin/relay/upstream/add/", FORM)
    assert response.status_code == 302, response.context["adminform"].form.errors
    return Upstream.objects.get()


def address(upstream: Upstream) -> str:
    return f"/admin/relay/upstream/{upstream.pk}/change/"


def shown_form(client: Client, upstream: Upstream) -> dict[str, Any]:
    """What the page would post if nothing is changed on it."""
    form = client.get(address(upstream)).context["adminform"].form
    values = {name: form[name].value() for name in FORM if name not in ("is_enabled", "new_credential")}
    return values | {"is_enabled": "on", "new_credential": ""}


def test_an_operator_sets_everything_and_no_page_or_trail_shows_a_secret(signed_in: Client, upstream: Upstream) -> None:
    target = target_of(upstream)
    assert target is not None
    assert target.headers == (("X-B", "2"), ("X-Team", HEADER_SECRET))
    assert (target.proxy, target.profile.kind) == ("http://user:hunter22@proxy.example:3128", "azure")
    assert (target.models, target.profile.retries) == ({"gpt-4o": "my-dep"}, 1)
    page = signed_in.get(address(upstream)).text + signed_in.get("/admin/relay/upstream/").text
    trail = recorded() + str(list(LogEntry.objects.values()))
    assert f"X-Team: {KEPT}" in page and f"http://{KEPT}@proxy.example:3128" in page
    for secret in (SECRET, HEADER_SECRET, "hunter22", *upstream.headers.values()):
        assert secret not in page + trail


def test_a_page_saved_unchanged_keeps_everything_and_records_nothing(signed_in: Client, upstream: Upstream) -> None:
    before, events = Upstream.objects.values().get(), AuditEvent.objects.count()

    assert signed_in.post(address(upstream), shown_form(signed_in, upstream)).status_code == 302

    assert Upstream.objects.values().get() == before and AuditEvent.objects.count() == events


def test_a_header_is_changed_and_another_removed(signed_in: Client, upstream: Upstream) -> None:
    signed_in.post(address(upstream), shown_form(signed_in, upstream) | {"new_headers": "X-Team: new-value"})

    upstream.refresh_from_db()
    assert upstream.unseal_headers() == (("X-Team", "new-value"),)
    event = AuditEvent.objects.latest("id")
    assert (event.before["headers"], event.after["headers"]) == (["X-B", "X-Team"], ["X-Team"])
    assert event.after["headers_entered"] == ["X-Team"] and "new-value" not in recorded()


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("new_headers", {"base_url": "https://mine.example", "new_credential": "sk-mine"}),
        ("new_credential", {"base_url": "https://mine.example", "new_headers": ""}),
        ("new_headers", {"base_url": "http://east.example", "new_credential": "sk-mine"}),
        ("new_proxy", {"new_proxy": f"http://{KEPT}@mine.example:3128"}),
    ],
)
def test_a_stored_secret_goes_to_no_other_address(
    signed_in: Client, upstream: Upstream, field: str, changes: dict[str, str]
) -> None:
    before = Upstream.objects.values().get()

    response = signed_in.post(address(upstream), shown_form(signed_in, upstream) | changes)

    assert response.status_code == 200 and response.context["adminform"].form.errors[field]
    assert Upstream.objects.values().get() == before


def test_a_proxy_that_could_read_secrets_needs_them_entered_again(signed_in: Client, upstream: Upstream) -> None:
    Upstream.objects.update(base_url="http://east.example")

    response = signed_in.post(
        address(upstream), shown_form(signed_in, upstream) | {"new_proxy": "http://mine.example:3128"}
    )

    assert set(response.context["adminform"].form.errors) == {"new_credential", "new_headers"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "acme"),
        ("settings", "limit_field=x"),
        ("settings", "retries"),
        ("query", "token=abc"),
        ("new_headers", "X-A: b\rX-Evil: 1\x00"),
        ("new_headers", f"X-New: {KEPT}"),
        ("new_headers", "Host: x"),
        ("new_proxy", "ftp://x"),
        ("model_names", "a=b c"),
        ("model_names", "a"),
    ],
)
def test_a_field_that_is_not_valid_is_named_and_nothing_is_written(signed_in: Client, field: str, value: str) -> None:
    response = signed_in.post("/admin/relay/upstream/add/", FORM | {field: value})

    assert response.status_code == 200 and response.context["adminform"].form.errors[field]
    assert not Upstream.objects.exists()
