"""User Management: the list of members and its dialogs, which are whole pages without JavaScript."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.keys import delete_key
from accounts.models import ApiKey, User
from accounts.second_factor import reset_second_factor
from audit.services import record_refused_deed
from console.answers import (
    Context,
    Toast,
    back_to_list,
    deed_done,
    dialog,
    focus_after,
    is_htmx,
    page_or_piece,
    see_other,
    shown_query,
)
from console.forms import StatusForm
from console.frame import pool_of_request
from console.guards import SpaceRequest, get_or_post, manager_view, member_view
from console.users.forms import AddUserForm, DeleteUserForm, EditUserForm, PreviewForm, SecurityForm
from console.users.listing import USERS_URL, Listing, members_of
from console.users.preview import Preview, preview
from core.errors import InsufficientPool, MemberGoneError, NameTakenError, QuotaError, Refused, WalletClosed
from core.money import AmountError, format_balance, parse_usd
from quotas.members import create_member, delete_member, edit_member, set_enabled
from quotas.models import Wallet
from quotas.spaces import require_second_factor
from tenants.policies import (
    can_delete,
    can_demote,
    can_edit,
    can_require_second_factor,
    can_reset_second_factor,
    can_revoke_key,
    can_set_enabled,
)
from usage.models import UsageRecord


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@manager_view
def user_list(request: SpaceRequest) -> HttpResponse:
    listing = Listing(request.space, request.GET)
    return page_or_piece(
        request,
        "console/users/user_list.html",
        {"listing": listing, "page": listing.page},
        piece="console/users/user_list.html#table",
        target="user-table",
        shown_url=listing.url(page=listing.page.number),
        rest=lambda: {"pool": pool_of_request(request)},
    )


@get_or_post
@manager_view
def user_add(request: SpaceRequest) -> HttpResponse:
    form = AddUserForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            member = create_member(space=request.space, actor=request.user, **form.cleaned_data)
        except NameTakenError as error:
            record_refused_deed(
                "member.created", error, actor=request.user, target=request.space, asked=form.cleaned_data
            )
            form.name_taken()
        else:
            return _user_created(request, member, form.cleaned_data["password"])
    return dialog(request, "console/users/_user_add_form.html", _("Add User"), {"form": form})


@get_or_post
@member_view(can_edit)
def user_edit(request: SpaceRequest, member: User) -> HttpResponse:
    form = EditUserForm(request.POST if request.method == "POST" else None, member=member, actor=request.user)
    if form.is_valid():
        try:
            edited = edit_member(member=member, changes=form.changes(), actor=request.user)
        except Refused as error:
            record_refused_deed("member.edited", error, actor=request.user, target=member, asked=vars(form.changes()))
            if isinstance(error, MemberGoneError | WalletClosed):
                raise Http404 from None
            if isinstance(error, QuotaError):
                member = _with_wallet(request, member)
                form.quota_refused(error, pool=pool_of_request(request), wallet=member.wallet)
            else:
                form.name_taken()
        else:
            request.pool = edited.pool
            toast = Toast(_("%(name)s saved.") % {"name": edited.member.username})
            return _done(request, toast, row=edited.member)
    pool = pool_of_request(request)
    shown = _preview_of(form, pool, member)
    if form.errors and shown.short_nanos and "remaining" not in form.errors:
        # Report the insufficient pool together with the other errors, not only after they are corrected.
        short = InsufficientPool(available=pool.available, amount=shown.short_nanos)
        form.quota_refused(short, pool=pool, wallet=member.wallet)
    context = {
        "form": form,
        "member": member,
        "pool": pool,
        "preview": shown,
        "demotable": can_demote(request.user, member),
        "keys": _keys_of(request, member),
    }
    return dialog(
        request,
        "console/users/_user_edit_form.html",
        _("Edit User"),
        context,
        beside_template="console/users/_user_revoke_form.html",
    )


@require_POST
@member_view(can_edit)
def user_preview(request: SpaceRequest, member: User) -> HttpResponse:
    form = PreviewForm(request.POST)
    pool = pool_of_request(request)
    shown = _preview_of(form, pool, member)
    context = {"member": member, "pool": pool, "preview": shown}
    return render(request, "console/users/_quota_preview.html", context, status=422 if form.errors else 200)


@require_POST
@member_view(can_revoke_key)
def user_key_revoke(request: SpaceRequest, member: User, *, key_number: int) -> HttpResponse:
    key = get_object_or_404(_keys_of(request, member), number=key_number)
    try:
        delete_key(key=key, actor=request.user)
    except ApiKey.DoesNotExist:
        raise Http404 from None
    toast = Toast(_("%(key)s is revoked.") % {"key": key.shown})
    if not is_htmx(request):
        messages.success(request, toast.text)
        return see_other(f"{USERS_URL}{member.number}/edit/")
    context = {"member": member, "keys": _keys_of(request, member), "toast": toast}
    return render(request, "console/users/_member_keys.html", context)


@require_POST
@member_view(can_set_enabled)
def user_status(request: SpaceRequest, member: User) -> HttpResponse:
    form = StatusForm(request.POST)
    if not form.is_valid():
        return HttpResponse(form.errors["enabled"][0], status=422, content_type="text/plain; charset=utf-8")
    try:
        changed = set_enabled(member=member, is_enabled=form.is_enabled(), actor=request.user)
    except MemberGoneError as error:
        record_refused_deed("member.status_set", error, actor=request.user, target=member)
        raise Http404 from None
    # Changing the status does not change the wallet, so the one loaded by member_view is still current.
    changed.wallet, member = member.wallet, changed
    text = _("%(name)s is enabled.") if member.is_active else _("%(name)s is disabled. Sign-in and API keys are off.")
    undo = "false" if member.is_active else "true"
    toast = Toast(text % {"name": member.username}, undo_url=request.path, undo_value=undo)
    return _done(request, toast, row=member)


@get_or_post
@member_view(can_delete)
def user_delete(request: SpaceRequest, member: User) -> HttpResponse:
    form = DeleteUserForm(request.POST if request.method == "POST" else None, member=member)
    if form.is_valid():
        shown = [one.number for one in _shown_listing(request).page]
        focus = focus_after(shown, member.number, otherwise="add-user")
        try:
            returned = delete_member(member=member, actor=request.user)
        except (MemberGoneError, WalletClosed) as error:
            record_refused_deed("member.deleted", error, actor=request.user, target=member)
            raise Http404 from None
        text = _("%(name)s deleted. %(amount)s returned to the pool.") % {
            "name": member.username,
            "amount": format_balance(returned.amount if returned else 0),
        }
        return _done(request, Toast(text), listing=_shown_listing(request), focus=focus)
    context = {"form": form, "member": member, "facts": _delete_facts(request, member)}
    return dialog(request, "console/users/_user_delete_form.html", _("Delete User"), context)


@get_or_post
@member_view(can_reset_second_factor)
def user_second_factor_reset(request: SpaceRequest, member: User) -> HttpResponse:
    if request.method == "POST":
        try:
            was_on = reset_second_factor(target=member, actor=request.user)
        except User.DoesNotExist:
            raise Http404 from None
        text = _("Two-factor sign-in of %(name)s is off.") if was_on else _("%(name)s had no two-factor sign-in.")
        return _done(request, Toast(text % {"name": member.username}))
    return dialog(
        request,
        "console/users/_user_second_factor_reset_form.html",
        _("Reset two-factor sign-in"),
        {"member": member},
    )


@require_POST
@manager_view
def security(request: SpaceRequest) -> HttpResponse:
    # The POST carries the wanted state, so it is idempotent.
    if not can_require_second_factor(request.user):
        raise PermissionDenied
    form = SecurityForm(request.POST)
    if not form.is_valid():
        return HttpResponse(form.errors["required"][0], status=422, content_type="text/plain; charset=utf-8")
    is_required = form.is_required()
    require_second_factor(space=request.space, is_required=is_required, actor=request.user)
    on, off = _("Admins sign in with two factors from now on."), _("Admins may sign in with the password alone.")
    messages.success(request, on if is_required else off)
    return back_to_list(request, USERS_URL)


def _done(
    request: SpaceRequest,
    toast: Toast,
    *,
    row: User | None = None,
    listing: Listing | None = None,
    focus: str = "",
) -> HttpResponse:
    def context() -> Context:
        return _done_context(request, row=row, listing=listing)

    return deed_done(
        request, toast, back=USERS_URL, pieces="console/users/_users_done.html", context=context, focus=focus
    )


def _done_context(request: SpaceRequest, *, row: User | None = None, listing: Listing | None = None) -> Context:
    context: Context = {"row": row, "member": row, "pool": pool_of_request(request)}
    if listing is not None:
        first = listing.first.number if listing.first else None
        context |= {"table_oob": True, "listing": listing, "page": listing.page, "new_number": first}
    return context


def _user_created(request: SpaceRequest, member: User, password: str) -> HttpResponse:
    toast = Toast(_("%(name)s added.") % {"name": member.username})
    if not is_htmx(request):
        return _done(request, toast)
    context = {"member": member, "password": password, "sign_in_url": request.build_absolute_uri("/login/")}
    shown = render_to_string("console/users/_user_created.html", context, request)
    changed = _done_context(request, listing=_shown_listing(request, first=member)) | {"toast": toast, "oob": True}
    return HttpResponse(shown + render_to_string("console/users/_users_done.html", changed, request))


def _shown_listing(request: SpaceRequest, *, first: User | None = None) -> Listing:
    return Listing(request.space, shown_query(request, USERS_URL), first=first)


def _keys_of(request: SpaceRequest, member: User) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(space=request.space, user=member).order_by("-number")


def _with_wallet(request: SpaceRequest, member: User) -> User:
    return members_of(request.space).get(pk=member.pk)


def _preview_of(form: EditUserForm | PreviewForm, pool: Wallet, member: User) -> Preview:
    try:
        remaining, error = parse_usd(str(form["remaining"].value() or "")), ""
    except AmountError:
        remaining, error = member.wallet.remaining, str((form.errors.get("remaining") or [""])[0])
    return preview(pool=pool, wallet=member.wallet, remaining_nanos=remaining, error=error)


@dataclass(frozen=True)
class DeleteFacts:
    returned_nanos: int
    pool_before_nanos: int
    pool_after_nanos: int
    spent_nanos: int
    held_nanos: int
    key_count: int
    record_count: int


def _delete_facts(request: SpaceRequest, member: User) -> DeleteFacts:
    pool, wallet = pool_of_request(request), member.wallet
    return DeleteFacts(
        returned_nanos=wallet.available,
        pool_before_nanos=pool.available,
        pool_after_nanos=pool.available + wallet.available,
        spent_nanos=wallet.spent,
        held_nanos=wallet.held,
        key_count=ApiKey.objects.filter(space=request.space, user=member).count(),
        record_count=UsageRecord.objects.filter(space=request.space, user_id=member.pk).count(),
    )
