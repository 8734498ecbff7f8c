"""The demo space: a dozen members in every state, and two months of history made through the product's own services."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.db import transaction
from django.utils import timezone

from accounts.keys import KeyTerms, Presented, create_key, parse_key, set_key_enabled
from accounts.models import ApiKey, User
from accounts.spending import refusal_of
from core import origin
from core.ids import new_id
from core.money import NANOS_PER_CENT
from core.origin import acting
from quotas.charging import Call, hold, release, settle
from quotas.members import MemberChanges, create_member, delete_member, edit_member, set_enabled
from quotas.models import Wallet
from quotas.reconcile import reconcile
from quotas.services import grant, set_remaining
from quotas.spaces import create_space
from relay.catalogue import Offer
from relay.pricing import Rate
from relay.tasks import TIMED_OUT, Report, accept, open_task, record
from relay.upstreams import Target
from tenants.models import Space
from usage.models import Task
from usage.partitions import Month, make_months, months_from

# Published on purpose; production refuses to start on a database with a demo space.
PASSWORD = "halcyon-demo"  # noqa: S105
SPACE = "Halcyon Labs"
MANAGER, OPERATOR = "mira.okafor", "operator"
DAYS = 58

# USD per million tokens, input and output, which is also thousands of nano-dollars per thousand tokens.
SMALL_MODELS = {"claude-sonnet-4": (3000, 15000), "gpt-4o-mini": (150, 600), "gemini-2.5-flash": (300, 2500)}
LARGE_MODELS = {"claude-sonnet-4": (3000, 15000), "gpt-4.1": (2000, 8000), "gemini-2.5-pro": (1250, 10000)}
# How often each of the large ones is asked.
LARGE_SHARES = (5, 3, 2)
CHANGE_MODEL, CHANGE_PRICE = "deepseek-v3", (270, 1100)


@dataclass(frozen=True)
class Person:
    """Cents of total and spent as they are today; days ago when things happened."""

    username: str
    display_name: str
    total: int
    spent: int
    joined: int
    key: str = ""
    is_admin: bool = False
    disabled: int | None = None
    deleted: int | None = None
    # (days ago, cents, by whom), beside what they were given on joining
    changes: tuple[tuple[int, int, str], ...] = ()

    @property
    def first_total(self) -> int:
        return self.total - sum(cents for _, cents, _ in self.changes)

    @property
    def last_day(self) -> int:
        return self.disabled or self.deleted or 0


@dataclass(frozen=True)
class Key:
    """Cents of its limit; days ago when things happened, below zero what is still to come."""

    owner: str
    name: str
    made: int
    limit: int | None = None
    models: tuple[str, ...] = ()
    expires: int | None = None
    disabled: int | None = None


PEOPLE = [
    Person("amara.diallo", "Amara Diallo", 8000, 1880, 57, "rag-prod", is_admin=True),
    Person("theo.lindqvist", "Theo Lindqvist", 6000, 2154, 57, "laptop"),
    Person("jun.sato", "Jun Sato", 500, 300, 56, "scratch"),
    Person("priya.nair", "Priya Nair", 2500, 1025, 55, "prototype", disabled=8, changes=((10, -1500, MANAGER),)),
    Person("ci-bot", "CI bot", 4000, 4000, 54, "pipeline", changes=((20, 1500, "amara.diallo"),)),
    Person("leila.haddad", "Leila Haddad", 3000, 210, 50, "default", is_admin=True),
    Person("marcus.webb", "Marcus Webb", 3500, 3088, 49, "notebook"),
    Person("sofia.reyes", "Sofía Reyes", 2000, 200, 44, "sandbox"),
    Person("eval-runner", "", 0, 0, 40),
    Person("noor.aziz", "نور عزيز", 1000, 40, 33, "study"),
    Person("kai.tanaka", "田中 海", 1500, 395, 30, "mobile"),
    Person("dana.kim", "Dana Kim", 2500, 640, 29, "thesis", deleted=9),
    Person("olu.bello", "Olu Bello", 1000, 166, 3, "default"),
]
MANAGER_SPENT = 4218
# Beside the one that each of PEOPLE has.
KEYS = [
    Key(MANAGER, "default", DAYS),
    Key(MANAGER, "batch-embeddings", 50, limit=2500, models=("gemini-2.5-flash", "gpt-4o-mini"), expires=-56),
    Key(MANAGER, "demo-stand", 45, limit=500, models=("gemini-2.5-flash",), disabled=20),
    Key("theo.lindqvist", "hackathon", 40, limit=1000, models=("gpt-4o-mini",), expires=12),
]
ADDRESS = "203.0.113.7"
VIDEO_TIMEOUT_S = 3600
# Who makes videos of a model, and the cents of a second.
STUDIOS = {"sora-2": ("openai", 10), "veo-3-fast": ("google", 15)}


@dataclass(frozen=True)
class Video:
    """Asked for so long ago; its end, if it has any, so long after that: well when there is no code."""

    owner: str
    model: str
    seconds: int
    ago: timedelta
    took: timedelta | None = None
    code: str = ""
    progress: int = 0

    @property
    def cents(self) -> int:
        """What it has cost."""
        is_paid = self.took and not self.code
        return STUDIOS[self.model][1] * self.seconds if is_paid else 0


VIDEOS = [
    Video("sofia.reyes", "sora-2", 4, timedelta(seconds=20)),
    Video("theo.lindqvist", "veo-3-fast", 8, timedelta(seconds=70), progress=62),
    Video(MANAGER, "sora-2", 8, timedelta(hours=2), timedelta(seconds=94)),
    Video("marcus.webb", "veo-3-fast", 8, timedelta(hours=5), timedelta(seconds=125), "content_policy_violation"),
    Video("amara.diallo", "sora-2", 12, timedelta(hours=26), timedelta(seconds=171)),
    Video("theo.lindqvist", "veo-3-fast", 4, timedelta(hours=27), timedelta(seconds=48)),
    Video("theo.lindqvist", "sora-2", 4, timedelta(days=3), timedelta(seconds=VIDEO_TIMEOUT_S), TIMED_OUT),
    Video("amara.diallo", "veo-3-fast", 6, timedelta(days=4, hours=3), timedelta(seconds=77)),
    Video("sofia.reyes", "sora-2", 4, timedelta(days=5, hours=1), timedelta(seconds=51)),
]


def make_demo() -> Space:
    """The whole story or none of it."""
    now = timezone.now()
    # Made before the rows, so that no row has to move later.
    make_months(months_from(Month.of(now - timedelta(days=DAYS)), Month.of(now)))
    with transaction.atomic():
        story = _Story(now)
        for moment, deed in sorted(story.deeds(), key=lambda item: item[0]):
            with acting(address=ADDRESS, moment=moment):
                deed()
        reconcile(story.space)
        return story.space


class _Story:
    """Deeds with their moments, gathered first and then done in the order of time, as they would have been."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._random = random.Random(2026)  # noqa: S311  a story, not a secret
        self._keys: dict[str, Presented | None] = {}
        self._tasks: dict[Video, Task] = {}

    @property
    def space(self) -> Space:
        return Space.objects.get(name=SPACE)

    def deeds(self) -> Iterator[tuple[datetime, Callable[[], object]]]:
        yield self._at(DAYS, 8), self._found
        yield (
            self._at(14, 9),
            lambda: grant(space=self.space, amount_nanos=_nanos(10000), reason="Monthly top-up", actor=None),
        )
        yield from self._spending(MANAGER, MANAGER_SPENT, DAYS - 2, 0)
        for order, person in enumerate(PEOPLE):
            yield from self._life(person, minute=3 * order)
        for key in KEYS:
            yield self._at(key.made, 10), _later(self._make_key, key)
            if key.disabled:
                yield self._at(key.disabled, 16), _later(self._disable_key, key)
        for video in VIDEOS:
            yield from self._making(video)

    def _making(self, video: Video) -> Iterator[tuple[datetime, Callable[[], object]]]:
        asked = self._now - video.ago
        yield asked, lambda: self._submit(video)
        yield asked + timedelta(seconds=1), lambda: self._accept(video)
        if video.took:
            yield asked + video.took, lambda: self._end(video)

    def _life(self, person: Person, minute: int) -> Iterator[tuple[datetime, Callable[[], object]]]:
        joined = self._at(person.joined, 9, minute)
        yield joined, lambda: self._join(person)
        if person.first_total:
            yield joined + timedelta(minutes=1), lambda: self._give(person.username, person.first_total, MANAGER)
        if person.is_admin:
            yield joined + timedelta(minutes=2), lambda: self._promote(person.username)
        if person.key:
            yield joined + timedelta(minutes=3), _later(self._make_key, Key(person.username, person.key, person.joined))
        for day, cents, actor in person.changes:
            yield self._at(day, 17, 50), _later(self._give, person.username, cents, actor)
        # What a change takes away or gives must be there before, and not be needed before.
        busy_until = max([person.last_day, *(day + 1 for day, cents, _ in person.changes if cents < 0)])
        busy_from = min([person.joined - 1, *(day + 10 for day, cents, _ in person.changes if cents > 0)])
        yield from self._spending(person.username, person.spent, busy_from, busy_until)
        if person.disabled:
            yield self._at(person.disabled, 11), lambda: self._disable(person.username)
        if person.deleted:
            yield self._at(person.deleted, 17, 52), lambda: self._delete(person.username)

    def _spending(
        self, username: str, cents: int, first_day: int, last_day: int
    ) -> Iterator[tuple[datetime, Callable[[], object]]]:
        left = _nanos(cents - sum(video.cents for video in VIDEOS if video.owner == username))
        if not left:
            return
        moments = self._moments(first_day, last_day, count=min(40, 6 + cents // 60))
        for later, moment in zip(range(len(moments) - 2, -1, -1), moments[:-1], strict=True):
            # The last but one takes nearly all that is left, so that the last is small change.
            share = left / (later + 1) * self._random.choice([0.02, 1.1, 1.6]) if later else left * 0.985
            call, cost = self._call(most=min(int(share), left - 1_000_000))
            left -= cost
            yield moment, _later(self._charge, username, call, cost)
        yield moments[-1], _later(self._charge, username, _call_costing(left), left)
        yield moments[len(moments) // 2], lambda: self._fail(username)

    def _moments(self, first_day: int, last_day: int, count: int) -> list[datetime]:
        earliest = self._at(first_day, 0)
        latest = self._at(last_day, 0) if last_day else self._now - timedelta(minutes=5)
        span_s = (latest - earliest).total_seconds()
        return sorted(earliest + timedelta(seconds=self._random.uniform(0, span_s)) for _ in range(count))

    def _call(self, most: int) -> tuple[Call, int]:
        # A dear request is an agent's with a long context; the small models are for small ones.
        if most < 20_000_000:
            model, (price_in, price_out) = self._random.choice(list(SMALL_MODELS.items()))
        else:
            [(model, (price_in, price_out))] = self._random.choices(list(LARGE_MODELS.items()), LARGE_SHARES)
        tokens_in = int(most * self._random.uniform(0.5, 0.8)) // price_in
        tokens_out = (most - tokens_in * price_in) // price_out
        cost = tokens_in * price_in + tokens_out * price_out
        return self._made_call(model, tokens_in, tokens_out, price_in, price_out), cost

    def _made_call(self, model: str, tokens_in: int, tokens_out: int, price_in: int, price_out: int) -> Call:
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
        """That time of the day, so many days ago; never later than now."""
        day = (self._now - timedelta(days=days_ago)).replace(hour=hour, minute=minute, second=0, microsecond=0)
        return min(day, self._now - timedelta(minutes=10))

    # -- Deeds ----------------------------------------------------------------------------------------------------

    def _found(self) -> None:
        create_space(
            name=SPACE,
            manager_username=MANAGER,
            manager_password=PASSWORD,
            manager_display_name="Mira Okafor",
            grant_nanos=_nanos(40000),
            is_demo=True,
        )

    def _join(self, person: Person) -> None:
        create_member(
            space=self.space,
            username=person.username,
            display_name=person.display_name,
            password=PASSWORD,
            actor=_user(MANAGER),
        )

    def _give(self, username: str, cents: int, actor: str) -> None:
        member = _user(username)
        wallet = Wallet.objects.get(space=member.space_id, user=member)
        set_remaining(member=member, remaining_nanos=wallet.remaining + _nanos(cents), actor=_user(actor))

    def _promote(self, username: str) -> None:
        edit_member(member=_user(username), changes=MemberChanges(is_admin=True), actor=_user(MANAGER))

    def _disable(self, username: str) -> None:
        set_enabled(member=_user(username), is_enabled=False, actor=_user("leila.haddad"))

    def _delete(self, username: str) -> None:
        delete_member(member=_user(username), actor=_user(MANAGER))

    def _make_key(self, key: Key) -> None:
        terms = KeyTerms(
            name=key.name,
            limit_nanos=None if key.limit is None else _nanos(key.limit),
            models=key.models,
            expires_at=None if key.expires is None else self._now - timedelta(days=key.expires),
        )
        _made, text = create_key(owner=_user(key.owner), terms=terms)
        # Known to nobody once the story is told.
        self._keys.setdefault(key.owner, parse_key(text))

    def _disable_key(self, key: Key) -> None:
        owner = _user(key.owner)
        set_key_enabled(key=ApiKey.objects.get(user=owner, name=key.name), is_enabled=False, actor=owner)

    def _charge(self, username: str, call: Call, cost: int) -> None:
        user, request_id = _user(username), new_id()
        call = _with_key(call, user)
        hold(request_id=request_id, user=user, amount_nanos=cost, call=call)
        settle(space_id=self.space.pk, request_id=request_id, cost_nanos=cost, call=call)

    def _submit(self, video: Video) -> None:
        key = self._keys[video.owner]
        assert key is not None
        self._tasks[video], _hold = open_task(
            presented=key, address=ADDRESS, offer=_offer(video.model), body_bytes=0, seconds=video.seconds, images=0
        )

    def _accept(self, video: Video) -> None:
        status = Task.Status.IN_PROGRESS if video.progress else Task.Status.QUEUED
        report = Report(status, upstream_task_id=f"demo-{VIDEOS.index(video)}", progress=video.progress)
        accept(self._tasks[video], _studio(video.model), report)

    def _end(self, video: Video) -> None:
        status = Task.Status.FAILED if video.code else Task.Status.SUCCESS
        is_late = video.code == TIMED_OUT
        record(self._tasks[video], None if is_late else Report(status, seconds=video.seconds, code=video.code))

    def _fail(self, username: str) -> None:
        user, request_id = _user(username), new_id()
        call = _with_key(Call(model="claude-sonnet-4", duration_ms=30000, status=502, code="upstream_error"), user)
        hold(request_id=request_id, user=user, amount_nanos=1000, call=call)
        release(space_id=self.space.pk, request_id=request_id, call=call)


def _call_costing(nanos: int) -> Call:
    """A request of exactly this cost: tokens in and out with 270 in + 1100 out = nanos."""
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
        rate=Rate(per_second=_nanos(STUDIOS[model][1])),
        default_output_tokens=0,
        max_output_tokens=0,
        context_tokens=0,
        image_nanos_ceiling=0,
        audio_minute_nanos_ceiling=0,
        task_timeout_s=VIDEO_TIMEOUT_S,
        created=0,
    )


def _studio(model: str) -> Target:
    """One that nobody can ask: what it makes stays as it is told here, until its time is over."""
    name = STUDIOS[model][0]
    return Target(id=0, name=name, base_url="", credential="", priority=0, weight=1, timeout_s=1)


def _with_key(call: Call, user: User) -> Call:
    """The newest of the user's keys that may make this call."""
    keys = ApiKey.objects.filter(space=user.space_id, user=user).select_related("user", "space").order_by("-number")
    now = origin.now()
    key = next(key for key in keys if refusal_of(key, address=ADDRESS, model=call.model, moment=now) is None)
    return msgspec.structs.replace(call, key_id=key.pk, key_name=key.name)


def _later(deed: Callable[..., object], *args: object) -> Callable[[], object]:
    return lambda: deed(*args)


def _user(username: str) -> User:
    return User.objects.get_by_natural_key(username)


def _nanos(cents: int) -> int:
    return cents * NANOS_PER_CENT
