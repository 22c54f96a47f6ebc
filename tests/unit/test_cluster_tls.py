"""TLS with real certificates, made as docs/cluster.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.campaign.order import Outcome
from harness.cluster.crew import DaskCrew
from harness.cluster.errand import Patience
from harness.cluster.security import Tls, scheduler_address
from harness.errors import MachineError, OptionError
from tests.cluster_parts import (
    Cluster,
    conditions_of,
    ends_of,
    method_source,
    order_of,
    places_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).parents[2] / "docs/cluster.md"
NO_PATIENCE = Patience(scheduler_s=1.0, worker_s=1.0)


def make_certificates(folder: Path) -> None:
    """The recipe of the document, word for word."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    text = DOCUMENT.read_text()
    found = re.search(r"```sh\n(# certificates\n.*?)```", text, re.DOTALL)
    assert found is not None
    folder.mkdir(parents=True)
    subprocess.run(
        ["bash", "-euc", found[1]], cwd=folder, check=True, capture_output=True, timeout=60
    )


def tls(folder: Path, name: str) -> Tls:
    return Tls(ca=folder / "ca.pem", cert=folder / f"{name}.pem", key=folder / f"{name}.key")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "ours"
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def cluster(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder=folder, tls=tls(certificates, "gpu1")) as running:
        yield running.start("one")


def test_private_keys_are_private(certificates: Path) -> None:
    keys = sorted(certificates.glob("*.key"))
    assert len(keys) >= 3
    assert {key.stat().st_mode & 0o077 for key in keys} == {0}


def test_attempt_over_tls(cluster: Cluster, certificates: Path, tmp_path: Path) -> None:
    assert cluster.address.startswith("tls://")
    conductor = tls(certificates, "conductor")
    with closing(DaskCrew(cluster.address, conductor, tmp_path / "runs")) as crew:
        places_of(crew, "one")
        conditions = conditions_of(cluster.data("one"))
        crew.give(order_of("team", method_source(tmp_path / "team"), conditions), "one")
        assert ends_of(crew, 1)["team"].outcome is Outcome.RAN


def test_strangers_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    """Without a certificate, and with one of another authority."""
    make_certificates(tmp_path / "theirs")
    theirs = tls(tmp_path / "theirs", "conductor")
    with pytest.raises(MachineError, match="no answer"):
        DaskCrew(cluster.address, theirs, tmp_path / "runs", patience=NO_PATIENCE)
    plain = cluster.address.replace("tls://", "tcp://")
    with pytest.raises(MachineError, match="no answer"):
        DaskCrew(plain, None, tmp_path / "runs", patience=NO_PATIENCE)
    with pytest.raises(OptionError, match="no certificates are given"):
        scheduler_address(cluster.address, None)


@pytest.mark.parametrize(
    "arguments", [("scheduler", "--host", "0.0.0.0"), ("worker", "192.0.2.1:8786")]
)
def test_commands_refuse_the_network_without_certificates(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "cluster", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == OptionError.exit_code, done.stderr
    assert "expected TLS" in done.stderr
    assert "docs/cluster.md" in done.stderr
