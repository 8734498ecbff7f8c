"""Models of the simulated provider on sale in the relay, members who buy them, and the law that each request obeys."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import requests
from django.core.management import call_command

from accounts.keys import KeyTerms, create_key
from accounts.models import ApiKey, User
from quotas.models import Hold, Wallet
from quotas.reconcile import reconcile
from relay.models import Model
from tenants.models import Space
from tests.factories import MemberFactory, SpaceFactory
from tests.relay.provider.asked import HELLO, written
from tests.relay.provider.billing import Mood
from tests.relay.provider.contents import PICTURE_TOKENS, SOUND_TOKENS_PER_S
from tests.relay.provider.prices import INPUTS, MILLION, NANOS_PER_USD, Offer, Prices
from tests.relay.provider.server import Entry, Provider
from tests.relay.provider.telling import WORDS
from usage.models import UsageRecord

USD = NANOS_PER_USD
PLAIN = {"input": 5 * USD // 2, "cached_input": 5 * USD // 4, "output": 10 * USD}
DOUBLE = {name: 2 * price for name, price in PLAIN.items()}
HALF = {name: price // 2 for name, price in PLAIN.items()}
WRITTEN = {
    "input": 4 * USD,
    "cached_input": 2 * USD // 5,
    "cache_write_5m": 5 * USD,
    "cache_write_1h": 8 * USD,
    "cache_write_12h": 10 * USD,
    "output": 20 * USD,
}
MEDIA = {"audio_input": 32 * USD, "audio_output": 64 * USD, "image_input": 5 * USD}
OFFERS = {
    "plain": Offer(Prices(PLAIN)),
    "long": Offer(Prices(WRITTEN, above=((2_000, {name: 2 * price for name, price in WRITTEN.items()}),)), 200_000),
    "tiers": Offer(Prices(PLAIN, when={"service_tier=priority": DOUBLE, "service_tier=flex": HALF})),
    "media": Offer(Prices(PLAIN | MEDIA), max_output_tokens=16_384),
    "search": Offer(Prices(PLAIN | {"per_search": USD // 100, "per_request": USD // 300})),
    # Fractions of a nano-dollar, and reading from the cache dearer than reading anew.
    "odd": Offer(Prices({"input": 150_001, "cached_input": 275_003, "output": 600_001}), 20_000, 5_000),
    "free": Offer(Prices({"input": 0})),
    "video": Offer(Prices({"per_second": USD // 10})),
    "sized": Offer(Prices({"per_second": 3 * USD // 10}, when={"size=1792x1024": {"per_second": USD // 2}})),
}
VIDEO_LISTS = ["video", "sized"]
TEXT_LISTS = [name for name in OFFERS if name not in VIDEO_LISTS]
CHAT: dict[str, Any] = {"model": "openai.plain", "messages": HELLO, "max_completion_tokens": 40}
RESPONSE: dict[str, Any] = {"model": "openai.plain", "input": "Hello", "max_output_tokens": 40}
MAX_WAIT_S = 20


@dataclass
class Outcome:
    """A request, its answer, what the provider's ledger has of it, and its rows in the usage log."""

    answer: requests.Response
    entries: list[Entry]
    records: list[UsageRecord]
    spent_nanos: int
    is_stream: bool = False
    shows_usage: bool = False

    @property
    def error(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.answer.content)["error"])
        except (ValueError, KeyError, TypeError):
            return {}

    def violations(self) -> list[str]:
        """What contradicts the law: a bill is at most its hold and is charged; what is refused costs nothing."""
        status = self.answer.status_code
        found = [f"answered {status}"] if status >= 500 else []
        if self.spent_nanos != sum(record.cost for record in self.records):
            found.append("the wallet and the records differ")
        found += [f"shortfall of {record.shortfall}" for record in self.records if record.shortfall]
        return found + (self._of_forwarded(self.entries) if self.entries else self._of_refused(status))

    def _of_refused(self, status: int) -> list[str]:
        found = [] if 400 <= status < 500 else [f"answered {status} without asking the provider"]
        if self.spent_nanos:
            found.append(f"refused, and charged {self.spent_nanos}")
        # An unreadable form has no fields to name.
        is_form = "multipart" in str(self.answer.request.headers.get("Content-Type"))
        if status == 400 and not self.error.get("param") and not is_form:
            found.append(f"refused without naming a field: {self.error}")
        return found

    def _of_forwarded(self, entries: list[Entry]) -> list[str]:
        if len(entries) != 1 or len(self.records) != 1:
            return [f"{len(entries)} requests forwarded, {len(self.records)} records"]
        [entry], [record] = entries, self.records
        found = []
        if entry.nanos > record.held:
            found.append(f"billed {entry.nanos}, held {record.held}: {dict(entry.bill.counts)}")
        if record.cost != entry.nanos:
            found.append(f"billed {entry.nanos}, charged {record.cost}: {dict(entry.bill.counts)}")
        if not entry.refused and self.answer.status_code == 200:
            found += self._of_answer()
        return found

    def _of_answer(self) -> list[str]:
        text = self.answer.text
        if not self.is_stream or self.shows_usage:
            return []
        found = ["shows usage to a client that did not ask"] if '_tokens": ' in text else []
        return found + [f"lost the word {word!r}" for word in WORDS if json.dumps(word) not in text]


@dataclass
class Market:
    """Sells models named `kind.list`: a kind of provider at a price list of OFFERS."""

    url: str
    provider: Provider
    space: Space
    keys: Mapping[str, str] = field(default_factory=dict)
    session: requests.Session = field(default_factory=requests.Session)

    @classmethod
    def open(cls, url: str, provider: Provider) -> Market:
        """A space with a rich member, a poor one, and a rich one whose key is limited."""
        space = SpaceFactory.create(grant_usd=100_000)
        members = {
            "rich": MemberFactory.create(space=space, usd=50_000),
            "poor": MemberFactory.create(space=space, usd=2),
            "limited": MemberFactory.create(space=space, usd=5_000),
        }
        limits = {"limited": {"limit_nanos": 2 * USD}}
        keys = {name: _key(user, **limits.get(name, {})) for name, user in members.items()}
        market = cls(url, provider, space, keys)
        # The relay still knows the upstreams of the test before, whose provider is gone.
        _wait_until(lambda: not market._offered(), pause_s=0.02)
        return market

    def sell(self, kinds: list[str], lists: list[str]) -> None:
        for kind in kinds:
            names = [f"{kind}.{name}" for name in lists]
            for name in lists:
                self.provider.offers[f"{kind}.{name}"] = OFFERS[name]
                _set_price(f"{kind}.{name}", OFFERS[name])
            _add_upstream(kind, self.provider.url_of(kind), names)
        self.wait_until_offered(*(f"{kind}.{name}" for kind in kinds for name in lists))

    def sell_failing(self, kind: str, fault: str) -> None:
        """Sell the models `alone-FAULT`, which only an upstream with that fault serves, and `twice-FAULT` of two."""
        names = [f"{word} {fault}".replace(" ", "-") for word in ("alone", "twice")]
        for name in names:
            self.provider.offers[name] = OFFERS["plain"]
            _set_price(name, OFFERS["plain"])
        _add_upstream(kind, self.provider.url_of(kind, fault), names, name=f"failing-{names[0]}")
        _add_upstream(kind, self.provider.url_of(kind), names[1:], "--priority=1", name=f"healthy-{names[0]}")

    def wait_until_offered(self, *models: str) -> None:
        _wait_until(lambda: {*models} <= self._offered(), pause_s=0.05)

    def _offered(self) -> set[str]:
        answer = requests.get(f"{self.url}/models", headers=self._headers("rich"), timeout=10)
        return {row["id"] for row in answer.json()["data"]}

    def _headers(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[who]}"}

    def ask(self, path: str, body: Mapping[str, Any], *, who: str = "rich", mood: Mood | None = None) -> Outcome:
        stream_options = body.get("stream_options")
        shows_usage = path == "responses" or bool(
            isinstance(stream_options, dict) and stream_options.get("include_usage")
        )
        return self.post(
            path,
            written(dict(body)),
            who=who,
            mood=mood or Mood(),
            is_stream=body.get("stream") is True,
            shows_usage=shows_usage,
        )

    def post(
        self,
        path: str,
        raw: bytes,
        *,
        who: str = "rich",
        mood: Mood | None = None,
        content_type: str = "application/json",
        is_stream: bool = False,
        shows_usage: bool = True,
    ) -> Outcome:
        self.provider.mood = mood or Mood()
        begun, last, spent = len(self.provider.ledger), self._last_record(), self._spent()
        headers = {"Content-Type": content_type, **self._headers(who)}
        answer = self.session.post(f"{self.url}/{path}", data=raw, headers=headers, timeout=30)
        if path == "videos" and answer.status_code == 200:
            self.session.get(f"{self.url}/videos/{answer.json()['id']}", headers=self._headers(who), timeout=30)
        entries = self.provider.ledger[begun:]
        records = UsageRecord.objects.filter(space=self.space, **({"pk__gt": last} if last else {}))
        _wait_until(lambda: not Hold.objects.filter(space=self.space).exists() and (records.exists() or not entries))
        return Outcome(answer, entries, list(records.all()), self._spent() - spent, is_stream, shows_usage)

    def _last_record(self) -> Any:
        return UsageRecord.objects.filter(space=self.space).order_by("-pk").values_list("pk", flat=True).first()

    def _spent(self) -> int:
        return sum(Wallet.objects.filter(space=self.space).values_list("spent", flat=True))

    def violations(self) -> list[str]:
        """What contradicts the law in the end, over all requests."""
        billed = sum(entry.nanos for entry in self.provider.ledger)
        found = [str(difference) for difference in reconcile(self.space)]
        found += [] if billed == self._spent() else [f"billed {billed} in all, charged {self._spent()}"]
        return found + [
            f"key {key.name} spent {key.spent} of {key.limit}"
            for key in ApiKey.objects.filter(space=self.space, limit__isnull=False)
            if key.spent > key.limit
        ]


def _key(owner: User, **terms: Any) -> str:
    return create_key(owner=owner, terms=KeyTerms(name="law", **terms))[1]


def _wait_until(is_so: Callable[[], bool], *, pause_s: float = 0.002) -> None:
    deadline = time.monotonic() + MAX_WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "what was waited for did not happen in time"
        time.sleep(pause_s)


# -- Setting up by the operator's commands ----------------------------------------------------------------------------


def _set_price(name: str, offer: Offer) -> None:
    prices = offer.prices
    options = [f"--{price.replace('_', '-')}={_usd(nanos)}" for price, nanos in prices.base.items()]
    for threshold, row in prices.above:
        options.append(f"--tier=above={threshold} {_row(row)}")
    options += [f"--when={fact} {_row(row)}" for fact, row in prices.when.items()]
    limits = [f"--max-output-tokens={offer.max_output_tokens}", f"--context-tokens={offer.context_tokens}"]
    _call("set_price", f"--model={name}", *options, *limits)
    picture, minute = prices.dearest(*INPUTS) * PICTURE_TOKENS, prices.dearest(*INPUTS) * SOUND_TOKENS_PER_S * 60
    Model.objects.filter(name=name).update(
        image_nanos_ceiling=-(-picture // MILLION), audio_minute_nanos_ceiling=-(-minute // MILLION)
    )


def _add_upstream(kind: str, url: str, models: list[str], *more: str, name: str = "") -> None:
    named = [f"--name={name or kind}", f"--kind={kind}", f"--base-url={url}", f"--models={','.join(models)}"]
    _call("add_upstream", *named, *more)


def _row(row: Mapping[str, int]) -> str:
    return " ".join(f"{name}={_usd(nanos)}" for name, nanos in row.items())


def _usd(nanos: int) -> str:
    return f"{Decimal(nanos) / USD:f}"


def _call(*command: str) -> None:
    call_command(*command, stdout=io.StringIO())
