from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from audit.commands import RecordedCommand
from relay.models import Model, PriceStarted, Upstream
from relay.price_rows import PriceError, check_rows, parse_factor, parse_price, parse_row
from relay.prices import PRICES, PriceList, PriceRow, Rate, format_factor
from relay.services import audit_values, record_change, set_cost_price, set_price, set_space_terms
from tenants.models import Space

T = TypeVar("T")

LIMITS = ["max_output_tokens", "default_output_tokens", "context_tokens"]
_TOKENS = "USD per million tokens"
_HELP = {
    "input": "like 2.50",
    "cached_input": f"{_TOKENS}; default: the price of input",
    "per_request": "for each request",
    "per_image": "for each image made",
    "per_second": "for each second of video made",
    "cached_input_explicit": f"{_TOKENS} read from an explicit cache; default: --cached-input",
    "cache_write_5m": f"{_TOKENS} written to the cache for 5 or 30 minutes; default: --input",
    "cache_write_1h": f"{_TOKENS} written for an hour; default: --cache-write-5m",
    "cache_write_12h": f"{_TOKENS} written for 12 hours; default: --cache-write-1h",
    "audio_input": f"{_TOKENS} of sound; default: --input",
    "audio_output": f"{_TOKENS} of sound; default: --output, and requests for sound are refused",
    "image_input": f"{_TOKENS} of pictures; default: --input",
    "image_output": f"{_TOKENS} of pictures; default: --output",
    "reasoning": f"{_TOKENS}; default: --output",
    "citation": f"{_TOKENS}; default: --input",
    "per_search": "for each web search; without it, requests for one are refused",
    "per_character": "for each character of text that is spoken",
    "per_minute": "for each minute",
}
_ROWS = {
    "tier": "prices above a number of input tokens: 'above=200000 input=5.00 output=15.00' (from=200000 includes it)",
    "when": "prices under conditions: 'service_tier=priority input=5.00 output=20.00', or a factor: "
    "'service_tier=flex factor=0.5'; also with above=",
}


class Command(RecordedCommand, BaseCommand):
    help = (
        "Set what a model costs, in USD per million tokens, from now or from a date on; a new model is added. A price "
        "is replaced as a whole: options left out cost nothing, or what their help says. Without any price option only "
        "the limits change. With --upstream it is what the model costs there, with --space what that space pays."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", metavar="NAME", help="left out with --space and --factor: all models")
        for name in PRICES:
            parser.add_argument(_option(name), metavar="USD", help=_HELP.get(name, _TOKENS))
        for name, text in _ROWS.items():
            parser.add_argument(_option(name), metavar="ROW", action="append", help=f"{text}; repeatable")
        parser.add_argument("--upstream", metavar="NAME", help="set what the model costs the operator there")
        parser.add_argument("--space", metavar="NAME", help="set what this space pays instead of the list price")
        parser.add_argument("--factor", metavar="F", help="with --space: the list price times this, like 1.2 or 0.9")
        parser.add_argument(
            "--max-output-tokens", type=int, metavar="N", help="largest completion limit; new: the context window"
        )
        parser.add_argument(
            "--default-output-tokens", type=int, metavar="N", help="usual limit of a request that sets none"
        )
        parser.add_argument("--context-tokens", type=int, metavar="N", help="context window")
        parser.add_argument("--from", metavar="DATE", help="ISO date or time, UTC without an offset; default: now")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        starts_at = _parse_start(options["from"])
        prices = _given_prices(options)
        try:
            if options["space"] is not None:
                done = _set_terms(options, prices, starts_at)
            elif options["upstream"] is not None:
                done = _set_cost(options, prices, starts_at)
            else:
                done = _set_list_price(options, prices, starts_at)
        except PriceStarted:
            raise CommandError("--from: a later price is in force already; leave it out to set one from now") from None
        self.stdout.write(done)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _set_list_price(options: dict[str, Any], prices: PriceList | None, starts_at: datetime) -> str:
    _refuse(options, "factor", "only with --space")
    name = _required(options, "model")
    model = Model.objects.filter(name=name).first() or Model(name=name)
    if prices is None and not model.has_price():
        raise CommandError("--input, --output or another price is required: this model has none yet")
    _save_limits(model, options)
    limit = f"at most {model.max_output_tokens} output tokens a request."
    if prices is None:
        return f"{model.name}: {limit}"
    is_new = set_price(model=model, prices=prices, starts_at=starts_at, actor=None)
    return f"{model.name}: {prices}; {_when(starts_at, is_new=is_new)}; {limit}"


def _set_cost(options: dict[str, Any], prices: PriceList | None, starts_at: datetime) -> str:
    for name in ("factor", *LIMITS):
        _refuse(options, name, "not with --upstream")
    upstream = _named(Upstream, "upstream", options["upstream"])
    model = _named(Model, "model", _required(options, "model"))
    if prices is None:
        raise CommandError("--input, --output or another price is required with --upstream")
    is_new = set_cost_price(upstream=upstream, model=model, prices=prices, starts_at=starts_at, actor=None)
    return f"{model.name} costs at {upstream.name}: {prices}; {_when(starts_at, is_new=is_new)}."


def _set_terms(options: dict[str, Any], prices: PriceList | None, starts_at: datetime) -> str:
    for name in ("upstream", *LIMITS):
        _refuse(options, name, "not with --space")
    space = _named(Space, "space", options["space"])
    factor = None if options["factor"] is None else _parsed("--factor", parse_factor, options["factor"])
    if (prices is None) == (factor is None):
        raise CommandError("--space: give either --factor or prices")
    if factor is None:
        _required(options, "model")
    model = None if options["model"] is None else _named(Model, "model", options["model"])
    is_new = set_space_terms(
        space=space, model=model, factor_millionths=factor, prices=prices, starts_at=starts_at, actor=None
    )
    said = f"the list price × {format_factor(factor)}" if factor is not None else str(prices)
    which = model.name if model else "every model"
    return f"{space.name} pays for {which}: {said}; {_when(starts_at, is_new=is_new)}."


def _when(starts_at: datetime, *, is_new: bool) -> str:
    return f"from {starts_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if is_new else "unchanged"


# -- Reading options ----------------------------------------------------------------------------------------------


def _given_prices(options: dict[str, Any]) -> PriceList | None:
    given = {name: _parsed(_option(name), parse_price, options[name]) for name in PRICES if options[name] is not None}
    rows = tuple(_row(name, text) for name in _ROWS for text in options[name] or ())
    if not given:
        if rows:
            raise CommandError("--input or another price is required with --tier and --when")
        return None
    _parsed("--tier, --when", check_rows, rows)
    return PriceList(Rate.of({"cached_input": given.get("input", 0)} | given), rows)


def _row(name: str, text: str) -> PriceRow:
    row = _parsed(f"{_option(name)} '{text}'", parse_row, text)
    if name == "tier" and (row.when or row.above is None):
        raise CommandError(f"--tier '{text}': give above= or from=, and no condition")
    if name == "when" and not row.when:
        raise CommandError(f"--when '{text}': give a condition such as service_tier=priority")
    return row


def _parsed(option: str, parse: Callable[[Any], T], given: Any) -> T:
    try:
        return parse(given)
    except PriceError as error:
        raise CommandError(f"{option}: {error}") from None


def _refuse(options: dict[str, Any], name: str, why: str) -> None:
    if options[name] is not None:
        raise CommandError(f"{_option(name)}: {why}")


def _required(options: dict[str, Any], name: str) -> str:
    if options[name] is None:
        raise CommandError(f"{_option(name)}: required")
    return str(options[name])


def _named(kind: Any, option: str, name: str) -> Any:
    found = kind.objects.filter(name=name).first()
    if found is None:
        raise CommandError(f"--{option}: there is no {option} “{name}”")
    return found


def _parse_start(text: str | None) -> datetime:
    if text is None:
        return timezone.now()
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError("--from: give a date like 2026-01-31 or a time like 2026-01-31T18:00+00:00") from None


# -- Limits -------------------------------------------------------------------------------------------------------


def _save_limits(model: Model, options: dict[str, Any]) -> None:
    for name in LIMITS:
        if options[name] is not None:
            setattr(model, name, options[name])
    if model._state.adding and options["max_output_tokens"] is None:
        model.max_output_tokens = model.context_tokens
    # A default limit above the new maximum is lowered to it, unless it was given.
    if options["default_output_tokens"] is None:
        model.default_output_tokens = min(model.default_output_tokens, model.max_output_tokens)
    try:
        model.full_clean(validate_unique=False)
    except ValidationError as error:
        raise CommandError("; ".join(_error_messages(error))) from error
    before = audit_values(model)
    model.save(update_fields=None if model._state.adding else LIMITS)
    record_change(model, before=before, actor=None)


def _error_messages(error: ValidationError) -> list[str]:
    options = {"name": "--model", "__all__": "--default-output-tokens"} | {name: _option(name) for name in LIMITS}
    return [f"{options.get(field, field)}: {' '.join(texts)}" for field, texts in error.message_dict.items()]
