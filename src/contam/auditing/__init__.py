"""An audit of any network: what fails, why, where, and what to try."""
