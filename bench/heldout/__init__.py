"""A held-out world generator: labelled API traffic from priors of its own."""
