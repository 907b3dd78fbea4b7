"""The contest: many methods, one bank, one survey, and the same held-out truths for all."""
