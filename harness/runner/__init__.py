"""What runs inside the reference container: loads the plugin, walks the pairs, writes the fields.

A method imports all it needs from here::

    from harness.runner import Convention, DisplacementField, ImagePair, RegistrationMethod
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.challenge.field import Convention, DisplacementField
    from harness.runner.command import CommandMethod
    from harness.runner.plugin import ImagePair, LazyImage, RegistrationMethod, TaskInfo

__all__ = [
    "CommandMethod",
    "Convention",
    "DisplacementField",
    "ImagePair",
    "LazyImage",
    "RegistrationMethod",
    "TaskInfo",
]

# Imported when a method asks for them: the harness outside reads this package's settings and
# report, and would wait 0.15 s for NumPy and NiBabel.
_HOMES = {
    "CommandMethod": "harness.runner.command",
    "Convention": "harness.challenge.field",
    "DisplacementField": "harness.challenge.field",
    "ImagePair": "harness.runner.plugin",
    "LazyImage": "harness.runner.plugin",
    "RegistrationMethod": "harness.runner.plugin",
    "TaskInfo": "harness.runner.plugin",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
