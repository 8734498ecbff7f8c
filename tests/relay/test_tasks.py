"""Video tasks through the served relay, polled by its own and by separate workers. Each is charged at most once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import openai
import pytest
import requests
from django.db import connection
from django.utils import timezone
from openai import OpenAI

from accounts.keys import parse_key
from accounts.models import ApiKey, User
from core.money import NANOS_PER_USD
from core.origin import acting
from quotas.charging import expire_holds
from quotas.members import delete_member, set_enabled
from quotas.models import Hold, Wallet
from quotas.reconcile import reconcile
from quotas.services import set_remaining
from relay.catalogue import read_offers
from relay.models import Model, Price, Upstream
from relay.prices import PriceList, Rate
from relay.pricing import Usage
from relay.tasks import TaskReport, accept, apply_report, claim_due, claim_for_client, due_tasks, open_task, read_report
from relay.upstreams import Target
from relay.videos import video_json
from tests.factories import charge, manager_of
from tests.postgres import free_port
from tests.relay.conftest import ROOT, Process, database_url, new_key, serve, start_relay, wait_for
from usage.figures import QUARTER, floor
from usage.models import QuarterMark, SpaceQuarter, Task, UsageRecord

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:The Sora API"),
]

USD = NANOS_PER_USD
VIDEO = "gpt-video"
RATE = Rate(per_request=USD // 100, per_second=USD // 10)
FOUR_SECONDS = USD // 100 + 4 * USD // 10
EIGHT_SECONDS = USD // 100 + 8 * USD // 10
SUCCESS = TaskReport(
    Task.Status.SUCCESS, upstream_task_id="up-1", answer='{"id": "up-1", "status": "completed"}', seconds=4
)
FAILURE = TaskReport(
    Task.Status.FAILED, upstream_task_id="up-1", answer='{"id": "up-1", "status": "failed"}', code="odd"
)
WORKING = TaskReport(Task.Status.IN_PROGRESS, upstream_task_id="up-1", answer='{"status": "in_progress"}', progress=40)
SOMEWHERE = Target(
    id=1, name="somewhere", base_url="http://127.0.0.1:9/v1", credential="", priority=0, weight=1, timeout_s=5
)


# The shared relay may still cache the previous test's model, whose upstream was deleted. Each test therefore uses
# another day as the model's creation date, and waits until the relay shows it.
_days = count(1)


@pytest.fixture
def video_model(transactional_db: None, upstream_url: str) -> Model:
    """A model at one cent a video and ten cents a second, on the demo upstream."""
    model = Model.objects.create(name=VIDEO, task_timeout_s=600)
    starts_at = timezone.now() - timedelta(days=next(_days))
    Price.objects.create(model=model, starts_at=starts_at, **RATE.snapshot())
    serve(model, "studio", upstream_url)
    return model


@pytest.fixture
def videos_url(shared_relay: str, video_model: Model, key: str) -> str:
    return offering(shared_relay, key)


def offering(url: str, key: str) -> str:
    headers, created = {"Authorization": f"Bearer {key}"}, int(Price.objects.get().starts_at.timestamp())
    model = f"{url}/models/{VIDEO}"
    wait_for(lambda: requests.get(model, headers=headers, timeout=5).json().get("created") == created)
    return url


def sdk(url: str, key: str) -> OpenAI:
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)


def submit(url: str, key: str, prompt: str = "a fox", **fields: Any) -> requests.Response:
    body = {"model": VIDEO, "prompt": prompt} | fields
    return requests.post(f"{url}/videos", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def look(url: str, key: str, name: str, part: str = "") -> requests.Response:
    return requests.get(f"{url}/videos/{name}{part}", headers={"Authorization": f"Bearer {key}"}, timeout=60)


def work_once() -> None:
    """Run the worker once in a process of its own, as a systemd timer would."""
    env = os.environ | {"DATABASE_URL": database_url(), "DEMO": "true", "LOG_LEVEL": "ERROR"}
    subprocess.run([sys.executable, "manage.py", "worker", "--once"], cwd=ROOT, env=env, check=True, timeout=60)


def make_due() -> None:
    Task.objects.filter(next_poll_at__isnull=False).update(next_poll_at=timezone.now(), polled_at=None)


def books(user: User) -> tuple[int, int]:
    """(spent, held) of the user's wallet, after asserting that it reconciles with the usage records."""
    assert user.space is not None and reconcile(user.space) == []
    wallet = Wallet.objects.get(user=user)
    return wallet.spent, wallet.held


def ended() -> Task:
    task: Task = wait_for(lambda: Task.objects.filter(finished_at__isnull=False).first(), seconds=40)
    return task


# -- Through the served process -----------------------------------------------------------------------------------


def test_a_video_is_submitted_polled_fetched_and_paid_once(videos_url: str, key: str, member: User) -> None:
    client = sdk(videos_url, key)

    video = client.videos.create(model=VIDEO, prompt="a fox demo:polls=1", seconds="8")
    held = books(member)
    done = client.videos.poll(video.id, poll_interval_ms=300)
    content = client.videos.download_content(video.id).read()

    task = Task.objects.get()
    record = UsageRecord.objects.get()
    assert (video.id, video.status, video.seconds) == (task.public_id, "queued", "8")
    assert held == (0, EIGHT_SECONDS)
    assert (done.id, done.status, done.progress, done.model) == (video.id, "completed", 100, VIDEO)
    assert b"Nor is this a video" in content
    assert (task.status, task.cost, task.seconds, task.platform) == ("success", EIGHT_SECONDS, 8, "studio")
    assert (record.request_id, record.cost, record.seconds) == (task.request_id, EIGHT_SECONDS, 8)
    assert not record.is_estimated and record.key_name == "laptop" and record.username == "jun"
    assert books(member) == (EIGHT_SECONDS, 0)


def test_json_is_accepted_and_seconds_have_a_default(videos_url: str, key: str, member: User) -> None:
    answer = submit(videos_url, key, "a fox demo:polls=0", tint="sepia")

    task = Task.objects.get()
    assert (answer.status_code, answer.json()["id"]) == (200, task.public_id)
    assert answer.headers["x-space-request-id"] == str(task.pk)
    assert answer.headers["x-space-held-usd"] == "0.41"
    assert task.upstream_task_id not in answer.text
    assert ended().cost == FOUR_SECONDS and books(member) == (FOUR_SECONDS, 0)
    assert look(videos_url, key, task.public_id).headers["x-space-cost-usd"] == "0.41"


def test_the_served_process_polls_by_itself(videos_url: str, key: str, member: User) -> None:
    submit(videos_url, key, "a fox demo:polls=1")

    assert ended().status == "success"
    assert books(member) == (FOUR_SECONDS, 0)


def test_many_pollers_and_workers_charge_once(videos_url: str, key: str, member: User) -> None:
    name = submit(videos_url, key, "a fox demo:polls=2").json()["id"]

    def poll(_: int) -> str:
        wait_for(lambda: look(videos_url, key, name).json()["status"] == "completed")
        return "completed"

    def work(_: int) -> str:
        work_once()
        return "worked"

    with ThreadPoolExecutor(11) as pool:
        polling, working = pool.map(poll, range(8)), pool.map(work, range(3))
        assert Counter([*polling, *working]) == {"completed": 8, "worked": 3}

    assert books(member) == (FOUR_SECONDS, 0)
    assert UsageRecord.objects.count() == 1


def test_a_failed_task_releases_and_costs_nothing(videos_url: str, key: str, member: User) -> None:
    name = submit(videos_url, key, "a fox demo:polls=0 demo:fail").json()["id"]

    task = ended()
    answer = look(videos_url, key, name).json()
    assert (task.status, task.code, task.cost) == ("failed", "demo_failure", None)
    assert (answer["status"], answer["error"]["code"]) == ("failed", "demo_failure")
    assert look(videos_url, key, name, "/content").json()["error"]["code"] == "invalid_request"
    assert books(member) == (0, 0)
    record = UsageRecord.objects.get()
    assert (record.kind, record.cost, record.code) == ("error", 0, "demo_failure")


def test_a_task_past_its_deadline_fails_and_releases(videos_url: str, key: str, member: User) -> None:
    name = submit(videos_url, key, "a fox demo:polls=1000").json()["id"]

    Task.objects.update(deadline_at=timezone.now())
    make_due()

    task = ended()
    answer = look(videos_url, key, name).json()
    assert (task.status, task.code) == ("failed", "task_timeout")
    assert (answer["status"], answer["error"]["code"]) == ("failed", "task_timeout")
    assert books(member) == (0, 0)


def test_a_task_that_its_upstream_forgot_fails_and_releases(videos_url: str, key: str, member: User) -> None:
    name = submit(videos_url, key, "a fox demo:polls=1000").json()["id"]

    Task.objects.update(upstream_task_id="video/../forgotten?")
    make_due()

    assert ended().code == "gone_upstream" and books(member) == (0, 0)
    answer = look(videos_url, key, name).json()
    assert (answer["id"], answer["status"], answer["error"]["code"]) == (name, "failed", "gone_upstream")


def test_another_users_task_is_404_like_one_that_never_existed(
    videos_url: str, key: str, member: User, admin_member: User, stranger: User
) -> None:
    name = submit(videos_url, key, "a fox demo:polls=1000").json()["id"]
    theirs = Task.objects.get().upstream_task_id
    never = look(videos_url, key, f"video_{'0' * 32}")

    for owner in (admin_member, manager_of(member.space), stranger):
        for part in ("", "/content"):
            answer = look(videos_url, new_key(owner), name, part)
            assert (answer.status_code, answer.json()) == (never.status_code, never.json()) == (404, never.json())
    odd = ("video_", theirs, f"video_{theirs}", "%00", "video_" + "0" * 31 + "G")
    assert [look(videos_url, key, name).status_code for name in odd] == [404] * len(odd)
    assert Task.objects.get(user_id=member.pk).finished_at is None and books(member) == (0, FOUR_SECONDS)


def test_a_task_that_the_wallet_cannot_cover_is_not_submitted(videos_url: str, key: str, member: User) -> None:
    set_remaining(member=member, remaining_nanos=FOUR_SECONDS - 1, actor=manager_of(member.space))

    answer = submit(videos_url, key)

    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert not Task.objects.exists() and not Hold.objects.exists() and books(member) == (0, 0)


@pytest.mark.parametrize(
    ("stop", "status", "code"),
    [
        (lambda: ApiKey.objects.update(is_enabled=False), 401, "key_disabled"),
        (lambda: User.objects.filter(username="jun").update(is_active=False), 403, "account_disabled"),
    ],
)
def test_a_refused_key_cannot_read_or_submit_but_its_task_goes_on(
    videos_url: str, key: str, member: User, stop: Callable[[], Any], status: int, code: str
) -> None:
    name = submit(videos_url, key, "a fox demo:polls=1").json()["id"]

    stop()

    for answer in (look(videos_url, key, name), submit(videos_url, key)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ended().status == "success" and books(member) == (FOUR_SECONDS, 0)


def test_an_upstreams_refusal_and_failure_cost_nothing(videos_url: str, key: str, member: User) -> None:
    refused = submit(videos_url, key, "demo:error=422")
    failed = submit(videos_url, key, "demo:error=500")

    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "demo_error")
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "upstream_error")
    assert set(Task.objects.values_list("status", "code")) == {("failed", "upstream_error")}
    assert books(member) == (0, 0) and not Hold.objects.exists()


def test_the_next_upstream_is_tried_when_the_first_fails(
    videos_url: str, key: str, video_model: Model, member: User
) -> None:
    Upstream.objects.update(priority=5)
    serve(video_model, "broken", f"http://127.0.0.1:{free_port()}/v1", priority=0)

    wait_for(lambda: submit(videos_url, key, "a fox demo:polls=0").status_code == 200)

    assert ended().platform == "studio"


def test_a_task_is_polled_at_its_upstream_even_if_that_was_disabled(videos_url: str, key: str, member: User) -> None:
    name = submit(videos_url, key, "a fox demo:polls=2").json()["id"]

    Upstream.objects.update(is_enabled=False)

    assert ended().status == "success" and books(member) == (FOUR_SECONDS, 0)
    assert look(videos_url, key, name, "/content").status_code == 200


def test_an_unreachable_upstream_leaves_the_task_open_until_it_is_back(
    videos_url: str, key: str, member: User, upstream_url: str
) -> None:
    name = submit(videos_url, key, "a fox demo:polls=1").json()["id"]
    Upstream.objects.update(base_url=f"http://127.0.0.1:{free_port()}/v1")

    make_due()
    wait_for(lambda: Task.objects.get().misses)
    make_due()
    wait_for(lambda: Task.objects.get().misses >= 2)
    seen = look(videos_url, key, name).json()["status"], books(member)
    Upstream.objects.update(base_url=upstream_url)
    make_due()

    assert seen == ("queued", (0, FOUR_SECONDS))
    assert ended().status == "success" and books(member) == (FOUR_SECONDS, 0)


def test_a_relay_killed_while_submitting_leaves_a_task_that_fails(video_model: Model, key: str, member: User) -> None:
    url, process = start_relay()
    try:
        offering(url, key)
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(submit, url, key, "a fox demo:delay=30")
            wait_for(Task.objects.exists)
            process.kill()
            assert isinstance(asking.exception(), requests.ConnectionError)
    finally:
        process.kill()
    held = books(member)

    work_once()
    early = Task.objects.get().status
    make_due()
    work_once()

    task = Task.objects.get()
    assert (held, early) == ((0, FOUR_SECONDS), "queued")
    assert (task.status, task.code, books(member)) == ("failed", "not_submitted", (0, 0))


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"nonsense", 400, None),
        (b"{}", 400, "model"),
        (b'{"model": "none"}', 404, "model"),
        (b'{"model": "gpt-video", "seconds": "four"}', 400, "seconds"),
        (b'{"model": "gpt-video", "seconds": 0}', 400, "seconds"),
        (b'{"model": "gpt-video", "seconds": 1e9}', 400, "seconds"),
        (b'{"model": "gpt-video", "seconds": 4, "n": true}', 400, "n"),
    ],
)
def test_a_bad_body_names_its_field_and_opens_no_task(
    videos_url: str, key: str, member: User, body: bytes, status: int, param: str | None
) -> None:
    address, headers = f"{videos_url}/videos", {"Authorization": f"Bearer {key}"}

    answer = requests.post(address, data=body, headers=headers, timeout=30)
    with_unknown_key = requests.post(
        address, data=body, headers={"Authorization": f"Bearer sk-1-{'a' * 43}"}, timeout=30
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert with_unknown_key.json()["error"]["code"] == "invalid_api_key"
    assert not Task.objects.exists() and books(member) == (0, 0)


def test_a_body_too_large_is_refused(videos_url: str, key: str) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        sdk(videos_url, key).videos.create(model=VIDEO, prompt="x" * (21 * 1024 * 1024))

    assert refused.value.status_code == 413 and not Task.objects.exists()


def test_a_reference_image_reaches_the_upstream(videos_url: str, key: str, member: User) -> None:
    picture = ("first.png", b"\x89PNG" + bytes(3_000_000), "image/png")

    video = sdk(videos_url, key).videos.create(model=VIDEO, prompt="a fox demo:polls=0", input_reference=picture)

    assert video.status == "queued" and ended().cost == FOUR_SECONDS


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/videos", 405),
        ("DELETE", "/videos/video_x", 405),
        ("POST", "/videos/video_x/remix", 404),
        ("POST", "/videos/video_x", 405),
        ("GET", "/videosx", 404),
    ],
)
def test_unknown_paths_and_methods_are_refused(videos_url: str, key: str, method: str, path: str, status: int) -> None:
    answer = requests.request(method, videos_url + path, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "invalid_request")


# -- The worker ---------------------------------------------------------------------------------------------------


def test_the_worker_survives_a_database_outage_and_stops_on_sigterm(tmp_path: Path) -> None:
    log_path = tmp_path / "worker.log"
    env = os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path}/none/db.sqlite3", "DEMO": "true"}
    with log_path.open("w") as out:
        worker = subprocess.Popen([sys.executable, "manage.py", "worker"], cwd=ROOT, env=env, stderr=out)
    try:
        wait_for(lambda: log_path.read_text().count("database_away") >= 4)
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
    finally:
        worker.kill()
        worker.wait()


def test_the_worker_reports_a_space_whose_quarters_cannot_be_closed(
    transactional_db: None, manager: User, stranger: User
) -> None:
    for user in (manager, stranger):
        with acting(moment=timezone.now() - timedelta(hours=2)):
            spent = charge(user, cost_usd=1)
    # The worker of the shared relay may have closed the quarter already: without a mark it is due again.
    SpaceQuarter.objects.get_or_create(space_id=manager.space_id, model=spent.model, quarter=floor(spent.at, QUARTER))
    QuarterMark.objects.filter(space=manager.space_id).delete()

    ended = subprocess.run(
        [sys.executable, "manage.py", "worker", "--once"],
        cwd=ROOT, env=os.environ | {"DATABASE_URL": database_url(), "DEMO": "true"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == 1 and f"space={manager.space_id}" in ended.stderr
    assert f"CommandError: quarters are not closed of space {manager.space_id}\n" in ended.stderr
    assert SpaceQuarter.objects.filter(space=stranger.space_id).count() == 1


def test_a_separate_worker_sweeps_and_polls(opened: Task, upstream_url: str, member: User) -> None:
    Hold.objects.update(expires_at=timezone.now())
    make_due()

    env = {"DATABASE_URL": database_url(), "DEMO": "true", "LOG_LEVEL": "ERROR"}
    process = Process(sys.executable, "manage.py", "worker", env=env)
    try:
        assert ended().code == "not_submitted"
        wait_for(lambda: not Hold.objects.exists())
    finally:
        process.stop()
    assert books(member) == (0, 0)


# -- Concurrency and locks -----------------------------------------------------------------------------------------


@pytest.fixture
def opened(video_model: Model, key: str, member: User) -> Task:
    """A task of four seconds with its hold, not submitted to an upstream yet."""
    return open_one(key)


def open_one(key: str) -> Task:
    presented = parse_key(key)
    assert presented is not None
    asked: Any = {"address": None, "offer": read_offers()[VIDEO], "body_bytes": 100, "seconds": 4, "images": 1}
    return open_task(presented=presented, **asked)[0]


def run_concurrently(*functions: Callable[[], Task]) -> list[str]:
    """Run all functions concurrently. Returns the status of the task that each of them returned."""

    def run(function: Callable[[], Task]) -> str:
        try:
            return str(function().status)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def test_eight_reports_of_success_settle_once(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, WORKING)

    seen = run_concurrently(*[lambda: apply_report(opened, SUCCESS)] * 8)

    assert Counter(seen) == {"success": 8}
    assert UsageRecord.objects.count() == 1 and books(member) == (FOUR_SECONDS, 0)


def test_concurrent_success_failure_and_sweep_end_a_task_once(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, WORKING)
    Hold.objects.update(expires_at=timezone.now())

    def sweep() -> Task:
        expire_holds()
        return opened

    reports = [lambda: apply_report(opened, SUCCESS), lambda: apply_report(opened, FAILURE)] * 3
    seen = run_concurrently(*reports, sweep, sweep)

    task = Task.objects.get()
    assert set(seen[:6]) == {task.status}
    assert books(member) == ({"success": FOUR_SECONDS, "failed": 0}[task.status], 0)
    assert not Hold.objects.exists()


def test_a_finished_task_never_changes(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, FAILURE)
    before = Task.objects.values().get()

    apply_report(opened, SUCCESS)
    apply_report(opened, None)
    accept(opened, SOMEWHERE, WORKING)

    assert Task.objects.values().get() == before
    assert (before["status"], before["code"], books(member)) == ("failed", "odd", (0, 0))
    assert claim_for_client(opened) is None and due_tasks(limit=10) == []


def test_success_after_a_sweep_is_still_charged(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, WORKING)
    expire_holds(now=timezone.now() + timedelta(days=1))
    assert books(member) == (0, 0)

    apply_report(opened, SUCCESS)
    apply_report(opened, SUCCESS)

    assert Task.objects.get().cost == FOUR_SECONDS and books(member) == (FOUR_SECONDS, 0)


def test_success_reported_after_the_deadline_is_charged(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, WORKING)
    Task.objects.update(deadline_at=timezone.now())

    assert apply_report(opened, SUCCESS).status == "success" and books(member) == (FOUR_SECONDS, 0)


def test_an_unreachable_upstream_is_polled_with_backoff_until_the_deadline(opened: Task) -> None:
    accept(opened, SOMEWHERE, WORKING)
    waits = []
    for _ in range(8):
        task = apply_report(opened, None)
        assert task.next_poll_at is not None
        waits.append(round((task.next_poll_at - timezone.now()).total_seconds()))
    Task.objects.update(deadline_at=timezone.now() + timedelta(seconds=10))
    last = apply_report(opened, None)

    assert waits == [6, 12, 24, 48, 60, 60, 60, 60]
    assert (last.next_poll_at, last.status, last.progress) == (last.deadline_at, "in_progress", 40)


def test_only_one_of_several_workers_claims_a_due_task(opened: Task) -> None:
    make_due()
    [(space_id, task_id)] = due_tasks(limit=10)

    claimed = [claim_due(space_id, task_id) for _ in range(3)]

    assert [claim is not None for claim in claimed] == [True, False, False]
    assert claimed[0].task == opened and claimed[0].target is None
    # No upstream has accepted the task yet, so a client's request cannot fail it before a worker would.
    assert claim_for_client(opened) is None


def test_a_deleted_members_task_is_charged_and_its_rest_returns_to_the_pool(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, WORKING)
    manager = manager_of(member.space)
    delete_member(member=member, actor=manager)

    apply_report(opened, TaskReport(Task.Status.SUCCESS, seconds=2))

    wallet = Wallet.objects.get(user=member.pk)
    pool = Wallet.objects.get(space=member.space, kind="pool")
    assert reconcile(member.space) == []
    assert (wallet.spent, wallet.held, wallet.available) == (USD // 100 + 2 * USD // 10, 0, 0)
    assert pool.available == 500 * USD - wallet.spent


def test_a_disabled_members_task_finishes(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, WORKING)
    set_enabled(member=member, is_enabled=False, actor=manager_of(member.space))

    assert apply_report(opened, SUCCESS).status == "success" and books(member) == (FOUR_SECONDS, 0)


def test_a_task_is_charged_at_the_price_when_it_was_submitted(opened: Task, video_model: Model, member: User) -> None:
    accept(opened, SOMEWHERE, WORKING)
    video_model.set_price(PriceList(Rate(per_second=5 * USD)), timezone.now())

    assert apply_report(opened, SUCCESS).cost == FOUR_SECONDS
    assert UsageRecord.objects.get().price == RATE.snapshot()


def test_seconds_beyond_the_request_empty_the_wallet_and_record_a_shortfall(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, TaskReport(Task.Status.SUCCESS, seconds=10**9))

    record = UsageRecord.objects.get()
    assert books(member) == (5 * USD, 0) and record.cost == Task.objects.get().cost == 5 * USD
    assert record.shortfall > 0


def test_unreported_seconds_are_charged_as_requested_and_marked_as_estimated(opened: Task, member: User) -> None:
    accept(opened, SOMEWHERE, TaskReport(Task.Status.SUCCESS))

    assert UsageRecord.objects.get().is_estimated and books(member) == (FOUR_SECONDS, 0)


def test_a_keys_limit_covers_the_hold(video_model: Model, key: str, member: User) -> None:
    ApiKey.objects.update(limit=2 * FOUR_SECONDS)
    first, second = open_one(key), open_one(key)

    with pytest.raises(Exception, match="the key has 0 nanos left"):
        open_one(key)
    accept(first, SOMEWHERE, FAILURE)
    accept(second, SOMEWHERE, SUCCESS)

    limited = ApiKey.objects.get()
    assert (limited.spent, limited.held) == (FOUR_SECONDS, 0) and Task.objects.count() == 2


# -- Parsing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", "queued"),
        ("in_progress", "in_progress"),
        ("rendering", "in_progress"),
        ("completed", "success"),
        ("SUCCEEDED", "success"),
        ("failed", "failed"),
        ("cancelled", "failed"),
    ],
)
def test_a_report_maps_the_upstreams_status(word: str, status: str) -> None:
    report = read_report(json.dumps({"id": "up-1", "status": word, "progress": 33.4, "seconds": "8"}).encode())

    assert (report.status, report.progress, report.seconds, report.upstream_task_id) == (status, 33, 8, "up-1")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"7", b"{}", b'{"status": 1}', b"[" * 100_000, b'{"status": "x"', b"\xff"]
)
@pytest.mark.any_database
def test_a_body_that_is_not_a_task_is_no_report(body: bytes) -> None:
    assert read_report(body) is None


@pytest.mark.parametrize("odd", [True, -1, 1.5, "4.5", "", "\u0664", [], {}, 10**30, "9" * 30])
def test_invalid_figures_are_ignored_or_bounded(odd: Any) -> None:
    report = read_report(json.dumps({"status": "queued", "id": odd, "seconds": odd, "progress": odd}).encode())

    assert report.seconds in (None, 10**9) and 0 <= report.progress <= 100


def test_unusual_fields_of_an_upstream_are_stored_and_returned(opened: Task) -> None:
    unusual = {
        "id": "up-1",
        "status": "failed",
        "error": {"code": "\u0000" * 50},
        "note": "\u0000\ud800",
        "progress": -0.1,
    }
    report = read_report(json.dumps(unusual).encode())

    task = accept(opened, SOMEWHERE, report)

    assert task.code == "upstream_failed"
    assert video_json(Task.objects.get()) == {
        "object": "video",
        "model": VIDEO,
        "created_at": int(opened.submitted_at.timestamp()),
        "seconds": "4",
        **unusual,
        "id": opened.public_id,
    }


def test_reported_tokens_of_a_task_are_read() -> None:
    reported = {"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 7}}

    assert read_report(json.dumps(reported).encode()).tokens == Usage(input=5, output=7)


def test_a_tasks_public_id_is_a_uuid7(opened: Task) -> None:
    assert opened.public_id == f"video_{opened.pk.hex}" and UUID(opened.pk.hex).version == 7
