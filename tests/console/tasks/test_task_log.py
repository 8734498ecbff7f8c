from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from console.tasks.log import TaskLog
from core.ids import new_id
from quotas.members import MemberChanges, delete_member, edit_member
from quotas.reconcile import reconcile
from relay.tasks import GONE_UPSTREAM, NOT_SUBMITTED, TIMED_OUT
from tests.usage.videos import CENT, fail, submit, succeed, take
from usage.models import Task, UsageRecord

pytestmark = pytest.mark.django_db


def page(client: Client, user: User, query: str | dict[str, Any] = "", **headers: str) -> tuple[Any, str]:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    if isinstance(query, str):
        response = client.get(f"/console/tasks/{query}", headers=headers)
    else:
        response = client.get("/console/tasks/", query, headers=headers)
    return response, words_of(response)


def words_of(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def seconds_of(response: Any) -> list[int]:
    """Return the seconds of each row, which identify the tasks of a test."""
    return [row.task.seconds for row in response.context["log"].rows]


@pytest.fixture
def filmed(manager: User, admin_member: User, member: User, stranger: User) -> None:
    """Finished tasks in this order: mira 4 seconds (and cents), amara 3, jun 2, jun 1, a stranger 9."""
    for user, seconds in ((manager, 4), (admin_member, 3), (member, 2), (member, 1), (stranger, 9)):
        succeed(take(submit(user, seconds=seconds)))


# -- Who sees what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["mira", "amara"])
def test_managers_and_admins_see_the_whole_space(client: Client, filmed: None, who: str) -> None:
    response, text = page(client, User.objects.get(username=who))

    assert seconds_of(response) == [1, 2, 3, 4]
    assert response.context["log"].totals.cost_nanos == 10 * CENT
    assert "stranger" not in text and "of everybody in Halcyon Labs" in text


def test_a_normal_user_sees_their_own_alone(client: Client, filmed: None, member: User) -> None:
    response, text = page(client, member)

    assert seconds_of(response) == [1, 2]
    assert response.context["log"].totals.cost_nanos == 3 * CENT
    assert "amara" not in text and "mira" not in text


@pytest.mark.parametrize("name", ["amara", "mira", "stranger", "nobody"])
def test_a_normal_user_who_asks_for_another_sees_nothing(client: Client, filmed: None, member: User, name: str) -> None:
    response, _ = page(client, member, {"user": name})

    assert seconds_of(response) == [] and response.context["log"].totals.tasks == 0


def test_a_task_of_somebody_else_is_not_found_by_its_id(
    client: Client, filmed: None, manager: User, member: User, stranger: User
) -> None:
    theirs, managers = Task.objects.get(seconds=9), Task.objects.get(seconds=4)

    for user, task in ((manager, theirs), (member, theirs), (member, managers), (stranger, managers)):
        for text in (task.public_id, str(task.pk)):
            response, words = page(client, user, {"request_id": text})
            assert seconds_of(response) == [] and "No task matches these filters" in words


def test_polling_does_not_return_the_tasks_of_others(
    client: Client, manager: User, member: User, stranger: User
) -> None:
    theirs, managers = submit(stranger, model="secret-model"), submit(manager, model="managers-model")

    for user in (member, stranger):
        client.force_login(user, backend="accounts.backends.LivingUserBackend")
        others = managers if user == stranger else theirs
        response = client.get("/console/tasks/running/", {"task": [others.pk.hex, managers.pk.hex]})
        assert "Queued" not in words_of(response) and managers.pk.hex not in response.content.decode()


def test_filter_options_come_from_visible_tasks_only(
    client: Client, manager: User, member: User, stranger: User
) -> None:
    for user, word in ((stranger, "secret"), (manager, "managers"), (member, "own")):
        take(submit(user, model=f"{word}-model", key=f"{word}-key"), f"{word}-platform")

    whole, own = (page(client, user)[0].content.decode() for user in (manager, member))

    assert "secret-" not in whole + own and "managers-" not in own
    for word in ("model", "key", "platform"):
        assert f"managers-{word}" in whole and f"own-{word}" in own


# -- Columns ------------------------------------------------------------------------------------------------------


def heads(response: Any) -> list[str]:
    found = re.findall(r"<th\b.*?</th>", response.content.decode(), re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", head).split()) for head in found]


def test_the_columns_are_in_order_and_only_managers_and_admins_have_user(
    client: Client, manager: User, member: User
) -> None:
    submit(member)
    shared = ["Platform", "Type", "Task ID", "Status", "Progress", "Cost", "Details"]

    assert heads(page(client, manager)[0]) == ["Submitted", "Finished", "Duration", "User", *shared]
    assert heads(page(client, member)[0]) == ["Submitted", "Finished", "Duration", *shared]


def test_a_row_goes_from_queued_to_success_and_costs_only_then(client: Client, member: User) -> None:
    task = submit(member, seconds=8, ago=timedelta(seconds=20))
    name = f"video_{task.pk.hex}"
    shown = f"Video {name[:-8]} {name[-8:]}"
    assert f"– {shown} Queued 0% Details Held until it ends $0.08" in page(client, member)[1]

    take(task)
    assert f"openai {shown} In Progress 40% Details Held until it ends $0.08" in page(client, member)[1]

    succeed(task, seconds=5)
    text = page(client, member)[1]
    assert f"1 m 05 s openai {shown} Success 100% $0.05 Details" in text
    assert "Seconds 5 × $0.01 $0.05 Charged $0.05 Held $0.08 Released $0.03 Model sora-2 Token laptop Seconds 5" in text
    assert f"Task ID {name} Request ID {task.pk}" in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (NOT_SUBMITTED, "The provider did not accept it."),
        (GONE_UPSTREAM, "The provider no longer knows it."),
        (TIMED_OUT, "Not finished in time."),
        ("upstream_error", "The provider’s answer was not valid."),
        ("upstream_failed", "The provider failed."),
        ("content_policy_violation", "The provider’s error code: content_policy_violation"),
    ],
)
def test_a_failed_task_costs_nothing_and_says_why(client: Client, member: User, code: str, words: str) -> None:
    fail(take(submit(member)), code)

    text = page(client, member)[1]

    assert "Failed 40% Details Charged $0.00 Held $0.04 Released $0.04" in text
    assert f"Failure {words} Model" in text
    assert "Spend $0.00 Tasks 1 Running 0 Failed 1" in text and reconcile(member.space) == []


def test_names_are_escaped(client: Client, member: User) -> None:
    fail(take(submit(member, model="<script>", key="<i>key</i>"), "<b>"))

    content = page(client, member, {"platform": "<b>"})[0].content.decode()

    assert "&lt;script&gt;" in content and "&lt;i&gt;key" in content and "&lt;b&gt;" in content
    assert "<script>" not in content and "<i>" not in content and "<b>" not in content.split('id="task-log"')[1]


# -- Filters ------------------------------------------------------------------------------------------------------


@pytest.fixture
def various(member: User) -> None:
    """Tasks of 1 second (queued), 2 (running), 3 (succeeded), 4 (failed); 3 and 4 at another platform and key."""
    submit(member, seconds=1)
    take(submit(member, seconds=2))
    succeed(take(submit(member, seconds=3, model="veo-3", key="server"), "google"))
    fail(take(submit(member, seconds=4, model="veo-3", key="server"), "google"))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "queued"}, [1]),
        ({"status": "in_progress"}, [2]),
        ({"status": "success"}, [3]),
        ({"status": "failed"}, [4]),
        ({"status": "Failed"}, [4, 3, 2, 1]),
        ({"platform": "openai"}, [2]),
        ({"platform": "google", "status": "failed"}, [4]),
        ({"platform": "goog"}, []),
        ({"model": "veo-3"}, [4, 3]),
        ({"token": "laptop"}, [2, 1]),
        ({"token": "Laptop"}, []),
    ],
)
def test_filters_narrow_rows_and_totals_alike(
    client: Client, manager: User, various: None, query: dict[str, str], expected: list[int]
) -> None:
    response, _ = page(client, manager, query)

    assert seconds_of(response) == expected
    totals = response.context["log"].totals
    shown = [row.task for row in response.context["log"].rows]
    assert totals.tasks == len(expected) and totals.cost_nanos == sum(task.cost or 0 for task in shown)
    assert totals.running == sum(not task.is_finished for task in shown)
    assert totals.failed == sum(task.status == "failed" for task in shown)


@pytest.mark.parametrize("name", ["jun", "JUN", "junko"])
def test_a_person_is_found_by_present_and_former_names(
    client: Client, manager: User, admin_member: User, member: User, name: str
) -> None:
    submit(member, seconds=1)
    member = edit_member(member=member, changes=MemberChanges(username="junko"), actor=manager).member
    submit(member, seconds=2)
    submit(admin_member, seconds=9)

    assert seconds_of(page(client, manager, {"user": name})[0]) == [2, 1]


def test_tasks_of_a_deleted_member_are_found_by_their_name(client: Client, manager: User, member: User) -> None:
    succeed(take(submit(member, seconds=1)))
    delete_member(member=member, actor=manager)

    response, text = page(client, manager, {"user": "jun"})

    assert seconds_of(response) == [1] and "jun" in text


def test_a_period_is_whole_days_and_defaults_to_seven(client: Client, member: User) -> None:
    for days in range(10):
        submit(member, seconds=days + 1, ago=timedelta(days=days))

    def day(ago: int) -> str:
        return (datetime.now(UTC) - timedelta(days=ago)).date().isoformat()

    assert seconds_of(page(client, member)[0]) == [1, 2, 3, 4, 5, 6, 7]
    assert seconds_of(page(client, member, {"from": day(3), "to": day(1)})[0]) == [2, 3, 4]
    assert seconds_of(page(client, member, {"from": day(1), "to": day(3)})[0]) == []


def test_a_task_id_is_found_outside_of_the_period(client: Client, member: User) -> None:
    task = submit(member, seconds=7, ago=timedelta(days=300))
    submit(member, seconds=1)

    assert seconds_of(page(client, member)[0]) == [1]
    for text in (task.public_id, str(task.pk), task.pk.hex.upper(), f" {task.public_id} "):
        assert seconds_of(page(client, member, {"request_id": text})[0]) == [7]
    for text in ("video_", "video_1", "image_" + task.pk.hex, "no-uuid"):
        assert seconds_of(page(client, member, {"request_id": text})[0]) == []


def test_every_other_query_is_restricted_to_the_period(member: User, manager: User) -> None:
    create_key(owner=member, terms=KeyTerms(name="x"))
    for query in ("", "user=jun", "token=x", "model=x", "status=failed", "platform=x", f"cursor={new_id()}"):
        statement = str(TaskLog(manager, QueryDict(query)).records.query)
        assert '"id" >=' in statement and '"id" <' in statement, query


# -- Pages --------------------------------------------------------------------------------------------------------


def copies(task: Task, count: int) -> None:
    """Create `count` copies with their own ids and seconds, as rows to page through; nothing is charged."""
    fields = {field.attname: getattr(task, field.attname) for field in Task._meta.concrete_fields}
    Task.objects.bulk_create(
        [Task(**fields | {"id": new_id(), "seconds": task.seconds + step}) for step in range(1, count + 1)]
    )


@pytest.mark.parametrize("count", [1, 20, 21, 45])
def test_paging_either_way_shows_each_row_once(client: Client, member: User, count: int) -> None:
    copies(submit(member, seconds=1), count - 1)

    down, url = [], "/console/tasks/?status=queued"
    while url:
        response, _ = page(client, member, url.removeprefix("/console/tasks/"))
        down.append(seconds_of(response))
        url = response.context["log"].page.older_url
    up, url = [], f"/console/tasks/?cursor=-{UUID(int=0)}"
    while url:
        response, _ = page(client, member, url.removeprefix("/console/tasks/"))
        up.append(seconds_of(response))
        url = response.context["log"].page.newer_url

    assert list(chain.from_iterable(down)) == list(range(count, 0, -1)) == list(chain.from_iterable(reversed(up)))
    assert [len(rows) for rows in down[:-1]] == [20] * (len(down) - 1)


def test_urls_keep_the_filter_and_leave_out_defaults(client: Client, member: User) -> None:
    copies(take(submit(member, model="a&b")), 20)

    response, _ = page(client, member, {"model": "a&b", "status": "in_progress", "size": "20", "user": ""})

    log = response.context["log"]
    last = log.rows[-1].task.pk
    assert log.page.older_url == f"/console/tasks/?model=a%26b&status=in_progress&cursor={last}"
    assert log.url(size=50) == "/console/tasks/?model=a%26b&status=in_progress&size=50"


@pytest.mark.parametrize("who", ["mira", "jun"])
def test_the_number_of_queries_is_the_same_for_one_row_and_a_hundred(
    client: Client, manager: User, member: User, various: None, who: str
) -> None:
    user = User.objects.get(username=who)
    counts = []
    runs, ended = Task.objects.earliest("id"), Task.objects.latest("id")
    for more in (0, 10, 40):
        copies(runs, more)
        copies(ended, more)
        page(client, user)
        with CaptureQueriesContext(connection) as queries:
            response = client.get("/console/tasks/?size=100")
        counts.append(len(queries))

    assert len(seconds_of(response)) == 100
    assert len(set(counts)) == 1 and counts[0] <= 10, counts


# -- Polling ------------------------------------------------------------------------------------------------------


def poll_url(content: str) -> str:
    found = re.search(r'<div id="task-poll"[^>]*?hx-get="([^"]+)"[^>]*hx-trigger="every 5s"', content)
    return found[1].replace("&amp;", "&") if found else ""


def test_only_running_tasks_are_polled_and_polling_ends_with_the_last(
    client: Client, member: User, various: None
) -> None:
    running = set(Task.objects.filter(finished_at=None).values_list("pk", flat=True))

    url = poll_url(page(client, member)[0].content.decode())
    assert {UUID(text) for text in parse_qs(urlsplit(url).query)["task"]} == running

    assert poll_url(page(client, member, {"status": "success"})[0].content.decode()) == ""


def test_a_poll_returns_the_changed_cells_until_the_task_has_ended(client: Client, member: User, manager: User) -> None:
    task = take(submit(member))
    url = poll_url(page(client, manager, {"model": "sora-2"})[0].content.decode())
    cells = [f'id="task-{task.pk.hex}-{name}"' for name in ("finished", "duration", "status", "progress", "cost")]

    response = client.get(url, headers={"HX-Request": "true"})
    content = response.content.decode()
    assert poll_url(content) == url == f"/console/tasks/running/?model=sora-2&task={task.pk.hex}"
    assert all(cell in content for cell in cells) and content.count("hx-swap-oob") == 6
    assert "In Progress 40%" in words_of(response) and "no-store" in response["Cache-Control"]

    succeed(task)
    response = client.get(url, headers={"HX-Request": "true"})
    content = response.content.decode()
    assert poll_url(content) == "" and content.count("hx-swap-oob") == 8
    assert "Success 100% $0.04" in words_of(response) and "Spend $0.04 Tasks 1 Running 0" in words_of(response)
    assert 'role="status"' not in content and "aria-live" not in content


def test_a_poll_makes_the_same_number_of_queries_for_one_row_and_a_hundred(client: Client, member: User) -> None:
    copies(submit(member), 120)
    ids = [identifier.hex for identifier in Task.objects.values_list("pk", flat=True)]
    client.force_login(member, backend="accounts.backends.LivingUserBackend")
    client.get("/console/tasks/")
    counts = []
    for asked in (ids[:1], ids[:50], ids):
        with CaptureQueriesContext(connection) as queries:
            response = client.get("/console/tasks/running/", {"task": asked})
        counts.append(len(queries))

    assert len(set(counts)) == 1 and counts[0] <= 5, counts
    assert len(response.context["rows"]) == 100


@pytest.mark.parametrize("junk", ["", "\0", "x" * 3000, "-", "٣" * 32, "😀", "%00", "[]", "video_"])
def test_invalid_parameters_are_answered(client: Client, member: User, junk: str) -> None:
    submit(member)

    for name in ("from", "to", "user", "token", "model", "status", "platform", "request_id", "size", "cursor", "task"):
        assert page(client, member, {name: junk})[0].status_code == 200
        assert client.get("/console/tasks/running/", {name: junk}).status_code == 200


# -- Responses ----------------------------------------------------------------------------------------------------


def test_htmx_gets_the_log_and_a_url_without_empty_parameters(client: Client, member: User) -> None:
    submit(member)
    headers = {"HX-Request": "true", "HX-Target": "task-log"}

    response, text = page(client, member, {"user": "", "model": "sora-2", "size": "20"}, **headers)

    assert response.content.decode().strip().startswith('<div class="logview" id="task-log"')
    assert response["HX-Push-Url"] == "/console/tasks/?model=sora-2"
    assert "1 task" in text and "<html" not in response.content.decode()


def test_a_fresh_space_is_told_what_will_come(client: Client, manager: User) -> None:
    assert "No tasks in the last 7 days" in page(client, manager)[1]
    assert "Clear filters" in page(client, manager, {"model": "none"})[1]


def test_the_sidebar_links_to_the_page(client: Client, member: User) -> None:
    content = page(client, member)[0].content.decode()

    assert re.search(r'<a class="nav__item" href="/console/tasks/" aria-current="page">.*?Task Logs', content)


def test_reading_the_page_changes_nothing(client: Client, manager: User, various: None) -> None:
    before = list(Task.objects.values()), list(UsageRecord.objects.values())

    client.get(poll_url(page(client, manager)[0].content.decode()))

    assert (list(Task.objects.values()), list(UsageRecord.objects.values())) == before
