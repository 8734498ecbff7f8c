"""The curl command that is shown with a new key, and the models on offer."""

from __future__ import annotations

import json
from shlex import quote

from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import ApiKey
from relay.models import Model

# Placeholder while no model is on offer.
ANY_MODEL = "your-model"


def first_call(key: ApiKey, *, text: str, base_url: str) -> str:
    """Return a curl command for a chat completion with the key, quoted for a shell."""
    body = {"model": _first_model(key), "messages": [{"role": "user", "content": "Hello"}]}
    parts = [
        f"curl {quote(base_url + '/chat/completions')}",
        f'-H "Authorization: Bearer {text}"',
        '-H "Content-Type: application/json"',
        f"-d {quote(json.dumps(body, ensure_ascii=False))}",
    ]
    return " \\\n  ".join(parts)


def models_on_offer() -> QuerySet[Model]:
    return Model.objects.on_offer(timezone.now()).order_by("name")


def _first_model(key: ApiKey) -> str:
    offered = models_on_offer()
    if key.models_allowed:
        offered = offered.filter(name__in=key.models_allowed)
    names: list[str] = [*offered.values_list("name", flat=True)[:1], *key.models_allowed, ANY_MODEL]
    return names[0]
