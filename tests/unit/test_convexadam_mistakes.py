"""The mistakes that bench/plugin_mistakes.py plants fit the example as it is."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from bench.plugin_mistakes import EXAMPLE, MISTAKES, NEEDS_GPU, plant

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_a_plugin_around_the_example(tmp_path: Path, mistake: str) -> None:
    plugin = plant(tmp_path / "plugin", MISTAKES[mistake], iterations=7)
    tree = ast.parse((plugin / "method.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    names |= {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert "Method" in names
    shipped = (plugin / "shipped.py").read_text()
    assert "\nITERATIONS = 7 " in shipped
    assert shipped.count("\n") == (EXAMPLE / "method.py").read_text().count("\n")


def test_what_the_mistakes_reach_for_is_there() -> None:
    method, instance = (
        {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        | {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for tree in (
            ast.parse((EXAMPLE / name).read_text()) for name in ("method.py", "instance.py")
        )
    )
    assert {"Method", "PYTORCH", "ITERATIONS"} <= method
    assert "data_gradient" in instance
    assert set(MISTAKES) >= NEEDS_GPU
