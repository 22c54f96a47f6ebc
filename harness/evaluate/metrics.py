"""The metrics, as functions of arrays: no files, no challenge, no means over cases."""

from harness.evaluate.jacobian import JacobianMetrics, jacobian_metrics
from harness.evaluate.labels import LabelMetrics, label_metrics
from harness.evaluate.landmarks import landmark_errors
from harness.evaluate.volumes import FieldVolumes

__all__ = [
    "FieldVolumes",
    "JacobianMetrics",
    "LabelMetrics",
    "jacobian_metrics",
    "label_metrics",
    "landmark_errors",
]
