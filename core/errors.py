"""Refusals: errors for which nothing was changed. Those of money carry the figures that a person needs to mend them."""

from __future__ import annotations


class Refused(Exception):
    """A service refused a deed: its transaction is rolled back, and nothing has changed."""


class NameTakenError(Refused):
    """The username, or the space's name, belongs to somebody else. It does not say to whom: names cross spaces."""


class MemberGoneError(Refused):
    """The member was deleted after the page was loaded."""


class QuotaError(Refused):
    """Nothing moved. `code` is what a client of the relay is told, where it may meet the refusal."""

    code = ""


class InsufficientPool(QuotaError):
    """The pool has `available` nanos free, fewer than `amount`."""

    def __init__(self, *, available: int, amount: int) -> None:
        super().__init__(f"the pool has {available} nanos available, {amount} were asked for")
        self.available = available
        self.amount = amount


class InsufficientQuota(QuotaError):
    """The wallet has `available` nanos free, fewer than `amount`; of `limit` in all, `spent` are gone."""

    code = "insufficient_quota"

    def __init__(self, *, available: int, amount: int, spent: int = 0, limit: int = 0) -> None:
        super().__init__(f"the wallet has {available} nanos available, {amount} were asked for")
        self.available = available
        self.amount = amount
        self.spent = spent
        self.limit = limit


class KeyLimitReached(QuotaError):
    """The API key's own limit leaves `available` nanos, fewer than `amount`; `spent` of `limit` are gone."""

    code = "key_limit_reached"

    def __init__(self, *, available: int, amount: int, spent: int = 0, limit: int = 0) -> None:
        super().__init__(f"the key has {available} nanos left, {amount} were asked for")
        self.available = available
        self.amount = amount
        self.spent = spent
        self.limit = limit


class BelowHeld(QuotaError):
    """`held` nanos are in flight; a member's remaining cannot be set below that."""

    def __init__(self, *, held: int) -> None:
        super().__init__(f"{held} nanos are in flight")
        self.held = held


class StaleTotal(QuotaError):
    """Somebody else changed the allocation since the form was shown."""

    def __init__(self, *, total: int, remaining: int) -> None:
        super().__init__(f"the total is {total} nanos by now")
        self.total = total
        self.remaining = remaining


class PoolLimit(QuotaError):
    """A pool holds at most MAX_AMOUNT_NANOS; `room` nanos still fit."""

    def __init__(self, *, room: int) -> None:
        super().__init__(f"{room} nanos still fit")
        self.room = room


class KeyReused(QuotaError):
    """This idempotency key already moved something else."""


class WalletClosed(QuotaError):
    """The member has been deleted."""


class NotSpending(QuotaError):
    """The user is disabled or deleted, or the space is suspended."""

    code = "account_disabled"


class KeyRefused(QuotaError):
    """The key may not be used; `code` is the one that a client is told."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class HoldUnknown(QuotaError):
    """No hold of this id was ever made here, or it was released without a charge."""
