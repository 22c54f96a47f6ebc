"""What runs inside the reference container: loads the plugin, walks the pairs, writes the fields.

A method imports all it needs from here::

    from harness.runner import Convention, DisplacementField, ImagePair, RegistrationMethod
"""

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
