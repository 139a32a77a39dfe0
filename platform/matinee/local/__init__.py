"""The embedded default: every part on one machine, in one process tree."""
