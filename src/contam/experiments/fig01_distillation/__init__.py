"""Teachers, their students and standard networks: config, results, claims and figures."""
