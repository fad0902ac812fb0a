"""What tests of the bench have in common; needs PyTorch."""

from __future__ import annotations

from stillwatch.protection.bench.learning import Size

MICRO = Size(
    vocabulary=300,
    layers=1,
    width=32,
    heads=2,
    length=32,
    prompt=4,
    teacher_epochs=1,
    base_epochs=1,
    pool=96,
    student_epochs=1,
)
"""As small as a bench can be: a second or two a model."""
