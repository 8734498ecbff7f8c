"""Price lists in the database: their rows, a space's terms, cost prices, and the commands that set them."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from audit.models import AuditEvent
from relay.catalogue import read_offers
from relay.listed_prices import ListedModel
from relay.models import CostPrice, Model, Price, PriceStarted, SpaceTerms, Upstream
from relay.price_rows import MAX_ROWS, PriceError, format_row, parse_row, parse_rows, rows_of_json
from relay.prices import MAX_PRICE_NANOS, MILLION, PRICES, PriceList, PriceRow, Rate
from relay.services import set_cost_price, set_price, set_space_terms
from tenants.models import Space

pytestmark = pytest.mark.django_db

USD = 10**9
HOUR = timedelta(hours=1)
FLEX = (("service_tier", "flex"),)
CHEAP, DEAR = PriceList(Rate(input=USD)), PriceList(Rate(input=5 * USD))
WHOLE = PriceList(
    Rate.of({name: number for number, name in enumerate(PRICES, start=1)}),
    (
        PriceRow({"input": 7}, above=200_000, is_inclusive=True),
        PriceRow({"input": 9, "audio_input": 0}, when=FLEX, factor_millionths=500_000),
    ),
)


@pytest.fixture
def model() -> Model:
    model = Model.objects.create(name="gpt-4o")
    model.set_price(CHEAP, timezone.now() - HOUR)
    return model


@pytest.fixture
def upstream(model: Model) -> Upstream:
    upstream = Upstream.objects.create(name="east", base_url="https://east.example/v1")
    upstream.models.add(model)
    return upstream


def run(name: str, *args: str) -> str:
    out = io.StringIO()
    call_command(name, *args, stdout=out, stderr=out)
    return out.getvalue()


def price_now(name: str = "gpt-4o") -> PriceList:
    price = Model.objects.get(name=name).price_at(timezone.now())
    assert price is not None
    return price.price_list


# -- Rows as text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("above=200000 input=5.00 output=15", PriceRow({"input": 5 * USD, "output": 15 * USD}, above=200_000)),
        ("from=200000 cached-input=0.5", PriceRow({"cached_input": USD // 2}, above=200_000, is_inclusive=True)),
        ("service_tier=fast input=5", PriceRow({"input": 5 * USD}, when=(("service_tier", "priority"),))),
        ("speed=fast factor=1.1", PriceRow(when=(("speed", "fast"),), factor_millionths=1_100_000)),
        (
            "size=1792x1024 quality=hd per-image=0.12",
            PriceRow({"per_image": USD * 12 // 100}, when=(("quality", "hd"), ("size", "1792x1024"))),
        ),
    ],
)
def test_a_row_is_read_from_its_text(text: str, row: PriceRow) -> None:
    assert parse_row(text) == row


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "give it a price or a factor"),
        ("input=5", "give a condition"),
        ("above=5", "above=5: give it a price or a factor"),
        ("above input=5", "above: write name=value"),
        ("above=x input=5", "above: give a number"),
        ("above=9999999999 input=5", "above: at most 1,000,000,000 tokens"),
        ("above=1 from=2 input=5", "not both"),
        ("above=1 above=2 input=5", "above: given twice"),
        ("above=1 input=-5", "input: negative"),
        ("above=1 input=1000001", "input: at most"),
        ("above=1 factor=1e3", "factor: give a factor"),
        ("above=1 factor=1001", "factor: at most 1000"),
        ("Tier=x input=5", "Tier: not the name"),
        (
            "tier=priority input=5",
            "tier: not the name of a price or of a condition.*service_tier, speed",
        ),
        ("above=200000 inputt=5", r"inputt: not the name of a price.*\(did you mean input\?\)"),
        ("above=200000 input=5 max=6", "max: not the name of a price"),
        ("size=é input=5", "size: é is not a value"),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(PriceError, match=why):
        parse_row(text)


def test_rows_with_the_same_conditions_or_too_many_are_refused() -> None:
    with pytest.raises(PriceError, match="service_tier=priority: given twice"):
        parse_rows(["service_tier=priority input=1", "service_tier=fast input=2"])
    with pytest.raises(PriceError, match="at most 100 rows"):
        parse_rows([f"above={number} input=1" for number in range(MAX_ROWS + 1)])


@given(
    st.builds(
        PriceRow,
        prices=st.dictionaries(st.sampled_from(PRICES), st.integers(0, MAX_PRICE_NANOS), min_size=1),
        when=st.dictionaries(st.sampled_from(["size", "speed"]), st.sampled_from(["a", "9x9"])).map(
            lambda when: tuple(sorted(when.items()))
        ),
        above=st.integers(0, 10**9),
        is_inclusive=st.booleans(),
        factor_millionths=st.integers(0, 1000 * MILLION),
    )
)
def test_the_text_of_a_row_gives_it_back(row: PriceRow) -> None:
    assert parse_row(format_row(row)) == row
    assert rows_of_json([row.to_json()]) == (row,)


@pytest.mark.parametrize(
    "rows",
    [
        {"above": 5},
        [5],
        [{"prices": {"input": 5}}],
        [PriceRow({"input": 5}, above=1).to_json() | {"more": 1}],
        [PriceRow({"input": -5}, above=1).to_json()],
        [PriceRow({"input": MAX_PRICE_NANOS + 1}, above=1).to_json()],
        [PriceRow({"input": 5}, above=-1).to_json()],
        [PriceRow({"input": 5}, above=1).to_json()] * 2,
    ],
)
def test_rows_that_no_row_makes_are_not_valid(model: Model, rows: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        Price(model=model, rows=rows).full_clean()

    assert list(refused.value.message_dict) == ["rows"]


# -- In the database ----------------------------------------------------------------------------------------------


def test_every_price_and_row_is_kept(model: Model) -> None:
    assert model.set_price(WHOLE, timezone.now())

    assert price_now() == WHOLE
    assert not model.set_price(WHOLE, timezone.now() + HOUR)


def test_a_space_pays_by_its_terms_for_the_model_else_for_all_else_the_list_price(
    model: Model, upstream: Upstream, space: Space, stranger: Any
) -> None:
    other = Model.objects.create(name="other")
    other.set_price(WHOLE, timezone.now())
    upstream.models.add(other)
    now = timezone.now()
    set_space_terms(space=space, model=None, factor_millionths=1_200_000, starts_at=now, actor=None)
    set_space_terms(space=space, model=model, prices=DEAR, starts_at=now, actor=None)

    offers = read_offers()

    assert offers["gpt-4o"].prices_for(space.pk) == DEAR
    assert offers["other"].prices_for(space.pk) == WHOLE.scaled(1_200_000)
    assert offers["gpt-4o"].prices_for(stranger.space_id) == CHEAP


def test_a_factor_of_one_ends_a_spaces_terms_and_later_terms_wait(
    model: Model, upstream: Upstream, space: Space
) -> None:
    now = timezone.now()
    set_space_terms(space=space, model=model, prices=DEAR, starts_at=now - HOUR, actor=None)
    set_space_terms(space=space, model=model, factor_millionths=MILLION, starts_at=now, actor=None)
    set_space_terms(space=space, model=model, factor_millionths=0, starts_at=now + HOUR, actor=None)

    assert read_offers()["gpt-4o"].prices_for(space.pk) == CHEAP
    assert not set_space_terms(space=space, model=model, factor_millionths=MILLION, starts_at=now, actor=None)
    with pytest.raises(PriceStarted):
        set_space_terms(space=space, model=model, prices=WHOLE, starts_at=now - HOUR / 2, actor=None)


@pytest.mark.parametrize("terms", [{"factor_millionths": -1}, {"factor_millionths": 1001 * MILLION}, {"model": None}])
def test_the_database_refuses_terms_that_cannot_be(model: Model, space: Space, terms: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        SpaceTerms.objects.create(**{"space": space, "model": model} | terms)


@pytest.mark.parametrize("kind", ["model", "all"])
def test_two_terms_of_one_moment_cannot_be(model: Model, space: Space, kind: str) -> None:
    terms = {"space": space, "model": model if kind == "model" else None, "factor_millionths": 1}
    SpaceTerms.objects.create(**terms, starts_at=timezone.now().replace(microsecond=0))

    with pytest.raises(IntegrityError):
        SpaceTerms.objects.create(**terms, starts_at=SpaceTerms.objects.get().starts_at)


def test_a_model_has_cost_prices_by_upstream(model: Model, upstream: Upstream) -> None:
    now = timezone.now()
    assert set_cost_price(upstream=upstream, model=model, prices=DEAR, starts_at=now - HOUR, actor=None)
    assert set_cost_price(upstream=upstream, model=model, prices=WHOLE, starts_at=now, actor=None)
    assert not set_cost_price(upstream=upstream, model=model, prices=WHOLE, starts_at=now, actor=None)

    assert read_offers()["gpt-4o"].cost_prices == {upstream.pk: WHOLE}


def test_the_trail_records_prices_terms_and_cost_prices(model: Model, upstream: Upstream, space: Space) -> None:
    now = timezone.now()
    set_price(model=model, prices=DEAR, starts_at=now, actor=None)
    set_cost_price(upstream=upstream, model=model, prices=CHEAP, starts_at=now, actor=None)
    set_space_terms(space=space, model=None, factor_millionths=1_200_000, starts_at=now, actor=None)
    set_space_terms(space=space, model=model, prices=DEAR, starts_at=now, actor=None)

    events = AuditEvent.objects.filter(kind__in=["price.set", "upstream.cost_price_set", "space.terms_set"])
    at = {"starts_at": now.isoformat()}
    assert list(events.order_by("id").values_list("kind", "space", "target_name", "before", "after")) == [
        ("price.set", None, "gpt-4o", {"price": "input $1.00"}, {"price": "input $5.00"} | at),
        ("upstream.cost_price_set", None, "east", {"price": None}, {"model": "gpt-4o", "price": "input $1.00"} | at),
        ("space.terms_set", space.pk, space.name, {"price": None}, {"model": "", "price": "× 1.2"} | at),
        ("space.terms_set", space.pk, space.name, {"price": None}, {"model": "gpt-4o", "price": "input $5.00"} | at),
    ]


# -- set_price ----------------------------------------------------------------------------------------------------


def test_set_price_takes_every_price_and_row() -> None:
    options = [f"--{name.replace('_', '-')}={number}" for number, name in enumerate(PRICES, start=1)]

    run(
        "set_price",
        "--model=new",
        *options,
        "--tier=above=200000 input=5.00 output=15.00",
        "--tier=from=500000 input=6",
        "--when=service_tier=fast input=5.00 output=20.00",
        "--when=service_tier=flex above=200000 factor=0.5",
        "--context-tokens=200000",
    )

    assert price_now("new") == PriceList(
        Rate.of({name: number * USD for number, name in enumerate(PRICES, start=1)}),
        (
            PriceRow({"input": 5 * USD, "output": 15 * USD}, above=200_000),
            PriceRow({"input": 6 * USD}, above=500_000, is_inclusive=True),
            PriceRow({"input": 5 * USD, "output": 20 * USD}, when=(("service_tier", "priority"),)),
            PriceRow(when=FLEX, above=200_000, factor_millionths=500_000),
        ),
    )
    new = Model.objects.get(name="new")
    assert (new.context_tokens, new.max_output_tokens, new.default_output_tokens) == (200_000, 200_000, 4096)


def test_set_price_sets_what_a_model_costs_at_an_upstream(model: Model, upstream: Upstream) -> None:
    out = run("set_price", "--model=gpt-4o", "--upstream=east", "--input=5", "--cached-input=0")

    assert out.startswith("gpt-4o costs at east: input $5.00; from ")
    assert CostPrice.objects.get().price_list == DEAR and price_now() == CHEAP


def test_set_price_sets_a_spaces_terms(model: Model, space: Space) -> None:
    assert run("set_price", f"--space={space.name}", "--factor=1.2").startswith(
        "Halcyon Labs pays for every model: the list price × 1.2; from "
    )
    assert run("set_price", f"--space={space.name}", "--model=gpt-4o", "--input=5", "--cached-input=0").startswith(
        "Halcyon Labs pays for gpt-4o: input $5.00; from "
    )

    assert [(terms.model, terms.factor_millionths) for terms in SpaceTerms.objects.order_by("pk")] == [
        (None, 1_200_000),
        (model, None),
    ]
    assert price_now() == CHEAP


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--input=1"], "--model: required"),
        (["--model=gpt-4o", "--audio-input=x"], "--audio-input: not a number"),
        (["--model=gpt-4o", "--per-search=-1"], "--per-search: negative"),
        (["--model=gpt-4o", "--input=1", "--tier=input=5"], "--tier 'input=5': give a condition"),
        (["--model=gpt-4o", "--input=1", "--tier=speed=fast input=5"], "--tier 'speed=fast input=5': give above= or"),
        (["--model=gpt-4o", "--input=1", "--when=above=5 input=5"], "--when 'above=5 input=5': give a condition"),
        (["--model=gpt-4o", "--input=1", "--when=speed=fast input=x"], "--when 'speed=fast input=x': input: not a"),
        (["--model=gpt-4o", "--input=1", *["--tier=above=5 input=5"] * 2], "--tier, --when: above=5: given twice"),
        (["--model=gpt-4o", "--tier=above=5 input=5"], "--input or another price is required with --tier"),
        (["--model=gpt-4o", "--input=1", "--factor=2"], "--factor: only with --space"),
        (["--model=gpt-4o", "--input=1", "--upstream=west"], "--upstream: there is no upstream “west”"),
        (["--model=none", "--input=1", "--upstream=east"], "--model: there is no model “none”"),
        (["--model=gpt-4o", "--upstream=east"], "another price is required with --upstream"),
        (["--model=gpt-4o", "--input=1", "--upstream=east", "--context-tokens=5"], "--context-tokens: not with --ups"),
        (["--space=Nowhere", "--factor=2"], "--space: there is no space “Nowhere”"),
        (["--space=Halcyon Labs"], "--space: give either --factor or prices"),
        (["--space=Halcyon Labs", "--factor=2", "--input=1"], "--space: give either --factor or prices"),
        (["--space=Halcyon Labs", "--factor=x"], "--factor: give a factor like 1.2"),
        (["--space=Halcyon Labs", "--input=1"], "--model: required"),
        (["--space=Halcyon Labs", "--factor=2", "--upstream=east"], "--upstream: not with --space"),
    ],
)
def test_set_price_names_the_option_that_cannot_be(
    model: Model, upstream: Upstream, space: Space, args: list[str], text: str
) -> None:
    with pytest.raises(CommandError, match=text):
        run("set_price", *args)

    assert price_now() == CHEAP
    assert not CostPrice.objects.exists() and not SpaceTerms.objects.exists()


# -- import_prices ------------------------------------------------------------------------------------------------


def test_import_prices_takes_tiers_writes_searches_and_variants() -> None:
    run("import_prices", "--models=gpt-5.6-sol,whisper-1,tts-1", "--apply")
    run("import_prices", "--provider=anthropic", "--models=claude-sonnet-4-5", "--apply")

    gpt, flex = price_now("gpt-5.6-sol"), {"service_tier": "flex"}
    assert gpt.rate().cache_write_5m == 5 * USD and gpt.rate().per_search == USD // 100
    assert gpt.rate(input_tokens=272_000).output == 20 * USD
    assert gpt.rate(input_tokens=272_001).output == 30 * USD
    assert gpt.rate(input_tokens=272_001, facts=flex).output == 15 * USD
    assert gpt.rate(facts={"service_tier": "priority"}).input == 8 * USD
    claude = price_now("claude-sonnet-4-5").rate(input_tokens=200_001)
    assert (claude.cache_write_5m, claude.cache_write_1h) == (15 * USD // 2, 12 * USD)
    assert price_now("whisper-1") == PriceList(Rate(per_second=100_000))
    assert price_now("tts-1").base.per_character == 15_000


def test_import_prices_says_what_it_cannot_express() -> None:
    out = run("import_prices", "--models=gpt-4o,gpt-image-1")

    assert "(without storage_searches_kcount: file searches are refused)" in out
    assert "(without prices of processing=batch)" in out
    assert "(without cache_image_read_mtok: cached pictures cost what cached input does)" in out


def test_import_prices_sets_real_limits_and_never_those_that_an_operator_chose(model: Model) -> None:
    chosen = Model.objects.create(name="gpt-4", max_output_tokens=5000, context_tokens=6000)
    Model.objects.filter(pk=model.pk).update(max_output_tokens=4096)

    run("import_prices", "--models=gpt-4o,gpt-4", "--apply")
    run("import_prices", "--provider=anthropic", "--models=claude-sonnet-4-5", "--apply")

    model.refresh_from_db()
    chosen.refresh_from_db()
    assert model.max_output_tokens > 4096 and model.default_output_tokens == 4096
    assert (chosen.max_output_tokens, chosen.context_tokens) == (5000, 6000)
    claude = Model.objects.get(name="claude-sonnet-4-5")
    assert claude.context_tokens == 200_000 and 4096 < claude.max_output_tokens <= 200_000


def test_an_import_keeps_prices_and_rows_that_the_list_does_not_have() -> None:
    by_size = PriceRow({"per_second": 9}, when=(("size", "9x9"),))
    listed = ListedModel("m", PriceList(Rate(input=5, cached_input=1), (PriceRow({"input": 6}, above=1),)), None, None)

    merged = listed.prices_with(
        PriceList(Rate(input=1, output=3, per_second=7), (by_size, PriceRow({"input": 2}, when=FLEX)))
    )

    assert merged == PriceList(Rate(input=5, cached_input=1, per_second=7), (PriceRow({"input": 6}, above=1), by_size))


def test_import_prices_imports_cost_prices_of_models_that_are_here(model: Model, upstream: Upstream) -> None:
    args = ["import_prices", "--models=gpt-4o,gpt-4", "--upstream=east"]

    assert "gpt-4o at east: no cost price → input $2.50" in run(*args)
    assert not CostPrice.objects.exists()
    assert "gpt-4: left out, there is no such model here" in run(*args, "--apply")
    assert "0 written, 1 unchanged." in run(*args, "--apply")
    assert CostPrice.objects.get().price_list.base.input == 5 * USD // 2 and price_now() == CHEAP
    with pytest.raises(CommandError, match="--upstream: there is no upstream “west”"):
        run("import_prices", "--upstream=west")
