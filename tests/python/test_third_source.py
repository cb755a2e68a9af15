"""A source of sixty lines in a folder of its own: what the engine gives it for nothing."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import random
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from loaders.ingestion.ingest import Ingestion, IngestOptions
from loaders.warehouse.base import Warehouse

from .conftest import Project, Run, assert_accounted, run_ingestion, stored
from .sources.tickets.access import Options, new_source

pytestmark = [pytest.mark.usefixtures("own_secrets"), pytest.mark.timeout(600)]

FOLDER = Path(__file__).parent / "sources"
TOKEN = "tk_canary7b1fDoNotPrint"
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
PAGE = 10


class HelpDesk(http.server.ThreadingHTTPServer):
    """Tickets over HTTP, listed by when they were changed, in pages of ten at most."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tickets: dict[str, dict[str, Any]] = {}
        self.broken: set[str] = set()
        self.team = "one"
        self.asked: list[str] = []
        self.before_page: Callable[[], None] = lambda: None
        """Called before a page is made: a list may move while it is read."""
        self._minutes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, ticket_id: str, **values: Any) -> None:
        self._minutes += 10
        now = (START + dt.timedelta(minutes=self._minutes)).isoformat()
        before = self.tickets.get(ticket_id, {"id": ticket_id, "created": now})
        self.tickets[ticket_id] = {**before, "updated": now, **values}

    def answer(self, path: str, asked: Mapping[str, str]) -> tuple[int, Any]:
        self.asked.append(path)
        if path == "/me":
            return 200, {"team": self.team}
        if path == "/tickets":
            self.before_page()
            since = asked.get("updated_since", "")
            found = [one for one in self.tickets.values() if one["updated"] >= since]
            found.sort(key=lambda one: (one["updated"], one["id"]))
            begin = int(asked.get("after", 0))
            end = begin + min(PAGE, int(asked["limit"]))
            return 200, {
                "tickets": found[begin:end],
                "next": str(end) if end < len(found) else None,
            }
        ticket_id = urllib.parse.unquote(path.removeprefix("/tickets/"))
        if ticket_id in self.broken:
            return 500, {"error": "broken"}
        found_one = self.tickets.get(ticket_id)
        return (200, found_one) if found_one else (404, {"error": "not found"})


class _Handler(http.server.BaseHTTPRequestHandler):
    server: HelpDesk

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        status, value = 401, {"error": "who are you"}
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            status, value = self.server.answer(url.path, dict(urllib.parse.parse_qsl(url.query)))
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def desk() -> Iterator[HelpDesk]:
    with HelpDesk() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for number in range(25):
            server.put(f"t/{number:02}+", subject=f"ticket {number}")
        yield server
        server.shutdown()


class Runner:
    """Runs commands against a help desk, each in a process of its own."""

    def __init__(self, project: Project, desk: HelpDesk) -> None:
        self._project = project
        self._environment = {
            "LANDFALL_SOURCES": str(FOLDER),
            "SOURCES__TICKETS__DESK__TOKEN": TOKEN,
            "SOURCES__TICKETS__DESK__API_BASE_URL": desk.url,
            "SOURCES__TICKETS__DESK__MAX_ATTEMPTS": "2",
            "SOURCES__TICKETS__DESK__BACKOFF_SECONDS": "0.001",
        }

    def __call__(self, *arguments: str, code: int = 0, **variables: str) -> str:
        environment = {**self._environment, **variables}
        ended = self._project.run_cli(*arguments, environment=environment)
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert TOKEN not in ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self._project.duckdb_path), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    @property
    def stored(self) -> dict[str, Any]:
        """Payloads of live objects, by id."""
        return {
            external_id: json.loads(payload)
            for external_id, payload in self.rows(
                "select external_id, payload from events.raw_objects where deleted_at is null"
                " and source_system = 'tickets' and object_type = 'ticket'"
            )
        }

    @property
    def last(self) -> dict[str, Any]:
        """Payload of the last ingestion.completed."""
        [(payload,)] = self.rows(
            "select payload from events.event_log where event_type = 'ingestion.completed'"
            " order by created_at desc limit 1"
        )
        return dict(json.loads(payload))


@pytest.fixture
def run(empty_project: Project, desk: HelpDesk) -> Runner:
    return Runner(empty_project, desk)


def test_the_source_is_short() -> None:
    lines = [
        line
        for path in (FOLDER / "tickets").glob("*.py")
        for line in path.read_text().splitlines()
        if line.strip()
    ]
    assert len(lines) <= 60


@pytest.mark.extended
def test_it_is_filled_followed_and_verified(run: Runner, desk: HelpDesk) -> None:
    checked = run("check", "tickets")
    assert "account      ok" in checked
    assert "none yet" in checked

    run("tickets", "--max-objects", "12")
    assert (len(run.stored), run.last["has_more"]) == (12, True)
    run("tickets", "--max-objects", "8", "--until-done")
    assert run.stored == desk.tickets
    assert run.last["mode"] == "full"

    run("tickets")
    assert (run.last["mode"], run.last["records_landed"]) == ("incremental", 0)
    desk.put("t/03+", subject="changed")
    desk.put("new", subject="new")
    run("tickets")
    assert (run.last["mode"], run.last["records_landed"]) == ("incremental", 2)
    assert run.stored == desk.tickets
    assert "is incremental" in run("check", "tickets")

    del desk.tickets["t/07+"]
    desk.put("t/09+", subject="after the run")
    run("verify", "tickets")
    run("tickets", "--full-resync")
    assert run.stored == desk.tickets
    assert run.rows("select external_id from events.raw_objects where deleted_at is not null") == [
        ("t/07+",)
    ]
    run("verify", "tickets")
    run("status")


@pytest.mark.extended
def test_dates_dead_letters_and_another_account(run: Runner, desk: HelpDesk) -> None:
    run("tickets", "--since", (START + dt.timedelta(minutes=205)).isoformat())
    assert sorted(run.stored) == [f"t/{number:02}+" for number in range(20, 25)]
    run("tickets")

    # A time that is none: the object is set aside, and stored once it is mended.
    desk.put("odd", created="yesterday, I believe")
    assert "dead letters" in run("tickets", code=1)
    assert "odd" not in run.stored
    assert "odd" in run("dead-letters")
    run("retry", "tickets", code=1)
    desk.put("odd", created=START.isoformat())
    run("retry", "tickets")
    assert run.stored == desk.tickets

    # Held and not in the list: asked for, and while it fails neither gone nor forgotten.
    broken = desk.tickets.pop("t/05+")
    desk.broken.add("t/05+")
    assert "could not be fetched" in run("tickets", "--full-resync", code=1)
    assert "t/05+" in run.stored
    assert "lie among the dead letters" in run("tickets", code=1)
    desk.broken.clear()
    desk.tickets["t/05+"] = broken
    run("retry", "tickets")
    assert run.stored == desk.tickets

    desk.team = "two"
    assert "another account" in run("tickets", code=1)
    assert run.stored == desk.tickets


@pytest.mark.extended
@pytest.mark.usefixtures("core_build", "stays_open")
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_meanwhile_the_last_run_holds_what_is_there(
    warehouse: Warehouse, desk: HelpDesk, seed: int
) -> None:
    """Tickets come, change and go before, between and while runs read, bounded or not."""
    chance = random.Random(seed)

    def live() -> None:
        for _ in range(chance.randrange(3)):
            ids = sorted(desk.tickets)
            match chance.randrange(4):
                case 0:
                    desk.put(f"n{len(desk.asked)}.{chance.random()}")
                case 1 | 2:
                    desk.put(chance.choice(ids), subject=str(chance.random()))
                case _:
                    del desk.tickets[chance.choice(ids)]

    def run(**options: Any) -> Run:
        return run_ingestion(
            Ingestion(
                warehouse,
                lambda: new_source("desk", Options(token=TOKEN, api_base_url=desk.url)),
                source_system="tickets",
                connection_name="desk",
                options=IngestOptions(accept_deletions=True, **options),
            )
        )

    desk.before_page = live
    for _ in range(5):
        live()
        bound = chance.choice([None, 4, 15])
        ended = run(max_objects=bound, full_resync=chance.random() < 0.2)
        assert ended.error is None
        assert_accounted(ended.telemetry)
    desk.before_page = lambda: None
    while run().telemetry["has_more"]:
        pass
    run(full_resync=True)
    rows = stored(warehouse).values()
    held = {
        row["external_id"]: json.loads(row["payload"]) for row in rows if row["deleted_at"] is None
    }
    assert held == desk.tickets
    assert run().counts == {}


@pytest.mark.slow
def test_what_it_cannot_do_or_is_not_told_is_one_line(run: Runner) -> None:
    token = "SOURCES__TICKETS__DESK__TOKEN"
    said = run("tickets", code=2, **{token: ""})
    assert "sources.tickets.desk.token" in said
    said = run("tickets", code=1, **{token: "wrong"})
    assert "the credentials are not accepted" in said
    said = run("tickets", "--connection", "sandbox", code=2)
    assert "it has no sandbox" in said
    said = run("tickets", "--objects", "invoice", code=2)
    assert "expected some of ticket" in said
