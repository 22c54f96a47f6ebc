"""`harness import`: an uploaded image, checked and loaded."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import console
from harness.challenge.quantity import format_bytes, parse_bytes
from harness.errors import ImageMissing
from harness.live import Counter
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.engine.base import Engine, Image
    from harness.engine.docker import DockerEngine
    from harness.imports.importer import Imported

_DEFAULT_MAX = "40GiB"
_FILE_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst")

app = typer.Typer()


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="What `docker save` made: .tar, .tar.gz, .tar.zst.")],
    max_size: Annotated[
        str, typer.Option("--max-size", help="The most that it may hold, uncompressed.")
    ] = _DEFAULT_MAX,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Check an uploaded image and load it, under a name of the harness's own.

    Nothing reaches the container engine before all of the file was checked, no name that the file
    gives is used, and what is rejected leaves nothing behind. Exit code 24: rejected, with every
    finding. docs/import.md lists the checks.
    """
    from harness.engine.docker import DockerEngine  # noqa: PLC0415 - as slow as the run's imports

    imported = load_file(DockerEngine.connect(), file, max_size)
    if as_json:
        console.out.file.write(json.dumps(to_json(imported), indent=1) + "\n")
    else:
        console.tell("\n".join(fact_lines(imported)), to_stderr=False)
    tell_notes(imported.notes)


def check_source(source: str) -> None:
    """Raises ImageMissing for a folder or a file that is not there, before an engine is asked."""
    is_place = source.startswith((".", "/", "~")) or source.endswith(_FILE_ENDINGS)
    if not source or (is_place and not os.path.lexists(source)):
        raise ImageMissing(
            f"{source!r}: expected a folder with a Dockerfile, the file of an image (as `docker "
            "save IMAGE -o FILE` makes it) or the name of one, found none; is the path right?"
        )


def image_to_run(engine: Engine, source: str) -> Image:
    """The image that ``source``, a file or a name, stands for; both are checked alike.

    Raises ImageMissing, ImportRejected or EngineError.
    """
    from harness.engine.docker import DockerEngine  # noqa: PLC0415
    from harness.imports.importer import require_runnable  # noqa: PLC0415
    from harness.imports.judgement import notes_on  # noqa: PLC0415

    if os.path.lexists(source) or source.endswith(_FILE_ENDINGS):
        if not isinstance(engine, DockerEngine):
            raise ImageMissing(
                f"{source}: an image's file needs Docker or Podman, and --engine docker"
            )
        imported = load_file(engine, Path(source))
        console.note(f"imported {imported.image.reference}  {imported.image.id}")
        tell_notes(imported.notes)
        return imported.image
    image = engine.find(source)
    if isinstance(engine, DockerEngine):
        facts = engine.image_facts(image)
        require_runnable(facts, engine.platform, source)
        tell_notes(notes_on(facts))
    return image


def load_file(engine: DockerEngine, file: Path, max_size: str = _DEFAULT_MAX) -> Imported:
    """Import with a bar. Raises what :func:`harness.imports.importer.import_image` raises."""
    from harness.imports.importer import import_image  # noqa: PLC0415
    from harness.imports.limits import ImportLimits  # noqa: PLC0415

    try:
        limits = ImportLimits.of_size(parse_bytes(max_size))
    except ValueError as error:
        raise typer.BadParameter(f"--max-size: {error}") from error
    size_bytes = file.stat().st_size if file.is_file() else 0
    with Counter(f"importing {harmless_line(file.name, 60)}", size_bytes, in_bytes=True) as counter:
        return import_image(engine, file, limits, counter.reach)


def tell_notes(notes: Sequence[str]) -> None:
    for text in notes:
        console.note(f"  note: {text}")


def fact_lines(imported: Imported) -> list[str]:
    from harness.imports.judgement import listed  # noqa: PLC0415
    from harness.imports.tar import shown  # noqa: PLC0415

    facts = imported.facts
    root = {True: "root", False: "not root", None: "by name"}[facts.root]
    rows = (
        ("image", f"{imported.image.reference}  {imported.image.id}"),
        ("state", "was here already" if imported.was_here else "loaded"),
        (
            "size",
            (
                f"{format_bytes(facts.size_bytes)} in {len(facts.layers)} layers; file "
                f"{format_bytes(imported.file_bytes)}, compression {imported.compression}"
            ),
        ),
        ("platform", shown(facts.platform)),
        ("user", f"{shown(facts.user)} ({root})" if facts.user else "not set (root)"),
        (
            "program",
            f"ENTRYPOINT {listed(facts.entrypoint) or '-'}  CMD {listed(facts.cmd) or '-'}",
        ),
        ("folder", shown(facts.working_dir or "/")),
        ("volumes", listed(facts.volumes) or "-"),
        ("ports", listed(facts.ports) or "-"),
        ("variables", str(len(facts.environment))),
        ("next", f"harness run {imported.image.reference}"),
    )
    return [f"{name:<9} {value}" for name, value in rows]


def to_json(imported: Imported) -> dict[str, object]:
    return {
        "image_id": imported.image.id,
        "reference": imported.image.reference,
        "was_here": imported.was_here,
        "compression": imported.compression,
        "file_bytes": imported.file_bytes,
        "unpacked_bytes": imported.unpacked_bytes,
        "facts": asdict(imported.facts),
        "notes": list(imported.notes),
    }
