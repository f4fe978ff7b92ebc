"""Where contamination begins and ends on synthetic features: one diagram for each cause."""
