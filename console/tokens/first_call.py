"""What a key can ask for: the models on offer, and one line for a terminal that is copied and run as it is."""

from __future__ import annotations

import json
from shlex import quote

from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import ApiKey
from relay.models import Model

# Where no model is on offer yet.
ANY_MODEL = "your-model"


def first_call(key: ApiKey, *, text: str, base_url: str) -> str:
    """A curl command that asks the first model of this key to say hello."""
    body = {"model": _first_model(key), "messages": [{"role": "user", "content": "Hello"}]}
    parts = [
        f"curl {quote(base_url + '/chat/completions')}",
        f'-H "Authorization: Bearer {text}"',
        '-H "Content-Type: application/json"',
        f"-d {quote(json.dumps(body, ensure_ascii=False))}",
    ]
    return " \\\n  ".join(parts)


def models_on_offer() -> QuerySet[Model]:
    """Those that a key without a list of its own may ask now, by name."""
    return Model.objects.on_offer(timezone.now()).order_by("name")


def _first_model(key: ApiKey) -> str:
    """The first by name that may be asked now; else the first that the key names; else a word in its place."""
    offered = models_on_offer()
    if key.models_allowed:
        offered = offered.filter(name__in=key.models_allowed)
    names: list[str] = [*offered.values_list("name", flat=True)[:1], *key.models_allowed, ANY_MODEL]
    return names[0]
