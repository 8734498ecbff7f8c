from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from audit.commands import RecordedCommand
from relay.models import Model, Upstream, validate_credential
from relay.services import audit_values, record_change

FIELDS = {"base_url": "base_url", "priority": "priority", "weight": "weight", "timeout": "timeout_s"}
_OPTIONS = {field: f"--{option.replace('_', '-')}" for option, field in FIELDS.items()}


class Command(RecordedCommand, BaseCommand):
    help = (
        "Add an upstream, or change the one of that name: options left out keep their values. Its credential is read "
        "from standard input and stored encrypted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True)
        parser.add_argument("--base-url", metavar="URL", help="like https://api.example.com/v1")
        parser.add_argument(
            "--models",
            metavar="M1,M2",
            help="all models that it serves; requests for a model without a price are refused",
        )
        parser.add_argument("--credential-stdin", action="store_true", help="read the credential from stdin")
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
        for option, field in FIELDS.items():
            if options[option] is not None:
                setattr(upstream, field, options[option])
        _check(upstream, {"name": "--name"} | _OPTIONS)
        if options["credential_stdin"]:
            _seal(upstream)
        upstream.save()
        if options["models"] is not None:
            upstream.models.set(_models(options["models"]))
        record_change(upstream, before=before, actor=None, is_credential_new=options["credential_stdin"])
        self._print_result(upstream, is_new=is_new)

    def _print_result(self, upstream: Upstream, *, is_new: bool) -> None:
        models = list(upstream.models.all())
        credential = "credential set" if upstream.has_credential else "no credential"
        names = ", ".join(model.name for model in models)
        done = "added" if is_new else "changed"
        self.stdout.write(f"Upstream “{upstream.name}” {done}: {upstream.base_url}, {credential}, serves {names}.")
        for model in models:
            if model.price_at(timezone.now()) is None:
                self.stdout.write(f"{model.name} has no price, so requests for it are refused: set_price gives it one.")


def _seal(upstream: Upstream) -> None:
    credential = sys.stdin.readline().strip()
    try:
        validate_credential(credential)
        upstream.seal(credential)
    except ValidationError as error:
        raise CommandError(f"--credential-stdin: {' '.join(error.messages)}") from None
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from None


def _models(text: str) -> list[Model]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise CommandError("--models: name at least one model, separated by commas")
    return [_model(name) for name in dict.fromkeys(names)]


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
