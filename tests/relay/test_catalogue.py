from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.test import Client
from django.utils import timezone

from accounts.models import User
from relay.models import Model, Price, PriceStarted, Upstream, validate_base_url
from relay.prices import MAX_PRICE_NANOS, PRICES, PriceList, Rate

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CHEAP, DEAR = PriceList(Rate(input=1_000_000_000)), PriceList(Rate(input=5_000_000_000))
SECRET = "sk-upstream-5f2c"


@pytest.fixture
def model() -> Model:
    return Model.objects.create(name="gpt-4o")


@pytest.fixture
def upstream(model: Model) -> Upstream:
    upstream = Upstream(name="east", base_url="https://east.example/v1")
    upstream.seal(SECRET)
    upstream.save()
    upstream.models.add(model)
    return upstream


@pytest.fixture
def signed_in(client: Client, operator: User) -> Client:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    return client


def run(name: str, *args: str) -> str:
    out = io.StringIO()
    call_command(name, *args, stdout=out, stderr=out)
    return out.getvalue()


def prices_of(model: Model) -> list[PriceList]:
    return [price.price_list for price in model.prices.order_by("starts_at")]


def plain(**prices: int) -> PriceList:
    return PriceList(Rate(**prices))


# -- Prices -------------------------------------------------------------------------------------------------------


def test_the_price_that_started_last_is_in_force(model: Model) -> None:
    other = Model.objects.create(name="other")
    first = Price.objects.create(model=model, starts_at=NOW, input=1)
    second = Price.objects.create(model=model, starts_at=NOW + HOUR, input=2)
    theirs = Price.objects.create(model=other, starts_at=NOW - HOUR, input=3)

    assert model.price_at(NOW - HOUR) is None
    assert model.price_at(NOW) == model.price_at(NOW + HOUR - timedelta(microseconds=1)) == first
    assert model.price_at(NOW + HOUR) == second
    assert set(Price.objects.in_force(NOW - HOUR)) == {theirs}
    assert set(Price.objects.in_force(NOW)) == {first, theirs}
    assert set(Price.objects.in_force(NOW + 9 * HOUR)) == {second, theirs}


def test_the_same_price_again_writes_nothing(model: Model) -> None:
    assert model.set_price(CHEAP, NOW)
    assert not model.set_price(CHEAP, NOW + HOUR)

    assert prices_of(model) == [CHEAP]


def test_a_price_in_force_is_not_changed_and_a_future_price_is_replaced(model: Model) -> None:
    started, to_come = timezone.now() - HOUR, timezone.now() + HOUR
    model.set_price(CHEAP, started)

    for moment in (started, started - HOUR):
        with pytest.raises(PriceStarted):
            model.set_price(DEAR, moment)
    model.set_price(DEAR, to_come)
    model.set_price(plain(output=7), to_come)

    assert prices_of(model) == [CHEAP, plain(output=7)]


@pytest.mark.parametrize("figure", [-1, MAX_PRICE_NANOS + 1])
@pytest.mark.parametrize("name", PRICES)
def test_the_database_refuses_prices_out_of_range(model: Model, name: str, figure: int) -> None:
    with pytest.raises(IntegrityError):
        Price.objects.create(model=model, **{name: figure})


@pytest.mark.parametrize(
    "fields",
    [{"default_output_tokens": 0}, {"default_output_tokens": 5000, "max_output_tokens": 4999}]
    + [{"context_tokens": 0}, {"task_timeout_s": 0}, {"image_nanos_ceiling": -1}, {"audio_minute_nanos_ceiling": -1}],
)
def test_the_database_refuses_invalid_model_limits(fields: dict[str, int]) -> None:
    with pytest.raises(IntegrityError):
        Model.objects.create(name="gpt-4o", **fields)


# -- Upstreams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["https://api.example.com/v1", "http://127.0.0.1:9000/v1", "http://[::1]:80", "https://example.com/a/b/"],
)
def test_a_base_url_with_scheme_and_host_is_accepted(url: str) -> None:
    validate_base_url(url)


@pytest.mark.parametrize(
    "url",
    ["", "api.example.com", "ftp://example.com", "file:///etc/passwd", "//example.com", "https://", "https:///v1"]
    + ["https://user:pw@example.com", "https://token@example.com", "https://example.com?key=1", "https://example.com#a"]
    + ["https://exa mple.com", "https://example.com/\r\nHost: x", "https://example.com/\t", "https://example.com:0"]
    + ["https://example.com:99999", "https://example.com:x", "http://[::1", "https://bücher.example", "https:\\\\a.b"],
)
@pytest.mark.any_database
def test_an_invalid_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        validate_base_url(url)


@pytest.mark.parametrize("fields", [{"weight": 0}, {"timeout_s": 0}])
def test_the_database_refuses_an_upstream_without_weight_or_timeout(fields: dict[str, int]) -> None:
    with pytest.raises(IntegrityError):
        Upstream.objects.create(name="east", base_url="https://east.example", **fields)


def test_a_credential_is_stored_encrypted(upstream: Upstream) -> None:
    upstream.refresh_from_db()

    assert upstream.has_credential and upstream.unseal() == SECRET
    assert SECRET not in upstream.credential


def test_unseal_needs_the_encryption_key_unless_there_is_no_credential(settings: Any, upstream: Upstream) -> None:
    settings.CREDENTIAL_KEYS = []

    assert Upstream(name="west").unseal() == ""
    with pytest.raises(ImproperlyConfigured):
        upstream.unseal()


# -- set_price ----------------------------------------------------------------------------------------------------

GPT_4O = ["--model=gpt-4o", "--input=2.50", "--cached-input=1.25", "--output=10.00"]


def test_set_price_adds_a_model_with_its_price_from_now() -> None:
    out = run("set_price", *GPT_4O, "--max-output-tokens=1024", "--context-tokens=64000", "--per-second=0.000000001")

    model = Model.objects.get()
    assert (model.name, model.max_output_tokens, model.default_output_tokens) == ("gpt-4o", 1024, 1024)
    assert model.context_tokens == 64_000
    price = model.price_at(timezone.now())
    assert price.rate == Rate(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000, per_second=1)
    assert out.startswith("gpt-4o: input $2.50, cached input $1.25, output $10.00")


def test_set_price_again_changes_nothing_and_another_price_follows_the_first(model: Model) -> None:
    for _ in range(2):
        run("set_price", "--model=gpt-4o", "--input=1")
    run("set_price", "--model=gpt-4o", "--input=2", "--output=3")

    assert prices_of(model) == [
        plain(input=10**9, cached_input=10**9),
        plain(input=2 * 10**9, cached_input=2 * 10**9, output=3 * 10**9),
    ]


def test_set_price_from_a_date_leaves_todays_price(model: Model) -> None:
    model.set_price(CHEAP, timezone.now() - HOUR)

    out = run("set_price", "--model=gpt-4o", "--input=9", "--from=2999-01-31")

    assert "from 2999-01-31 00:00 UTC" in out
    assert model.price_at(timezone.now()).price_list == CHEAP
    assert model.price_at(datetime(2999, 1, 31, tzinfo=UTC)).rate.input == 9 * 10**9


def test_set_price_without_a_price_changes_only_the_limits(model: Model) -> None:
    model.set_price(CHEAP, NOW - HOUR)

    run("set_price", "--model=gpt-4o", "--max-output-tokens=16384")

    model.refresh_from_db()
    assert (model.max_output_tokens, model.default_output_tokens) == (16384, 4096)
    assert prices_of(model) == [CHEAP]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "--input, --output"),
        (["--input=-1"], "--input: negative"),
        (["--input=1e3"], "--input: not a number"),
        (["--output=0.0000000001"], "--output: too fine"),
        (["--cached-input=1000001"], "--cached-input: at most"),
        (["--per-request=x"], "--per-request: not a number"),
        (["--input=1", "--max-output-tokens=0"], "--max-output-tokens: "),
        (["--input=1", "--max-output-tokens=x"], "--max-output-tokens"),
        (["--input=1", "--context-tokens=-5"], "--context-tokens: "),
        (["--input=1", "--default-output-tokens=9", "--max-output-tokens=8"], "--default-output-tokens: "),
        (["--input=1", "--from=tomorrow"], "--from: give a date"),
        (["--input=1", "--from=0001-01-01T00:00+05:00"], "--from: give a date"),
        (["--input=1", "--model=a b"], "--model: "),
        (["--input=1", "--model="], "--model: "),
        (["--input=1", f"--model={'x' * 101}"], "--model: "),
    ],
)
@pytest.mark.any_database
def test_set_price_names_the_invalid_option_and_writes_nothing(args: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        run("set_price", "--model=gpt-4o", *args)

    assert not Model.objects.exists()


def test_set_price_does_not_change_a_price_that_requests_were_charged_at(model: Model) -> None:
    model.set_price(CHEAP, timezone.now() - HOUR)

    with pytest.raises(CommandError, match="--from: a later price is in force"):
        run("set_price", "--model=gpt-4o", "--input=9", "--max-output-tokens=7", "--from=2020-01-01")

    model.refresh_from_db()
    assert prices_of(model) == [CHEAP] and model.max_output_tokens == 128_000


# -- add_upstream -------------------------------------------------------------------------------------------------

EAST = ["--name=east", "--base-url=https://east.example/v1", "--models=gpt-4o, new-one"]


def add(monkeypatch: Any, *args: str, stdin: str = f"{SECRET}\n") -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    return run("add_upstream", *args)


def test_add_upstream_stores_the_credential_and_never_prints_it(monkeypatch: Any, model: Model) -> None:
    model.set_price(CHEAP, NOW - HOUR)

    out = add(monkeypatch, *EAST, "--credential-stdin", "--priority=2", "--weight=3", "--timeout=30")

    upstream = Upstream.objects.get()
    assert (upstream.name, upstream.base_url, upstream.unseal()) == ("east", "https://east.example/v1", SECRET)
    assert (upstream.priority, upstream.weight, upstream.timeout_s) == (2, 3, 30)
    assert [served.name for served in upstream.models.all()] == ["gpt-4o", "new-one"]
    assert SECRET not in out and "credential set" in out
    assert "new-one has no price" in out and "gpt-4o has no price" not in out


def test_add_upstream_again_changes_only_the_given_options(monkeypatch: Any, upstream: Upstream) -> None:
    add(monkeypatch, "--name=east", "--models=other", "--weight=5")

    upstream.refresh_from_db()
    assert (upstream.base_url, upstream.weight, upstream.unseal()) == ("https://east.example/v1", 5, SECRET)
    assert [served.name for served in upstream.models.all()] == ["other"]

    add(monkeypatch, "--name=east", "--credential-stdin", stdin="sk-rotated\n")

    upstream.refresh_from_db()
    assert upstream.unseal() == "sk-rotated" and [served.name for served in upstream.models.all()] == ["other"]


@pytest.mark.parametrize(
    ("args", "stdin", "text"),
    [
        (["--name=east", "--models=a"], "", "--base-url: required for a new upstream"),
        (["--name=east", "--base-url=https://a.b"], "", "--models: required for a new upstream"),
        ([*EAST, "--base-url=https://u:p@a.b"], "", "--base-url: Leave the credential out"),
        ([*EAST, "--base-url=a.b"], "", "--base-url: "),
        ([*EAST, "--name=a b"], "", "--name: "),
        ([*EAST, "--models=,"], "", "--models: name at least one"),
        ([*EAST, "--models=a b"], "", "--models: "),
        ([*EAST, "--weight=0"], "", "--weight: "),
        ([*EAST, "--priority=-1"], "", "--priority: "),
        ([*EAST, "--timeout=0"], "", "--timeout: "),
        ([*EAST, "--credential-stdin"], "", "--credential-stdin: Enter a credential"),
        ([*EAST, "--credential-stdin"], "sk a\n", "--credential-stdin: Use only visible"),
    ],
)
@pytest.mark.any_database
def test_add_upstream_names_the_invalid_option_and_writes_nothing(
    monkeypatch: Any, args: list[str], stdin: str, text: str
) -> None:
    with pytest.raises(CommandError, match=text) as error:
        add(monkeypatch, *args, stdin=stdin)

    assert not Upstream.objects.exists() and not Model.objects.exists()
    assert "sk a" not in str(error.value)


def test_add_upstream_without_an_encryption_key_fails_and_writes_nothing(monkeypatch: Any, settings: Any) -> None:
    settings.CREDENTIAL_KEYS = []

    with pytest.raises(CommandError, match="CREDENTIAL_KEYS is not set"):
        add(monkeypatch, *EAST, "--credential-stdin")

    assert not Upstream.objects.exists()


# -- import_prices ------------------------------------------------------------------------------------------------


def test_import_prices_shows_what_would_change_and_writes_nothing(model: Model) -> None:
    model.set_price(CHEAP, NOW - HOUR)

    out = run("import_prices", "--models=gpt-4o,gpt-4o-mini").splitlines()

    assert out[0].startswith("gpt-4o: input $1.00 → input $2.50, cached input $1.25, output $10.00, per search $0.01; ")
    assert out[1].startswith("gpt-4o-mini: new → input $0.15, cached input $0.075, output $0.60, per search $0.01; ")
    assert out[2] == "2 to write: repeat with --apply, 0 unchanged."
    assert prices_of(model) == [CHEAP] and Model.objects.count() == 1


def test_import_prices_is_idempotent_and_keeps_prices_that_the_list_does_not_have(model: Model) -> None:
    model.set_price(plain(per_image=7), NOW - HOUR)

    assert "2 written" in run("import_prices", "--models=gpt-4o,gpt-4", "--apply")
    assert "0 written, 2 unchanged." in run("import_prices", "--models=gpt-4o,gpt-4", "--apply")

    now = timezone.now()
    assert model.price_at(now).rate == Rate(
        input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000, per_image=7, per_search=10_000_000
    )
    other = Model.objects.get(name="gpt-4")
    assert other.context_tokens == other.max_output_tokens == 8192
    assert other.price_at(now).rate == Rate(input=30_000_000_000, cached_input=30_000_000_000, output=60_000_000_000)


def test_import_prices_imports_supported_models_and_names_those_left_out() -> None:
    out = run("import_prices", "--apply") + run("import_prices", "--provider=mistral", "--apply")

    assert "left out, it also has a price for input_document_kpages" in out
    assert Model.objects.filter(name="gpt-4o").exists() and not Model.objects.filter(name__contains="ocr").exists()
    assert Price.objects.in_force(timezone.now()).count() == Model.objects.count() > 100


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--provider=nobody"], "--provider: one of .*openai"),
        (["--models=gpt-4o,no-such"], "--models: openai lists no no-such"),
        (["--models=,"], "--models: name at least one"),
    ],
)
def test_import_prices_names_the_invalid_option_and_writes_nothing(args: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        run("import_prices", "--apply", *args)

    assert not Model.objects.exists()


# -- Django admin -------------------------------------------------------------------------------------------------

MODEL = {
    "name": "gpt-4o",
    "is_enabled": "on",
    "default_output_tokens": "1000",
    "max_output_tokens": "2000",
    "context_tokens": "128000",
    "image_nanos_ceiling": "0.05",
    "audio_minute_nanos_ceiling": "0.10",
    "task_timeout_s": "600",
}
NO_PRICES = {
    "prices-TOTAL_FORMS": "0",
    "prices-INITIAL_FORMS": "0",
    "prices-MIN_NUM_FORMS": "0",
    "prices-MAX_NUM_FORMS": "0",
}
UPSTREAM = {
    "name": "east",
    "base_url": "https://east.example/v1",
    "priority": "0",
    "weight": "1",
    "timeout_s": "60",
    "is_enabled": "on",
}


def test_an_operator_adds_a_model_with_its_first_price(signed_in: Client) -> None:
    response = signed_in.post("/admin/relay/model/add/", MODEL | NO_PRICES | {"input": "2.50", "output": "10"})

    assert response.status_code == 302
    model = Model.objects.get()
    assert (model.max_output_tokens, model.image_nanos_ceiling) == (2000, 50_000_000)
    assert model.price_at(timezone.now()).rate == Rate(
        input=2_500_000_000, cached_input=2_500_000_000, output=10_000_000_000
    )


def test_an_operator_reads_prices_and_sets_the_next(signed_in: Client, model: Model) -> None:
    model.set_price(CHEAP, timezone.now() - HOUR)
    address = f"/admin/relay/model/{model.pk}/change/"

    page = signed_in.get(address).content.decode()
    later = {"input": "7", "starts_at_0": "2999-01-31", "starts_at_1": "12:00"}
    response = signed_in.post(address, MODEL | NO_PRICES | later)

    assert "input $1.00" in page and 'value="0.05"' in page
    assert response.status_code == 302
    assert prices_of(model) == [CHEAP, plain(input=7 * 10**9, cached_input=7 * 10**9)]
    assert model.prices.latest("starts_at").starts_at == datetime(2999, 1, 31, 12, tzinfo=UTC)
    assert "input $1.00" in signed_in.get("/admin/relay/model/").content.decode()


def test_a_model_saved_without_a_price_keeps_it_and_its_history_says_what_changed(
    signed_in: Client, model: Model
) -> None:
    model.set_price(CHEAP, timezone.now() - HOUR)

    signed_in.post(f"/admin/relay/model/{model.pk}/change/", MODEL | NO_PRICES)

    assert prices_of(model) == [CHEAP]
    changed = json.loads(LogEntry.objects.get().change_message)[0]["changed"]["fields"]
    assert "Max output tokens" in changed and "An image costs at most (USD)" not in changed


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("name", {"name": "a b"}),
        ("input", {"input": "-1"}),
        ("output", {"output": "1000001"}),
        ("max_output_tokens", {"max_output_tokens": "0"}),
        ("image_nanos_ceiling", {"image_nanos_ceiling": "1e3"}),
        ("starts_at", {"starts_at_0": "2999-01-31", "starts_at_1": "12:00"}),
        ("starts_at", {"input": "1", "starts_at_0": "2020-01-31", "starts_at_1": "12:00"}),
        ("__all__", {"default_output_tokens": "2001"}),
    ],
)
def test_an_invalid_model_form_writes_nothing(signed_in: Client, field: str, data: dict[str, str]) -> None:
    response = signed_in.post("/admin/relay/model/add/", MODEL | NO_PRICES | data)

    assert response.status_code == 200 and response.context["adminform"].form.errors[field]
    assert not Model.objects.exists()


def test_a_model_and_its_prices_cannot_be_deleted(signed_in: Client, model: Model) -> None:
    assert signed_in.post(f"/admin/relay/model/{model.pk}/delete/", {"post": "yes"}).status_code == 403

    assert Model.objects.get() == model


def test_an_operator_sets_a_credential_and_no_page_shows_it(signed_in: Client, model: Model) -> None:
    given = UPSTREAM | {"models": [str(model.pk)], "new_credential": SECRET}
    assert signed_in.post("/admin/relay/upstream/add/", given).status_code == 302

    upstream = Upstream.objects.get()
    assert upstream.unseal() == SECRET and list(upstream.models.all()) == [model]
    change = f"/admin/relay/upstream/{upstream.pk}/change/"
    history = f"/admin/relay/upstream/{upstream.pk}/history/"
    for address in ("/admin/relay/upstream/", change, history):
        page = signed_in.get(address).content.decode()
        assert "east" in page and SECRET not in page and upstream.credential not in page
    assert ">set<" in signed_in.get("/admin/relay/upstream/").content.decode()
    assert SECRET not in str(list(LogEntry.objects.values()))


def test_a_credential_field_left_blank_keeps_the_credential(signed_in: Client, upstream: Upstream) -> None:
    given = UPSTREAM | {"new_credential": "", "weight": "4"}
    response = signed_in.post(f"/admin/relay/upstream/{upstream.pk}/change/", given)

    upstream.refresh_from_db()
    assert response.status_code == 302 and (upstream.weight, upstream.unseal()) == (4, SECRET)


def test_a_new_base_url_needs_the_credential_entered_again(signed_in: Client, upstream: Upstream) -> None:
    address = f"/admin/relay/upstream/{upstream.pk}/change/"
    moved = UPSTREAM | {"base_url": "https://mine.example/v1"}

    response = signed_in.post(address, moved | {"new_credential": ""})

    assert response.status_code == 200 and response.context["adminform"].form.errors["new_credential"]
    upstream.refresh_from_db()
    assert upstream.base_url == "https://east.example/v1"
    assert signed_in.post(address, moved | {"new_credential": "sk-mine"}).status_code == 302
    upstream.refresh_from_db()
    assert (upstream.base_url, upstream.unseal()) == ("https://mine.example/v1", "sk-mine")


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("base_url", {"base_url": "https://u:p@east.example"}),
        ("weight", {"weight": "0"}),
        ("new_credential", {"new_credential": "sk a"}),
    ],
)
def test_an_invalid_upstream_form_writes_nothing(signed_in: Client, field: str, data: dict[str, str]) -> None:
    response = signed_in.post("/admin/relay/upstream/add/", UPSTREAM | data)

    assert response.status_code == 200 and response.context["adminform"].form.errors[field]
    assert not Upstream.objects.exists()


def test_without_an_encryption_key_the_form_reports_it_and_writes_nothing(signed_in: Client, settings: Any) -> None:
    settings.CREDENTIAL_KEYS = []

    response = signed_in.post("/admin/relay/upstream/add/", UPSTREAM | {"new_credential": SECRET})

    assert "CREDENTIAL_KEYS is not set" in str(response.context["adminform"].form.errors["new_credential"])
    assert not Upstream.objects.exists() and SECRET not in response.content.decode()


@pytest.mark.parametrize("address", ["/admin/relay/model/", "/admin/relay/upstream/", "/admin/relay/upstream/add/"])
def test_a_space_manager_cannot_open_models_or_upstreams(client: Client, manager: User, address: str) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")

    assert client.get(address).status_code == 403
