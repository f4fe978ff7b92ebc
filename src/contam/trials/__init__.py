"""Training-time remedies, measured on the user's own data against a baseline."""
