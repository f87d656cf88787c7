"""Helpers for the lessons on global average pooling.

Import the module you need (`from gap_utils.pooling import global_average_pool`);
importing `gap_utils` alone loads nothing else.
"""
