"""Training: protocols and metrics (evaluate), fitting on Ray (loop), and the whole stage (pipeline)."""
