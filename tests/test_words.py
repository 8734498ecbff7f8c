"""Every word that the product says can be translated, and is."""

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

# What a person reads or hears of a tag; of our own components, every attribute but those that are for programs.
TELLING = {"aria-label", "aria-description", "title", "placeholder", "alt", "label", "data-tip", "data-done", "help"}
TECHNICAL = re.compile(
    r":.*|hx-.*|data-(?!tip$|done$).*|aria-(?!label|description).*|"
    r"id|class|name|names|value|type|look|href|url|action|method|autocomplete|autocapitalize|inputmode|spellcheck|"
    r"maxlength|target|icon_name|kept|start|back|trigger|closedby|labelledby|show|oob"
)
SILENT = {"script", "style", "svg", "code", "pre"}
# Names and codes, the same in every language.
NAMES = {"Space Manage", "curl"}
WORD = re.compile(r"[^\W\d_]{2,}|[^\W\d_]+ [^\W\d_]+")
QUOTED = re.compile(r"""_?\(?(["'])(?P<text>(?:(?!\1).)*)\1""")
TRANSLATES = re.compile(r"(blocktranslate|endblocktranslate|translate|comment|endcomment|plural)\b")


class Texts(HTMLParser):
    """What is read of a page: its texts, and the attributes that tell something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            is_told = not TECHNICAL.fullmatch(name) if tag.startswith("c-") else name in TELLING
            if value and is_told:
                self.found.append(value)
        self._silent += tag in SILENT

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._silent -= tag in SILENT

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in SILENT

    def handle_data(self, data: str) -> None:
        if not self._silent and data.strip():
            self.found.append(" ".join(data.split()))


def texts_of(html: str) -> list[str]:
    parser = Texts()
    parser.feed(html)
    return parser.found


def untranslatable(source: str) -> list[str]:
    """What a template says outside of {% translate %}, {% blocktranslate %} and _("…")."""
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
    return [text for text in texts_of("".join(html)) + sentences if is_said(text)]


def is_said(text: str) -> bool:
    for name in sorted(NAMES, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
    return bool(WORD.search(text))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(words.ROOT)))
def test_a_template_says_nothing_that_cannot_be_translated(path: Path) -> None:
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
def test_a_bare_word_is_noticed(source: str) -> None:
    assert untranslatable(source)


@pytest.mark.parametrize(
    "source",
    ['<p title="{% translate "A title" %}">{% blocktranslate %}Hello there{% endblocktranslate %}</p>']
    + ['{{ x|date:_("j M Y, H:i") }}', "<code>curl https://example.org</code>", '<c-field :field="form.name" />'],
)
def test_a_translated_word_is_fine(source: str) -> None:
    assert untranslatable(source) == []


@pytest.mark.parametrize("path", words.catalogs(), ids=lambda path: path.parent.parent.name)
def test_everything_said_is_translated(path: Path) -> None:
    assert words.wrongs(words.read(path), words.gathered()) == []


@pytest.mark.parametrize("path", words.catalogs(), ids=lambda path: path.parent.parent.name)
def test_what_is_compiled_is_what_is_written(path: Path) -> None:
    assert path.with_suffix(".mo").read_bytes() == words.compiled(words.read(path))


def test_a_missing_or_broken_translation_is_noticed() -> None:
    catalog = words.read(words.catalogs()[0])
    catalog["%(name)s saved."].string = "%(nam)s 已保存。"
    catalog["Delete"].string = ""
    catalog["Edit"].flags.add("fuzzy")

    assert sorted(words.wrongs(catalog, words.gathered())) == [
        "not translated: 'Delete'",
        "only guessed (fuzzy): 'Edit'",
        "other placeholders: '%(name)s saved.'",
    ]


# -- Every page, in Chinese ---------------------------------------------------------------------------------------

# Of the cast, and codes that stay as they are.
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
    """Everybody reads Chinese; there is a row of everything."""
    User.objects.filter(space=space).update(language="zh-hans", time_zone="Asia/Shanghai")
    for owner in (manager, admin_member, member):
        create_key(owner=owner, terms=KeyTerms(name="ci"))
        charge(owner, cost_usd=1.25)
        succeed(take(submit(owner)))
    submit(member)


def english_in(html: str) -> Iterator[str]:
    """Sentences, and whole texts that are to be translated into something else."""
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
def test_no_page_says_a_word_of_english_in_chinese(client: Client, chinese: None, name: str) -> None:
    assert read_as(client, User.objects.get(username=name)) == {}


def test_the_sign_in_page_says_none_either(client: Client, space: Space) -> None:
    chinese = {"Accept-Language": "zh-CN,zh;q=0.9"}
    page = client.get("/login/", headers=chinese)
    wrong = client.post("/login/", {"username": "mira", "password": "wrong"}, headers=chinese)

    assert [text for answer in (page, wrong) for text in english_in(answer.content.decode()) if text != "English"] == []
    assert "登录" in page.content.decode() and page["Content-Language"] == "zh-hans"


def test_english_on_a_chinese_page_is_noticed() -> None:
    html = '<p>保存</p><p>Not chosen yet</p><b>Delete</b><i title="Edit">1</i><code>curl all of it</code>'

    assert list(english_in(html)) == ["Not chosen yet", "Delete", "Edit"]
