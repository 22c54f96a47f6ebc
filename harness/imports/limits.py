"""How large an uploaded image may be, in every respect in which it could exhaust something."""

from __future__ import annotations

from dataclasses import dataclass

from harness.challenge.quantity import format_bytes

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class ImportLimits:
    """All in bytes but those that say otherwise.

    ``total_bytes``: everything uncompressed. The largest images that deep learning frameworks
    publish are below 25 GiB. ``layer_bytes``: one layer of it, uncompressed.
    """

    file_bytes: int = 40 * GIB
    total_bytes: int = 40 * GIB
    layer_bytes: int = 40 * GIB
    # Times as much out of a compressed stream as went in, once ``free_bytes`` came out of it.
    # Layers shrink two to four times; gzip's utmost, of zeros alone, is 1032 (zlib's manual).
    expansion: int = 200
    free_bytes: int = GIB
    # Docker's own limit (maxLayerDepth in layer/layer_store.go).
    layers: int = 125
    # Of the outer archive. Before version 25 Docker writes four a layer, since then one.
    members: int = 10_000
    # Files and folders of all layers. A large Python environment has 200,000; each costs an inode.
    entries: int = 5_000_000
    # A manifest, an index, a configuration; the OCI's distribution specification allows 4 MiB.
    document_bytes: int = 4 << 20
    documents_bytes: int = 32 << 20

    def __post_init__(self) -> None:
        if min(self.file_bytes, self.total_bytes, self.layer_bytes) <= 0:
            raise ValueError("every limit must be larger than 0")

    @classmethod
    def of_size(cls, max_bytes: int) -> ImportLimits:
        """The limits with one size for the file and for what is in it."""
        return cls(file_bytes=max_bytes, total_bytes=max_bytes, layer_bytes=max_bytes)


@dataclass
class Budget:
    """What may still be read, uncompressed, over all streams of one pass."""

    limits: ImportLimits
    spent_bytes: int = 0

    def spend(self, n_bytes: int) -> None:
        self.spent_bytes += n_bytes
        if self.spent_bytes > self.limits.total_bytes:
            raise TooLarge(
                f"unpacked size: expected at most {format_bytes(self.limits.total_bytes)}, found "
                "more; make the image smaller (`docker history IMAGE` shows its layers), or raise "
                "--max-size"
            )


class ImageFileError(ValueError):
    """The file breaks a rule so that reading cannot go on. The message is a whole finding."""


class TooLarge(ImageFileError):
    """A limit was reached."""
