"""Coverage-guided fuzzing of the loaders of untrusted files, with atheris (libFuzzer).

Not part of ``make test``. To run it::

    .venv/bin/pip install atheris
    .venv/bin/python -m tests.fuzz.fuzz_fields npz -max_total_time=300

The first argument names a target of :mod:`tests.fuzz.targets`; the others go to libFuzzer. It ends
with an error at the first file that makes a loader raise anything but FieldError, take longer than
two seconds or use more than 600 MB, and leaves that file as ``crash-...`` in the current folder.
Such a file becomes a regression test.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["harness.challenge"]):
    # Imported where they are used, else, which is too late.
    import harness.challenge.nifti_file
    import harness.challenge.npz_file  # noqa: F401
    from tests.fuzz.targets import TARGETS

_LIMITS = ("-timeout=2", "-rss_limit_mb=600", "-max_len=16384", "-print_final_stats=1")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.fuzz_fields {{{','.join(TARGETS)}}} [-options]")
    target, seeds = TARGETS[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
        for i, seed in enumerate(seeds):
            Path(corpus, f"seed-{i}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *_LIMITS, *sys.argv[2:], corpus], lambda raw: target(raw) and 0)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
