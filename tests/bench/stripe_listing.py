"""A Stripe account's charges into DuckDB, once: ours beside others, without latency and with it.

Each run has a sandbox, a database and processes of its own, one run after the other.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from landfall_sandbox.controls import Sandbox
from landfall_sandbox.stripe.ledger import Ledger
from tests.bench.harness import Figures, Workspace, new_workspace, print_table
from tests.bench.stripe_rivals import KEY, QUERY, dlt_charges, dlt_charges_as_parquet, tap_charges
from tests.peers.install import PeerUnavailable

CHARGES, QUICK_CHARGES = 100_000, 5_000
LATENCIES = (0.0, 0.05)
PAGE = 100
OURS = "ours"
GOAL_TIMES, GOAL_RATE, GOAL_REQUESTS = 5, 5_000, 1.02
_SEED = 1
_OWN_REQUESTS = 3
"""Of ours beside the pages, at the least: the account, the newest event, and the feed."""
_PAGES_ALONE = 200
_CHARGES_BEFORE = 100
_NO_LIMIT = "100000"
_OUR_QUERY = """
    select external_id, cast(json_extract(payload, '$.amount') as bigint)
    from events.raw_objects where object_type = 'charge'
"""
_TITLE = """\
All {charges:,} charges of a Stripe account into an empty DuckDB file, in one run
objects/s, seconds: of the whole run, from the start of its processes to their end; all of them
import, store and merge, ours creates the warehouse's tables and runs its acceptance tests too
first: seconds of a run before that, of {first} charges into a database then removed; it leaves
Python's bytecode and dbt's parsed project behind, and nothing else
fetch: objects/s of reading and landing, before merge and tests; only ours tells
RSS: the peak of each process, summed; requests: as the sandbox counted them (ours needs a page
for each 100 charges and {own} more); rows: ids and amounts compared with the account's
On this machine ({cores} cores) the sandbox by itself serves {served:,.0f} charges/s without
latency, to one reader that drops them; in every row it runs beside the others, on the same cores
"""
_NOTES = """\
What each of them brings, which is not the same
ours: every state of every object, raw, changed only where its content did; job log, acceptance
tests; later runs learn from the event feed what changed and read that anew, deletions included
dlt's rest_api: declarative, columns inferred, nested values as JSON, merge by id; once with its
default file format, once with parquet, the faster one; later runs read everything again, or by
`created` what is new and no change; no deletions
tap-stripe 3.3.0 | target-duckdb 0.8.0: columns by a schema, charges with their refunds expanded but
no stream of refunds; later runs take updates from the objects that events carry, not from a read,
and a deletion as one more update. DuckDB is pinned to 1.0.0 there: with 1.5.5 and 2.0.1 the target
loses the first row of each batch without a word, with 1.1.3 it stops at disputes. The tap has no
option for another address than Stripe's, so a launcher (stripe_tap.py) sets it, and leaves out a
request timer that only knows Stripe's; all in one window, where its default is one a month
"""


def our_charges(workspace: Workspace, base_url: str, account_id: str) -> Figures:
    """A first run of ours, and further ones should it not reach the end."""
    name = "SOURCES__STRIPE__BENCH__"
    return workspace.run(
        (
            *("loaders/run.py", "stripe", "--connection", "bench", "--objects", "charge"),
            *("--until-done", "--max-duration", "6h"),
        ),
        **{
            f"{name}API_KEY": KEY,
            f"{name}API_BASE_URL": base_url,
            f"{name}REQUESTS_PER_SECOND": _NO_LIMIT,
            f"{name}ENDPOINT_REQUESTS_PER_SECOND": _NO_LIMIT,
        },
    )


Way = Callable[[Workspace, str, str], Figures]
WAYS: dict[str, tuple[Way, str]] = {
    OURS: (our_charges, _OUR_QUERY),
    "dlt rest_api": (dlt_charges, QUERY),
    "dlt rest_api, parquet": (dlt_charges_as_parquet, QUERY),
    "tap-stripe | target-duckdb": (tap_charges, QUERY),
}


def run(quick: bool, charges: int | None = None) -> Figures:
    """Every way at every latency; what fails has a row that says so."""
    charges = charges or (QUICK_CHARGES if quick else CHARGES)
    ledger = Ledger(_SEED, charges, anchor=0)
    account = {ledger.id("charge", index): ledger.amount(index) for index in range(charges)}
    served = _served_alone(list(account))
    figures = []
    for latency in LATENCIES:
        for name in WAYS:
            print(f"stripe: {name}, {1000 * latency:.0f} ms ...", file=sys.stderr, flush=True)
            figures.append(measure(name, latency, account, ledger.account_id))
    _print(figures, charges, served)
    return {"charges": charges, "sandbox_alone": served, "ways": figures}


def measure(name: str, latency: float, account: dict[str, int], account_id: str) -> Figures:
    """One way at one latency."""
    way, query = WAYS[name]
    figures: Figures = {"way": name, "latency": latency, "error": None}
    with Sandbox(size=1, charges=len(account), seed=_SEED) as sandbox, new_workspace() as workspace:
        sandbox.settings(latency=latency)
        try:
            figures["first_seconds"] = _run_before(way, workspace, account_id)
            figures |= way(workspace, sandbox.base_url, account_id)
            figures["output"] = figures["output"][-2000:]
            rows = _stored(workspace.database, query)
        except PeerUnavailable as error:
            return figures | {"error": f"not installed: {error}"}
        except Exception as error:
            return figures | {"error": _last_line(error)}
        figures["requests"] = sum(sandbox.stats()["requests"].values())
        if name == OURS:
            figures |= _told(workspace.database)
    figures["objects_per_second"] = len(account) / figures["seconds"]
    figures["rows"] = len(rows)
    figures["wrong"] = _compare(rows, account)
    return figures


def _run_before(way: Way, workspace: Workspace, account_id: str) -> float:
    """Seconds of a small run; it leaves caches behind, and nothing of what it stored."""
    with Sandbox(size=1, charges=_CHARGES_BEFORE, seed=_SEED) as sandbox:
        seconds: float = way(workspace, sandbox.base_url, account_id)["seconds"]
    workspace.forget()
    return seconds


def _stored(database: Path, query: str) -> list[tuple[str, int]]:
    import duckdb

    with duckdb.connect(str(database), read_only=True) as connection:
        return connection.execute(query).fetchall()


def _compare(rows: Sequence[tuple[str, int]], account: dict[str, int]) -> str:
    """What is wrong with what is stored; nothing when it is the account."""
    counts = Counter(key for key, _ in rows)
    found = {
        "missing": sum(key not in counts for key in account),
        "unknown": sum(key not in account for key in counts),
        "more than once": sum(count > 1 for count in counts.values()),
        "with another amount": sum(account.get(key, amount) != amount for key, amount in rows),
    }
    return ", ".join(f"{count:,} {what}" for what, count in found.items() if count)


def _told(database: Path) -> Figures:
    """What the event log says of our runs: seconds by step, requests, how many runs it took."""
    import duckdb

    with duckdb.connect(str(database), read_only=True) as connection:
        events = connection.execute(
            "select payload from events.event_log where event_type = 'ingestion.completed'"
            " order by created_at"
        ).fetchall()
    told = [json.loads(payload) for (payload,) in events]
    return {
        "fetch_seconds": sum(each["duration_seconds"] for each in told),
        "packages": sum(each["chunks"] for each in told),
        "runs": len(told),
    }


def _served_alone(ids: Sequence[str]) -> float:
    """Charges a second that the sandbox serves one reader, who knows the pages and drops them."""
    with Sandbox(size=1, charges=len(ids), seed=_SEED) as sandbox:
        connection = http.client.HTTPConnection(urlsplit(sandbox.base_url).netloc)
        newest_first = [None, *reversed(ids[PAGE::PAGE])][:_PAGES_ALONE]
        served = 0
        began = time.perf_counter()
        for after in newest_first:
            cursor = f"&starting_after={after}" if after else ""
            path = f"/v1/charges?limit={PAGE}{cursor}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
            served += connection.getresponse().read().count(b'"object": "charge"')
        seconds = time.perf_counter() - began
        connection.close()
    return served / seconds


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}"[:200] if lines else type(error).__name__


def _print(figures: list[Figures], charges: int, served: float) -> None:
    print_table(
        _TITLE.format(
            charges=charges,
            own=_OWN_REQUESTS,
            cores=os.cpu_count(),
            served=served,
            first=_CHARGES_BEFORE,
        ),
        (
            "latency",
            "way",
            "objects/s",
            "fetch",
            "seconds",
            "first",
            "RSS MB",
            "requests",
            "rows",
            "note",
        ),
        [
            (
                _ms(each),
                each["way"],
                each.get("objects_per_second"),
                _fetch_rate(each, charges),
                each.get("seconds"),
                each.get("first_seconds"),
                each.get("peak_rss_mb"),
                each.get("requests"),
                each.get("rows"),
                _note(each),
            )
            for each in figures
        ],
    )
    print(f"\n{_NOTES}", end="")
    print_table(
        "Goals of ours (nothing fails when one is missed)",
        ("goal", "reached"),
        _goals(figures, math.ceil(charges / PAGE) + _OWN_REQUESTS),
    )


def _fetch_rate(figures: Figures, charges: int) -> float | None:
    return charges / figures["fetch_seconds"] if "fetch_seconds" in figures else None


def _note(figures: Figures) -> str:
    if figures["error"]:
        return str(figures["error"])
    took = f"took {figures['runs']} runs" if figures.get("runs", 1) != 1 else ""
    return "; ".join(filter(None, (figures["wrong"], took))) or "all there"


def _goals(figures: list[Figures], least: int) -> list[tuple[str, str]]:
    rates = {
        (each["way"], each["latency"]): each["objects_per_second"]
        for each in figures
        if "objects_per_second" in each
    }
    slow = max(LATENCIES)
    rivals = {name: rates[name, slow] for name in WAYS if name != OURS and (name, slow) in rates}
    times = "not known, see the notes"
    if rivals and (OURS, slow) in rates:
        fastest = max(rivals, key=rivals.__getitem__)
        times = f"{rates[OURS, slow] / rivals[fastest]:.1f} times {fastest}"
    rate = rates.get((OURS, 0.0))
    requests = [
        f"{each['requests']:,} ({each['requests'] / least - 1:+.1%}) at {_ms(each)}"
        for each in figures
        if each["way"] == OURS and "requests" in each
    ]
    return [
        (f"{GOAL_TIMES} times the fastest other at {1000 * slow:.0f} ms, at least", times),
        (
            f"{GOAL_RATE:,} objects/s without latency on 2 cores, at least",
            "not known" if rate is None else f"{rate:,.0f} on {os.cpu_count()}",
        ),
        (
            f"requests within {GOAL_REQUESTS - 1:.0%} of the least, {least:,}",
            ", ".join(requests) or "not known",
        ),
    ]


def _ms(figures: Figures) -> str:
    return f"{1000 * figures['latency']:.0f} ms"
