"""The labs: states, frames and controls over the arithmetic of the other modules."""

from gap_utils.widgets.pool_lab import PoolLab
from gap_utils.widgets.question import Question

__all__ = ["PoolLab", "Question"]
