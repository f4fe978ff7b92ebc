"""Networks, and the one place that looks inside them."""
