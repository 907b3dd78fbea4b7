"""Statistics of cubes, batched on torch."""
