"""Files as `docker save` writes them, made by hand: both layouts, and whatever is asked of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

import zstandard

PLATFORM = "linux/amd64"
Members = dict[str, bytes]
_TYPE = "application/vnd.oci.image"
_SUFFIX = {"": "", "gzip": "+gzip", "zstd": "+zstd"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pack(members: Members, links: dict[str, str] | None = None) -> bytes:
    """A plain tar of files and, last, symbolic links."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, link in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return target.getvalue()


LAYERS = (pack({"bin/sh": b"#!" * 300, "etc/passwd": b"root:x:0:0"}), pack({"weights": bytes(700)}))


def compress(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0)
    return zstandard.compress(data) if how == "zstd" else data


def config_of(layers: tuple[bytes, ...], **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """An image's configuration; ``changes`` to its keys, or to those of its ``config``."""
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"User": "", "Env": ["PATH=/bin"], "Entrypoint": ["sh", "-c"], "Cmd": None},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(one)}" for one in layers]},
        "history": [],
    }
    for key, value in changes.items():
        (config if key in config else config["config"])[key] = value
    return config


def saved(
    layers: tuple[bytes, ...] = LAYERS,
    config: dict[str, Any] | bytes | None = None,
    tags: list[str] | None = None,
) -> Members:
    """The layout up to version 24."""
    text = config if isinstance(config, bytes) else json.dumps(config or config_of(layers)).encode()
    names = [f"{n:064d}" for n in range(len(layers))]
    members: Members = {}
    for name, layer in zip(names, layers, strict=True):
        members |= {f"{name}/VERSION": b"1.0", f"{name}/json": b"{}", f"{name}/layer.tar": layer}
    config_name = f"{sha256(text)}.json"
    members[config_name] = text
    manifest = {
        "Config": config_name,
        "RepoTags": tags or ["team:latest"],
        "Layers": [f"{name}/layer.tar" for name in names],
    }
    members["manifest.json"] = json.dumps([manifest]).encode()
    members["repositories"] = b'{"team":{"latest":"0"}}'
    return members


def oci(
    layers: tuple[bytes, ...] = LAYERS,
    config: dict[str, Any] | None = None,
    how: str = "",
    *,
    with_manifest: bool = False,
) -> Members:
    """The OCI's layout, as from version 25 on ``with_manifest``; layers compressed as ``how``."""
    text = json.dumps(config or config_of(layers)).encode()
    blobs = [compress(layer, how) for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "config": descriptor(text, f"{_TYPE}.config.v1+json"),
        "layers": [descriptor(blob, f"{_TYPE}.layer.v1.tar{_SUFFIX[how]}") for blob in blobs],
    }
    body = json.dumps(manifest).encode()
    index = {"schemaVersion": 2, "manifests": [descriptor(body, f"{_TYPE}.manifest.v1+json")]}
    members = {blob_name(one): one for one in (text, body, *blobs)}
    members["index.json"] = json.dumps(index).encode()
    members["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    if with_manifest:
        entry = {
            "Config": blob_name(text),
            "RepoTags": ["team:latest"],
            "Layers": [blob_name(one) for one in blobs],
        }
        members["manifest.json"] = json.dumps([entry]).encode()
    return members


def descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {
        "mediaType": media_type,
        "digest": f"sha256:{sha256(content)}",
        "size": len(content),
    }


def blob_name(content: bytes) -> str:
    return f"blobs/sha256/{sha256(content)}"
