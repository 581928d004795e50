"""Packed training: many runs on extracted features that step together in one process."""
