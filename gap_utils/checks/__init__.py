"""Feedback on the exercises: one check for each, a file for each lesson."""

from gap_utils.checks.lesson_00 import check_numbers_per_map
from gap_utils.checks.lesson_01 import (
    check_gap,
    check_gap_after_change,
    check_gap_from_windows,
    check_max_pool,
    check_min_pool,
    check_output_size,
)

__all__ = [
    "check_gap",
    "check_gap_after_change",
    "check_gap_from_windows",
    "check_max_pool",
    "check_min_pool",
    "check_numbers_per_map",
    "check_output_size",
]
