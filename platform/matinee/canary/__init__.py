"""Judged rollouts: is the candidate worse than the baseline, and what follows from it."""
