"""The people, keys and video tasks of the demo space."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from relay.tasks import TIMED_OUT

# A published password is safe only because production refuses to start on a database with a demo space.
PASSWORD = "halcyon-demo"  # noqa: S105
SPACE = "Halcyon Labs"
MANAGER, OPERATOR = "mira.okafor", "operator"
DAYS = 58

# Nano-dollars per token, (input, output).
SMALL_MODELS = {"claude-sonnet-4": (3000, 15000), "gpt-4o-mini": (150, 600), "gemini-2.5-flash": (300, 2500)}
LARGE_MODELS = {"claude-sonnet-4": (3000, 15000), "gpt-4.1": (2000, 8000), "gemini-2.5-pro": (1250, 10000)}
# Weights of the LARGE_MODELS when one is drawn.
LARGE_WEIGHTS = (5, 3, 2)
CHANGE_MODEL, CHANGE_PRICE = "deepseek-v3", (270, 1100)


@dataclass(frozen=True)
class DemoMember:
    """A member as of today. Money is in cents; `joined`, `disabled` and `deleted` are in days before today."""

    username: str
    display_name: str
    total: int
    spent: int
    joined: int
    key: str = ""
    is_admin: bool = False
    disabled: int | None = None
    deleted: int | None = None
    # Quota changes after joining: (days ago, cents, username of the actor).
    changes: tuple[tuple[int, int, str], ...] = ()

    @property
    def first_total(self) -> int:
        return self.total - sum(cents for _, cents, _ in self.changes)

    @property
    def last_day(self) -> int:
        return self.disabled or self.deleted or 0


@dataclass(frozen=True)
class DemoKey:
    """An API key. `limit` is in cents; times are in days before today, negative ones in the future."""

    owner: str
    name: str
    made: int
    limit: int | None = None
    models: tuple[str, ...] = ()
    expires: int | None = None
    disabled: int | None = None


MEMBERS = [
    DemoMember("amara.diallo", "Amara Diallo", 8000, 1880, 57, "rag-prod", is_admin=True),
    DemoMember("theo.lindqvist", "Theo Lindqvist", 6000, 2154, 57, "laptop"),
    DemoMember("jun.sato", "Jun Sato", 500, 300, 56, "scratch"),
    DemoMember("priya.nair", "Priya Nair", 2500, 1025, 55, "prototype", disabled=8, changes=((10, -1500, MANAGER),)),
    DemoMember("ci-bot", "CI bot", 4000, 4000, 54, "pipeline", changes=((20, 1500, "amara.diallo"),)),
    DemoMember("leila.haddad", "Leila Haddad", 3000, 210, 50, "default", is_admin=True),
    DemoMember("marcus.webb", "Marcus Webb", 3500, 3088, 49, "notebook"),
    DemoMember("sofia.reyes", "Sofía Reyes", 2000, 200, 44, "sandbox"),
    DemoMember("eval-runner", "", 0, 0, 40),
    DemoMember("noor.aziz", "نور عزيز", 1000, 40, 33, "study"),
    DemoMember("kai.tanaka", "田中 海", 1500, 395, 30, "mobile"),
    DemoMember("dana.kim", "Dana Kim", 2500, 640, 29, "thesis", deleted=9),
    DemoMember("olu.bello", "Olu Bello", 1000, 166, 3, "default"),
]
MANAGER_SPENT = 4218
# In addition to the key that each of the MEMBERS has.
KEYS = [
    DemoKey(MANAGER, "default", DAYS),
    DemoKey(MANAGER, "batch-embeddings", 50, limit=2500, models=("gemini-2.5-flash", "gpt-4o-mini"), expires=-56),
    DemoKey(MANAGER, "demo-stand", 45, limit=500, models=("gemini-2.5-flash",), disabled=20),
    DemoKey("theo.lindqvist", "hackathon", 40, limit=1000, models=("gpt-4o-mini",), expires=12),
]
CLIENT_ADDRESS = "203.0.113.7"
VIDEO_TIMEOUT_S = 3600
# Video model → (upstream, cents per second).
VIDEO_MODELS = {"sora-2": ("openai", 10), "veo-3-fast": ("google", 15)}


@dataclass(frozen=True)
class DemoVideo:
    """A video task, submitted `ago` before now. It ended after `took`, unless that is None; with a `code` it failed."""

    owner: str
    model: str
    seconds: int
    ago: timedelta
    took: timedelta | None = None
    code: str = ""
    progress: int = 0

    @property
    def cents(self) -> int:
        is_paid = self.took and not self.code
        return VIDEO_MODELS[self.model][1] * self.seconds if is_paid else 0


VIDEOS = [
    DemoVideo("sofia.reyes", "sora-2", 4, timedelta(seconds=20)),
    DemoVideo("theo.lindqvist", "veo-3-fast", 8, timedelta(seconds=70), progress=62),
    DemoVideo(MANAGER, "sora-2", 8, timedelta(hours=2), timedelta(seconds=94)),
    DemoVideo("marcus.webb", "veo-3-fast", 8, timedelta(hours=5), timedelta(seconds=125), "content_policy_violation"),
    DemoVideo("amara.diallo", "sora-2", 12, timedelta(hours=26), timedelta(seconds=171)),
    DemoVideo("theo.lindqvist", "veo-3-fast", 4, timedelta(hours=27), timedelta(seconds=48)),
    DemoVideo("theo.lindqvist", "sora-2", 4, timedelta(days=3), timedelta(seconds=VIDEO_TIMEOUT_S), TIMED_OUT),
    DemoVideo("amara.diallo", "veo-3-fast", 6, timedelta(days=4, hours=3), timedelta(seconds=77)),
    DemoVideo("sofia.reyes", "sora-2", 4, timedelta(days=5, hours=1), timedelta(seconds=51)),
]
