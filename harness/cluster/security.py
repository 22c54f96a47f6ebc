"""Who may talk to whom: TLS with certificates of the site's own, or this machine alone.

Dask's messages hold pickles. Whoever may connect may have any code run by the scheduler, by every
worker and by the conductor: so nobody may connect who has no certificate.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.errors import OptionError

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Security

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files. ``ca``: of the authority that signed every certificate of this cluster, and no
    other. Each process proves who it is by ``cert`` and ``key``."""

    ca: Path
    cert: Path
    key: Path


def tls_of(ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """From three options that belong together. Raises OptionError."""
    given = {"--tls-ca": ca, "--tls-cert": cert, "--tls-key": key}
    if all(path is None for path in given.values()):
        return None
    if ca is None or cert is None or key is None:
        missing = " and ".join(name for name, path in given.items() if path is None)
        raise OptionError(f"TLS needs --tls-ca, --tls-cert and --tls-key; {missing} is missing")
    for name, path in (("--tls-ca", ca), ("--tls-cert", cert), ("--tls-key", key)):
        if not path.is_file():
            raise OptionError(f"{name} {path}: no such file; docs/cluster.md says how to make it")
    return Tls(ca=ca, cert=cert, key=key)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_safe(host: str, tls: Tls | None) -> None:
    """Raises OptionError for a way in that anybody on the network could take."""
    if tls is None and not is_loopback(host):
        raise OptionError(
            f"{host or 'every address of this machine'}: expected TLS, or {LOOPBACK}: whoever "
            "reaches a scheduler or a worker can have any code run by it. Give --tls-ca, "
            "--tls-cert and --tls-key; docs/cluster.md says how to make certificates with openssl"
        )


def scheduler_address(text: str, tls: Tls | None) -> str:
    """``host:port``, with or without its scheme, as Dask wants it. Raises OptionError."""
    scheme = "tcp" if tls is None else "tls"
    full = text if "://" in text else f"{scheme}://{text}"
    try:
        parts = urlsplit(full)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.path not in {"", "/"}:
        raise OptionError(
            f"scheduler {text}: expected host:port, as `harness cluster scheduler` prints it"
        )
    if parts.scheme != scheme:
        raise OptionError(
            f"scheduler {text}: expected {scheme}://, as "
            + ("no certificates are given" if tls is None else "certificates are given")
        )
    require_safe(host, tls)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def host_of(address: str) -> str:
    return urlsplit(address).hostname or ""


def security_of(tls: Tls | None) -> Security:
    """For any of the three roles: a process has one of them."""
    from distributed import Security  # noqa: PLC0415 - with an extra, and takes 0.3 s

    if tls is None:
        return Security(require_encryption=False)
    ca, cert, key = map(str, (tls.ca, tls.cert, tls.key))
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
    )
