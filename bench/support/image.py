"""The repository's own image, for the benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.engine.base import Engine, Image

ROOT = Path(__file__).resolve().parents[2]
TAG = "l2r-harness-bench"


def build_reference_image(engine: Engine) -> Image:
    print(f"building the image {TAG} ...", file=sys.stderr, flush=True)
    return engine.build(ROOT, tag=TAG, on_output=lambda _: None)
