"""Evaluation worlds whose parameters are drawn from wide priors, written without sight of the detectors."""

from .world import World, draw_world, write_world

__all__ = ["World", "draw_world", "write_world"]
