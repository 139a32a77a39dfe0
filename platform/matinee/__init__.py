"""Matinee: the machine-learning platform of a streaming service, on Ray."""

__version__ = "0.1.0"
