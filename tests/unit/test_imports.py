"""`harness import` without an engine: what is taken and what rejected, and nothing crashes it."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engine.base import Image
from harness.engine.image_facts import ImageFacts, facts_of_inspected, is_root
from harness.engine.image_load import Loaded
from harness.errors import EngineError, ImageMissing, ImportRejected
from harness.imports.importer import Imported, import_image, slug
from harness.imports.limits import ImportLimits
from tests.image_files import (
    LAYERS,
    PLATFORM,
    Members,
    blob_name,
    compress,
    config_of,
    descriptor,
    oci,
    pack,
    saved,
    sha256,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


class KeepingEngine:
    """An engine that takes what a real one would, and keeps images as their inspection."""

    platform = PLATFORM
    stores_configurations = True

    def __init__(self, storage: Path | None = None, refusal: str | None = None) -> None:
        self.storage = storage
        self.refusal = refusal
        self.images: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}
        self.received: list[str] = []

    def find(self, reference: str) -> Image:
        image_id = self.names.get(reference, reference)
        if image_id not in self.images:
            raise ImageMissing(reference)
        return Image(id=image_id, reference=reference)

    def image_facts(self, image: Image) -> ImageFacts:
        return facts_of_inspected(self.images[self.find(image.id).id])

    def image_ids(self) -> frozenset[str]:
        return frozenset(self.images)

    def load(self, chunks: Iterable[bytes], *, deadline_s: float) -> Loaded:
        assert deadline_s > 0
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            content = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
        self.received += content
        (entry,) = json.loads(content["manifest.json"])
        assert entry["RepoTags"] is None
        text = content[entry["Config"]]
        config = json.loads(text)
        found = [f"sha256:{sha256(content[name])}" for name in entry["Layers"]]
        assert found == config["rootfs"]["diff_ids"]
        image_id = f"sha256:{sha256(text)}"
        self.images[image_id] = {
            "Id": image_id,
            "Os": config["os"],
            "Architecture": config["architecture"],
            "Config": config["config"],
            "Size": sum(map(len, content.values())),
            "RootFS": {"Layers": found},
        }
        return Loaded(image_id=image_id, refusal=self.refusal)

    def name_image(self, image_id: str, name: str) -> None:
        self.names[name] = image_id

    def remove_image(self, image_id: str, *, absent_for_s: float = 0.0) -> bool:
        assert absent_for_s >= 0
        return self.images.pop(image_id, None) is not None


@pytest.fixture
def engine() -> KeepingEngine:
    return KeepingEngine()


def write(folder: Path, data: bytes) -> Path:
    path = folder / "Team Ä_1.tar"
    path.write_bytes(data)
    return path


def take(
    engine: KeepingEngine, folder: Path, members: Members, limits: ImportLimits | None = None
) -> Imported:
    return import_image(engine, write(folder, pack(members)), limits)


def rejection(engine: KeepingEngine, path: Path, limits: ImportLimits | None = None) -> str:
    with pytest.raises(ImportRejected) as caught:
        import_image(engine, path, limits)
    assert caught.value.findings
    assert engine.images == {}
    assert engine.names == {}
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    return "\n".join(caught.value.findings)


LAYOUTS: dict[str, Callable[[], Members]] = {
    "saved": saved,
    "oci": oci,
    "oci gzip": lambda: oci(how="gzip"),
    "oci zstd": lambda: oci(how="zstd"),
    "both": lambda: oci(with_manifest=True),
    "both gzip": lambda: oci(how="gzip", with_manifest=True),
}


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_image(
    layout: str, how: str, engine: KeepingEngine, tmp_path: Path
) -> None:
    path = write(tmp_path, compress(pack(LAYOUTS[layout]()), how))
    imported = import_image(engine, path)
    image_id = f"sha256:{sha256(json.dumps(config_of(LAYERS)).encode())}"
    assert imported.image.id == image_id
    assert imported.compression == (how or "none")
    assert imported.image.reference == f"l2r-import/team-1:{image_id[7:19]}"
    assert engine.names == {imported.image.reference: image_id}
    assert imported.facts.root
    assert imported.facts.entrypoint == ("sh", "-c")
    assert imported.facts.layers == tuple(f"sha256:{sha256(one)}" for one in LAYERS)
    # Nothing but what was judged, under names of ours.
    assert set(engine.received) == {
        *(f"{sha256(one)}.tar" for one in LAYERS),
        f"{image_id[7:]}.json",
        "manifest.json",
    }
    assert import_image(engine, path).was_here
    assert list(tmp_path.iterdir()) == [path]


def test_a_layer_that_occurs_twice_is_a_link(engine: KeepingEngine, tmp_path: Path) -> None:
    members = saved((LAYERS[0], LAYERS[1], LAYERS[0]))
    third = f"{2:064d}/layer.tar"
    del members[third]
    path = write(tmp_path, pack(members, {third: f"../{0:064d}/layer.tar"}))
    assert len(import_image(engine, path).facts.layers) == 3
    assert engine.received.count(f"{sha256(LAYERS[0])}.tar") == 1


def test_notes_say_what_is_unusual(engine: KeepingEngine, tmp_path: Path) -> None:
    config = config_of(
        LAYERS,
        User="team\x1b[2J",
        Volumes={"/l2r/submission/task_01": {}},
        ExposedPorts={"80/tcp": {}},
        Healthcheck={"Test": ["CMD", "true"]},
        OnBuild=["RUN true"],
        StopSignal="SIGINT",
    )
    members = saved(config=config, tags=["evil\x1b]0;x\n:latest"])
    imported = take(engine, tmp_path, members)
    notes = "\n".join(imported.notes)
    for word in ("VOLUME", "not seen", "EXPOSE", "HEALTHCHECK", "ONBUILD", "STOPSIGNAL", "evil"):
        assert word in notes
    assert "\x1b" not in notes
    assert imported.facts.root is None


@pytest.mark.parametrize(
    ("user", "root"),
    [
        *((text, True) for text in ("", "root", "0", "+0:5", "00", "root:x")),
        *((text, False) for text in ("1000", "1000:0")),
        *((text, None) for text in ("team", "९")),
    ],
)
def test_root(user: str, root: bool | None) -> None:
    assert is_root(user) is root


def without(members: Members, name: str) -> Members:
    return {key: value for key, value in members.items() if key != name}


def with_manifest(**changes: object) -> Members:
    members = saved()
    (entry,) = json.loads(members["manifest.json"])
    return members | {"manifest.json": json.dumps([entry | changes]).encode()}


def two_images() -> Members:
    members = saved(tags=["a:1"])
    (entry,) = json.loads(members["manifest.json"])
    return members | {"manifest.json": json.dumps([entry, entry | {"RepoTags": ["b:2"]}]).encode()}


def two_indexed() -> Members:
    first, second = oci(), oci(config=config_of(LAYERS, Cmd=["x"]))
    index = json.loads(first["index.json"])
    index["manifests"] += json.loads(second["index.json"])["manifests"]
    return first | second | {"index.json": json.dumps(index).encode()}


def two_truths() -> Members:
    other = oci(config=config_of(LAYERS, Cmd=["x"]))
    return oci(with_manifest=True) | other


def changed_blob() -> Members:
    members = oci()
    return members | {blob_name(LAYERS[1]): LAYERS[1] + bytes(512)}


def other_index(**changes: object) -> Members:
    members = oci()
    index = json.loads(members["index.json"])
    index["manifests"][0] |= changes
    return members | {"index.json": json.dumps(index).encode()}


def nested_index() -> Members:
    members = oci()
    body = members["index.json"]
    for _ in range(6):
        members[blob_name(body)] = body
        one = descriptor(body, "application/vnd.oci.image.index.v1+json")
        body = json.dumps({"manifests": [one]}).encode()
    return members | {"index.json": body}


def raw_config(text: str) -> Members:
    return saved(config=text.encode("utf-8", "surrogatepass"))


def config(**changes: Any) -> Members:  # noqa: ANN401
    return saved(config=config_of(LAYERS, **changes))


def sparse(pax: bool) -> bytes:
    info = tarfile.TarInfo("huge")
    if pax:
        info.pax_headers = {"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": "0,0"}
        return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    info.type = tarfile.GNUTYPE_SPARSE
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def header(size_field: bytes | None = None, kind: bytes = b"0", size: int = 0) -> bytes:
    """One header with a checksum that is right, whatever is in it."""
    info = tarfile.TarInfo("file")
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size_field is not None:
        block[124:136] = size_field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def one_layer(layer: bytes) -> Members:
    return saved((LAYERS[0], layer))


GOOD = json.dumps(config_of(LAYERS))
REJECTED: dict[str, tuple[Callable[[], Members], str]] = {
    "nothing in it": (dict, "a tar with nothing in it"),
    "no image": (lambda: {"a": b"b"}, "expected manifest.json or index.json"),
    "two images": (two_images, "expected one image, found 2 ('a:1', 'b:2')"),
    "no images": (lambda: saved() | {"manifest.json": b"[]"}, "expected one image, found 0"),
    "two in index": (two_indexed, "expected one image, found 2"),
    "two truths": (two_truths, "one in manifest.json and another"),
    "manifest no list": (lambda: saved() | {"manifest.json": b"{}"}, "a list of images"),
    "manifest no json": (lambda: saved() | {"manifest.json": b"[{"}, "expected JSON"),
    "manifest null": (lambda: saved() | {"manifest.json": b"null"}, "expected JSON"),
    "wrong types": (lambda: with_manifest(Layers="x"), "'Layers'"),
    "odd key": (lambda: with_manifest(layers=[]), "spelt in a way of its own"),
    "no config": (lambda: with_manifest(Config="gone.json"), "'gone.json'"),
    "config outside": (lambda: with_manifest(Config="../etc/passwd"), "no such member"),
    "no layer": (lambda: without(saved(), f"{1:064d}/layer.tar"), "layer 2"),
    "layers swapped": (
        lambda: with_manifest(Layers=[f"{1:064d}/layer.tar", f"{0:064d}/layer.tar"]),
        "layer 1: expected the content",
    ),
    "a layer too few": (lambda: with_manifest(Layers=[f"{0:064d}/layer.tar"]), "the 2 that"),
    "no layers at all": (lambda: saved(()), "no files"),
    "layer no tar": (lambda: one_layer(b"x" * 2000), "layer 2"),
    "layer cut off": (lambda: one_layer(LAYERS[1][:700]), "cut off"),
    "layer twice compressed": (
        lambda: oci((LAYERS[0], compress(LAYERS[1], "gzip")), how="gzip"),
        "layer 2",
    ),
    "config name lies": (
        lambda: (
            saved()
            | {f"{'0' * 64}.json": GOOD.encode()}
            | {
                "manifest.json": json.dumps(
                    [
                        {
                            "Config": f"{'0' * 64}.json",
                            "Layers": [f"{n:064d}/layer.tar" for n in (0, 1)],
                        }
                    ]
                ).encode()
            }
        ),
        "its name is the SHA-256 of",
    ),
    "blob changed": (changed_blob, "its name is the SHA-256 of"),
    "blob size": (lambda: other_index(size=3), "expected 3 bytes"),
    "negative size": (lambda: other_index(size=-3), "index.json"),
    "no digest": (lambda: other_index(digest="sha256:../../x"), "index.json"),
    "manifest gone": (lambda: other_index(digest=f"sha256:{'0' * 64}"), "no such member"),
    "other platform in index": (
        lambda: other_index(platform={"os": "linux", "architecture": "arm64"}),
        "expected an image for linux/amd64, found 'linux/arm64'",
    ),
    "index in index": (nested_index, "index in index"),
    "other platform": (lambda: config(architecture="arm64"), "found 'linux/arm64'"),
    "windows": (lambda: config(os="windows"), "found 'windows/amd64'"),
    "no program": (lambda: config(Entrypoint=None), "neither"),
    "empty program": (lambda: config(Entrypoint=[""], Cmd=[]), "neither"),
    "our label": (lambda: config(Labels={"org.learn2reg.harness.owner": "{}"}), "labels"),
    "program no list": (lambda: config(Entrypoint="sh"), "Entrypoint"),
    "user no text": (lambda: config(User=0), "User"),
    "relative folder": (lambda: config(WorkingDir="x"), "WORKDIR"),
    "relative volume": (lambda: config(Volumes={"data": {}}), "VOLUME"),
    "volume over all": (lambda: config(Volumes={"/": {}}), "VOLUME"),
    "port": (lambda: config(ExposedPorts={"http": {}}), "EXPOSE"),
    "variable": (lambda: config(Env=["=x"]), "ENV"),
    "signal": (lambda: config(StopSignal="SIGNOTHING"), "STOPSIGNAL"),
    "zero byte": (lambda: config(Cmd=["a\0b"]), "zero bytes"),
    "long variable": (lambda: config(Env=[f"A={'x' * 200_000}"]), "starts no program"),
    "huge user": (lambda: config(User="99999999999"), "USER"),
    "type of root": (
        lambda: config(rootfs={"type": "x", "diff_ids": config_of(LAYERS)["rootfs"]["diff_ids"]}),
        "expected layers",
    ),
    "two keys": (lambda: raw_config(GOOD[:-1] + ', "os": "linux"}'), "occurs twice"),
    "odd key in config": (lambda: raw_config(GOOD[:-1] + ', "Config": {}}'), "spelt in a way"),
    # LATIN SMALL LETTER LONG S, an s to readers that fold
    "odd letter": (lambda: raw_config(GOOD[:-1] + ', "o\u017f": "plan9"}'), "spelt in a way"),
    "half a character": (lambda: raw_config(GOOD[:-1] + ', "x": "\\ud800"}'), "expected JSON"),
    "no utf-8": (lambda: raw_config(GOOD[:-1] + ', "x": "\ud800"}'), "expected JSON"),
    "no number": (lambda: raw_config(GOOD[:-1] + ', "x": NaN}'), "the number NaN"),
    "huge number": (lambda: raw_config(GOOD[:-1] + f', "x": {"9" * 9999}}}'), "expected JSON"),
    "json bomb": (lambda: raw_config('{"a":' * 200_000), "nested too deeply"),
    "list bomb": (lambda: raw_config('{"a":' + "[" * 200_000), "nested too deeply"),
    "absolute name": (lambda: saved() | {"/etc/cron.d/x": b"x"}, "names within it"),
    "name with ..": (lambda: saved() | {"a/../../x": b"x"}, "names within it"),
    "name with control": (lambda: saved() | {"a\x1b[2J": b"x"}, "names within it"),
    "same name again": (lambda: saved() | {"./manifest.json": b"[]"}, "twice"),
    "sparse": (lambda: one_layer(sparse(pax=False)), "of type b'S'"),
    "sparse by attributes": (lambda: one_layer(sparse(pax=True)), "sparse"),
    "negative size in layer": (
        lambda: one_layer(header(b"\xff" * 12) + bytes(1024)),
        "negative number",
    ),
    "huge size in layer": (
        lambda: one_layer(header(b"\x80" + b"\x7f" * 11) + bytes(1024)),
        "expected a size",
    ),
    "huge attributes": (
        lambda: one_layer(header(kind=b"x", size=1 << 40) + bytes(1024)),
        "names and attributes",
    ),
    "attributes that are none": (
        lambda: one_layer(header(kind=b"x", size=512) + b"9999 a=b\n".ljust(512) + bytes(1024)),
        "expected attributes",
    ),
    "unknown type": (lambda: one_layer(header(kind=b"M") + bytes(1024)), "of type b'M'"),
    "too many layers": (lambda: saved((LAYERS[0],) * 126), "at most 125"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rejected(case: str, engine: KeepingEngine, tmp_path: Path) -> None:
    make, words = REJECTED[case]
    assert words in rejection(engine, write(tmp_path, pack(make())))
    assert engine.received == []


def test_an_index_of_indexes_is_followed_once(engine: KeepingEngine, tmp_path: Path) -> None:
    """Each names the next a thousand times: a billion ways lead to the one image."""
    members = oci()
    body = members["index.json"]
    for _ in range(3):
        members[blob_name(body)] = body
        one = descriptor(body, "application/vnd.oci.image.index.v1+json")
        body = json.dumps({"manifests": [one] * 1000}).encode()
    start_s = time.monotonic()
    take(engine, tmp_path, members | {"index.json": body})
    assert time.monotonic() - start_s < 5


def test_a_layer_that_occurs_often_counts_as_often(engine: KeepingEngine, tmp_path: Path) -> None:
    """The engine unpacks it each time: 125 times as much as the file holds."""
    layer = pack({"a": bytes(300_000)})
    members = saved((layer,) * 4)
    links = {f"{n:064d}/layer.tar": f"../{0:064d}/layer.tar" for n in (1, 2, 3)}
    for name in links:
        del members[name]
    limits = ImportLimits.of_size(1 << 20)
    assert "counted twice" in rejection(engine, write(tmp_path, pack(members, links)), limits)


def test_nothing_sparse_hides_behind_attributes_of_all(
    engine: KeepingEngine, tmp_path: Path
) -> None:
    """Attributes before a header of global ones belong to nobody for Go, which engines read with:
    a size in them, applied to the file, hid the sparse file that follows as that file's content."""

    def attributes(kind: bytes, text: bytes) -> bytes:
        return header(kind=kind, size=len(text)) + text.ljust(512, b"\0")

    layer = attributes(b"x", b"13 size=4096\n") + attributes(b"g", b"6 a=b\n")
    layer += header() + sparse(pax=False) + bytes(4096)
    found = rejection(engine, write(tmp_path, pack(one_layer(layer))))
    assert "of type b'S'" in found


def test_endless_attributes(engine: KeepingEngine, tmp_path: Path) -> None:
    layer = (header(kind=b"g", size=6) + b"6 a=b\n".ljust(512, b"\0")) * 100 + LAYERS[1]
    found = rejection(engine, write(tmp_path, pack(one_layer(layer))))
    assert "found only more" in found


def test_a_folder_of_a_layers_name(engine: KeepingEngine, tmp_path: Path) -> None:
    info = tarfile.TarInfo(f"{1:064d}/layer.tar")
    info.type = tarfile.DIRTYPE
    data = info.tobuf(tarfile.GNU_FORMAT) + pack(saved())
    assert "twice" in rejection(engine, write(tmp_path, data))


def test_the_files_name_is_hostile_too(engine: KeepingEngine, tmp_path: Path) -> None:
    path = tmp_path / "a\nerror: all is well\x1b[2J.tar"
    path.write_bytes(b"x" * 600)
    with pytest.raises(ImportRejected) as caught:
        import_image(engine, path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_an_image_that_cannot_be_named_is_removed(tmp_path: Path) -> None:
    class Nameless(KeepingEngine):
        def name_image(self, image_id: str, name: str) -> None:
            raise EngineError(f"{image_id} as {name}: refused")

    engine = Nameless()
    with pytest.raises(EngineError, match="refused"):
        import_image(engine, write(tmp_path, pack(saved())))
    assert engine.images == {}


def test_all_that_is_wrong_is_said_at_once(engine: KeepingEngine, tmp_path: Path) -> None:
    members = config(architecture="arm64", Entrypoint=None, Volumes={"x": {}})
    members |= {f"{1:064d}/layer.tar": LAYERS[0], "../x": b""}
    found = rejection(engine, write(tmp_path, pack(members)))
    for words in ("platform", "program", "VOLUME", "layer 2", "names within it"):
        assert words in found


@pytest.mark.parametrize(
    "link",
    ["../../../etc/passwd", "/etc/passwd", "../gone/layer.tar", "..", "x//y", "../" * 40 + "x"],
)
def test_links_lead_to_members_only(link: str, engine: KeepingEngine, tmp_path: Path) -> None:
    members = without(saved(), f"{1:064d}/layer.tar")
    path = write(tmp_path, pack(members, {f"{1:064d}/layer.tar": link}))
    assert "a link to" in rejection(engine, path)


def test_links_in_a_circle(engine: KeepingEngine, tmp_path: Path) -> None:
    path = write(tmp_path, pack(saved(), {"a": "b", "b": "a"}))
    assert "a link to" in rejection(engine, path)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_the_file(kind: bytes, engine: KeepingEngine, tmp_path: Path) -> None:
    data = header(kind=kind) + pack(saved())
    assert "device or FIFO" in rejection(engine, write(tmp_path, data))


FILES = {
    "empty": (b"", "nothing in it"),
    "text": (b"hello\n" * 200, "something else"),
    "zip": (b"PK\x03\x04" + bytes(2000), "harness check"),
    "bzip2": (b"BZh91AY" + bytes(2000), "bzip2"),
    "xz": (b"\xfd7zXZ\x00" + bytes(2000), "xz"),
    "gzip of text": (compress(b"hello\n" * 200, "gzip"), "something else"),
    "gzip of zip": (compress(b"PK\x03\x04" + bytes(900), "gzip"), "a zip archive"),
    "gzip of gzip": (compress(compress(pack(saved()), "gzip"), "gzip"), "something else"),
    "broken gzip": (b"\x1f\x8b\x08" + b"\xff" * 600, "gzip: the data is damaged"),
    "cut gzip": (compress(pack(saved()), "gzip")[:-40], "gzip"),
    "cut zstd": (compress(pack(saved()), "zstd")[:-40], "cut off"),
    "broken zstd": (b"\x28\xb5\x2f\xfd" + b"\xff" * 600, "zstd: the data is damaged"),
    "cut": (pack(saved())[:3000], "cut off"),
    "zeros": (bytes(10240), "a tar with nothing in it"),
    "empty gzips": (compress(b"", "gzip") * 5000, "next to nothing"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_image(case: str, engine: KeepingEngine, tmp_path: Path) -> None:
    data, words = FILES[case]
    assert words in rejection(engine, write(tmp_path, data))


def test_places_that_are_no_file(engine: KeepingEngine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, words in (("gone", "found none"), ("fifo", "no regular"), (".", "a folder")):
        with pytest.raises(ImageMissing, match=words):
            import_image(engine, tmp_path / name)


SMALL = ImportLimits(
    file_bytes=1 << 20, total_bytes=1 << 20, layer_bytes=1 << 18, free_bytes=1 << 16,
    members=30, entries=20, layers=4, document_bytes=4096, documents_bytes=8192,
)  # fmt: skip


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pack(saved((bytes(1 << 20),))), "size: expected at most 1.0 MiB"),
        (compress(pack(saved((os.urandom(1 << 20),))), "zstd")[: 1 << 20], "unpacked"),
        (pack(saved((pack({"a": bytes(1 << 18)}),))), "a layer: expected at most"),
        (pack(oci((pack({"a": os.urandom(1 << 12) * 70}),), how="gzip")), "a layer: expected"),
        (compress(pack({"a": bytes(250_000)}), "gzip"), "200 times"),
        (compress(pack({"a": bytes(250_000)}), "zstd"), "200 times"),
        (pack({f"m{n}": b"" for n in range(40)}), "at most 30 members"),
        (pack(saved((pack({f"m{n}": b"" for n in range(40)}),))), "at most 20 files"),
        (pack({f"{n}.json": b"{" + bytes(4000) for n in range(5)}), "of documents"),
        (pack(saved(tuple(pack({str(n): b""}) for n in range(5)))), "at most 4, found 5"),
    ],
)
def test_limits(data: bytes, words: str, engine: KeepingEngine, tmp_path: Path) -> None:
    assert words in rejection(engine, write(tmp_path, data), SMALL)


def test_no_room_is_the_machines_fault(tmp_path: Path) -> None:
    engine = KeepingEngine(storage=tmp_path)
    path = tmp_path / "huge.tar"
    with path.open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(EngineError, match=r"free to load this image"):
        import_image(engine, path, ImportLimits.of_size(1 << 44))


@pytest.mark.parametrize(
    ("refusal", "error"),
    [("write /x: no space left on device", EngineError), ("ApplyLayer: bad", ImportRejected)],
)
def test_what_the_engine_refuses_is_removed(
    refusal: str, error: type[Exception], tmp_path: Path
) -> None:
    engine = KeepingEngine(refusal=refusal)
    with pytest.raises(error):
        import_image(engine, write(tmp_path, pack(saved())))
    assert engine.images == {}
    assert engine.names == {}


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    class Swapped(KeepingEngine):
        def load(self, chunks: Iterable[bytes], *, deadline_s: float) -> Loaded:
            other = saved((LAYERS[0], pack({"weights": b"\1" * 700})))
            path.write_bytes(pack(other))
            return super().load(chunks, deadline_s=deadline_s)

    path = write(tmp_path, pack(saved()))
    assert "it changed while" in rejection(Swapped(), path)


def test_an_engine_with_another_image_is_not_believed(tmp_path: Path) -> None:
    class Lying(KeepingEngine):
        def load(self, chunks: Iterable[bytes], *, deadline_s: float) -> Loaded:
            loaded = super().load(chunks, deadline_s=deadline_s)
            image = self.images.pop(str(loaded.image_id))
            other = f"sha256:{'f' * 64}"
            self.images[other] = image | {"Id": other}
            return Loaded(image_id=other, refusal=None)

    engine = Lying()
    with pytest.raises(EngineError, match="expected the ID"):
        import_image(engine, write(tmp_path, pack(saved())))
    assert engine.images == {}
    # Where an ID is not the digest of the configuration, the content is what must be the same.
    engine.stores_configurations = False
    imported = import_image(engine, write(tmp_path, pack(saved())))
    assert imported.image.id == f"sha256:{'f' * 64}"


def test_a_name_that_is_taken_does_not_move(engine: KeepingEngine, tmp_path: Path) -> None:
    image_id = sha256(json.dumps(config_of(LAYERS)).encode())
    engine.images["sha256:old"] = {"Id": "sha256:old"}
    engine.names[f"l2r-import/team-1:{image_id[:12]}"] = "sha256:old"
    imported = take(engine, tmp_path, saved())
    assert imported.image.reference == f"l2r-import/team-1:{image_id}"
    assert engine.names[f"l2r-import/team-1:{image_id[:12]}"] == "sha256:old"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Team_A.tar.gz", "team-a"),
        ("..tar", "image"),
        ("ÄÖ.tar", "image"),
        ("-x--y-.tgz", "x-y"),
        (f"{'n' * 300}.tar.zst", "n" * 60),
    ],
)
def test_slug(name: str, expected: str) -> None:
    assert slug(name) == expected


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_memory_stays_bounded(how: str, tmp_path: Path) -> None:
    """A layer of 200 MB, mostly zeros, in less than 8 MB."""

    class Counting(KeepingEngine):
        def load(self, chunks: Iterable[bytes], *, deadline_s: float) -> Loaded:
            assert deadline_s > 0
            assert sum(map(len, chunks)) > 200_000_000
            return Loaded(image_id=None, refusal="not kept")

    path = write(tmp_path, b"")
    layer = pack({"zeros": bytes(200_000_000)})
    path.write_bytes(compress(pack(saved((layer,))), how))
    del layer
    tracemalloc.start()
    try:
        with pytest.raises(ImportRejected, match="not kept"):
            import_image(Counting(), path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


SOUND = {how: compress(pack(saved()), how) for how in ("", "gzip", "zstd")}


@settings(max_examples=150, deadline=None)
@given(how=st.sampled_from(sorted(SOUND)), where=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_damage_never_crashes_it(
    how: str, where: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut off or with bytes changed: the same image, or a typed error, and soon."""
    rng = random.Random(seed)
    data = bytearray(SOUND[how])
    if seed % 2:
        del data[int(where * len(data)) :]
    for _ in range(rng.randrange(4)):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(data)
    engine = KeepingEngine()
    start_s = time.monotonic()
    try:
        imported = import_image(engine, path, SMALL)
    except ImportRejected:
        assert engine.images == {}
    else:
        assert imported.image.id in engine.images
    assert time.monotonic() - start_s < 5


def test_crc_of_gzip_is_looked_at(engine: KeepingEngine, tmp_path: Path) -> None:
    data = bytearray(compress(pack(saved()), "gzip"))
    assert zlib.crc32(pack(saved())) == int.from_bytes(data[-8:-4], "little")
    data[-6] ^= 1
    assert "gzip: the data is damaged" in rejection(engine, write(tmp_path, bytes(data)))
