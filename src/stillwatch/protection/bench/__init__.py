"""The bench that decides: teacher, defended outputs, student, proof; with small models trained on the spot and nobody else's.

Needs the extra ``stillwatch[protect]``.
"""
