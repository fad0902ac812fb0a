"""How the reader's weights are made: ``make models``. No part of the package; docs/model-card.md has the figures."""
