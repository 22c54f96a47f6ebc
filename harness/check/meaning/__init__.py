"""Whether a field that is valid says what its authors believe it says.

The commonest way to lose a challenge is a good registration in the wrong convention. Every way to
get it wrong is a *reading* of the file: a map from its numbers back to voxels. A field is suspect
if under one reading the images match clearly better than under the challenge's own and than without
any field. docs/checks.md has the list, the limits and what was measured.
"""

from harness.check.meaning.examine import (
    PairToExamine,
    TaskMeaning,
    examine_meaning,
    examine_task,
)
from harness.check.meaning.likeness import Image

__all__ = ["Image", "PairToExamine", "TaskMeaning", "examine_meaning", "examine_task"]
