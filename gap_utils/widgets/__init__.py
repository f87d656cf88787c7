"""The labs: states, frames and controls over the arithmetic of the other modules."""

from gap_utils.widgets.map_lab import MapLab
from gap_utils.widgets.pool_lab import PoolLab

__all__ = ["MapLab", "PoolLab"]
