"""The image of the harness's own: its probe, on a base with a shell. Nothing of a team's is in it.

What runs beside a submission or after it, with rights that no submission gets, runs from it. The
name holds a digest of the files, so that no other version's image is taken for it, and no image
that is built of a submission's folder has that name.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import harness

PUBLIC_BASE = "python:3.11-slim-bookworm"  # as in the repository's Dockerfile
_REPOSITORY = "l2r-harness-own"
_DIGEST_CHARACTERS = 16
# The probe needs the standard library alone.
_DOCKERFILE = f"""\
ARG BASE_IMAGE={PUBLIC_BASE}
FROM ${{BASE_IMAGE}}
COPY harness /opt/l2r/harness
ENV PYTHONPATH=/opt/l2r PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
CMD ["python3", "-P", "-m", "harness.probe"]
""".encode()


def own_name() -> str:
    """Of the image that this version of the harness makes."""
    digest = hashlib.sha256()
    for name, content in _files().items():
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return f"{_REPOSITORY}:{digest.hexdigest()[:_DIGEST_CHARACTERS]}"


def write_context(folder: Path) -> None:
    """What it is built of, into an empty folder, with modes that let any user read it."""
    for name, content in _files().items():
        path = folder / name
        for made in reversed(path.relative_to(folder).parents[:-1]):
            (folder / made).mkdir(exist_ok=True)
            (folder / made).chmod(0o755)
        path.write_bytes(content)
        path.chmod(0o644)


def _files() -> dict[str, bytes]:
    package = Path(harness.__file__).parent
    sources = [package / "__init__.py", package / "errors.py", *sorted(package.glob("probe/*.py"))]
    named = {f"harness/{path.relative_to(package)}": path.read_bytes() for path in sources}
    return {"Dockerfile": _DOCKERFILE, **named}
