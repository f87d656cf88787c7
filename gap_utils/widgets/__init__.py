"""The labs: states, frames and controls over the arithmetic of the other modules."""

from gap_utils.widgets.cam_lab import CamLab
from gap_utils.widgets.head_lab import HeadLab
from gap_utils.widgets.map_lab import MapLab
from gap_utils.widgets.photo_lab import PhotoLab
from gap_utils.widgets.pool_lab import PoolLab
from gap_utils.widgets.question import Question
from gap_utils.widgets.quiz import Quiz
from gap_utils.widgets.shift_lab import ShiftLab

__all__ = ["CamLab", "HeadLab", "MapLab", "PhotoLab", "PoolLab", "Question", "Quiz", "ShiftLab"]
