"""Everything that dbt docs show is described."""

from __future__ import annotations

from typing import Any

import pytest

from loaders.settings.places import PACKAGE_NAME

from .conftest import Project


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
