from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices, TimeOfDateConstraint

from audit.commands import RecordedCommand
from core.money import NANOS_PER_USD
from relay.models import Model, Price, validate_name
from relay.pricing import MAX_PRICE_NANOS, Rate
from relay.services import record_change, set_price
from usage.models import MAX_MODEL_NAME_LENGTH

# Our names of token prices → those of genai-prices, per million tokens. Its price of requests is per thousand.
_TOKENS = {"input": "input_mtok", "cached_input": "cache_read_mtok", "output": "output_mtok"}
_REQUESTS = "requests_kcount"
# Prices that the relay cannot charge. The models are imported, and a note lists what is not charged for.
_NOT_CHARGED = {"web_searches_kcount", "storage_searches_kcount", "cache_write_mtok", "cache_write_1h_mtok"}


class UnsupportedPrice(Exception):
    """The listed price cannot be expressed as a Rate. The message is the reason that the command prints."""


@dataclass(frozen=True)
class ListedPrice:
    name: str
    figures: dict[str, int]
    context_tokens: int | None
    notes: list[str]


class Command(RecordedCommand, BaseCommand):
    help = (
        "Take prices from the list that ships with genai-prices, one line for each model that changes. Writes nothing "
        "without --apply; with it, prices are in force from now. Models that are new here are added."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--provider", default="openai", metavar="ID", help="the provider whose prices are taken; default: openai"
        )
        parser.add_argument("--models", metavar="A,B", help="only these models; default: all of the provider's")
        parser.add_argument("--apply", action="store_true", help="write what is shown")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        provider = _provider(options["provider"])
        now = timezone.now()
        changed = unchanged = 0
        for name, info in _chosen(provider, options["models"]):
            try:
                listed = _read(name, info, now)
            except UnsupportedPrice as why:
                self.stdout.write(f"{name}: left out, {why}")
                continue
            if line := _describe_change(listed, now):
                changed += 1
                self.stdout.write(line)
                if options["apply"]:
                    _write(listed, now)
            else:
                unchanged += 1
        done = "written" if options["apply"] else "to write: repeat with --apply"
        self.stdout.write(f"{changed} {done}, {unchanged} unchanged.")


def _provider(name: str) -> Provider:
    providers = {provider.id: provider for provider in get_snapshot().providers}
    if name not in providers:
        raise CommandError(f"--provider: one of {', '.join(sorted(providers))}")
    return providers[name]


def _chosen(provider: Provider, names: str | None) -> Iterator[tuple[str, ModelInfo]]:
    if names is None:
        yield from sorted((info.id, info) for info in provider.models)
        return
    given = [name.strip() for name in names.split(",") if name.strip()]
    if not given:
        raise CommandError("--models: name at least one model, separated by commas")
    found = {name: provider.find_model(name) for name in given}
    if unknown := [name for name, info in found.items() if info is None]:
        raise CommandError(f"--models: {provider.id} lists no {', '.join(unknown)}")
    yield from ((name, info) for name, info in found.items() if info is not None)


def _read(name: str, info: ModelInfo, now: datetime) -> ListedPrice:
    """Raises UnsupportedPrice if the model's name is not allowed here or a Rate cannot express its price."""
    try:
        validate_name(name)
    except ValidationError:
        raise UnsupportedPrice("its name has characters that are not allowed here") from None
    if len(name) > MAX_MODEL_NAME_LENGTH:
        raise UnsupportedPrice("its name is too long")
    if not isinstance(info.prices, ModelPrice) and any(
        isinstance(price.constraint, TimeOfDateConstraint) for price in info.prices
    ):
        raise UnsupportedPrice("its price depends on the time of day")
    prices = {key: value for key, value in vars(info.get_prices(now)).items() if value is not None}
    if unsupported := sorted(prices.keys() - {*_TOKENS.values(), _REQUESTS} - _NOT_CHARGED):
        raise UnsupportedPrice(f"it also has a price for {', '.join(unsupported)}")
    if not prices.keys() & {"input_mtok", "output_mtok"}:
        raise UnsupportedPrice("it has no price for tokens")
    return ListedPrice(name, _figures(prices), info.context_window, list(_notes(prices)))


def _notes(prices: dict[str, Any]) -> Iterator[str]:
    if uncharged := sorted(prices.keys() & _NOT_CHARGED):
        yield f"not charged for: {', '.join(uncharged)}"
    tiers = [tier.start for price in prices.values() if isinstance(price, TieredPrices) for tier in price.tiers]
    if tiers:
        yield f"the provider charges more above {min(tiers):,} input tokens"


def _figures(prices: dict[str, Any]) -> dict[str, int]:
    figures = {ours: _listed_nanos(prices[theirs], 1) for ours, theirs in _TOKENS.items() if theirs in prices}
    if _REQUESTS in prices:
        figures["per_request"] = _listed_nanos(prices[_REQUESTS], 1000)
    return {"input": 0, "cached_input": figures.get("input", 0), "output": 0} | figures


def _listed_nanos(price: Decimal | TieredPrices, per: int) -> int:
    """The price in nano-dollars. Of a tiered price it is the base; `_notes` mentions the other tiers.

    Raises UnsupportedPrice instead of rounding.
    """
    usd = price.base if isinstance(price, TieredPrices) else price
    nanos = usd * NANOS_PER_USD / per
    if nanos != int(nanos) or not 0 <= nanos <= MAX_PRICE_NANOS:
        raise UnsupportedPrice("its price has more decimals than a nano-dollar, or is too large")
    return int(nanos)


def _rate_with(listed: ListedPrice, price: Price | None) -> Rate:
    # Prices that the list does not have (images, seconds) stay as they are.
    return replace(price.rate if price else Rate(), **listed.figures)


def _describe_change(listed: ListedPrice, now: datetime) -> str:
    """Like `gpt-4o: input $5.00 → input $2.50`; empty if nothing changes."""
    model = Model.objects.filter(name=listed.name).first()
    price = model.price_at(now) if model else None
    after = _rate_with(listed, price)
    if price is not None and price.rate == after:
        return ""
    before = str(price.rate) if price else ("no price" if model else "new")
    notes = f" ({'; '.join(listed.notes)})" if listed.notes else ""
    return f"{listed.name}: {before} → {after}{notes}"


def _write(listed: ListedPrice, now: datetime) -> None:
    new = {"context_tokens": listed.context_tokens} if listed.context_tokens else {}
    model, is_new = Model.objects.get_or_create(name=listed.name, defaults=new)
    if is_new:
        record_change(model, before={}, actor=None)
    set_price(model=model, rate=_rate_with(listed, model.price_at(now)), starts_at=now, actor=None)
