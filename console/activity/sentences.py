"""Renders an audit event as a sentence, with the reason of a refusal and the changed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from accounts.models import User
from audit.models import AuditEvent
from audit.services import REFUSALS_OMITTED
from core.money import AmountError, format_balance, format_cost, parse_usd
from quotas.models import FIRST_GRANT
from tenants.roles import Role

Words = str | Promise

# Sentences for an event whose actor and target are the same person.
_SELF_SENTENCES: dict[str, Words] = {
    "session.signed_in": gettext_lazy("%(actor)s signed in"),
    "session.signed_out": gettext_lazy("%(actor)s signed out"),
    "session.ended": gettext_lazy("%(actor)s ended one of their sessions"),
    "session.others_ended": gettext_lazy("%(actor)s signed out everywhere else"),
    "self.edited": gettext_lazy("%(actor)s changed their own profile"),
    "self.settings_changed": gettext_lazy("%(actor)s changed their own settings"),
    "self.password_changed": gettext_lazy("%(actor)s changed their own password"),
    "self.two_factor_enabled": gettext_lazy("%(actor)s set up two-factor sign-in"),
    "self.two_factor_removed": gettext_lazy("%(actor)s removed two-factor sign-in"),
    "self.recovery_codes_renewed": gettext_lazy("%(actor)s made new recovery codes"),
    "self.recovery_code_used": gettext_lazy("%(actor)s signed in with a recovery code"),
    "member.edited": gettext_lazy("%(actor)s changed their own details"),
    "member.password_set": gettext_lazy("%(actor)s set their own password"),
    "member.quota_set": gettext_lazy("%(actor)s changed their own remaining quota from %(was)s to %(is)s"),
    "key.created": gettext_lazy("%(actor)s created the API key %(key)s"),
    "key.edited": gettext_lazy("%(actor)s changed the API key %(key)s"),
    "key.enabled": gettext_lazy("%(actor)s enabled the API key %(key)s"),
    "key.disabled": gettext_lazy("%(actor)s disabled the API key %(key)s"),
    "key.rotated": gettext_lazy("%(actor)s rotated the API key %(key)s"),
    "key.deleted": gettext_lazy("%(actor)s deleted the API key %(key)s"),
}

_SENTENCES: dict[str, Words] = {
    "manager.created": gettext_lazy("%(actor)s made %(target)s the space manager"),
    "member.created": gettext_lazy("%(actor)s added %(target)s"),
    "member.edited": gettext_lazy("%(actor)s changed the details of %(target)s"),
    "member.password_set": gettext_lazy("%(actor)s set a new password for %(target)s"),
    "member.quota_set": gettext_lazy("%(actor)s changed the remaining quota of %(target)s from %(was)s to %(is)s"),
    "member.enabled": gettext_lazy("%(actor)s enabled %(target)s"),
    "member.disabled": gettext_lazy("%(actor)s disabled %(target)s"),
    "member.deleted": gettext_lazy("%(actor)s deleted %(target)s; %(returned)s returned to the pool"),
    "member.two_factor_reset": gettext_lazy("%(actor)s reset the two-factor sign-in of %(target)s"),
    "member.unlocked": gettext_lazy("%(actor)s unlocked the sign-in of %(target)s"),
    "key.deleted": gettext_lazy("%(actor)s revoked the API key %(key)s of %(target)s"),
    "pool.grant": gettext_lazy("%(actor)s granted quota to the pool: %(was)s became %(is)s"),
    "pool.revoke": gettext_lazy("%(actor)s took back quota from the pool: %(was)s became %(is)s"),
    "space.created": gettext_lazy("%(actor)s created the space %(target)s"),
    "space.renamed": gettext_lazy("%(actor)s renamed the space from %(was)s to %(is)s"),
    "space.suspended": gettext_lazy("%(actor)s suspended the space"),
    "space.resumed": gettext_lazy("%(actor)s resumed the space"),
    "space.terms_set": gettext_lazy("%(actor)s set the prices that the space pays"),
    "space.two_factor_required": gettext_lazy("%(actor)s required two-factor sign-in of admins"),
    "space.two_factor_not_required": gettext_lazy("%(actor)s no longer requires two-factor sign-in of admins"),
}

# Sentences for a `member.edited` that changed a single field, by field or new role.
_ONE_FIELD_SENTENCES: dict[str, Words] = {
    "username": gettext_lazy("%(actor)s renamed %(was)s to %(is)s"),
    "display_name": gettext_lazy("%(actor)s changed the display name of %(target)s"),
    Role.ADMIN: gettext_lazy("%(actor)s promoted %(target)s to Admin"),
    Role.NORMAL: gettext_lazy("%(actor)s made %(target)s a Normal user"),
}

_REFUSED_SENTENCES: dict[str, Words] = {
    "session.signed_in": gettext_lazy("Somebody tried to sign in as %(target)s"),
    "self.password_changed": gettext_lazy("%(actor)s tried to change their own password"),
    "self.confirmed": gettext_lazy("%(actor)s tried to confirm their identity"),
    "member.two_factor_reset": gettext_lazy("%(actor)s tried to reset the two-factor sign-in of %(target)s"),
    "member.unlocked": gettext_lazy("%(actor)s tried to unlock the sign-in of %(target)s"),
    "space.two_factor_required": gettext_lazy("%(actor)s tried to change who needs two-factor sign-in"),
    "member.created": gettext_lazy("%(actor)s tried to add a user"),
    "member.edited": gettext_lazy("%(actor)s tried to change %(target)s"),
    "member.status_set": gettext_lazy("%(actor)s tried to enable or disable %(target)s"),
    "member.quota_set": gettext_lazy("%(actor)s tried to change the quota of %(target)s"),
    "member.deleted": gettext_lazy("%(actor)s tried to delete %(target)s"),
    "manager.reset": gettext_lazy("%(actor)s tried to change the details of %(target)s"),
    "key.edited": gettext_lazy("%(actor)s tried to change an API key of %(target)s"),
    "key.status_set": gettext_lazy("%(actor)s tried to enable or disable an API key of %(target)s"),
    "key.rotated": gettext_lazy("%(actor)s tried to rotate an API key of %(target)s"),
    "key.deleted": gettext_lazy("%(actor)s tried to delete an API key of %(target)s"),
    "pool.grant": gettext_lazy("%(actor)s tried to grant quota"),
    "pool.revoke": gettext_lazy("%(actor)s tried to take back quota"),
    "space.renamed": gettext_lazy("%(actor)s tried to rename the space"),
    "page.posted": gettext_lazy("%(actor)s tried to use a page without permission"),
}

_REFUSAL_REASONS: dict[str, Words] = {
    "not_allowed": gettext_lazy("Their role does not allow it."),
    "wrong_password": gettext_lazy("Wrong password."),
    "unknown_name": gettext_lazy("Nobody has that name."),
    "account_disabled": gettext_lazy("The account is disabled."),
    "space_suspended": gettext_lazy("The space is suspended."),
    "locked": gettext_lazy("Too many wrong passwords before."),
    "wrong_code": gettext_lazy("Wrong code."),
    "insufficient_pool": gettext_lazy("More than the pool had available."),
    "below_held": gettext_lazy("Less than was in flight."),
    "stale_total": gettext_lazy("Somebody else had changed the quota meanwhile."),
    "pool_limit": gettext_lazy("More than a pool can hold."),
    "key_reused": gettext_lazy("The form had been sent before with another amount."),
    "wallet_closed": gettext_lazy("The user was deleted meanwhile."),
    "member_gone": gettext_lazy("The user was deleted meanwhile."),
    "name_taken": gettext_lazy("The name was not available."),
}

_FIELD_LABELS: dict[str, Words] = {
    "username": gettext_lazy("Username"),
    "display_name": gettext_lazy("Display name"),
    "role": gettext_lazy("Role"),
    "number": gettext_lazy("ID"),
    "enabled": gettext_lazy("Enabled"),
    "remaining": gettext_lazy("Remaining"),
    "total": gettext_lazy("Total"),
    "returned": gettext_lazy("Returned to the pool"),
    "reason": gettext_lazy("Reason"),
    "key": gettext_lazy("Key"),
    "name": gettext_lazy("Name"),
    "limit": gettext_lazy("Spending limit"),
    "expires_at": gettext_lazy("Expires"),
    "models": gettext_lazy("Models"),
    "model": gettext_lazy("Model"),
    "price": gettext_lazy("Price"),
    "starts_at": gettext_lazy("From"),
    "ips": gettext_lazy("IP ranges"),
    "old_key_until": gettext_lazy("Old key works until"),
    "page": gettext_lazy("Page"),
    "method": gettext_lazy("Method"),
    "device": gettext_lazy("Device"),
    "address": gettext_lazy("Address"),
    "language": gettext_lazy("Language"),
    "time_zone": gettext_lazy("Time zone"),
    "theme": gettext_lazy("Theme"),
    "amount_at_refusal": gettext_lazy("Requested"),
    "available_at_refusal": gettext_lazy("Available then"),
    "held_at_refusal": gettext_lazy("In flight then"),
    "room_at_refusal": gettext_lazy("Room in the pool then"),
    "total_at_refusal": gettext_lazy("Total then"),
    "remaining_at_refusal": gettext_lazy("Remaining then"),
    REFUSALS_OMITTED: gettext_lazy("More attempts within the hour"),
}
_MONEY_FIELDS = {"remaining", "total", "limit", "returned"}


@dataclass(frozen=True)
class ChangedField:
    label: str
    was: str
    now: str


@dataclass(frozen=True)
class SentenceLine:
    """An audit event as one viewer may see it."""

    event: AuditEvent
    template: str
    facts: dict[str, str]
    actor: str
    target: str
    why: str
    address: str
    changes: list[ChangedField]

    @property
    def text(self) -> str:
        return self.template % self.facts

    @property
    def html(self) -> SafeString:
        # <bdi> keeps a right-to-left name from reordering the words around it.
        facts = {name: format_html("<bdi>{}</bdi>", fact) for name, fact in self.facts.items()}
        return mark_safe(conditional_escape(self.template) % facts)  # noqa: S308  # both halves are escaped


def line_of(event: AuditEvent, viewer: User) -> SentenceLine:
    actor, target = _actor(event), event.target_name or "–"
    return SentenceLine(
        event=event,
        template=str(_template(event)),
        facts={"actor": actor, "target": target, "kind": event.kind} | _facts(event),
        actor=actor,
        target=target,
        why=str(_REFUSAL_REASONS.get(event.refusal, event.refusal)) if event.is_refused else "",
        address=_address(event, viewer),
        changes=_changes(event) if _may_see_changes(event, viewer) else [],
    )


def _actor(event: AuditEvent) -> str:
    # Operators appear to a space without a name. A refused sign-in has no actor: it proves no identity.
    if event.is_of_office or (event.actor_id is None and event.kind.startswith(("space.", "pool.", "manager."))):
        return _("Operator")
    if event.actor_id is None and event.is_refused:
        return _("Somebody")
    return pgettext("actor", "System") if event.actor_id is None else event.actor_name


def _address(event: AuditEvent, viewer: User) -> str:
    is_theirs = event.actor_id in (viewer.pk, None)
    if event.is_of_office or not (is_theirs or viewer.is_manager or viewer.is_admin):
        return ""
    return event.address or ""


def _may_see_changes(event: AuditEvent, viewer: User) -> bool:
    """Hide the values of the manager's own API keys (limits, IP ranges) from admins."""
    is_managers_own = event.actor_role == Role.MANAGER and event.actor_id == event.target_id
    return viewer.is_manager or not (is_managers_own and event.kind.startswith("key."))


def _template(event: AuditEvent) -> Words:
    unknown: Words = gettext_lazy("%(actor)s: %(kind)s, %(target)s")
    if event.is_refused:
        return _REFUSED_SENTENCES.get(event.kind, unknown)
    is_own = event.actor_id is not None and (event.actor_id, event.target_type) == (event.target_id, "user")
    if is_own and event.kind in _SELF_SENTENCES:
        return _SELF_SENTENCES[event.kind]
    if event.kind == "member.edited" and len(event.after) == 1:
        (name, value), *_rest = event.after.items()
        return _ONE_FIELD_SENTENCES.get(value if name == "role" else name, _SENTENCES[event.kind])
    return _SENTENCES.get(event.kind, _SELF_SENTENCES.get(event.kind, unknown))


def _facts(event: AuditEvent) -> dict[str, str]:
    field = {"member.quota_set": "remaining", "space.renamed": "name", "member.edited": "username"}.get(
        event.kind, "total"
    )
    facts = {"was": _readable(field, event.before.get(field)), "is": _readable(field, event.after.get(field))}
    key = event.after.get("name") or event.before.get("name")
    return facts | {"key": _readable("name", key), "returned": _readable("returned", event.after.get("returned", "0"))}


def _changes(event: AuditEvent) -> list[ChangedField]:
    names = dict.fromkeys([*event.before, *event.after])
    told = [
        ChangedField(
            str(_FIELD_LABELS.get(name, name)),
            _readable(name, event.before.get(name)),
            _readable(name, event.after.get(name)),
        )
        for name in names
    ]
    return [change for change in told if change.was != change.now or event.before == event.after]


def _readable(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "–"
    if value is None or value == "":
        return "–"
    if name in _MONEY_FIELDS or name.endswith("_at_refusal"):
        return _usd(name, str(value))
    if name == "reason" and value == FIRST_GRANT:
        return _(FIRST_GRANT)
    return str(dict(Role.choices).get(value, value)) if name == "role" else str(value)


def _usd(name: str, text: str) -> str:
    try:
        nanos = parse_usd(text)
    except AmountError:
        return text
    return format_cost(nanos) if name in ("limit", "amount_at_refusal") else format_balance(nanos)
