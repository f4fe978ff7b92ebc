"""Networks that learn dominoes: cases, snapshots of the training, claims and figures."""
