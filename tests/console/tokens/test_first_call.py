from __future__ import annotations

import json
import subprocess
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from console.tokens.first_call import first_call
from relay.models import Model, Upstream
from relay.prices import PriceList, Rate

pytestmark = pytest.mark.django_db

BASE = "http://127.0.0.1:8000/v1"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream.objects.create(name="east", base_url="https://east.example/v1")


def offer(upstream: Upstream, name: str, *, is_enabled: bool = True, in_days: int = 0) -> None:
    model = Model.objects.create(name=name, is_enabled=is_enabled)
    model.set_price(PriceList(Rate(input=1)), timezone.now() + timedelta(days=in_days))
    upstream.models.add(model)


def asked(owner: User, *models: str) -> list[str]:
    """Return the arguments that a shell passes to curl."""
    key, text = create_key(owner=owner, terms=KeyTerms(name="ci", models=models))
    script = 'curl() { printf "%s\\0" "$@"; }\n' + first_call(key, text=text, base_url=BASE).replace(text, "sk-1-x")
    given = subprocess.run(["sh", "-c", script], capture_output=True, check=True, text=True)
    return given.stdout.split("\0")[:-1]


def model_of(arguments: list[str]) -> object:
    return json.loads(arguments[-1])["model"]


def test_the_command_requests_a_chat_completion_with_the_key(member: User, upstream: Upstream) -> None:
    offer(upstream, "small")

    *options, body = asked(member)

    assert options == [
        f"{BASE}/chat/completions",
        *("-H", "Authorization: Bearer sk-1-x"),
        *("-H", "Content-Type: application/json"),
        "-d",
    ]
    assert json.loads(body) == {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}


def test_the_model_is_the_first_that_the_key_may_ask_now(member: User, upstream: Upstream) -> None:
    Model.objects.create(name="a-without-price-and-upstream")
    offer(upstream, "b-disabled", is_enabled=False)
    offer(upstream, "c-priced-tomorrow", in_days=1)
    offer(upstream, "d-dear")
    offer(upstream, "e-cheap")
    elsewhere = Upstream.objects.create(name="west", base_url="https://west.example/v1", is_enabled=False)
    offer(elsewhere, "a-unserved")

    assert model_of(asked(member)) == "d-dear"
    assert model_of(asked(member, "e-cheap", "b-disabled")) == "e-cheap"
    assert model_of(asked(member, "c-priced-tomorrow")) == "c-priced-tomorrow"


def test_without_a_model_on_offer_the_command_has_a_placeholder(member: User) -> None:
    assert model_of(asked(member)) == "your-model"


@pytest.mark.parametrize("name", ["it's", 'a"b', "$(id)", "`id`", "a\\b", "!x", "模型"])
@pytest.mark.any_database
def test_a_shell_reads_any_name_as_it_is(member: User, name: str) -> None:
    assert model_of(asked(member, name)) == name


def test_the_new_keys_page_has_this_servers_address_in_it(client: Client, member: User) -> None:
    client.force_login(member, backend="accounts.backends.LivingUserBackend")

    page = client.post("/console/tokens/add/", {"name": "ci"}, HTTP_HOST="localhost:8123").content.decode()

    assert "<code>http://localhost:8123/v1</code>" in page
    assert "curl http://localhost:8123/v1/chat/completions" in page


def test_the_form_of_a_key_names_the_models_on_offer(client: Client, member: User, upstream: Upstream) -> None:
    client.force_login(member)
    assert "On offer" not in client.get("/console/tokens/add/").content.decode()

    for name in ("small", "<b>", *"cdefghi"):
        offer(upstream, name)
    offer(upstream, "a-disabled", is_enabled=False)

    assert "On offer: &lt;b&gt;, c, d, e, f, g, h, i …" in client.get("/console/tokens/add/").content.decode()
