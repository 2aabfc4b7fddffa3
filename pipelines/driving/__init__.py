"""How any diffusers pipeline is run piece by piece, without a line on any family."""
