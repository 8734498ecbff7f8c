"""Makes the demo space: a dozen members in every state and two months of history, all by the product's services."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

import msgspec
from django.db import transaction
from django.utils import timezone

from accounts.keys import KeyTerms, Presented, create_key, parse_key, set_key_enabled
from accounts.models import ApiKey, User
from accounts.spending import refusal_of
from core import origin
from core.ids import id_at, new_id
from core.money import NANOS_PER_CENT
from core.origin import acting
from demo.cast import (
    CHANGE_MODEL,
    CHANGE_PRICE,
    CLIENT_ADDRESS,
    DAYS,
    KEYS,
    LARGE_MODELS,
    LARGE_WEIGHTS,
    MANAGER,
    MANAGER_SPENT,
    MEMBERS,
    PASSWORD,
    SMALL_MODELS,
    SPACE,
    VIDEO_MODELS,
    VIDEO_TIMEOUT_S,
    VIDEOS,
    DemoKey,
    DemoMember,
    DemoVideo,
)
from quotas.charging import Call, hold, release, settle
from quotas.members import MemberChanges, create_member, delete_member, edit_member, set_enabled
from quotas.models import Wallet
from quotas.reconcile import reconcile
from quotas.services import grant, set_remaining
from quotas.spaces import create_space
from relay.catalogue import Offer
from relay.dialects.videos import VideoRequest
from relay.prices import PriceList, Rate
from relay.tasks import TIMED_OUT, TaskReport, accept, apply_report, open_task
from relay.upstreams import Target
from tenants.models import Space
from usage.models import Task
from usage.partitions import Month, make_months, months_from


def make_demo() -> Space:
    now = timezone.now()
    # Partitions are made before the rows, or the rows would go to the default partition and move later.
    make_months(months_from(Month.of(now - timedelta(days=DAYS)), Month.of(now)))
    with transaction.atomic():
        history = _DemoHistory(now)
        for moment, deed in sorted(history.deeds(), key=lambda item: item[0]):
            with acting(address=CLIENT_ADDRESS, moment=moment):
                deed()
        reconcile(history.space)
        return history.space


class _DemoHistory:
    """Generates (moment, deed) pairs, which are sorted by time and then done through the services."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._random = random.Random(2026)  # noqa: S311  sample data, not a secret
        self._keys: dict[str, Presented | None] = {}
        self._tasks: dict[DemoVideo, Task] = {}

    @property
    def space(self) -> Space:
        return Space.objects.get(name=SPACE)

    def deeds(self) -> Iterator[tuple[datetime, Callable[[], object]]]:
        yield self._at(DAYS, 8), self._create_space
        yield (
            self._at(14, 9),
            lambda: grant(space=self.space, amount_nanos=_cents_to_nanos(10000), reason="Monthly top-up", actor=None),
        )
        yield from self._spending_deeds(MANAGER, MANAGER_SPENT, DAYS - 2, 0)
        for order, member in enumerate(MEMBERS):
            yield from self._member_deeds(member, minute=3 * order)
        for key in KEYS:
            yield self._at(key.made, 10), partial(self._make_key, key)
            if key.disabled:
                yield self._at(key.disabled, 16), partial(self._disable_key, key)
        for video in VIDEOS:
            yield from self._video_deeds(video)

    def _video_deeds(self, video: DemoVideo) -> Iterator[tuple[datetime, Callable[[], object]]]:
        submitted_at = self._now - video.ago
        yield submitted_at, lambda: self._submit(video)
        yield submitted_at + timedelta(seconds=1), lambda: self._accept(video)
        if video.took:
            yield submitted_at + video.took, lambda: self._finish(video)

    def _member_deeds(self, member: DemoMember, minute: int) -> Iterator[tuple[datetime, Callable[[], object]]]:
        joined = self._at(member.joined, 9, minute)
        yield joined, lambda: self._join(member)
        if member.first_total:
            yield (
                joined + timedelta(minutes=1),
                lambda: self._change_quota(member.username, member.first_total, MANAGER),
            )
        if member.is_admin:
            yield joined + timedelta(minutes=2), lambda: self._promote(member.username)
        if member.key:
            yield (
                joined + timedelta(minutes=3),
                partial(self._make_key, DemoKey(member.username, member.key, member.joined)),
            )
        for day, cents, actor in member.changes:
            yield self._at(day, 17, 50), partial(self._change_quota, member.username, cents, actor)
        # Spending ends before a cut, so that the amount to cut is still there. It begins only ten days before a raise,
        # so that what the raise adds is not needed earlier.
        busy_until = max([member.last_day, *(day + 1 for day, cents, _ in member.changes if cents < 0)])
        busy_from = min([member.joined - 1, *(day + 10 for day, cents, _ in member.changes if cents > 0)])
        yield from self._spending_deeds(member.username, member.spent, busy_from, busy_until)
        if member.disabled:
            yield self._at(member.disabled, 11), lambda: self._disable(member.username)
        if member.deleted:
            yield self._at(member.deleted, 17, 52), lambda: self._delete(member.username)

    def _spending_deeds(
        self, username: str, cents: int, first_day: int, last_day: int
    ) -> Iterator[tuple[datetime, Callable[[], object]]]:
        left = _cents_to_nanos(cents - sum(video.cents for video in VIDEOS if video.owner == username))
        if not left:
            return
        moments = self._moments(first_day, last_day, count=min(40, 6 + cents // 60))
        for later, moment in zip(range(len(moments) - 2, -1, -1), moments[:-1], strict=True):
            # The last but one request costs nearly all that is left, so the last one's exact cost is small.
            share = left / (later + 1) * self._random.choice([0.02, 1.1, 1.6]) if later else left * 0.985
            call, cost = self._call(max_nanos=min(int(share), left - 1_000_000))
            left -= cost
            yield moment, partial(self._charge, username, call, cost)
        yield moments[-1], partial(self._charge, username, _call_costing(left), left)
        yield moments[len(moments) // 2], lambda: self._fail_request(username)

    def _moments(self, first_day: int, last_day: int, count: int) -> list[datetime]:
        earliest = self._at(first_day, 0)
        latest = self._at(last_day, 0) if last_day else self._now - timedelta(minutes=5)
        span_s = (latest - earliest).total_seconds()
        return sorted(earliest + timedelta(seconds=self._random.uniform(0, span_s)) for _ in range(count))

    def _call(self, max_nanos: int) -> tuple[Call, int]:
        # Small models for cheap requests; an expensive one is an agent's, with a long context.
        if max_nanos < 20_000_000:
            model, (price_in, price_out) = self._random.choice(list(SMALL_MODELS.items()))
        else:
            [(model, (price_in, price_out))] = self._random.choices(list(LARGE_MODELS.items()), LARGE_WEIGHTS)
        tokens_in = int(max_nanos * self._random.uniform(0.5, 0.8)) // price_in
        tokens_out = (max_nanos - tokens_in * price_in) // price_out
        cost = tokens_in * price_in + tokens_out * price_out
        return self._call_of(model, tokens_in, tokens_out, price_in, price_out), cost

    def _call_of(self, model: str, tokens_in: int, tokens_out: int, price_in: int, price_out: int) -> Call:
        first = self._random.randint(180, 900)
        return Call(
            model=model,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            price={"input": price_in * 1_000_000, "output": price_out * 1_000_000},
            first_token_ms=first,
            duration_ms=first + tokens_out * 9,
        )

    def _at(self, days_ago: int, hour: int, minute: int = 0) -> datetime:
        """This time of day in UTC, so many days ago, but at least ten minutes ago."""
        day = (self._now - timedelta(days=days_ago)).replace(hour=hour, minute=minute, second=0, microsecond=0)
        return min(day, self._now - timedelta(minutes=10))

    # -- Deeds ----------------------------------------------------------------------------------------------------

    def _create_space(self) -> None:
        create_space(
            name=SPACE,
            manager_username=MANAGER,
            manager_password=PASSWORD,
            manager_display_name="Mira Okafor",
            grant_nanos=_cents_to_nanos(40000),
            is_demo=True,
        )

    def _join(self, member: DemoMember) -> None:
        create_member(
            space=self.space,
            username=member.username,
            display_name=member.display_name,
            password=PASSWORD,
            actor=_user(MANAGER),
        )

    def _change_quota(self, username: str, cents: int, actor: str) -> None:
        member = _user(username)
        wallet = Wallet.objects.get(space=member.space_id, user=member)
        set_remaining(member=member, remaining_nanos=wallet.remaining + _cents_to_nanos(cents), actor=_user(actor))

    def _promote(self, username: str) -> None:
        edit_member(member=_user(username), changes=MemberChanges(is_admin=True), actor=_user(MANAGER))

    def _disable(self, username: str) -> None:
        set_enabled(member=_user(username), is_enabled=False, actor=_user("leila.haddad"))

    def _delete(self, username: str) -> None:
        delete_member(member=_user(username), actor=_user(MANAGER))

    def _make_key(self, key: DemoKey) -> None:
        terms = KeyTerms(
            name=key.name,
            limit_nanos=None if key.limit is None else _cents_to_nanos(key.limit),
            models=key.models,
            expires_at=None if key.expires is None else self._now - timedelta(days=key.expires),
        )
        _made, text = create_key(owner=_user(key.owner), terms=terms)
        # Only kept to submit video tasks; the secret is stored nowhere.
        self._keys.setdefault(key.owner, parse_key(text))

    def _disable_key(self, key: DemoKey) -> None:
        owner = _user(key.owner)
        set_key_enabled(key=ApiKey.objects.get(user=owner, name=key.name), is_enabled=False, actor=owner)

    def _charge(self, username: str, call: Call, cost: int) -> None:
        user, request_id = _user(username), new_id()
        call = _with_key(call, user)
        hold(request_id=request_id, user=user, amount_nanos=cost, call=call)
        settle(space_id=self.space.pk, request_id=request_id, cost_nanos=cost, call=call)

    def _submit(self, video: DemoVideo) -> None:
        key = self._keys[video.owner]
        assert key is not None
        self._tasks[video], _hold = open_task(
            presented=key,
            address=CLIENT_ADDRESS,
            offer=_offer(video.model),
            request_id=id_at(origin.now()),
            video=VideoRequest(model=video.model, seconds=video.seconds, images=0, size="", fields={}),
            body_bytes=0,
        )

    def _accept(self, video: DemoVideo) -> None:
        status = Task.Status.IN_PROGRESS if video.progress else Task.Status.QUEUED
        report = TaskReport(status, upstream_task_id=f"demo-{VIDEOS.index(video)}", progress=video.progress)
        accept(self._tasks[video], _target(video.model), report)

    def _finish(self, video: DemoVideo) -> None:
        status = Task.Status.FAILED if video.code else Task.Status.SUCCESS
        is_late = video.code == TIMED_OUT
        apply_report(
            self._tasks[video], None if is_late else TaskReport(status, seconds=video.seconds, code=video.code)
        )

    def _fail_request(self, username: str) -> None:
        user, request_id = _user(username), new_id()
        call = _with_key(Call(model="claude-sonnet-4", duration_ms=30000, status=502, code="upstream_error"), user)
        hold(request_id=request_id, user=user, amount_nanos=1000, call=call)
        release(space_id=self.space.pk, request_id=request_id, call=call)


def _call_costing(nanos: int) -> Call:
    """A request that costs exactly `nanos`: solves price_in * tokens_in + price_out * tokens_out = nanos."""
    price_in, price_out = CHANGE_PRICE
    tokens_out = next(n for n in range(price_in) if (nanos - n * price_out) % price_in == 0)
    tokens_in = (nanos - tokens_out * price_out) // price_in
    return Call(
        model=CHANGE_MODEL,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        price={"input": price_in * 1_000_000, "output": price_out * 1_000_000},
        first_token_ms=420,
        duration_ms=2600,
    )


def _offer(model: str) -> Offer:
    return Offer(
        name=model,
        prices=PriceList(Rate(per_second=_cents_to_nanos(VIDEO_MODELS[model][1]))),
        default_output_tokens=0,
        max_output_tokens=0,
        context_tokens=0,
        image_nanos_ceiling=0,
        audio_minute_nanos_ceiling=0,
        task_timeout_s=VIDEO_TIMEOUT_S,
        created=0,
    )


def _target(model: str) -> Target:
    # Without an address the worker cannot poll it, so a demo task keeps its state until its deadline.
    name = VIDEO_MODELS[model][0]
    return Target(id=0, name=name, base_url="", credential="", priority=0, weight=1, timeout_s=1)


def _with_key(call: Call, user: User) -> Call:
    keys = ApiKey.objects.filter(space=user.space_id, user=user).select_related("user", "space").order_by("-number")
    now = origin.now()
    # The newest key of the user that may make the call.
    key = next(key for key in keys if refusal_of(key, address=CLIENT_ADDRESS, model=call.model, moment=now) is None)
    return msgspec.structs.replace(call, key_id=key.pk, key_name=key.name)


def _user(username: str) -> User:
    return User.objects.get_by_natural_key(username)


def _cents_to_nanos(cents: int) -> int:
    return cents * NANOS_PER_CENT
