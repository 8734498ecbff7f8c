from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from io import StringIO
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from django.contrib.sessions.models import Session
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from fido2.cose import ES256, CoseKey
from fido2.utils import websafe_encode
from fido2.webauthn import Aaguid, AttestationObject, AttestedCredentialData, AuthenticatorData

from accounts import second_factor, sign_in
from accounts.models import User
from accounts.throttle import MAX_FAILURES_PER_ADDRESS, MAX_FAILURES_PER_NAME
from audit.models import AuditEvent
from quotas.members import delete_member
from tenants.models import Space
from tests.authenticator import App, code_of, give_password, secret_on
from tests.factories import PASSWORD, MemberFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def app(member: User) -> App:
    return App(member)


@pytest.fixture
def confirmed(client: Client, member: User) -> Client:
    """A client that signed in with its password, so that a recent confirmation is on record."""
    assert give_password(client, "jun").status_code == 302
    return client


def is_in(client: Client) -> bool:
    return client.get("/me/credits/").status_code == 200


def give_code(client: Client, code: str, **extra: Any) -> Any:
    return client.post("/login/2fa/", {"code": code}, **extra)


def kinds() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("kind", flat=True))


# -- The second step ----------------------------------------------------------------------------------------------


def test_the_password_leads_to_the_second_step_and_the_code_to_the_next_page(client: Client, app: App) -> None:
    first = give_password(client, "jun", next="/console/usage/?size=20")
    page = client.get("/login/2fa/")
    second = give_code(client, app.code())

    assert (first.status_code, first["Location"]) == (302, "/login/2fa/")
    assert page.status_code == 200 and "no-store" in page["Cache-Control"]
    assert (second.status_code, second["Location"]) == (302, "/console/usage/?size=20")
    assert is_in(client)


@pytest.mark.parametrize("path", ["/", "/me/credits/", "/me/settings/", "/me/two-factor/", "/admin/", "/console/"])
def test_a_pending_sign_in_has_no_access(client: Client, app: App, path: str) -> None:
    give_password(client, "jun")

    answer = client.get(path)

    assert answer.status_code == 302 and answer["Location"].startswith(("/login/", "/admin/login/"))
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_the_next_page_is_never_another_site(client: Client, app: App, elsewhere: str) -> None:
    give_password(client, "jun", next=elsewhere)

    assert give_code(client, app.code())["Location"] == "/"


def test_a_code_works_once(app: App) -> None:
    code = app.code()
    first, second = Client(), Client()
    for client in (first, second):
        give_password(client, "jun")

    assert give_code(first, code).status_code == 302 and is_in(first)
    assert give_code(second, code).status_code == 422 and not is_in(second)


def test_a_code_from_before_the_last_one_is_refused(client: Client, app: App) -> None:
    give_password(client, "jun")
    give_code(client, app.code(steps=1))
    again = Client()
    give_password(again, "jun")

    assert give_code(again, app.code()).status_code == 422 and not is_in(again)


@pytest.mark.parametrize("steps", [-1, 2, -2, 100])
def test_a_code_that_is_not_shown_now_is_refused(client: Client, app: App, steps: int) -> None:
    """`steps` of 30 seconds; step -1 is refused because that code was used to set up the app."""
    give_password(client, "jun")

    assert give_code(client, app.code(steps=steps)).status_code == 422 and not is_in(client)


@pytest.mark.parametrize(
    "code", ["", "0", "abcdef", "１２３４５６", "\0", "9" * 100_000, "12345٦", "{}", "000 000 000 0"]
)
def test_strange_codes_are_refused_quietly(client: Client, app: App, code: str) -> None:
    give_password(client, "jun")

    assert give_code(client, code).status_code == 422 and not is_in(client)


def test_a_recovery_code_signs_in_once_with_or_without_its_dash(app: App) -> None:
    code = app.recovery_codes[0]
    first, second = Client(), Client()
    for client in (first, second):
        give_password(client, "jun")

    assert give_code(first, code.replace("-", " ")).status_code == 302 and is_in(first)
    assert give_code(second, code).status_code == 422 and not is_in(second)
    assert give_code(second, app.recovery_codes[1]).status_code == 302 and is_in(second)
    assert kinds().count("self.recovery_code_used") == 2


@pytest.mark.parametrize("change", ["disable", "delete", "suspend", "password", "epoch"])
def test_a_change_of_the_account_between_the_steps_cancels_the_sign_in(
    client: Client, app: App, member: User, change: str
) -> None:
    give_password(client, "jun")
    people = User.everyone.filter(pk=member.pk)
    if change == "disable":
        people.update(is_active=False)
    elif change == "delete":
        people.update(is_active=False, deleted_at=timezone.now())
    elif change == "suspend":
        Space.objects.filter(pk=member.space_id).update(suspended_at=timezone.now())
    elif change == "password":
        people.update(password="another")
    else:
        people.update(session_epoch=9)

    answer = give_code(client, app.code())

    assert (answer.status_code, answer["Location"]) == (302, "/login/")
    assert not is_in(client)


def test_a_pending_sign_in_expires(client: Client, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    give_password(client, "jun")
    later = time.time() + sign_in.SECOND_STEP_TIMEOUT_S + 1
    monkeypatch.setattr(time, "time", lambda: later)

    assert client.get("/login/2fa/")["Location"] == "/login/"


def test_the_code_of_another_user_is_refused(client: Client, app: App, admin_member: User) -> None:
    App(admin_member)
    give_password(client, "amara")

    assert give_code(client, app.code()).status_code == 422 and not is_in(client)
    assert give_code(client, app.recovery_codes[0]).status_code == 422 and not is_in(client)


def test_five_wrong_codes_lock_the_name_from_any_address_and_at_both_steps(app: App) -> None:
    for number in range(MAX_FAILURES_PER_NAME):
        client = Client(REMOTE_ADDR=f"198.51.100.{number}")
        give_password(client, "jun")
        give_code(client, "000000")
    other = Client(REMOTE_ADDR="203.0.113.9")

    answer = give_password(other, "jun")

    assert answer.status_code == 429 and answer["Retry-After"] == "900"


def test_a_locked_second_step_checks_no_code_and_says_how_long_to_wait(client: Client, app: App) -> None:
    give_password(client, "jun")
    for _ in range(MAX_FAILURES_PER_NAME):
        give_code(client, "000000")

    answer = give_code(client, app.code())

    assert answer.status_code == 429 and answer["Retry-After"] == "900"
    assert "15 minutes" in answer.content.decode() and not is_in(client)


def test_one_address_is_locked_after_wrong_codes_for_many_names(space: Space, member: User) -> None:
    people = [
        MemberFactory.create(space=space, username=f"guess{number}") for number in range(MAX_FAILURES_PER_ADDRESS // 4)
    ]
    for person in people:
        App(person)
        client = Client()
        give_password(client, person.username)
        for _ in range(4):
            give_code(client, "000000")

    assert give_password(Client(), "jun").status_code == 429
    assert give_password(Client(REMOTE_ADDR="203.0.113.9"), "jun").status_code == 302


def test_the_right_password_alone_does_not_reset_the_failure_count(app: App) -> None:
    for number in range(MAX_FAILURES_PER_NAME - 1):
        give_password(Client(REMOTE_ADDR=f"198.51.100.{number}"), "jun", "wrong")
    client = Client(REMOTE_ADDR="203.0.113.9")
    assert give_password(client, "jun").status_code == 302

    assert give_code(client, "000000").status_code == 429


# -- Set up and remove --------------------------------------------------------------------------------------------


def set_up_app(client: Client) -> tuple[str, Any]:
    secret = secret_on(client.get("/me/two-factor/app/").content.decode())
    return secret, client.post("/me/two-factor/app/", {"code": code_of(secret)})


def test_an_app_is_set_up_by_its_first_code_and_recovery_codes_are_shown_once(confirmed: Client, member: User) -> None:
    secret, answer = set_up_app(confirmed)

    codes = re.findall(r"<code data-line>(\d{5}-\d{5})</code>", answer.content.decode())
    assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]
    assert len(set(codes)) == 10
    assert second_factor.has_second_factor(member)
    assert kinds()[-1] == "self.two_factor_enabled"
    for path in ("/me/settings/", "/me/two-factor/", "/me/two-factor/app/", "/me/two-factor/codes/"):
        later = confirmed.get(path, follow=True).content.decode()
        assert secret not in later.replace(" ", "") and not any(code in later for code in codes), path


def test_the_first_factor_ends_sessions_that_only_knew_the_password(confirmed: Client) -> None:
    other = Client()
    give_password(other, "jun")

    set_up_app(confirmed)

    assert is_in(confirmed) and not is_in(other)


@pytest.mark.parametrize("code", ["", "000000", "abcdef"])
def test_a_wrong_first_code_turns_nothing_on_and_keeps_the_secret(confirmed: Client, member: User, code: str) -> None:
    secret = secret_on(confirmed.get("/me/two-factor/app/").content.decode())

    answer = confirmed.post("/me/two-factor/app/", {"code": code})

    assert answer.status_code == 422 and answer.context["form"].errors["code"]
    assert secret_on(answer.content.decode()) == secret
    assert not second_factor.has_second_factor(member)


def test_nothing_is_changed_without_the_current_password(client: Client, member: User, app: App) -> None:
    client.force_login(User.objects.get(pk=member.pk), backend=sign_in.BACKEND)
    before = list(Authenticator.objects.values())

    for path in ("app/", "app/remove/", "codes/", "passkeys/add/", "passkeys/1/remove/"):
        for answer in (client.get(f"/me/two-factor/{path}"), client.post(f"/me/two-factor/{path}", {"code": "1"})):
            assert answer.status_code == 303 and answer["Location"].startswith("/me/confirm/?next="), path

    assert list(Authenticator.objects.values()) == before


def test_the_password_opens_the_page_that_asked_for_it(client: Client, member: User) -> None:
    client.force_login(member, backend=sign_in.BACKEND)
    asked = client.get("/me/two-factor/app/")["Location"]

    wrong = client.post(asked, {"present_password": "wrong"})
    right = client.post(asked, {"present_password": PASSWORD})

    assert wrong.status_code == 422 and wrong.context["form"].errors["present_password"]
    assert (right.status_code, right["Location"]) == (303, "/me/two-factor/app/")
    assert client.get("/me/two-factor/app/").status_code == 200


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "javascript:alert(1)", ""])
def test_confirming_does_not_redirect_to_another_site(client: Client, member: User, elsewhere: str) -> None:
    client.force_login(member, backend=sign_in.BACKEND)

    answer = client.post("/me/confirm/", {"present_password": PASSWORD, "next": elsewhere})

    assert answer["Location"] == "/me/settings/"


def test_the_password_is_asked_again_after_a_while(confirmed: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time() + sign_in.CONFIRMATION_TIMEOUT_S + 1
    monkeypatch.setattr(time, "time", lambda: later)

    assert confirmed.get("/me/two-factor/app/")["Location"].startswith("/me/confirm/")


def test_removing_the_last_factor_removes_the_recovery_codes(member: User, app: App, client: Client) -> None:
    give_password(client, "jun")
    give_code(client, app.code())

    asked = client.get("/me/two-factor/app/remove/")
    assert "It is your only second factor" in asked.content.decode() and second_factor.has_second_factor(member)
    assert client.post("/me/two-factor/app/remove/").status_code == 303

    assert not Authenticator.objects.exists()
    assert kinds()[-1] == "self.two_factor_removed"
    assert give_password(Client(), "jun")["Location"] == "/"


def test_new_recovery_codes_replace_the_old(app: App, client: Client) -> None:
    give_password(client, "jun")
    give_code(client, app.code())

    answer = client.post("/me/two-factor/codes/")

    fresh = re.findall(r"<code data-line>(\d{5}-\d{5})</code>", answer.content.decode())
    assert len(fresh) == 10 and not set(fresh) & set(app.recovery_codes)
    again = Client()
    give_password(again, "jun")
    assert give_code(again, app.recovery_codes[0]).status_code == 422
    assert give_code(again, fresh[0]).status_code == 302


def test_recovery_codes_are_not_made_without_a_factor(confirmed: Client) -> None:
    assert confirmed.post("/me/two-factor/codes/").status_code == 303
    assert not Authenticator.objects.exists()


P256 = ES256.from_cryptography_key(generate_private_key(SECP256R1()).public_key())


def passkey_of(client: Client, key: dict[int, Any]) -> str:
    """Return the WebAuthn registration response of a browser whose authenticator created this key."""
    credential = AttestedCredentialData.create(Aaguid.NONE, b"id", CoseKey.parse(key))
    flags = AuthenticatorData.FLAG.UP | AuthenticatorData.FLAG.AT
    data = AuthenticatorData.create(sha256(b"testserver").digest(), flags, 0, credential)
    asked = client.session["mfa.webauthn.state"]["challenge"]
    said = {"type": "webauthn.create", "challenge": asked, "origin": "https://testserver"}
    parts = {
        "clientDataJSON": websafe_encode(json.dumps(said).encode()),
        "attestationObject": websafe_encode(AttestationObject.create("none", data, {})),
    }
    name = websafe_encode(b"id")
    return json.dumps({"id": name, "rawId": name, "type": "public-key", "response": parts})


@pytest.mark.parametrize(
    ("key", "is_added"),
    [
        (P256, True),
        ({**P256, 3: -9999}, False),
        ({**P256, -1: 2}, False),
        ({**P256, -2: b"x" * 5}, False),
    ],
)
def test_a_passkey_whose_signatures_cannot_be_verified_is_refused_with_the_reason(
    confirmed: Client, member: User, key: dict[int, Any], is_added: bool
) -> None:
    confirmed.get("/me/two-factor/passkeys/add/")

    answer = confirmed.post("/me/two-factor/passkeys/add/", {"name": "key", "passkey": passkey_of(confirmed, key)})

    assert (answer.status_code == 422) is not is_added and second_factor.has_second_factor(member) is is_added
    assert ("cannot be verified here" in answer.content.decode()) is not is_added


@pytest.mark.parametrize(
    "answer",
    ["", "{}", "[]", "null", "x", '{"id": 1}', '{"id":"a","rawId":"a","type":"public-key","response":{}}']
    + ['{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"AA","attestationObject":"AA"}}']
    + ["[" * 100_000, "\0"],
)
def test_an_invalid_passkey_is_refused(confirmed: Client, member: User, answer: str) -> None:
    confirmed.get("/me/two-factor/passkeys/add/")

    response = confirmed.post("/me/two-factor/passkeys/add/", {"name": "key", "passkey": answer})

    assert response.status_code == 422
    assert not second_factor.has_second_factor(member)


@pytest.mark.parametrize(
    "answer",
    ["{}", "[]", "x", '{"id":"AA","rawId":"AA","type":"public-key","response":{}}']
    + [
        '{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"AA","signature":"AA"}}',
    ],
)
def test_an_invalid_passkey_response_does_not_sign_in(client: Client, app: App, answer: str) -> None:
    give_password(client, "jun")

    assert client.post("/login/2fa/", {"passkey": answer}).status_code == 422
    assert not is_in(client)


def test_another_users_passkey_is_404(confirmed: Client, stranger: User, manager: User) -> None:
    for owner in (stranger, manager):
        theirs = Authenticator.objects.create(user=owner, type="webauthn", data={"name": "theirs", "credential": {}})

        for answer in (
            confirmed.get(f"/me/two-factor/passkeys/{theirs.pk}/remove/"),
            confirmed.post(f"/me/two-factor/passkeys/{theirs.pk}/remove/"),
        ):
            assert answer.status_code == 404

        assert Authenticator.objects.filter(pk=theirs.pk).exists()


def test_without_credential_keys_the_page_says_what_is_missing(confirmed: Client, settings: Any) -> None:
    settings.CREDENTIAL_KEYS = []

    assert "CREDENTIAL_KEYS" in confirmed.get("/me/settings/").content.decode()
    assert confirmed.get("/me/two-factor/app/").status_code == 403


# -- Secrets ------------------------------------------------------------------------------------------------------


def test_secrets_are_stored_nowhere_in_clear(client: Client, member: User, operator: User) -> None:
    give_password(client, "jun")
    secret = secret_on(client.get("/me/two-factor/app/").content.decode())
    waiting = [one.get_decoded() for one in Session.objects.all()]
    answer = client.post("/me/two-factor/app/", {"code": code_of(secret)})
    codes = re.findall(r"<code data-line>(\d{5}-\d{5})</code>", answer.content.decode())
    dump = StringIO()
    call_command("dumpdata", stdout=dump)

    kept = dump.getvalue() + json.dumps(waiting) + json.dumps(kinds())
    assert codes and secret not in kept
    assert not any(code in kept or code.replace("-", "") in kept for code in codes)


def test_a_wrong_code_is_stored_nowhere(client: Client, app: App, caplog: pytest.LogCaptureFixture) -> None:
    give_password(client, "jun")
    give_code(client, "8675309")
    dump = StringIO()
    call_command("dumpdata", "axes", "audit", stdout=dump)

    assert "jun" in dump.getvalue() and "8675309" not in dump.getvalue() + caplog.text


def test_django_admin_has_no_page_for_factors(client: Client, operator: User, app: App) -> None:
    client.force_login(operator, backend=sign_in.BACKEND)

    for path in ("mfa/authenticator/", "usersessions/usersession/", "account/emailaddress/"):
        assert client.get(f"/admin/{path}").status_code == 404


# -- Required -----------------------------------------------------------------------------------------------------


@pytest.fixture
def strict(space: Space) -> Space:
    space.requires_second_factor = True
    space.save(update_fields=["requires_second_factor"])
    return space


def test_a_manager_requires_a_second_factor_of_admins_and_it_is_in_the_trail(
    client: Client, manager: User, space: Space
) -> None:
    client.force_login(manager, backend=sign_in.BACKEND)

    for wanted, kind in (("true", "space.two_factor_required"), ("false", "space.two_factor_not_required")):
        for _ in range(2):
            assert client.post("/space/security/", {"required": wanted}).status_code == 303
        assert kinds()[-1] == kind and kinds().count(kind) == 1

    assert client.post("/space/security/", {"required": "x"}).status_code == 422


def test_an_admin_without_the_required_factor_can_only_set_it_up(
    client: Client, admin_member: User, member: User, strict: Space
) -> None:
    client.force_login(admin_member, backend=sign_in.BACKEND)

    for path in ("/", "/console/", "/space/users/", "/me/settings/", "/me/credits/", "/space/users/3/edit/"):
        assert client.get(path)["Location"] == "/me/two-factor/", path
    answer = client.post(f"/space/users/{member.number}/status/", {"enabled": "false"})
    htmx = client.get("/space/users/add/", headers={"HX-Request": "true"})

    assert (answer.status_code, answer["Location"]) == (303, "/me/two-factor/")
    assert htmx["HX-Redirect"] == "/me/two-factor/"
    assert User.objects.get(pk=member.pk).is_active
    page = client.get("/me/two-factor/").content.decode()
    assert "Your space manager requires a second factor" in page and "/space/users/" not in page


def test_an_admin_sets_up_the_required_factor_and_continues(client: Client, admin_member: User, strict: Space) -> None:
    give_password(client, "amara")

    set_up_app(client)

    assert client.get("/space/users/").status_code == 200


def test_a_second_factor_is_required_of_admins_only(client: Client, member: User, manager: User, strict: Space) -> None:
    for person in (member, manager):
        client.force_login(person, backend=sign_in.BACKEND)
        assert client.get("/me/credits/").status_code == 200


def test_django_admin_requires_a_second_factor_of_operators_if_configured(
    client: Client, operator: User, settings: Any
) -> None:
    settings.OPERATORS_NEED_2FA = True
    give_password(client, "operator")

    assert client.get("/admin/")["Location"] == "/me/two-factor/"
    assert client.post("/admin/tenants/space/add/", {"name": "x"})["Location"] == "/me/two-factor/"
    assert not Space.objects.exists()
    set_up_app(client)
    assert client.get("/admin/").status_code == 200


# -- Reset --------------------------------------------------------------------------------------------------------


def test_a_manager_resets_a_members_factors_and_ends_their_sessions(
    client: Client, manager: User, member: User, app: App
) -> None:
    theirs = Client()
    give_password(theirs, "jun")
    give_code(theirs, app.code())
    client.force_login(manager, backend=sign_in.BACKEND)

    assert "On" in client.get(f"/space/users/{member.number}/edit/").content.decode()
    assert client.post(f"/space/users/{member.number}/two-factor/reset/").status_code == 303

    event = AuditEvent.objects.get(kind="member.two_factor_reset")
    assert (event.actor_name, event.target_name) == ("mira", "jun")
    assert not Authenticator.objects.exists() and not is_in(theirs)
    assert give_password(Client(), "jun")["Location"] == "/"


@pytest.mark.parametrize("whose", ["mira", "amara", "jun", "stranger"])
def test_an_admin_cannot_reset_factors(
    client: Client, space: Space, admin_member: User, member: User, stranger: User, whose: str
) -> None:
    target = User.objects.get(username=whose)
    App(target)
    client.force_login(User.objects.get(pk=admin_member.pk), backend=sign_in.BACKEND)

    answer = client.post(f"/space/users/{target.number}/two-factor/reset/")

    assert answer.status_code == (404 if whose == "stranger" else 403)
    assert second_factor.has_second_factor(target)
    with pytest.raises(PermissionDenied):
        second_factor.reset_second_factor(target=target, actor=admin_member)


def test_an_operator_resets_the_factors_of_anybody_else(client: Client, manager: User, operator: User) -> None:
    App(manager)
    App(operator)
    client.force_login(User.objects.get(pk=operator.pk), backend=sign_in.BACKEND)
    people = [manager.pk, operator.pk]

    client.post("/admin/accounts/user/", {"action": "reset_two_factor", "_selected_action": people})

    assert not second_factor.has_second_factor(manager) and second_factor.has_second_factor(operator)
    assert AuditEvent.objects.get(kind="member.two_factor_reset").target_name == "mira"


def test_the_command_resets_an_operators_factors(operator: User) -> None:
    App(operator)
    out = StringIO()

    call_command("reset_two_factor", username="OPERATOR", stdout=out)
    call_command("reset_two_factor", username="operator", stdout=out)

    assert not second_factor.has_second_factor(operator)
    assert out.getvalue().splitlines() == [
        "operator signs in with the password alone from now on.",
        "operator had no second factor.",
    ]
    assert AuditEvent.objects.get(kind="member.two_factor_reset").actor_name == "reset_two_factor"
    with pytest.raises(CommandError):
        call_command("reset_two_factor", username="nobody")


def test_deleting_a_member_deletes_their_secrets(client: Client, manager: User, member: User, app: App) -> None:
    client.force_login(manager, backend=sign_in.BACKEND)

    client.post(f"/space/users/{member.number}/delete/", {"confirm": "jun"})

    assert not Authenticator.objects.exists()


def test_a_user_deleted_while_changing_their_factors_is_sent_to_sign_in(
    confirmed: Client, manager: User, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_the_deletion(*, user: User) -> list[str]:
        delete_member(member=member, actor=manager)
        return renewed(user=user)

    renewed = second_factor.renew_codes
    monkeypatch.setattr(second_factor, "renew_codes", after_the_deletion)

    response = confirmed.post("/me/two-factor/codes/")

    assert (response.status_code, response["Location"]) == (302, "/login/?next=/me/two-factor/codes/")
    assert not is_in(confirmed) and "self.recovery_codes_renewed" not in kinds()


# -- Concurrency --------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_concurrent_uses_of_one_code_succeed_once(member: User, kind: str) -> None:
    app = App(member)
    code = app.code() if kind == "app" else app.recovery_codes[0]

    def use(_: int) -> bool:
        try:
            return second_factor.use_code(user=member, code=code)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        got_in = list(pool.map(use, range(6)))

    assert got_in.count(True) == 1
