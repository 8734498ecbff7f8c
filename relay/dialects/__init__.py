"""What each endpoint family of /v1 accepts, what a request of it can cost, and how it is written for an upstream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from relay.dialects import chat, completions, embeddings, responses
from relay.dialects.ask import Ask, Need
from relay.dialects.dialect import Dialect
from relay.dialects.names import UNPRICED, UNSORTED, unsupported
from relay.dialects.tools import MAX_PICTURE_INPUT_TOKENS, MAX_PICTURE_TOKENS
from relay.prices import MILLION, PriceList, Rate, divide_rounding_up
from relay.pricing import Extent
from relay.profiles import Profile

DIALECTS: Mapping[str, Dialect] = {
    module.DIALECT.path: module.DIALECT for module in (chat, completions, responses, embeddings)
}


def check(ask: Ask, prices: PriceList) -> None:
    """Raises ApiError 400 `unsupported_parameter` for the first field that the model has no price for."""
    check_needs(ask.needs, ask.facts, prices)


def check_needs(needs: Iterable[Need], facts: Mapping[str, str], prices: PriceList) -> None:
    for need in needs:
        if not _is_priced(need.price, facts, prices):
            raise unsupported(need.param, f"{UNPRICED} ({need.price})")


def _is_priced(price: str, facts: Mapping[str, str], prices: PriceList) -> bool:
    name, is_row, value = price.partition("=")
    if not is_row:
        return prices.has(price, facts)
    # The size of a video needs a row only where the model's prices differ by it.
    if name == "size" and not any(name in dict(row.when) for row in prices.rows):
        return True
    return prices.has_row(name, value)


def check_unknown(ask: Ask, profile: Profile) -> None:
    """Raises ApiError 400 if the body has a field that nobody sorted, and the upstream refuses these."""
    if ask.unknown and profile.unknown_fields == "refuse":
        raise unsupported(ask.unknown[0], UNSORTED)


def extent_of(
    ask: Ask, *, image_nanos_ceiling: int, audio_minute_nanos_ceiling: int, prices: PriceList | None = None
) -> Extent:
    """The extent with what media and hosted tools can cost. Tools that make pictures need `prices`."""
    media = ask.media.images * image_nanos_ceiling + ask.media.audio_minutes * audio_minute_nanos_ceiling
    if not (ask.media.images or ask.media.audio_minutes or ask.made_pictures):
        return ask.extent
    # A window that has media in it is held at their token prices, also where a ceiling is zero.
    media = max(media, min(ask.media.images + ask.media.audio_minutes, 1))
    tools = sum(_tool_nanos(name, count, prices or PriceList()) for name, count in ask.made_pictures.items())
    return msgspec.structs.replace(ask.extent, media_nanos=media, tool_nanos=tools)


def _tool_nanos(tool: str, pictures: int, prices: PriceList) -> int:
    rate: Rate = prices.rate(facts={"tool": tool})
    read = MAX_PICTURE_INPUT_TOKENS * max(rate.input, rate.of_tokens("image_input"))
    made = MAX_PICTURE_TOKENS * max(rate.output, rate.of_tokens("image_output"))
    return pictures * (divide_rounding_up(read + made, MILLION) + rate.per_image)
