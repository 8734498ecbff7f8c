"""200 concurrent requests with money for 37: exactly 37 pass, with one relay or two, and for wallets and key limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from accounts.models import User
from benchmarks.drills.asking import Answer, Ask, ask, ask_at_once, tally
from benchmarks.drills.books import check_books, token_nanos
from benchmarks.drills.stage import BY_TOKEN, FIXED, Stage, wallet_of

CROWD = 200
COVERED = 37
# Bounds the sequential requests that use up what is left of a wallet.
MAX_SEQUENTIAL_REQUESTS = 300


def run(stage: Stage, times: int) -> None:
    upstream = stage.upstream()
    fixed, by_token = stage.offer("fixed", FIXED, upstream.url), stage.offer("by-token", BY_TOKEN, upstream.url)
    one, other = stage.relay().base, stage.relay().base
    answers = [
        *_wallet(stage, "one relay", [one], fixed, times),
        *_wallet(stage, "two relays", [one, other], fixed, times),
        *_key(stage, "one relay", [one], fixed, times),
        *_key(stage, "two relays", [one, other], fixed, times),
        *_to_the_last(stage, [one, other], by_token),
    ]
    check_books(stage.report, stage.space, answers)


def _wallet(stage: Stage, who: str, bases: list[str], model: str, times: int) -> list[Answer]:
    member = stage.member(usd=0)
    key = stage.key(member)

    def fund() -> str:
        stage.fund(member, COVERED * FIXED.per_request)
        return key

    answers, wrong = _rounds(fund, bases, model, times, "insufficient_quota")
    wrong += [f"{nanos} nanos left" for nanos in [wallet_of(member).available] if nanos]
    _tell(stage, f"a wallet, {who}", answers, wrong, times)
    return answers


def _key(stage: Stage, who: str, bases: list[str], model: str, times: int) -> list[Answer]:
    member = stage.member()

    def limited_key() -> str:
        return stage.key(member, limit_nanos=COVERED * FIXED.per_request)

    answers, wrong = _rounds(limited_key, bases, model, times, "key_limit_reached")
    _tell(stage, f"a key's limit, {who}", answers, wrong, times)
    return answers


def _rounds(
    prepare: Callable[[], str], bases: list[str], model: str, times: int, code: str
) -> tuple[list[Answer], list[str]]:
    answers, wrong = [], []
    right = Counter({"200": COVERED, f"429 {code}": CROWD - COVERED})
    for number in range(1, times + 1):
        key = prepare()
        asks = [Ask(base=bases[place % len(bases)], key=key, model=model) for place in range(CROWD)]
        crowd = ask_at_once(asks)
        answers += crowd
        if Counter(answer.outcome for answer in crowd) != right:
            wrong.append(f"round {number}: {tally(crowd)}")
    return answers, wrong


def _tell(stage: Stage, what: str, answers: list[Answer], wrong: list[str], times: int) -> None:
    stage.report.say(f"{what}: {times} times {CROWD} at once; {tally(answers)}")
    stage.report.check(f"{what}: exactly {COVERED} of {CROWD} pass, {times} times over", wrong)


def _to_the_last(stage: Stage, bases: list[str], model: str) -> list[Answer]:
    """With holds larger than costs, no more than the wallet's money is spent, and less than a hold of it is left."""
    member = stage.member(usd=0)
    request = Ask(base=bases[0], key=stage.key(member), model=model)
    # A hold assumes one token per byte of the body.
    most, least = token_nanos(len(request.body), request.output_tokens), token_nanos(len(request.body), 1)
    funded = COVERED * most
    stage.fund(member, funded)
    asks = [Ask(base=bases[place % len(bases)], key=request.key, model=model) for place in range(CROWD)]
    crowd = ask_at_once(asks)
    sequential = _use_up(request)
    answers = [*crowd, *sequential]
    _check_last(stage, member, answers, funded=funded, least=least)
    stage.report.say(
        f"then one after the other: {tally(sequential)}; {wallet_of(member).available} of {funded} nanos left"
    )
    return answers


def _check_last(stage: Stage, member: User, answers: list[Answer], *, funded: int, least: int) -> None:
    stage.report.say(f"a hold dearer than the cost, two relays: {tally(answers)}")
    reported = sum(answer.cost_nanos or 0 for answer in answers)
    wallet = wallet_of(member)
    wrong = (
        [f"{reported} nanos reported, {wallet.spent} spent, of {funded}"]
        if not reported == wallet.spent <= funded
        else []
    )
    stage.report.check("a hold dearer than the cost: never more is spent than the money covers", wrong)
    left = [f"{wallet.available} nanos left, the cheapest hold is {least}"] if wallet.available >= least else []
    stage.report.check("a hold dearer than the cost: all but less than the cheapest hold can be spent", left)
    strange = [a.outcome for a in answers if a.outcome not in ("200", "429 insufficient_quota")]
    stage.report.check("a hold dearer than the cost: served or refused with insufficient_quota, nothing else", strange)


def _use_up(request: Ask) -> list[Answer]:
    answers = [ask(request)]
    while answers[-1].status == 200 and len(answers) < MAX_SEQUENTIAL_REQUESTS:
        answers.append(ask(request))
    return answers
