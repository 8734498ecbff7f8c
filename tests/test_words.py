"""Localisation: every text in templates and code can be translated, and is."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.template.base import Lexer, TokenType
from django.test import Client

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from tenants.models import Space
from tests import words
from tests.factories import charge
from tests.usage.videos import submit, succeed, take

TEMPLATES = sorted((words.ROOT / "templates").rglob("*.html"))

# Attributes that a person reads or hears. Those of our own components count unless they match TECHNICAL.
READ_ATTRIBUTES = {
    "aria-label",
    "aria-description",
    "title",
    "placeholder",
    "alt",
    "label",
    "data-tip",
    "data-done",
    "help",
}
TECHNICAL = re.compile(
    r":.*|hx-.*|data-(?!tip$|done$).*|aria-(?!label|description).*|"
    r"id|class|name|names|value|type|look|href|url|action|method|autocomplete|autocapitalize|inputmode|spellcheck|"
    r"maxlength|target|icon_name|kept|start|back|trigger|closedby|labelledby|show|oob"
)
SKIPPED_TAGS = {"script", "style", "svg", "code", "pre"}
# Names that are the same in every language.
NAMES = {"Space Manage", "curl"}
WORD = re.compile(r"[^\W\d_]{2,}|[^\W\d_]+ [^\W\d_]+")
QUOTED = re.compile(r"""_?\(?(["'])(?P<text>(?:(?!\1).)*)\1""")
TRANSLATES = re.compile(r"(blocktranslate|endblocktranslate|translate|comment|endcomment|plural)\b")


class Texts(HTMLParser):
    """Collects the texts of a page that a person reads, including attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._skipped_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            is_read = not TECHNICAL.fullmatch(name) if tag.startswith("c-") else name in READ_ATTRIBUTES
            if value and is_read:
                self.found.append(value)
        self._skipped_depth += tag in SKIPPED_TAGS

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._skipped_depth -= tag in SKIPPED_TAGS

    def handle_endtag(self, tag: str) -> None:
        self._skipped_depth -= tag in SKIPPED_TAGS

    def handle_data(self, data: str) -> None:
        if not self._skipped_depth and data.strip():
            self.found.append(" ".join(data.split()))


def texts_of(html: str) -> list[str]:
    parser = Texts()
    parser.feed(html)
    return parser.found


def untranslatable(source: str) -> list[str]:
    """Find a template's texts outside {% translate %}, {% blocktranslate %} and _("…")."""
    html, literals, is_skipping = [], [], False
    for token in Lexer(source).tokenize():
        if token.token_type == TokenType.BLOCK and TRANSLATES.match(token.contents):
            is_skipping = {"blocktranslate": True, "comment": True}.get(
                token.contents.split()[0], is_skipping and not token.contents.startswith("end")
            )
        elif token.token_type == TokenType.TEXT and not is_skipping:
            html.append(token.contents)
        elif token.token_type in (TokenType.BLOCK, TokenType.VAR) and not is_skipping:
            literals += [found["text"] for found in QUOTED.finditer(token.contents) if not found[0].startswith("_(")]
    sentences = [text for text in literals if re.search(r"[^\W\d_] [^\W\d_]", text) and "--" not in text]
    return [text for text in texts_of("".join(html)) + sentences if has_words(text)]


def has_words(text: str) -> bool:
    for name in sorted(NAMES, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
    return bool(WORD.search(text))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(words.ROOT)))
def test_every_text_of_a_template_can_be_translated(path: Path) -> None:
    assert untranslatable(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "<p>Hello there</p>",
        '<a aria-label="Delete it">x</a>',
        '<c-head title="Users" />',
        '<p>{{ x|default:"no name" }}</p>',
    ]
    + ["{% if x %}Saved{% endif %}", '<input placeholder="Search">', '{% include "a.html" with text="All of it" %}'],
)
def test_a_text_that_cannot_be_translated_is_found(source: str) -> None:
    assert untranslatable(source)


@pytest.mark.parametrize(
    "source",
    ['<p title="{% translate "A title" %}">{% blocktranslate %}Hello there{% endblocktranslate %}</p>']
    + ['{{ x|date:_("j M Y, H:i") }}', "<code>curl https://example.org</code>", '<c-field :field="form.name" />'],
)
def test_a_translatable_text_is_accepted(source: str) -> None:
    assert untranslatable(source) == []


@pytest.mark.parametrize("path", words.catalogs(), ids=lambda path: path.parent.parent.name)
def test_every_string_is_translated(path: Path) -> None:
    assert words.problems(words.read(path), words.gathered()) == []


@pytest.mark.parametrize("path", words.catalogs() + words.script_catalogs(), ids=lambda path: path.stem)
def test_the_compiled_catalog_is_up_to_date(path: Path) -> None:
    assert path.with_suffix(".mo").read_bytes() == words.compiled(words.read(path))


def test_a_missing_or_invalid_translation_is_found() -> None:
    catalog = words.read(words.catalogs()[0])
    catalog["%(name)s saved."].string = "%(nam)s 已保存。"
    catalog["Delete"].string = ""
    catalog["Edit"].flags.add("fuzzy")

    assert sorted(words.problems(catalog, words.gathered())) == [
        "not translated: 'Delete'",
        "only guessed (fuzzy): 'Edit'",
        "other placeholders: '%(name)s saved.'",
    ]


# -- Every page, in Chinese ---------------------------------------------------------------------------------------

# The cast's names, and names and codes that are not translated.
DATA = re.compile(
    r"Halcyon Labs|Google Authenticator|Jun Sato|Elsewhere|gpt-[\w.-]+|sora-[\w-]+|Space Manage(?! )|"
    r"curl|Base URL|SDK|API|Token|HTTP|IP|ID|UTC|RPM|TPM|USD|English|Asia/Shanghai|https?://\S+"
)
SENTENCE = re.compile(r"[A-Za-z’']{2,} [A-Za-z’']{2,}")
PAGES = ["/console/", "/console/usage/", "/console/tasks/", "/console/tokens/", "/console/tokens/add/"]
PAGES += [f"/console/tokens/1/{deed}/" for deed in ("edit", "rotate", "delete")]
PAGES += ["/space/users/", "/space/users/?q=zed", "/space/users/add/", "/space/users/3/edit/", "/space/users/3/delete/"]
PAGES += ["/me/credits/", "/me/settings/", "/nowhere/", "/console/usage/?model=none", "/console/tasks/?model=none"]
PAGES += ["/console/members/", "/space/audit/", "/space/audit/?q=none", "/me/activity/", "/me/statement/"]
PAGES += ["/space/users/3/statement/", "/space/users/3/two-factor/reset/"]
PAGES += ["/me/two-factor/", "/me/two-factor/app/"]
POSTS: list[tuple[str, dict[str, str]]] = [
    ("/me/settings/", {"form": "password", "new_password": "short"}),
    ("/me/settings/", {"form": "locale", "time_zone": "Mars/Olympus", "language": "tlh"}),
    ("/me/settings/", {"form": "profile", "display_name": "x" * 81}),
    ("/console/tokens/add/", {"expires": "date", "limit": "-1", "models": "a b", "ips": "10.0.0.1/8"}),
    ("/space/users/add/", {"username": "jun", "password": "x"}),
    ("/space/users/3/edit/", {"username": "!", "remaining": "9000"}),
    ("/space/users/3/delete/", {"confirm": "no"}),
]


@pytest.fixture
def chinese(space: Space, manager: User, admin_member: User, member: User) -> None:
    """All members have chosen Chinese, and every list has rows."""
    User.objects.filter(space=space).update(language="zh-hans", time_zone="Asia/Shanghai")
    for owner in (manager, admin_member, member):
        create_key(owner=owner, terms=KeyTerms(name="ci"))
        charge(owner, cost_usd=1.25)
        succeed(take(submit(owner)))
    submit(member)


def english_in(html: str) -> Iterator[str]:
    """Yield English sentences, and texts whose translation differs from them."""
    own = {m.id for m in words.read(words.catalogs()[0]) if isinstance(m.id, str) and m.id != m.string}
    for text in texts_of(html):
        if (text in own and text != "Space Manage") or SENTENCE.search(DATA.sub("", text)):
            yield text


def read_as(client: Client, user: User) -> dict[str, list[str]]:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    unconfirmed = client.get("/me/confirm/")
    session = client.session
    session["password_confirmed_at"] = time.time()
    session.save()
    answers: list[tuple[str, Any]] = [("/me/confirm/", unconfirmed)]
    answers += [(path, client.get(path)) for path in PAGES]
    answers += [(f"POST {path} {data}", client.post(path, data)) for path, data in POSTS]
    assert {answer.status_code for _, answer in answers} <= {200, 403, 404, 422}
    assert {answer["Content-Language"] for _, answer in answers} == {"zh-hans"}
    return {name: found for name, answer in answers if (found := list(english_in(answer.content.decode())))}


@pytest.mark.parametrize("name", ["mira", "amara", "jun"])
def test_no_page_shows_english_in_chinese(client: Client, chinese: None, name: str) -> None:
    assert read_as(client, User.objects.get(username=name)) == {}


def test_the_sign_in_page_shows_no_english_in_chinese(client: Client, space: Space) -> None:
    chinese = {"Accept-Language": "zh-CN,zh;q=0.9"}
    page = client.get("/login/", headers=chinese)
    wrong = client.post("/login/", {"username": "mira", "password": "wrong"}, headers=chinese)

    assert [text for answer in (page, wrong) for text in english_in(answer.content.decode()) if text != "English"] == []
    assert "登录" in page.content.decode() and page["Content-Language"] == "zh-hans"


def test_english_on_a_chinese_page_is_found() -> None:
    html = '<p>保存</p><p>Not chosen yet</p><b>Delete</b><i title="Edit">1</i><code>curl all of it</code>'

    assert list(english_in(html)) == ["Not chosen yet", "Delete", "Edit"]
