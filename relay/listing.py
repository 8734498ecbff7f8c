"""One model as GET /v1/models shows it: context, modalities and prices beside the standard fields."""

from __future__ import annotations

from typing import Any

from core.money import format_exact
from relay.catalogue import Offer
from relay.prices import MILLION, PIECE_PRICES, PriceList, PriceRow, Rate, format_factor


def model_row(offer: Offer, prices: PriceList) -> dict[str, Any]:
    """`prices` are USD per million tokens, or each; `pricing` repeats some in OpenRouter's shape, USD per token."""
    rate = prices.base
    return {
        "id": offer.name,
        "object": "model",
        "created": offer.created,
        "owned_by": "space-manage",
        "context_length": offer.context_tokens,
        "max_output_tokens": offer.max_output_tokens,
        "architecture": {"input_modalities": _inputs(offer, rate), "output_modalities": _outputs(rate)},
        "prices": _usd(rate) | {"rows": [_row(each) for each in prices.rows]},
        "pricing": {
            name: _per_token(price)
            for name, price in (
                ("prompt", rate.input),
                ("completion", rate.output),
                ("input_cache_read", rate.cached_input),
                ("input_cache_write", rate.of_tokens("cache_write_5m")),
            )
        }
        | {"request": format_exact(rate.per_request)},
    }


def _usd(rate: Rate) -> dict[str, Any]:
    return {_name(name): format_exact(price) for name, price in rate.snapshot().items()}


def _row(row: PriceRow) -> dict[str, Any]:
    # A factor multiplies what the request would cost otherwise.
    has_factor = row.factor_millionths != MILLION
    factor = {"factor": format_factor(row.factor_millionths)} if has_factor else {}
    return {"when": row.label} | factor | {_name(name): format_exact(price) for name, price in row.prices.items()}


def _name(price: str) -> str:
    return f"{price}_usd" if price in PIECE_PRICES else f"{price}_usd_per_million_tokens"


def _per_token(nanos_per_million: int) -> str:
    # Exact: a million of these are the price.
    whole, fraction = divmod(nanos_per_million, 10**15)
    return f"{whole}.{fraction:015d}".rstrip("0").rstrip(".")


def _inputs(offer: Offer, rate: Rate) -> list[str]:
    return [
        "text",
        *(["image"] if offer.image_nanos_ceiling else []),
        *(["audio"] if rate.audio_input is not None else []),
    ]


def _outputs(rate: Rate) -> list[str]:
    kinds = {
        "text": rate.output,
        "audio": rate.audio_output,
        "image": rate.per_image or rate.image_output,
        "video": rate.per_second,
    }
    return [name for name, price in kinds.items() if price] or ["text"]
