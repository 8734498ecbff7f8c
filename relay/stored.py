"""Ids of content that upstreams keep: responses, their items, conversations. They belong to whoever made them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta

from django.utils import timezone

from relay.models import StoredContent

# OpenAI keeps responses this long.
KEPT_FOR = timedelta(days=30)
MAX_ID_LENGTH = 200
MAX_PRUNED_ROWS = 10_000


def remember(*, space_id: int, user_id: int, upstream_id: int, object_ids: Iterable[str]) -> None:
    """Remember ids that an upstream gave. An id that the space knows already stays its first owner's."""
    now = timezone.now()
    StoredContent.objects.bulk_create(
        (
            StoredContent(
                space_id=space_id, user_id=user_id, upstream_id=upstream_id, object_id=object_id, created_at=now
            )
            for object_id in object_ids
            if can_be_remembered(object_id)
        ),
        ignore_conflicts=True,
    )


def can_be_remembered(object_id: str) -> bool:
    return 0 < len(object_id) <= MAX_ID_LENGTH and object_id.isascii() and object_id.isprintable()


def find(*, space_id: int, user_id: int, object_ids: Collection[str]) -> dict[str, int]:
    """The id of the upstream that has it, by object id. Unknown, forgotten and other users' ids are left out alike."""
    asked = {object_id for object_id in object_ids if can_be_remembered(object_id)}
    if not asked:
        return {}
    since = timezone.now() - KEPT_FOR
    own = StoredContent.objects.filter(space=space_id, object_id__in=asked, user_id=user_id, created_at__gt=since)
    return dict(own.values_list("object_id", "upstream_id"))


def prune() -> int:
    """Delete a batch of ids that are older than KEPT_FOR. Returns how many."""
    old = StoredContent.objects.filter(created_at__lte=timezone.now() - KEPT_FOR)
    count, _ = StoredContent.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:MAX_PRUNED_ROWS])).delete()
    return count
