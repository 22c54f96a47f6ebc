"""The smallest possible plugin: it opens both images and says that nothing moved.

Its field is what every method has to beat, and its runtime is what reading a pair costs: a pair's
clock starts when the first of its files is opened, so a method that opens none has no runtime.
"""

import numpy as np

from harness.runner import DisplacementField, ImagePair, RegistrationMethod


class Method(RegistrationMethod):
    def register(self, pair: ImagePair) -> DisplacementField:
        fixed, _moving = pair.fixed.array, pair.moving.array
        return DisplacementField(array=np.zeros((3, *fixed.shape), dtype=np.float32))
