"""Refusals: errors after which nothing has changed. Those about money carry the amounts (nanos) for the message."""

from __future__ import annotations


class Refused(Exception):
    """A service refused a deed: its transaction is rolled back, and nothing has changed."""


class NameTakenError(Refused):
    """The username or the space's name is taken. Usernames are unique across spaces, so it must not say by whom."""


class MemberGoneError(Refused):
    """The member was deleted after the page was loaded."""


class QuotaError(Refused):
    """No money was moved. `code` is the error code in the relay's response, if the relay can raise this error."""

    code = ""


class InsufficientPool(QuotaError):
    """The pool has `available` nanos free, fewer than `amount`."""

    def __init__(self, *, available: int, amount: int) -> None:
        super().__init__(f"the pool has {available} nanos available, {amount} were asked for")
        self.available = available
        self.amount = amount


class InsufficientQuota(QuotaError):
    """The wallet has `available` nanos free, fewer than `amount`. Of its total, `limit`, `spent` are spent."""

    code = "insufficient_quota"

    def __init__(self, *, available: int, amount: int, spent: int = 0, limit: int = 0) -> None:
        super().__init__(f"the wallet has {available} nanos available, {amount} were asked for")
        self.available = available
        self.amount = amount
        self.spent = spent
        self.limit = limit


class KeyLimitReached(QuotaError):
    """The API key's own limit leaves `available` nanos, fewer than `amount`. Of `limit`, `spent` are spent."""

    code = "key_limit_reached"

    def __init__(self, *, available: int, amount: int, spent: int = 0, limit: int = 0) -> None:
        super().__init__(f"the key has {available} nanos left, {amount} were asked for")
        self.available = available
        self.amount = amount
        self.spent = spent
        self.limit = limit


class BelowHeld(QuotaError):
    """A member's remaining amount cannot be set below the `held` nanos of running requests."""

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
    """The pool would exceed MAX_AMOUNT_NANOS; at most `room` nanos can be granted."""

    def __init__(self, *, room: int) -> None:
        super().__init__(f"{room} nanos still fit")
        self.room = room


class KeyReused(QuotaError):
    """This idempotency key was already used for a different transfer."""


class WalletClosed(QuotaError):
    """The member has been deleted."""


class NotSpending(QuotaError):
    """The user is disabled or deleted, or the space is suspended."""

    code = "account_disabled"


class KeyRefused(QuotaError):
    """The API key may not be used. `code` is the error code in the relay's response."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class HoldUnknown(QuotaError):
    """There is no hold with this id: it was never made, or it was released without a charge."""
