from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import migrations
from django.db.migrations.state import StateApps
from django.db.models import Sum
from django.db.models.functions import TruncHour

from usage.figures import EPOCH, HOUR, floor


def _reopen_wrong_quarters(apps: StateApps, schema_editor: Any) -> None:
    """Reopen each space from the first hour on in which quarters and hours differ in their numbers of requests.

    A record that was missed is a request that was not counted, so comparing the requests is enough. The hour that the
    mark divides cannot be compared, and is reopened as well.
    """
    marks = apps.get_model("usage", "QuarterMark").objects
    for space_id in marks.order_by("pk").values_list("pk", flat=True):
        mark = marks.select_for_update().get(pk=space_id)
        start = _first_wrong_hour(apps, space_id, floor(mark.through, HOUR))
        marks.filter(pk=space_id, through__gt=start).update(through=start)
        for name in ("SpaceQuarter", "NameQuarter"):
            apps.get_model("usage", name).objects.filter(space=space_id, quarter__gte=start).delete()
        apps.get_model("usage", "CommonName").objects.filter(space=space_id, since__gt=start).update(since=start)


def _first_wrong_hour(apps: StateApps, space_id: int, before: datetime) -> datetime:
    # Only hours whose records are not pruned: closing the quarters again reads the records.
    checkpoints = apps.get_model("usage", "UsageCheckpoint").objects.filter(space=space_id)
    kept = checkpoints.order_by("-through").values_list("through", flat=True).first() or EPOCH
    hours = apps.get_model("usage", "HourlyUsage").objects.filter(space=space_id, hour__gte=kept, hour__lt=before)
    quarters = apps.get_model("usage", "SpaceQuarter").objects.filter(
        space=space_id, quarter__gte=kept, quarter__lt=before
    )
    by_hour = dict(hours.order_by().values_list("hour").annotate(Sum("requests")))
    closed = quarters.order_by().values_list(TruncHour("quarter", tzinfo=UTC)).annotate(Sum("requests"))
    differing = by_hour.items() ^ dict(closed).items()
    return min((hour for hour, _requests in differing), default=before)


class Migration(migrations.Migration):
    """Reopen quarters that were closed over too few rows, while rows moved between partitions; docs/decisions/015-*."""

    dependencies = [("usage", "0009_common_names")]

    operations = [migrations.RunPython(_reopen_wrong_quarters, migrations.RunPython.noop, elidable=True)]
