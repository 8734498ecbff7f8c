from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from audit.commands import RecordedCommand
from relay.models import Model, Upstream, validate_credential
from relay.profiles import KINDS, READERS, kind_of_address
from relay.services import audit_values, record_change
from relay.upstream_settings import pairs_of, split_proxy, validate_header

FIELDS = {
    "base_url": "base_url",
    "kind": "kind",
    "priority": "priority",
    "weight": "weight",
    "timeout": "timeout_s",
}
_OPTIONS = {
    **{field: f"--{option.replace('_', '-')}" for option, field in FIELDS.items()},
    "name": "--name",
    "settings": "--set",
    "query": "--query",
    "model_names": "--models",
    "proxy": "--proxy",
}


class Command(RecordedCommand, BaseCommand):
    help = (
        "Add an upstream, or change the one of that name: options left out keep their values. Its credential is read "
        "from standard input and stored encrypted. docs/upstreams.md has the kinds and examples."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True)
        parser.add_argument("--base-url", metavar="URL", help="like https://api.example.com/v1")
        parser.add_argument("--kind", help=f"{', '.join(KINDS)}; default: by the address, else openai")
        parser.add_argument(
            "--models",
            metavar="M1,PUBLIC=THERE",
            help="all models that it serves, with its own names for them where they differ; requests for a model "
            "without a price are refused",
        )
        parser.add_argument("--credential-stdin", action="store_true", help="read the credential from stdin")
        parser.add_argument(
            "--header",
            action="append",
            metavar="'NAME: VALUE'",
            help="a header to send, stored encrypted; an empty value removes it; repeatable",
        )
        parser.add_argument(
            "--query",
            action="append",
            metavar="NAME=VALUE",
            help="a query parameter to send, such as api-version=2024-10-21; an empty value removes it; repeatable",
        )
        parser.add_argument(
            "--set",
            action="append",
            metavar="KEY=VALUE",
            help=f"override a value of the kind: {', '.join(READERS)}; an empty value goes back to it; repeatable",
        )
        parser.add_argument("--proxy", metavar="URL", help="an http:// proxy to go through; an empty value: none")
        parser.add_argument("--priority", type=int, metavar="N", help="lower is tried first; default: 0")
        parser.add_argument(
            "--weight", type=int, metavar="N", help="share of requests among equal priorities; default: 1"
        )
        parser.add_argument(
            "--timeout", type=int, metavar="SECONDS", help="how long the upstream may send nothing; default: 600"
        )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        upstream = Upstream.objects.filter(name=options["name"]).first() or Upstream(name=options["name"])
        is_new, before = upstream.pk is None, audit_values(upstream)
        for option in ("base_url", "models"):
            if is_new and options[option] is None:
                raise CommandError(f"--{option.replace('_', '-')}: required for a new upstream")
        _set_fields(upstream, options, is_new=is_new)
        names = _model_names(options["models"])
        if names is not None:
            upstream.model_names = {public: there for public, there in names.items() if there != public}
        headers = _apply_repeatable(upstream, options)
        _check(upstream, _OPTIONS)
        if options["credential_stdin"]:
            _seal(upstream)
        upstream.save()
        if names is not None:
            upstream.models.set([_model(name) for name in names])
        record_change(
            upstream,
            before=before,
            actor=None,
            is_credential_new=options["credential_stdin"],
            new_headers=headers,
        )
        self._print_result(upstream, is_new=is_new)

    def _print_result(self, upstream: Upstream, *, is_new: bool) -> None:
        models = list(upstream.models.all())
        credential = "credential set" if upstream.has_credential else "no credential"
        names = ", ".join(_shown(model.name, upstream.model_names) for model in models)
        done = "added" if is_new else "changed"
        self.stdout.write(
            f"Upstream “{upstream.name}” {done}: {upstream.base_url}, {upstream.kind}, {credential}, serves {names}."
        )
        for model in models:
            if model.price_at(timezone.now()) is None:
                self.stdout.write(f"{model.name} has no price, so requests for it are refused: set_price gives it one.")
        self.stdout.write(f"Try it: test_upstream --name {upstream.name}")


def _set_fields(upstream: Upstream, options: dict[str, Any], *, is_new: bool) -> None:
    for option, field in FIELDS.items():
        if options[option] is not None:
            setattr(upstream, field, options[option])
    if is_new and options["kind"] is None:
        upstream.kind = kind_of_address(upstream.base_url)


def _shown(public: str, names: dict[str, str]) -> str:
    return f"{public} (there {names[public]})" if public in names else public


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Name the option in the error of a value that is not valid."""
    try:
        yield
    except ValidationError as error:
        raise CommandError(f"{option}: {' '.join(error.messages)}") from None
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None


def _apply_repeatable(upstream: Upstream, options: dict[str, Any]) -> Iterable[str]:
    """Set headers, query, settings and proxy. Returns the names of the headers that were given."""
    with _named("--header"):
        headers = pairs_of(options["header"] or [], ":")
        for name, value in headers.items():
            if value:
                validate_header(name, value)
            upstream.seal_header(name, value)
    with _named("--query"):
        upstream.query = _changed(upstream.query, pairs_of(options["query"] or [], "="))
    with _named("--set"):
        upstream.settings = _changed(upstream.settings, pairs_of(options["set"] or [], "="))
    if options["proxy"] is not None:
        with _named("--proxy"):
            upstream.seal_proxy(*(split_proxy(options["proxy"]) if options["proxy"] else ("", "")))
    return headers


def _changed(values: dict[str, Any], given: Any) -> dict[str, Any]:
    return {name: value for name, value in {**values, **given}.items() if value}


def _seal(upstream: Upstream) -> None:
    credential = sys.stdin.readline().strip()
    with _named("--credential-stdin"):
        validate_credential(credential)
        upstream.seal(credential)


def _model_names(text: str | None) -> dict[str, str] | None:
    """Public name → the upstream's, from M1,PUBLIC=THERE; None if the option was not given."""
    if text is None:
        return None
    pairs = [entry.strip().partition("=") for entry in text.split(",") if entry.strip()]
    if not pairs:
        raise CommandError("--models: name at least one model, separated by commas")
    for public, found, there in pairs:
        if found and not (public.strip() and there.strip()):
            raise CommandError("--models: write PUBLIC=THERE, the public name and the upstream's")
    return {public.strip(): there.strip() or public.strip() for public, _, there in pairs}


def _model(name: str) -> Model:
    model = Model.objects.filter(name=name).first()
    if model is None:
        model = Model(name=name)
        _check(model, {"name": "--models"})
        model.save()
        record_change(model, before={}, actor=None)
    return model


def _check(row: Model | Upstream, options: dict[str, str]) -> None:
    try:
        row.full_clean()
    except ValidationError as error:
        messages = [f"{options.get(name, name)}: {' '.join(texts)}" for name, texts in error.message_dict.items()]
        raise CommandError("; ".join(messages)) from None
