"""The labs: states, frames and controls over the arithmetic of the other modules."""

from gap_utils.widgets.cam_lab import CamLab
from gap_utils.widgets.photo_lab import PhotoLab
from gap_utils.widgets.pool_lab import PoolLab

__all__ = ["CamLab", "PhotoLab", "PoolLab"]
