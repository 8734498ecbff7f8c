from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from audit.commands import RecordedCommand
from core.money import AmountError, format_balance, parse_usd
from relay.models import Model, PriceStarted
from relay.pricing import MAX_PRICE_NANOS, Rate
from relay.services import audit_values, record_change, set_price

LIMITS = ["max_output_tokens", "default_output_tokens", "context_tokens"]
PRICES = [field.name for field in fields(Rate)]


class Command(RecordedCommand, BaseCommand):
    help = (
        "Set what a model costs, in USD per million tokens, from now or from a date on; a new model is added. A price "
        "is replaced as a whole: options left out cost nothing, and cached input costs as much as input. Without any "
        "price option only the limits change."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", required=True, metavar="NAME")
        parser.add_argument("--input", metavar="USD", help="per million tokens, like 2.50")
        parser.add_argument("--cached-input", metavar="USD", help="per million tokens; default: the price of input")
        parser.add_argument("--output", metavar="USD", help="per million tokens")
        parser.add_argument("--per-request", metavar="USD", help="for each request")
        parser.add_argument("--per-image", metavar="USD", help="for each image made")
        parser.add_argument("--per-second", metavar="USD", help="for each second of video made")
        parser.add_argument("--max-output-tokens", type=int, metavar="N", help="largest completion limit")
        parser.add_argument("--default-output-tokens", type=int, metavar="N", help="limit of a request that sets none")
        parser.add_argument("--context-tokens", type=int, metavar="N", help="context window")
        parser.add_argument("--from", metavar="DATE", help="ISO date or time, UTC without an offset; default: now")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        starts_at = _parse_start(options["from"])
        rate = _given_rate(options)
        model = Model.objects.filter(name=options["model"]).first() or Model(name=options["model"])
        if rate is None and not model.has_price():
            raise CommandError("--input, --output or another price is required: this model has none yet")
        _save_limits(model, options)
        if rate is None:
            self.stdout.write(f"{model.name}: at most {model.max_output_tokens} output tokens a request.")
            return
        try:
            is_new = set_price(model=model, rate=rate, starts_at=starts_at, actor=None)
        except PriceStarted:
            raise CommandError("--from: a later price is in force already; leave it out to set one from now") from None
        when = f"from {starts_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if is_new else "unchanged"
        self.stdout.write(f"{model.name}: {rate}; {when}; at most {model.max_output_tokens} output tokens a request.")


def _given_rate(options: dict[str, Any]) -> Rate | None:
    given = {name: _price(name, options[name]) for name in PRICES if options[name] is not None}
    if not given:
        return None
    return Rate(**{"cached_input": given.get("input", 0)} | given)


def _price(name: str, text: str) -> int:
    option = f"--{name.replace('_', '-')}"
    try:
        nanos = parse_usd(text)
    except AmountError as error:
        raise CommandError(f"{option}: {error.code.replace('_', ' ')}") from error
    if nanos > MAX_PRICE_NANOS:
        raise CommandError(f"{option}: at most {format_balance(MAX_PRICE_NANOS)}")
    return nanos


def _parse_start(text: str | None) -> datetime:
    if text is None:
        return timezone.now()
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError("--from: give a date like 2026-01-31 or a time like 2026-01-31T18:00+00:00") from None


def _save_limits(model: Model, options: dict[str, Any]) -> None:
    for name in LIMITS:
        if options[name] is not None:
            setattr(model, name, options[name])
    # A default limit above the new maximum is lowered to it, unless it was given.
    if options["default_output_tokens"] is None:
        model.default_output_tokens = min(model.default_output_tokens, model.max_output_tokens)
    try:
        model.full_clean(validate_unique=False)
    except ValidationError as error:
        raise CommandError("; ".join(_error_messages(error))) from error
    before = audit_values(model)
    model.save(update_fields=LIMITS if model.pk else None)
    record_change(model, before=before, actor=None)


def _error_messages(error: ValidationError) -> list[str]:
    options = {"name": "--model", "__all__": "--default-output-tokens"}
    options |= {name: f"--{name.replace('_', '-')}" for name in LIMITS}
    return [f"{options.get(field, field)}: {' '.join(texts)}" for field, texts in error.message_dict.items()]
