"""The simulated provider of the tests as upstreams of a drill: what it billed is compared with what was charged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.drills.stage import BY_TOKEN, Stage
from tests.relay.provider.prices import Offer, Prices
from tests.relay.provider.server import Provider
from usage.models import UsageRecord

# How outcomes of an Ask begin.
SERVED = ("200",)
TOLD_AS_FAILURE = ("404", "429 rate_limited", "502 upstream_error", "503")
PRICES = Prices({"input": BY_TOKEN.input, "cached_input": BY_TOKEN.cached_input, "output": BY_TOKEN.output})


class DrillProvider(Provider):
    def sell(self, *models: str) -> None:
        self.offers |= dict.fromkeys(models, Offer(PRICES, max_output_tokens=4096))

    def urls(self, fault: str) -> tuple[str, str]:
        """The base URLs of an upstream with that fault, and of a healthy one."""
        return self.url_of("openai", fault), self.url_of("openai")


@contextmanager
def billing() -> Iterator[DrillProvider]:
    provider = DrillProvider({})
    with provider.serving():
        yield provider


def check_bills(stage: Stage, provider: Provider) -> None:
    billed = sum(entry.nanos for entry in provider.ledger)
    charged = sum(UsageRecord.objects.filter(space=stage.space).values_list("cost", flat=True))
    stage.report.say(f"{len(provider.ledger):,} requests reached the provider, which billed {billed:,} nanos")
    wrong = [] if billed == charged else [f"billed {billed}, charged {charged}"]
    stage.report.check("what the provider billed is what was charged, to the nano", wrong)
    dear = [row for row in UsageRecord.objects.filter(space=stage.space) if row.cost > row.held]
    stage.report.check("and no charge is more than its hold", dear)
