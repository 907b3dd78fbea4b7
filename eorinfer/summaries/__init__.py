"""Statistics of cubes, batched on torch. Importing this package loads no torch."""
