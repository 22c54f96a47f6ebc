"""The faults of ``docs/faults.md`` that a prying image makes, or one that writes what is no field,
with real containers. They look at no time, so they run beside others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docker.fault_lists import OF_INTENT
from tests.docker.fault_run import check_run

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.docker import DockerEngine
    from tests.docker.conftest import MakeImage
    from tests.docker.fault import Fault

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("nothing_left")]


@pytest.mark.parametrize("fault", OF_INTENT, ids=lambda fault: fault.name)
def test_fault_of_intent(
    fault: Fault, engine: DockerEngine, fault_image: MakeImage, tmp_path: Path
) -> None:
    check_run(fault, engine, fault_image(fault), tmp_path)
