"""Everything that dbt docs show is described; what texts name is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from loaders.settings.places import PACKAGE_NAME, PROJECT_DIR

from .conftest import Project

_PAGES = [*PROJECT_DIR.glob("*.md"), *PROJECT_DIR.glob("docs/*.md")]
_PAGES.remove(PROJECT_DIR / "CHANGELOG.md")  # it tells of what was
_FOLDERS = ("loaders", "landfall_sandbox", "models", "macros", "tests")
_CODE = [
    path
    for folder in _FOLDERS
    for kind in ("py", "sql", "yml", "md")
    for path in (PROJECT_DIR / folder).rglob(f"*.{kind}")
]


@pytest.fixture
def manifest(project: Project) -> Any:
    """The parsed project."""
    result = project.run_dbt("parse")
    assert result.success
    return result.result


def test_every_model_source_and_seed_is_described_with_its_columns(manifest: Any) -> None:
    nodes = [
        node
        for node in [*manifest.nodes.values(), *manifest.sources.values()]
        if node.resource_type in ("model", "source", "seed") and node.package_name == PACKAGE_NAME
    ]
    assert len(nodes) >= 10
    undescribed = [node.unique_id for node in nodes if not node.description.strip()]
    undescribed += [
        f"{node.unique_id}.{column.name}"
        for node in nodes
        for column in node.columns.values()
        if not column.description.strip()
    ]
    assert undescribed == []
    assert [node.unique_id for node in nodes if not node.columns] == []


def test_every_macro_and_its_arguments_are_described(manifest: Any) -> None:
    macros = [macro for macro in manifest.macros.values() if macro.package_name == PACKAGE_NAME]
    assert len(macros) >= 40
    assert [macro.name for macro in macros if not macro.description.strip()] == []
    assert [
        f"{macro.name}({argument.name})"
        for macro in macros
        for argument in macro.arguments
        if not (argument.description or "").strip()
    ] == []


def test_every_unit_test_and_acceptance_test_belongs_to_the_project(manifest: Any) -> None:
    names = {node.name for node in manifest.nodes.values() if node.resource_type == "test"}
    assert {name for name in names if name.startswith("assert_")} >= {
        "assert_batch_upsert",
        "assert_correlation_ids",
        "assert_event_payloads",
        "assert_idem_keys",
        "assert_job_lifecycle",
        "assert_no_per_object_events",
        "assert_queue_drained",
        "assert_timestamps",
    }
    assert len(manifest.unit_tests) >= 16


def test_every_python_name_that_pages_give_is_there() -> None:
    texts = [page.read_text() for page in _PAGES]
    named = {name for text in texts for name in re.findall(r"\bloaders(?:\.[A-Za-z_]\w*)+", text)}
    for text in texts:
        for module, names in re.findall(r"^from (loaders[\w.]*) import (.+)$", text, re.M):
            named.update(f"{module}.{name.strip()}" for name in names.split(","))
    assert {"loaders.upsert.upsert_objects", "loaders.event_log.log_event"} <= named
    for name in named:
        module, _, last = name.rpartition(".")
        found = importlib.import_module(module)
        assert hasattr(found, last) or importlib.import_module(name), name


def test_every_file_that_texts_name_is_there() -> None:
    path = re.compile(rf"\b(?:{'|'.join(_FOLDERS)})/[\w/]+[.](?:py|sql|yml)\b")
    lost = {
        f"{page.relative_to(PROJECT_DIR)}: {name}"
        for page in [*_PAGES, *_CODE, Path(PROJECT_DIR / "dbt_project.yml")]
        for name in path.findall(page.read_text())
        if not (PROJECT_DIR / name).exists()
    }
    assert lost == set()
