"""Whatever is put back, and when: after clean runs the rows are the mailbox, and the account."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st

from landfall_sandbox.controls import Sandbox
from loaders.ingestion.ingest import IngestOptions
from loaders.transform.invocation import release_file
from tests.chaos.disasters import put_back, put_part_back

from . import held_file
from . import test_gmail_property as gmail
from . import test_stripe_property as stripe
from .conftest import Project, Run, run_gmail, run_stripe
from .gmail_sync.conftest import assert_mirrors

pytestmark = [
    pytest.mark.usefixtures("core_build", "stays_open"),
    pytest.mark.slow,
    pytest.mark.timeout(7200),
]

EXAMPLES = int(os.environ.get("LANDFALL_PROPERTY_EXAMPLES", "2"))
PARTS = ("file", "new file", "events", "events_staging", "state", "file and state")


@dataclasses.dataclass(frozen=True)
class BackUp:
    """The warehouse file and the state directory are copied."""


@dataclasses.dataclass(frozen=True)
class PutBack:
    """A part of what there is becomes what it was; `backup` 0 is the time before there was any."""

    part: str
    backup: int


@dataclasses.dataclass
class Machine:
    """A warehouse file, a state directory, and copies of them."""

    project: Project
    backups: list[Path] = dataclasses.field(default_factory=list)

    def do(self, step: BackUp | PutBack) -> None:
        held_file.let_go()
        release_file()
        gc.collect()  # a killed run may have left the file open
        match step:
            case BackUp():
                self._back_up()
            case PutBack(part, number):
                backup = self.backups[number % len(self.backups)]
                note(f"put back: {part} of {backup.name}")
                self._put_back(part, backup)

    def _back_up(self) -> None:
        copy = self.project.directory / "backups" / str(len(self.backups))
        copy.mkdir(parents=True)
        put_back(self.project.duckdb_path, copy / "file.duckdb")
        if self.project.state_dir.exists():
            shutil.copytree(self.project.state_dir, copy / "state")
        self.backups.append(copy)

    def _put_back(self, part: str, backup: Path) -> None:
        warehouse, file = self.project.duckdb_path, backup / "file.duckdb"
        if "file" in part:
            put_back(file, warehouse, as_new_file=part == "new file")
        if part in ("events", "events_staging") and warehouse.exists():
            put_part_back(file, warehouse, part)
        if "state" in part:
            shutil.rmtree(self.project.state_dir, ignore_errors=True)
            if (backup / "state").exists():
                shutil.copytree(backup / "state", self.project.state_dir)


class World(stripe.World):
    """An account whose rows may have come back since it deleted their objects, however many."""

    def _completed(self, **options: Any) -> Run:
        return super()._completed(accept_deletions=True, **options)


disasters = st.one_of(
    st.builds(BackUp), st.builds(PutBack, st.sampled_from(PARTS), st.integers(0, 5))
)


def with_disasters(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.one_of(steps, steps, disasters), min_size=5, max_size=14)


as_usual: Callable[[Any], Any] = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="LANDFALL_PROPERTY_EXAMPLES" not in os.environ,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.fixture
def machine(project: Project) -> Callable[[], Machine]:
    """A machine without a warehouse for each example, of which there is a backup."""

    def fresh() -> Machine:
        release_file()
        gc.collect()
        project.store.empty()
        for directory in (project.state_dir, project.directory / "backups"):
            shutil.rmtree(directory, ignore_errors=True)
        made = Machine(project)
        made.do(BackUp())
        return made

    return fresh


# A run dies with a package on disk, and the file of the day before is put back.
RUN = gmail.OneRun([], None, None, False, 2_000, False)
DIES = dataclasses.replace(RUN, dies_at=("land.normalized", 1))
STRIPE_DIES = dataclasses.replace(stripe.CLEAN, dies_at=("land.normalized", 1))


@as_usual
@example(steps=[RUN, BackUp(), {"deliver": 3}, RUN, {"deliver": 3}, DIES, PutBack("file", 1)])
@given(steps=with_disasters(st.one_of(gmail.changes, gmail.runs, gmail.runs, gmail.expiry)))
def test_rows_are_the_mailbox_whatever_was_put_back(
    machine: Callable[[], Machine], steps: list[Any]
) -> None:
    here = machine()
    with Sandbox(size=gmail.SIZE, seed=3) as mailbox:
        for step in steps:
            match step:
                case BackUp() | PutBack():
                    here.do(step)
                case gmail.OneRun():
                    gmail.do_run(here.project.open_warehouse(), mailbox, step)
                case "expire":
                    mailbox.settings(history_expired_before=mailbox.change()["history_id"])
                case _:
                    gmail.change(mailbox, step)
        mailbox.set_faults([])
        warehouse = here.project.open_warehouse()
        options = IngestOptions(accept_deletions=True)
        for _ in range(20):
            run = run_gmail(warehouse, mailbox, options, label_changes="refetch")
            assert run.error is None, run.error
            if not run.telemetry["has_more"]:
                break
        assert_mirrors(warehouse, mailbox)
        assert run_gmail(warehouse, mailbox).counts == {}


CHARGES = {"create": {"charge": 3}}


@as_usual
@example(steps=[BackUp(), CHARGES, stripe.CLEAN, CHARGES, STRIPE_DIES, PutBack("file", 1)])
@given(steps=with_disasters(st.one_of(stripe.changes, stripe.runs, stripe.runs, stripe.times)))
def test_rows_are_the_account_whatever_was_put_back(
    machine: Callable[[], Machine], steps: list[Any]
) -> None:
    here = machine()
    with Sandbox(size=1, charges=stripe.CHARGES, seed=3) as account:
        world = World(here.project.open_warehouse(), account)
        for step in [stripe.CLEAN, *steps]:
            if isinstance(step, BackUp | PutBack):
                here.do(step)
                world.warehouse = here.project.open_warehouse()
            else:
                world.do(step)
        world.warehouse = here.project.open_warehouse()
        world.finish()
        world.assert_mirrored()
        again = run_stripe(world.warehouse, account)
        assert not {"inserted", "updated", "deleted"} & again.counts.keys()
