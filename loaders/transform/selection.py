"""What of the project a source's run builds and tests."""

from __future__ import annotations

from loaders.settings.places import PROJECT_DIR
from loaders.transform import views
from loaders.transform.dbt_build import MONITORING
from loaders.warehouse.base import Warehouse

_EACH_RUN = "tag:each_run"
_VIEWS = "config.materialized:view"


def selection(
    warehouse: Warehouse, source_system: str, *, is_full: bool, are_views_current: bool
) -> list[str]:
    """dbt's options: the MERGE, views that are not as the project has them, and tests; unless
    `is_full` those alone that look at what the run has touched, and no seed."""
    excluded = _other_sources(warehouse, source_system)
    chosen = [] if is_full else ["--select", "raw_objects", _EACH_RUN]
    if are_views_current:
        excluded += [_VIEWS, f"path:models/marts/{MONITORING}"]
    elif not is_full:
        chosen.append(_VIEWS)
    # A view that is left out does not take its tests along.
    return [*chosen, "--exclude", *excluded, "--indirect-selection", "empty"]


def are_views_current(warehouse: Warehouse, source_system: str) -> bool:
    """Whether the views that a source's run builds are there as this project defines them."""
    marks, models = warehouse.marks(), PROJECT_DIR / "models"
    mark = views.fingerprint()
    return all(
        marks.get(path.stem) == mark
        for folder in (models / "staging", models / "marts" / source_system)
        for path in folder.glob("*.sql")
    ) and views.is_current(warehouse)


def _other_sources(warehouse: Warehouse, source_system: str) -> list[str]:
    """What a source's run excludes: the marts of others, to which it brings nothing; of those
    that are not there yet the tests alone, so that the first run of a warehouse makes all views."""
    last: dict[str, str] = {}
    for marts in (PROJECT_DIR / "models" / "marts").iterdir():
        if marts.name not in (source_system, MONITORING):
            # A build makes them together: the last one tells for all.
            last[marts.name] = max(path.stem for path in marts.glob("*.sql"))
    present = warehouse.marks()
    return [
        f"path:models/marts/{name}" + ("" if view in present else ",resource_type:test")
        for name, view in last.items()
    ]
