"""Observed cubes: what files and arrays say of them, units, masks, and comparison with what is simulated."""
