"""Which addresses may be used without certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cluster.security import Tls, require_safe, scheduler_address, tls_of
from harness.errors import OptionError

TLS = Tls(ca=Path("ca"), cert=Path("cert"), key=Path("key"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_alone_needs_no_certificates(host: str) -> None:
    require_safe(host, None)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "gpu1.example.org"])
def test_any_other_address_is_refused_without(host: str) -> None:
    require_safe(host, TLS)
    with pytest.raises(OptionError, match=r"expected TLS.*openssl"):
        require_safe(host, None)


@pytest.mark.parametrize(
    ("text", "tls", "address"),
    [
        ("127.0.0.1:8786", None, "tcp://127.0.0.1:8786"),
        ("tcp://localhost:1", None, "tcp://localhost:1"),
        ("[::1]:2", None, "tcp://[::1]:2"),
        ("gpu1:8786", TLS, "tls://gpu1:8786"),
        ("tls://10.0.0.1:8786/", TLS, "tls://10.0.0.1:8786"),
    ],
)
def test_addresses_of_schedulers(text: str, tls: Tls | None, address: str) -> None:
    assert scheduler_address(text, tls) == address


@pytest.mark.parametrize(
    ("text", "tls", "message"),
    [
        ("127.0.0.1", None, "host:port"),
        ("127.0.0.1:99999", None, "host:port"),
        (":8786", None, "host:port"),
        ("127.0.0.1:1/x", None, "host:port"),
        ("tls://127.0.0.1:1", None, "no certificates are given"),
        ("tcp://127.0.0.1:1", TLS, "certificates are given"),
        ("inproc://127.0.0.1:1", TLS, "certificates are given"),
        ("10.0.0.1:8786", None, "expected TLS"),
    ],
)
def test_addresses_that_are_refused(text: str, tls: Tls | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        scheduler_address(text, tls)


def test_certificates_come_together(tmp_path: Path) -> None:
    assert tls_of(None, None, None) is None
    with pytest.raises(OptionError, match=r"--tls-ca and --tls-key is missing"):
        tls_of(None, tmp_path, None)
    with pytest.raises(OptionError, match="no such file"):
        tls_of(tmp_path / "ca", tmp_path / "cert", tmp_path / "key")
