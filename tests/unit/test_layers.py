"""Imports point one way, and importing has no side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "harness"

# Each part may import the parts named here, and itself. The order is that of ARCHITECTURE.md.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "challenge": {"errors"},
    "probe": {"errors"},
    "sampler": {"errors"},
    "gpu_choice": {"errors", "machine"},
    "timing": {"challenge", "probe"},
    "gpu_figures": set(),
    "gpu_bounds": {"sampler"},
    "gpu_timing": {"gpu_bounds", "gpu_figures", "sampler", "timing"},
    "runner": {"errors", "challenge", "probe", "timing"},
    "engine": {"errors", "challenge", "sampler"},
    "cache": set(),
    "machine": {"challenge"},
    "ending": {"engine"},
    "image_record": {"engine", "text"},
    "store": {
        *("errors", "cache", "machine", "challenge", "probe", "timing", "engine", "ending"),
        *("image_record", "store_records"),
    },
    "store_records": {
        *("errors", "cache", "machine", "challenge", "probe", "timing", "engine", "ending"),
        *("image_record", "gpu_figures"),
    },
    "verdict": {"errors", "challenge", "ending", "store"},
    "text": set(),
    "beneath": {"text"},
    "collect": {"errors", "challenge", "beneath"},
    "plan": {"errors", "cache", "challenge", "engine", "image_record"},
    "record": {
        *("challenge", "probe", "timing", "runner", "engine", "store", "verdict"),
        *("cache", "machine", "collect", "plan", "text", "ending", "gpu_figures", "gpu_record"),
    },
    "gpu_record": {
        *("gpu_bounds", "gpu_figures", "gpu_timing", "machine", "plan", "probe", "sampler"),
        "timing",
    },
    "gpu_watch": {"gpu_record", "plan", "sampler", "store"},
    "started": {
        *("errors", "cache", "challenge", "engine", "image_record", "machine", "plan", "store"),
    },
    "witness": {"errors", "challenge", "probe", "engine", "store", "plan"},
    "data_lock": {"errors"},
    "disk": {"errors", "challenge"},
    "paced": set(),
    "interrupts": set(),
    "watchdog": {"challenge", "probe", "ending"},
    "supervise": {
        *("errors", "challenge", "probe", "timing", "engine", "ending", "store", "machine"),
        *("collect", "plan", "watchdog", "disk", "paced"),
    },
    "execute": {
        *("errors", "challenge", "probe", "timing", "runner", "engine", "store", "verdict"),
        *("cache", "machine", "collect", "plan", "record", "witness", "ending"),
        *("supervise", "disk", "data_lock", "interrupts", "started", "gpu_watch", "sampler"),
    },
    "recover": {
        *("errors", "ending", "engine", "execute", "machine", "probe", "record", "started"),
        *("gpu_record", "sampler", "store"),
    },
    "advice": {"errors", "challenge", "ending", "store"},
    "explain": {
        *("errors", "challenge", "ending", "image_record", "probe", "store", "text", "advice"),
    },
    "timeline": {"errors", "challenge", "explain", "probe", "sampler", "store"},
    "compare": {"challenge", "machine", "store"},
    "spread": {"cache", "challenge", "machine", "store"},
    "repeat": {"engine", "execute", "interrupts", "plan", "probe", "store"},
    "check": {"errors", "challenge", "evaluate", "runner", "store", "text", "beneath"},
    "campaign": {
        *("errors", "cache", "challenge", "ending", "engine", "image_record", "imports", "machine"),
        *("plan", "store", "record", "started", "execute", "recover", "repeat", "interrupts"),
        *("data_lock", "disk", "collect", "beneath", "text", "check", "evaluate", "scoring"),
        *("export", "probe"),
    },
    "cluster": {
        *("errors", "campaign", "challenge", "engine", "execute", "imports", "machine", "recover"),
        *("store", "text"),
    },
    "export": {"errors", "challenge", "engine", "machine", "store", "timing"},
    "imports": {"errors", "challenge", "engine", "text"},
    "evaluate": {"errors", "challenge"},
    "scoring": {"errors", "challenge", "evaluate", "check", "store", "text"},
    "convert": {"errors", "challenge", "evaluate"},
    "phantom": {"errors", "challenge"},
    "doctor": {"errors", "challenge", "engine", "machine"},
    "outline": {"challenge"},
}
TOP = {
    "campaign_asked",
    "campaign_engine",
    "campaign_reference",
    "campaigning",
    "cli",
    "cli_campaign",
    "cli_challenge",
    "cli_cluster",
    "cli_doctor",
    "cli_evaluate",
    "cli_fields",
    "cli_help",
    "cli_import",
    "cli_options",
    "cli_recover",
    "cli_run",
    "cli_show",
    "cli_upload",
    "console",
    "console_campaign",
    "console_gpu",
    "console_campaign_lines",
    "console_campaign_summary",
    "console_campaign_table",
    "console_check",
    "console_show",
    "console_evaluate",
    "console_runs",
    "evaluation",
    "live",
    "first_look",
    "upload",
}  # may import everything

# What the reference container holds beside the standard library.
INSIDE = ("harness.runner", "harness.runner.__main__", "harness.probe.__main__", "harness.timing")
HEAVY = (
    *("scipy", "docker", "rich", "typer", "psutil", "pynvml", "numba", "matplotlib", "torch"),
    "SimpleITK",
)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Parts of the harness that a module imports, for types only or not."""
    parts: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("harness.")}
    return parts - {"__version__"}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part in TOP or part.startswith("__"):
        return
    assert part in ALLOWED, f"{path} belongs to no part that ARCHITECTURE.md knows"
    assert imported_parts(path) <= ALLOWED[part] | {part}


@pytest.mark.parametrize("module", INSIDE)
def test_what_runs_inside_needs_nothing_heavy(module: str) -> None:
    """Imported in a new interpreter that has no such package. (NiBabel looks for scipy itself.)"""
    code = f"import sys\nfor name in {HEAVY!r}:\n    sys.modules[name] = None\nimport {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_process_of_an_attempt_on_a_cluster_starts_without_what_it_may_not_need() -> None:
    """One is started for each attempt: what only fields in a zip need would double its start."""
    pytest.importorskip("distributed")
    heavy = {"scipy", "numba", "distributed"}
    code = f"import sys, harness.cluster.job; print(*{heavy!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_importing_has_no_side_effects(tmp_path: Path) -> None:
    """No file made, no logging configured, no environment changed, no thread, by any module."""
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in MODULES
        if path.stem not in {"__main__", "cli"}
    ]
    code = (
        "import importlib, logging, os, sys, threading\n"
        "before = dict(os.environ)\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        "assert dict(os.environ) == before\n"
        "assert logging.getLogger().handlers == []\n"
        "assert threading.active_count() == 1\n"
        f"assert os.listdir({str(tmp_path)!r}) == []\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
