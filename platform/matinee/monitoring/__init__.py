"""What the live service looks like beside what it was trained on: exposures, drift, gauges."""
