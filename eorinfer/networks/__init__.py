"""Networks; they know nothing of banks, surveys or runs."""
