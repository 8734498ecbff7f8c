from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import User
from core.ids import new_id
from quotas.charging import Call, hold, settle
from relay.models import CostPrice, Model, SpaceTerms, Upstream
from relay.prices import PRICES, PriceList, PriceRow, Rate
from tenants.models import Space

pytestmark = pytest.mark.django_db

USD = 10**9
ROWS = "above=200000 input=5\r\n\r\nservice_tier=fast factor=2"
PARSED_ROWS = (
    PriceRow({"input": 5 * USD}, above=200_000),
    PriceRow(when=(("service_tier", "priority"),), factor_millionths=2_000_000),
)
LIMITS = {
    "name": "gpt-4o",
    "is_enabled": "on",
    "default_output_tokens": "1000",
    "max_output_tokens": "2000",
    "context_tokens": "128000",
    "image_nanos_ceiling": "0.05",
    "audio_minute_nanos_ceiling": "0.10",
    "task_timeout_s": "600",
    **{f"prices-{name}": "0" for name in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS", "MAX_NUM_FORMS")},
}


@pytest.fixture
def signed_in(client: Client, operator: User) -> Client:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    return client


@pytest.fixture
def model() -> Model:
    return Model.objects.create(name="gpt-4o")


@pytest.fixture
def upstream() -> Upstream:
    return Upstream.objects.create(name="east", base_url="https://east.example/v1")


def errors(response: Any) -> dict[str, Any]:
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def test_an_operator_sets_every_price_with_its_rows_and_reads_them(signed_in: Client, model: Model) -> None:
    given = {name: str(number) for number, name in enumerate(PRICES, start=1)}
    address = f"/admin/relay/model/{model.pk}/change/"

    response = signed_in.post(address, LIMITS | given | {"rows": ROWS})

    assert response.status_code == 302
    price = model.price_at(timezone.now())
    assert price is not None
    base = Rate.of({name: number * USD for number, name in enumerate(PRICES, start=1)})
    assert price.price_list == PriceList(base, PARSED_ROWS)
    page = signed_in.get(address).content.decode()
    assert "above=200000 input=5.00" in page and "service_tier=priority factor=2" in page


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("rows", {"input": "1", "rows": "above=x input=5"}),
        ("rows", {"input": "1", "rows": "above=5 input=5\nabove=5 input=6"}),
        ("rows", {"input": "1", "rows": "above=200000 inputt=5"}),
        ("rows", {"rows": "above=5 input=5"}),
        ("per_search", {"per_search": "-1"}),
    ],
)
def test_a_price_that_cannot_be_is_refused_beside_its_field(
    signed_in: Client, model: Model, field: str, data: dict[str, str]
) -> None:
    assert field in errors(signed_in.post(f"/admin/relay/model/{model.pk}/change/", LIMITS | data))
    assert not model.has_price()


def test_an_operator_gives_a_space_a_factor_and_a_model_prices_of_its_own(
    signed_in: Client, model: Model, space: Space
) -> None:
    address = "/admin/relay/spaceterms/add/"
    assert signed_in.get(address).status_code == 200

    assert signed_in.post(address, {"space": space.pk, "factor": "1.2"}).status_code == 302
    own = dict.fromkeys(PRICES, "") | {"space": space.pk, "model": model.pk, "input": "5", "rows": ROWS}
    assert signed_in.post(address, own).status_code == 302

    everything, one = SpaceTerms.objects.order_by("pk")
    assert (everything.model, everything.factor_millionths) == (None, 1_200_000)
    assert (one.model, one.price_list.rows) == (model, PARSED_ROWS)
    page = signed_in.get("/admin/relay/spaceterms/").content.decode()
    assert "× 1.2" in page and "all models" in page
    assert "input $5.00" in signed_in.get(f"/admin/relay/spaceterms/{one.pk}/change/").content.decode()


@pytest.mark.parametrize(
    ("field", "data"),
    [
        ("factor", {}),
        ("factor", {"factor": "x"}),
        ("factor", {"factor": "1.2", "input": "5"}),
        ("model", {"input": "5"}),
        ("starts_at", {"factor": "2", "starts_at_0": "2020-01-31", "starts_at_1": "12:00"}),
    ],
)
def test_terms_that_cannot_be_are_refused_beside_their_field(
    signed_in: Client, space: Space, field: str, data: dict[str, str]
) -> None:
    assert field in errors(signed_in.post("/admin/relay/spaceterms/add/", {"space": space.pk} | data))
    assert not SpaceTerms.objects.exists()


def test_an_operator_enters_what_a_model_costs_at_an_upstream(
    signed_in: Client, model: Model, upstream: Upstream
) -> None:
    address, subject = "/admin/relay/costprice/add/", {"upstream": upstream.pk, "model": model.pk}

    assert "input" in errors(signed_in.post(address, subject))
    for _ in range(2):
        assert signed_in.post(address, subject | {"input": "4", "cached_input": "1"}).status_code == 302

    assert CostPrice.objects.get().price_list == PriceList(Rate(input=4 * USD, cached_input=USD))
    assert "cached input $1.00" in signed_in.get("/admin/relay/costprice/").content.decode()


def test_prices_of_the_past_cannot_be_changed_or_deleted(
    signed_in: Client, model: Model, upstream: Upstream, space: Space
) -> None:
    cost = CostPrice.objects.create(upstream=upstream, model=model, input=1)
    terms = SpaceTerms.objects.create(space=space, factor_millionths=1)

    for address in (f"costprice/{cost.pk}", f"spaceterms/{terms.pk}"):
        assert signed_in.post(f"/admin/relay/{address}/change/", {"input": "9"}).status_code == 403
        assert signed_in.post(f"/admin/relay/{address}/delete/", {"post": "yes"}).status_code == 403
    assert CostPrice.objects.get().input == 1 and SpaceTerms.objects.exists()


def test_a_space_manager_cannot_open_terms_or_cost_prices(client: Client, manager: User) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")

    for address in ("spaceterms", "costprice", "spaceterms/add", "costprice/add"):
        assert client.get(f"/admin/relay/{address}/").status_code == 403


def test_operators_see_the_margin_of_each_request_whose_cost_is_known(signed_in: Client, member: User) -> None:
    for cost, upstream_cost in ((USD, USD // 4), (USD, 2 * USD), (USD, None)):
        request_id, call = new_id(), Call(model="m", upstream_cost=upstream_cost)
        hold(request_id=request_id, user=member, amount_nanos=USD, call=call)
        assert member.space_id is not None
        settle(space_id=member.space_id, request_id=request_id, cost_nanos=cost, call=call)

    page = signed_in.get("/admin/usage/usagerecord/").content.decode()

    cells = [cell.split("</td>")[0] for cell in page.split('<td class="field-margin_usd">')[1:]]
    assert sorted(cells) == ["", "$0.75", "−$1.00"]


def test_a_new_model_begins_with_the_usual_ceilings(signed_in: Client) -> None:
    page = signed_in.get("/admin/relay/model/add/")

    form = page.context["adminform"].form
    assert [form[name].value() for name in ("image_nanos_ceiling", "audio_minute_nanos_ceiling")] == ["0.05", "0.10"]


def test_a_name_that_is_no_price_is_named_with_the_conditions_that_there_are(signed_in: Client, model: Model) -> None:
    given = LIMITS | {"input": "1", "rows": "above=200000 inputt=5"}

    (told,) = errors(signed_in.post(f"/admin/relay/model/{model.pk}/change/", given))["rows"]

    assert "inputt" in told and "did you mean input?" in told and "service_tier" in told
