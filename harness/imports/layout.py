"""From what an upload holds to the one image in it: its configuration and its layers, all there.

Both layouts of ``docker save`` are read: ``manifest.json`` beside layers (up to version 24), and
the OCI's ``index.json`` over ``blobs/sha256``, with ``manifest.json`` beside it or without. Where
both are there they must name the same image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from harness.challenge.quantity import format_bytes
from harness.engine.image_facts import platform_name
from harness.imports.compression import Compression
from harness.imports.documents import (
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    SavedImage,
    parse,
    read,
)
from harness.imports.limits import ImageFileError
from harness.imports.tar import shown

if TYPE_CHECKING:
    from harness.imports.limits import ImportLimits
    from harness.imports.survey import Blob, Survey

_BLOBS = "blobs/sha256/"
_MAX_TAGS_SHOWN = 5
_MAX_INDEX_DEPTH = 3
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_ATTESTATION = "vnd.docker.reference.type"  # an annotation: BuildKit's statements about an image
_LAYER_TYPES = {  # media type, without "nondistributable": what the layer is compressed with
    "application/vnd.oci.image.layer.v1.tar": Compression.NONE,
    "application/vnd.oci.image.layer.v1.tar+gzip": Compression.GZIP,
    "application/vnd.oci.image.layer.v1.tar+zstd": Compression.ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": Compression.NONE,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": Compression.GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": Compression.ZSTD,
}


@dataclass(frozen=True, kw_only=True)
class Contained:
    """The image in an upload. ``layers``: from the lowest; ``tags``: what the upload calls it."""

    config_bytes: bytes
    config: ImageConfig
    image_id: str
    layers: tuple[Blob, ...]
    tags: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Of all layers, unpacked; one that occurs twice counts twice, as for the engine."""
        return sum(layer.unpacked_bytes for layer in self.layers)


class _Names:
    """Looks members up, and keeps what is wrong."""

    def __init__(self, found: Survey) -> None:
        self._found = found
        self.problems: list[str] = []

    def blob(self, name: str, what: str) -> Blob | None:
        blob = self._found.blobs.get(self._found.links.get(name, name))
        if blob is None:
            self.problems.append(
                f"{what}: expected {shown(name)} in the file, found no such member; save it again"
            )
        return blob

    def by_digest(self, descriptor: Descriptor, what: str) -> Blob | None:
        blob = self.blob(_BLOBS + descriptor.digest.removeprefix("sha256:"), what)
        if blob is not None and blob.size != descriptor.size:
            self.problems.append(
                f"{what}: expected {descriptor.size} bytes, found {blob.size}; save it again"
            )
        return blob

    def document(self, blob: Blob, what: str) -> object:
        if blob.document is None:
            raise ImageFileError(f"{what}: expected JSON, found none in {shown(blob.name)}")
        return parse(blob.document, what)


def contained(
    found: Survey, limits: ImportLimits, platform: str
) -> tuple[Contained | None, list[str]]:
    """The image, None when it cannot be told, and every problem with it (then not to be loaded).

    ``platform``: ours, such as ``linux/amd64``; it chooses among several of an OCI index.
    """
    names = _Names(found)
    names.problems += found.problems
    for blob in found.blobs.values():
        if blob.name.startswith(_BLOBS) and blob.name != _BLOBS + blob.sha256:
            names.problems.append(
                f"{shown(blob.name)}: expected the content that its name is the SHA-256 of, found "
                f"sha256:{blob.sha256}; upload it again"
            )
    image = None
    try:
        image = _image(found, names, limits, platform)
    except ImageFileError as error:
        names.problems.append(str(error))
    return image, names.problems


def _image(found: Survey, names: _Names, limits: ImportLimits, platform: str) -> Contained | None:
    saved = _saved(found, names) if "manifest.json" in found.blobs else None
    manifest = _indexed(found, names, platform) if "index.json" in found.blobs else None
    if saved is None and manifest is None:
        if not names.problems or not {"manifest.json", "index.json"} & found.blobs.keys():
            names.problems.append(
                "the file: expected manifest.json or index.json at its top, found neither; is it "
                "made by `docker save` (not `docker export`, not a folder packed with tar)?"
            )
        return None
    tags: tuple[str, ...] = ()
    if saved is not None:
        tags = tuple(saved.repo_tags or ())
        config = names.blob(saved.config, "the configuration")
        layers = [names.blob(name, f"layer {n}") for n, name in enumerate(saved.layers, 1)]
    if manifest is not None:
        named = names.by_digest(manifest.config, "the configuration")
        if saved is None:
            config = named
            layers = _layers(manifest, names)
        elif named is not None and config is not None and named.sha256 != config.sha256:
            names.problems.append(
                "the file: expected one image, found one in manifest.json and another in "
                "index.json; save it again with `docker save`"
            )
    if config is None:
        return None
    return _complete(config, layers, tags, names, limits)


def _saved(found: Survey, names: _Names) -> SavedImage | None:
    what = "manifest.json"
    content = names.document(found.blobs[what], what)
    if not isinstance(content, list):
        raise ImageFileError(f"{what}: expected a list of images, found none; save it again")
    images = [read(SavedImage, one, what) for one in content[: _MAX_TAGS_SHOWN + 1]]
    if len(content) != 1:
        tags = [tag for one in images for tag in one.repo_tags or ["(no name)"]]
        named = ", ".join(shown(tag) for tag in tags[:_MAX_TAGS_SHOWN])
        names.problems.append(
            f"the file: expected one image, found {len(content)}{f' ({named})' if tags else ''}; "
            "save the one to run with `docker save -o TEAM.tar IMAGE`"
        )
        return None
    return images[0]


def _indexed(found: Survey, names: _Names, platform: str) -> Manifest | None:
    """The one image of ours that ``index.json`` leads to."""
    manifests: dict[str, Manifest] = {}
    others: list[str] = []
    _follow(
        read(Index, names.document(found.blobs["index.json"], "index.json"), "index.json"),
        found,
        names,
        platform,
        manifests,
        others,
        set(),
        0,
    )
    if len(manifests) == 1:
        return next(iter(manifests.values()))
    if not manifests and others:
        names.problems.append(
            f"index.json: expected an image for {platform}, found {', '.join(others[:5])}; build "
            f"with `docker build --platform {platform}`"
        )
    elif not names.problems or manifests:
        names.problems.append(
            f"index.json: expected one image, found {len(manifests)}; save the one to run with "
            "`docker save -o TEAM.tar IMAGE`"
        )
    return None


def _follow(
    index: Index,
    found: Survey,
    names: _Names,
    platform: str,
    manifests: dict[str, Manifest],
    others: list[str],
    seen: set[str],
    depth: int,
) -> None:
    """``seen``: digests, as an index may name another ten thousand times, and so may that."""
    for one in index.manifests:
        if _ATTESTATION in (one.annotations or {}) or one.digest in seen:
            continue
        seen.add(one.digest)
        theirs = one.platform and platform_name(one.platform.os, one.platform.architecture)
        if theirs not in (None, "/", platform):
            others.append(shown(str(theirs)))
            continue
        what = f"the manifest {one.digest[:19]}"
        blob = names.by_digest(one, what)
        if blob is None:
            continue
        content = names.document(blob, what)
        if one.media_type in _INDEX_TYPES or (isinstance(content, dict) and "manifests" in content):
            if depth >= _MAX_INDEX_DEPTH:
                raise ImageFileError(f"{what}: expected an image, found index in index in index")
            _follow(
                read(Index, content, what),
                found,
                names,
                platform,
                manifests,
                others,
                seen,
                depth + 1,
            )
        else:
            manifests[one.digest] = read(Manifest, content, what)
            if len(manifests) > _MAX_TAGS_SHOWN:
                return


def _layers(manifest: Manifest, names: _Names) -> list[Blob | None]:
    layers = []
    for n, one in enumerate(manifest.layers, 1):
        blob = names.by_digest(one, f"layer {n}")
        kind = _LAYER_TYPES.get(one.media_type.replace(".nondistributable", ""))
        if kind is None:
            names.problems.append(
                f"layer {n}: expected a tar, plain, gzip or zstd, found the type "
                f"{shown(one.media_type)}; is it an image at all?"
            )
        elif blob is not None and blob.compression is not kind:
            names.problems.append(
                f"layer {n}: expected compression {kind}, found {blob.compression}; save it again"
            )
        layers.append(blob)
    return layers


def _complete(
    blob: Blob,
    layers: list[Blob | None],
    tags: tuple[str, ...],
    names: _Names,
    limits: ImportLimits,
) -> Contained | None:
    what = "the configuration"
    config = read(ImageConfig, names.document(blob, what), what)
    stem = PurePosixPath(blob.name).stem
    if len(stem) == 64 and set(stem) <= set("0123456789abcdef") and stem != blob.sha256:
        names.problems.append(
            f"{what}: expected the content that its name is the SHA-256 of, found "
            f"sha256:{blob.sha256}; upload it again"
        )
    ids = config.rootfs.diff_ids
    if config.rootfs.type != "layers":
        names.problems.append(f"{what}: expected layers, found {shown(config.rootfs.type)}")
    if len(layers) != len(ids):
        names.problems.append(
            f"the layers: expected the {len(ids)} that the configuration lists, found "
            f"{len(layers)}; save it again"
        )
    elif not layers:
        names.problems.append("the layers: expected at least one, found an image with no files")
    unpacked = sum(layer.unpacked_bytes for layer in layers if layer is not None)
    if unpacked > limits.total_bytes:
        names.problems.append(
            f"the layers: expected at most {format_bytes(limits.total_bytes)} unpacked, one that "
            f"occurs twice counted twice, found {format_bytes(unpacked)}; make the image smaller, "
            "or raise --max-size"
        )
    if len(layers) > limits.layers:
        names.problems.append(
            f"the layers: expected at most {limits.layers}, found {len(layers)}; join RUN lines in "
            "the Dockerfile"
        )
    for n, (layer, diff_id) in enumerate(zip(layers, ids, strict=False), 1):
        if layer is None:
            continue
        if layer.fault is not None:
            names.problems.append(f"layer {n}: {layer.fault}")
        elif f"sha256:{layer.diff_sha256}" != diff_id:
            names.problems.append(
                f"layer {n}: expected the content {diff_id[:19]} that the configuration lists, "
                f"found sha256:{layer.diff_sha256[:12]}; upload it again"
            )
    return Contained(
        config_bytes=blob.document or b"",
        config=config,
        image_id=f"sha256:{blob.sha256}",
        layers=tuple(layer for layer in layers if layer is not None),
        tags=tags,
    )
