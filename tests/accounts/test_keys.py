from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from accounts.keys import (
    KeyTerms,
    create_key,
    delete_key,
    edit_key,
    parse_key,
    revoke_keys,
    rotate_key,
    set_key_enabled,
)
from accounts.models import ApiKey, User
from audit.models import AuditEvent

pytestmark = pytest.mark.django_db

TERMS = KeyTerms(name="default", limit_nanos=5_000_000_000, models=("gpt-4o-mini",), ips=("10.0.0.0/8",))


def trail() -> list[str]:
    return list(AuditEvent.objects.filter(kind__startswith="key.").order_by("id").values_list("kind", flat=True))


def test_a_key_contains_its_space_and_is_stored_as_a_hash(member: User) -> None:
    key, text = create_key(owner=member, terms=TERMS)

    presented = parse_key(text)
    assert re.fullmatch(rf"sk-{member.space_id}-[A-Za-z0-9_-]{{43}}", text)
    assert presented is not None and (presented.space_id, presented.hash) == (member.space_id, key.hash)
    assert (key.prefix, key.last_four) == (text[: len(f"sk-{member.space_id}-") + 4], text[-4:])
    assert text not in str(ApiKey.with_deleted.values().get())


def test_no_two_keys_are_alike(member: User) -> None:
    assert len({create_key(owner=member, terms=TERMS)[1] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "text",
    ["", "sk-", "sk-1-short", "sk-0-" + "a" * 43, "sk-01-" + "a" * 43, "sk-1-" + "a" * 44, "sk-1-" + "ä" * 43]
    + ["sk-٣-" + "a" * 43, " sk-1-" + "a" * 43, "sk-1-" + "a" * 43 + "\n", "sk-" + "9" * 19 + "-" + "a" * 43],
)
@pytest.mark.any_database
def test_text_without_the_form_of_a_key_is_not_parsed(text: str) -> None:
    assert parse_key(text) is None


def test_the_keys_of_each_owner_are_numbered_from_one_and_numbers_are_never_reused(
    member: User, stranger: User
) -> None:
    first, _text = create_key(owner=member, terms=TERMS)
    second, _text = create_key(owner=member, terms=TERMS)
    delete_key(key=second, actor=member)

    third, _text = create_key(owner=member, terms=TERMS)
    theirs, _text = create_key(owner=stranger, terms=TERMS)

    assert [key.number for key in (first, second, third, theirs)] == [1, 2, 3, 1]


def test_an_edit_changes_the_terms_and_nothing_else(member: User) -> None:
    key, _text = create_key(owner=member, terms=TERMS)
    ApiKey.objects.update(spent=7, held=3)

    edited = edit_key(key=key, terms=KeyTerms(name="other", limit_nanos=5), actor=member)

    now = ApiKey.objects.values().get()
    assert (now["name"], now["limit"], now["models_allowed"], now["ips_allowed"]) == ("other", 5, [], [])
    assert (now["hash"], now["spent"], now["held"]) == (key.hash, 7, 3)
    assert edited.status == ApiKey.Status.EXHAUSTED


def test_an_edit_without_changes_writes_nothing(member: User) -> None:
    key, _text = create_key(owner=member, terms=TERMS)

    edit_key(key=key, terms=TERMS, actor=member)
    set_key_enabled(key=key, is_enabled=True, actor=member)

    assert trail() == ["key.created"]


@pytest.mark.parametrize("hours", [0, 1, 24])
def test_rotation_keeps_the_row_and_lets_the_old_secret_live_as_long_as_chosen(member: User, hours: int) -> None:
    key, old_text = create_key(owner=member, terms=TERMS)
    ApiKey.objects.update(spent=7)

    rotated, text = rotate_key(key=key, grace=timedelta(hours=hours), actor=member)

    now, old, new = ApiKey.objects.get(), parse_key(old_text), parse_key(text)
    assert old is not None and new is not None and old.hash != new.hash
    assert (now.pk, now.number, now.limit, now.spent, now.hash) == (key.pk, 1, key.limit, 7, new.hash)
    assert now.shown == rotated.shown == f"{text[: len(text) - 39]}…{text[-4:]}"
    if hours:
        assert now.old_hash == old.hash and now.old_until is not None
        assert abs(now.old_until - timezone.now() - timedelta(hours=hours)) < timedelta(minutes=1)
    else:
        assert (now.old_hash, now.old_until) == ("", None)


def test_a_second_rotation_ends_the_first_secret(member: User) -> None:
    key, _first = create_key(owner=member, terms=TERMS)
    key, second = rotate_key(key=key, grace=timedelta(days=1), actor=member)

    rotate_key(key=key, grace=timedelta(hours=1), actor=member)

    presented = parse_key(second)
    assert presented is not None and ApiKey.objects.get().old_hash == presented.hash


def test_a_deleted_key_is_a_tombstone_without_an_old_secret(member: User) -> None:
    key, _text = create_key(owner=member, terms=TERMS)
    rotate_key(key=key, grace=timedelta(days=1), actor=member)

    delete_key(key=key, actor=member)

    gone = ApiKey.with_deleted.get()
    assert not ApiKey.objects.exists()
    assert (gone.deleted_at is not None, gone.is_enabled, gone.old_hash, gone.old_until) == (True, False, "", None)


def test_changing_a_key_that_was_deleted_meanwhile_raises_does_not_exist(member: User) -> None:
    key, _text = create_key(owner=member, terms=TERMS)
    delete_key(key=key, actor=member)
    before = ApiKey.with_deleted.values().get()

    for deed in (
        lambda: edit_key(key=key, terms=KeyTerms(name="x"), actor=member),
        lambda: set_key_enabled(key=key, is_enabled=True, actor=member),
        lambda: rotate_key(key=key, grace=timedelta(0), actor=member),
        lambda: delete_key(key=key, actor=member),
    ):
        with pytest.raises(ApiKey.DoesNotExist):
            deed()

    assert ApiKey.with_deleted.values().get() == before


def test_a_manager_revokes_and_does_nothing_else_with_a_members_key(
    member: User, manager: User, stranger: User
) -> None:
    key, _text = create_key(owner=member, terms=TERMS)
    before = ApiKey.with_deleted.values().get()
    refused = [
        lambda: edit_key(key=key, terms=KeyTerms(name="x"), actor=manager),
        lambda: set_key_enabled(key=key, is_enabled=False, actor=manager),
        lambda: rotate_key(key=key, grace=timedelta(0), actor=manager),
        lambda: delete_key(key=key, actor=stranger),
    ]

    for deed in refused:
        with pytest.raises(PermissionDenied):
            deed()
    assert ApiKey.with_deleted.values().get() == before

    delete_key(key=key, actor=manager)
    assert not ApiKey.objects.exists()


def test_deleting_a_member_deletes_their_keys_and_nobody_elses(member: User, manager: User) -> None:
    for owner in (member, member, manager):
        create_key(owner=owner, terms=TERMS)

    assert revoke_keys(owner=member, actor=manager) == 2
    assert [key.user for key in ApiKey.objects.all()] == [manager]


def test_every_deed_is_in_the_trail_and_no_secret_is(member: User) -> None:
    key, text = create_key(owner=member, terms=TERMS)
    edit_key(key=key, terms=KeyTerms(name="other"), actor=member)
    set_key_enabled(key=key, is_enabled=False, actor=member)
    set_key_enabled(key=key, is_enabled=True, actor=member)
    _key, new_text = rotate_key(key=key, grace=timedelta(hours=1), actor=member)
    delete_key(key=key, actor=member)

    written = str(list(AuditEvent.objects.values()))
    deeds = ["created", "edited", "disabled", "enabled", "rotated", "deleted"]
    assert trail() == [f"key.{deed}" for deed in deeds]
    for secret in (text, new_text):
        presented = parse_key(secret)
        assert presented is not None
        assert secret[-43:] not in written and secret[-12:] not in written and presented.hash not in written


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "enabled"),
        ({"is_enabled": False, "limit": 1, "spent": 1}, "disabled"),
        ({"expires_at": timezone.now() - timedelta(seconds=1), "limit": 1, "spent": 1}, "expired"),
        ({"expires_at": timezone.now() + timedelta(days=1)}, "enabled"),
        ({"limit": 5, "spent": 5}, "exhausted"),
        ({"limit": 5, "spent": 4, "held": 1}, "enabled"),
    ],
)
def test_the_status_is_the_first_reason_that_stops_the_key(
    member: User, changes: dict[str, object], status: str
) -> None:
    create_key(owner=member, terms=KeyTerms(name="default"))
    ApiKey.objects.update(**changes)

    assert ApiKey.objects.get().status == status
