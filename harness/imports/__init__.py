"""An uploaded image (a ``docker save`` file): read as a hostile stream, loaded when sound.

The engine never sees the file that was uploaded. It is read once and judged: layout, digests,
sizes, platform, names (:mod:`~harness.imports.survey`, :mod:`~harness.imports.layout`). Then
it is read again, and of what was judged a plain file without names is written to the engine
(:mod:`~harness.imports.stream`): nothing that was not looked at gets there, no tag of this machine
can be moved, and any engine can read it, whatever layout and compression the upload had.
"""
