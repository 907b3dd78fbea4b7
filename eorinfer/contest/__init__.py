"""Contest of many methods, on one bank, one survey and the same held-out truths."""
