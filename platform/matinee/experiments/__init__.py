"""Experiments: who sees what. Allocation is pure; whoever asks keeps the weights."""
