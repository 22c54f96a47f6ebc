"""The second reading: of what was judged, a file that any engine loads, and no tag moves."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import TYPE_CHECKING

from harness.imports.compression import CHUNK_BYTES, uncompressed
from harness.imports.limits import ImageFileError
from harness.imports.survey import plain_name
from harness.imports.tar import BLOCK_BYTES, TarStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from harness.imports.layout import Contained
    from harness.imports.limits import ImportLimits
    from harness.imports.survey import Blob


def rewritten(
    file: BinaryIO, image: Contained, limits: ImportLimits, on_progress: Callable[[int], None]
) -> Iterator[bytes]:
    """The image as a tar for ``docker load``: manifest without names, configuration, plain layers.

    The layers come as they lie in ``file``, each once, and must be what they were at the first
    reading. Raises ImageFileError when the file has changed.
    """
    hexes = [layer.diff_sha256 for layer in image.layers]
    config_name = f"{image.image_id.removeprefix('sha256:')}.json"
    manifest = [{"Config": config_name, "RepoTags": None, "Layers": [f"{h}.tar" for h in hexes]}]
    yield _member("manifest.json", json.dumps(manifest).encode())
    yield _member(config_name, image.config_bytes)
    wanted = {layer.name: layer for layer in image.layers}
    missing = set(hexes)
    file.seek(0)
    _, source = uncompressed(file, limits)
    tar = TarStream(source, "the file")
    for entry in tar:
        layer = wanted.get(plain_name(entry.name) or "") if entry.is_file else None
        if layer is not None and layer.diff_sha256 in missing:
            missing.remove(layer.diff_sha256)
            yield _header(f"{layer.diff_sha256}.tar", layer.unpacked_bytes)
            yield from _content(tar, layer, limits)
            on_progress(file.tell())
    if missing:
        raise _changed()
    yield bytes(2 * BLOCK_BYTES)


def _content(tar: TarStream, layer: Blob, limits: ImportLimits) -> Iterator[bytes]:
    digest = hashlib.sha256()
    left = layer.unpacked_bytes
    _, plain = uncompressed(tar, limits)
    while data := plain.read(CHUNK_BYTES):
        left -= len(data)
        if left < 0:
            raise _changed()
        digest.update(data)
        yield data
    if left or digest.hexdigest() != layer.diff_sha256:
        raise _changed()
    yield bytes(-layer.unpacked_bytes % BLOCK_BYTES)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % BLOCK_BYTES)


def _changed() -> ImageFileError:
    return ImageFileError("the file: it changed while it was imported; import it again")
