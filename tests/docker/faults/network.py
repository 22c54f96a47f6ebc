"""Loopback and addresses for documentation alone (RFC 5737, RFC 3849)."""

import socket
import subprocess
import sys
from pathlib import Path

TRIES = [
    (socket.AF_INET, ("127.0.0.1", 22)),
    (socket.AF_INET, ("127.0.0.1", 2375)),
    (socket.AF_INET, ("192.0.2.1", 80)),
    (socket.AF_INET, ("198.51.100.1", 443)),
    (socket.AF_INET6, ("2001:db8::1", 443)),
]
reached = []
for family, address in TRIES:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind) as connection:
                connection.settimeout(2)
                connection.connect(address)
                connection.send(b"?")
                answer = connection.recv(1)
        except OSError as error:
            print(f"refused: {address[0]} ({error})")
        else:
            reached.append(f"{address}: {answer!r}")
for protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_RAW):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol).close()
    except OSError as error:
        print(f"refused: raw socket ({error})")
    else:
        reached.append("a raw socket")
names = {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}
reached += sorted(names - {"lo"} - {name for name in names if "tun" in name or "sit" in name})
subprocess.run(["/faults/register", "1", "2", "3", "4"], check=True)
sys.exit(f"reached: {reached}" if reached else 0)
