"""Labelled worlds by a writer who has read none of the detectors. See README.md."""
