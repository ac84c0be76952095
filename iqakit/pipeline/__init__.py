"""Use cases: fit, score, evaluate."""
