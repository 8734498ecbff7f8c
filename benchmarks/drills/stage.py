"""The set-up of a drill: a space with members, money, keys and models, and the processes that serve it."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import ApiKey, User
from benchmarks.drills.asking import Ask
from benchmarks.drills.postgres import Postgres
from benchmarks.drills.processes import DemoUpstream, RelayServer
from benchmarks.drills.report import DrillReport
from core.money import NANOS_PER_USD
from quotas.members import create_member
from quotas.models import Wallet
from quotas.services import set_remaining
from quotas.spaces import create_space
from relay.models import Model, Upstream
from relay.prices import PriceList, Rate

PASSWORD = "drill sergeant's own"
# A fixed price per request, so that a hold equals its cost.
FIXED = Rate(per_request=NANOS_PER_USD // 100)
BY_TOKEN = Rate(input=5 * NANOS_PER_USD // 2, cached_input=5 * NANOS_PER_USD // 4, output=10 * NANOS_PER_USD)


class Stage:
    """Each drill has its own. Leaving the `with` block ends the processes that it started."""

    def __init__(self, name: str, report: DrillReport, postgres: Postgres | None) -> None:
        self.report = report
        self.postgres = postgres
        self._name = name
        self._stack = ExitStack()
        self._numbers = itertools.count(2)
        self.manager_name = f"{name}.manager"
        self.space = create_space(
            name=f"Drill {name}",
            manager_username=self.manager_name,
            manager_password=PASSWORD,
            grant_nanos=100_000 * NANOS_PER_USD,
        )
        self.manager = User.objects.select_related("space").get(space=self.space, number=1)

    def __enter__(self) -> Self:
        self._home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="drills-")))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stack.close()

    def member(self, usd: int = 1000) -> User:
        name = f"{self._name}.{next(self._numbers)}"
        made = create_member(space=self.space, username=name, display_name="", password=PASSWORD, actor=self.manager)
        if usd:
            self.fund(made, usd * NANOS_PER_USD)
        return User.objects.select_related("space").get(pk=made.pk)

    def fund(self, member: User, nanos: int) -> None:
        """Allocate or reclaim, so that exactly this much remains in the member's wallet."""
        set_remaining(member=member, remaining_nanos=nanos, actor=self.manager)

    def key(self, owner: User, **terms: Any) -> str:
        return self.key_row(owner, **terms)[1]

    def key_row(self, owner: User, **terms: Any) -> tuple[ApiKey, str]:
        return create_key(owner=owner, terms=KeyTerms(name="drill", **terms))

    def offer(self, kind: str, rate: Rate, *urls: str, timeout_s: int = 600) -> str:
        """Return the name of a new model, which these upstreams serve in order of priority."""
        model = Model.objects.create(name=f"{self._name}-{kind}", default_output_tokens=64, max_output_tokens=4096)
        model.set_price(PriceList(rate), timezone.now())
        for priority, url in enumerate(urls):
            name = f"{model.name}-{priority}"
            upstream = Upstream.objects.create(name=name, base_url=url, priority=priority, timeout_s=timeout_s)
            upstream.models.add(model)
        return model.name

    def upstream(self) -> DemoUpstream:
        upstream = DemoUpstream(self._home)
        self._stack.callback(upstream.close)
        upstream.start()
        return upstream

    def relay(self, **options: Any) -> RelayServer:
        """Start a relay. Call it after `offer`, so that the relay knows the models from its first request on."""
        relay = RelayServer(self._home, **options)
        self._stack.callback(relay.close)
        relay.start()
        return relay

    def check_logs(self) -> None:
        lines = [
            line for log in self._home.glob("relay-*.log") for line in log.read_text(errors="replace").splitlines()
        ]
        self.report.check("the relay logs no bug", [line for line in lines if _is_bug(line)])


def _is_bug(line: str) -> bool:
    return any(sign in line for sign in ("Traceback (most recent call last)", "set_failed", "was never retrieved"))


def wallet_of(member: User) -> Wallet:
    return Wallet.objects.get(space=member.space_id, user=member)


def mixed(base: str, keys: list[str], *models: str) -> Callable[[int], Ask]:
    """Make requests for a BackgroundLoad: half of them streams, over all keys and models, each with a small delay."""

    def make(number: int) -> Ask:
        is_stream = number % 2 == 0
        content = "demo:pace=0.01 demo:tokens=30" if is_stream else f"demo:delay={0.02 * (number % 5)}"
        return Ask(
            base=base,
            key=keys[number // 2 % len(keys)],
            model=models[number // 4 % len(models)],
            content=f"{content} Number {number}.",
            is_stream=is_stream,
        )

    return make


class Browser:
    def __init__(self, base: str, username: str) -> None:
        self._base = base
        self._session = requests.Session()
        self._token = ""
        answer = self.post("/login/", username=username, password=PASSWORD)
        assert answer.status_code == 302, f"{username} could not sign in: {answer.status_code}"
        # Signing in rotates the CSRF token.
        self._token = ""

    def get(self, path: str) -> requests.Response:
        return self._session.get(f"{self._base}{path}", timeout=60, allow_redirects=False)

    def post(self, path: str, **fields: str) -> requests.Response:
        data = {**fields, "csrfmiddlewaretoken": self._csrf_token()}
        return self._session.post(f"{self._base}{path}", data=data, timeout=60, allow_redirects=False)

    def _csrf_token(self) -> str:
        if not self._token:
            page = self.get("/me/settings/" if self._session.cookies.get("sessionid") else "/login/")
            found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
            assert found, f"no form at all: {page.status_code}"
            self._token = found[1]
        return self._token
