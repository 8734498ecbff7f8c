"""Names of models and columns in Django admin, which Django derives from code unless they are given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.test import Client
from django.utils import translation
from django.utils.functional import Promise

from accounts.models import User
from operators.names import COLUMNS, MODELS
from relay.models import CostPrice, Model, Price, SpaceTerms, Upstream
from tenants.models import Space
from tests.factories import charge
from tests.test_words import english_in
from tests.usage.videos import submit

pytestmark = pytest.mark.django_db

# Names of the test's rows, text that is the same in every language, and what Django itself does not translate.
DATA = re.compile(
    r"(› )?(Halcyon Labs|Jun Sato)(: .*)?|user|.*(service_tier=|auth, path, |session.signed_in).*|First grant|"
    r"Model name|Add link|Change or view list link"
)


def test_every_model_on_a_page_has_names_that_can_be_translated() -> None:
    for model in admin.site._registry:
        assert model._meta.label in MODELS
        names: Any = (model._meta.verbose_name, model._meta.verbose_name_plural, model._meta.app_config)
        assert isinstance(names[0], Promise) and isinstance(names[1], Promise)
        assert isinstance(names[2].verbose_name, Promise)


def test_every_name_is_of_a_column() -> None:
    columns = {column.name for label in MODELS for column in apps.get_model(label)._meta.get_fields()}

    assert not COLUMNS.keys() - columns


def pages() -> list[str]:
    found = ["/admin/"]
    for model in admin.site._registry:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        row = model._base_manager.first()
        found += [base, f"{base}add/"] + ([f"{base}{row.pk}/change/"] if row else [])
    return found


def test_no_page_shows_english_in_chinese(client: Client, operator: User, space: Space, member: User) -> None:
    User.objects.filter(pk=operator.pk).update(language="zh-hans")
    charge(member, cost_usd=1.25)
    submit(member)
    upstream = Upstream.objects.create(name="east", base_url="https://east.example/v1")
    model = Model.objects.create(name="gpt-4o")
    upstream.models.add(model)
    Price.objects.create(model=model, input=1)
    SpaceTerms.objects.create(space=space, factor_millionths=1)
    CostPrice.objects.create(upstream=upstream, model=model, input=1)
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")

    answers = {path: client.get(path) for path in pages()}

    english = {(path, text) for path, answer in answers.items() for text in english_in(answer.text)}
    assert {(path, text) for path, text in english if not DATA.fullmatch(text)} == set()
    titles = [answers[f"/admin/{path}/"].text for path in ("relay/model/add", "quotas/reconciliation")]
    assert "增加 模型" in titles[0] and "默认输出 Token 数" in titles[0] and "对账" in titles[1]


def test_the_chooser_of_models_speaks_chinese(client: Client, operator: User) -> None:
    script = Path(admin.__file__).parent / "static/admin/js/SelectFilter2.js"
    used = re.findall(r"""\bgettext\((['"])(.+?)\1\)""", script.read_text(encoding="utf-8"))
    User.objects.filter(pk=operator.pk).update(language="zh-hans")
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")

    with translation.override("zh-hans"):
        sent = client.get("/admin/jsi18n/").text

    catalog = json.loads(sent.partition("const newcatalog = ")[2].partition(";\n")[0])
    assert used and not {text for _quote, text in used} - catalog.keys()
