"""The rows of GET /v1/models."""

from __future__ import annotations

from typing import Any

import pytest

from relay.catalogue import Offer
from relay.listing import model_row
from relay.prices import PriceList, PriceRow, Rate

pytestmark = pytest.mark.any_database

USD = 10**9
FLEX = (("service_tier", "flex"),)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (PriceRow(when=FLEX, factor_millionths=500_000), {"when": "service_tier=flex", "factor": "0.5"}),
        (
            PriceRow({"input": 2 * USD, "per_search": USD}, when=FLEX, above=9, factor_millionths=1_100_000),
            {
                "when": "service_tier=flex above=9",
                "factor": "1.1",
                "input_usd_per_million_tokens": "2.00",
                "per_search_usd": "1.00",
            },
        ),
        (PriceRow({"reasoning": 0}, above=9), {"when": "above=9", "reasoning_usd_per_million_tokens": "0.00"}),
    ],
)
def test_a_row_shows_all_that_it_changes(row: PriceRow, expected: dict[str, Any]) -> None:
    prices = PriceList(Rate(input=USD), (row,))
    offer = Offer(
        name="m",
        prices=prices,
        default_output_tokens=1,
        max_output_tokens=1,
        context_tokens=1,
        image_nanos_ceiling=0,
        audio_minute_nanos_ceiling=0,
        task_timeout_s=1,
        created=0,
    )

    assert model_row(offer, prices)["prices"]["rows"] == [expected]
