"""Whether features can be trusted: expectations, what was served, freshness, and a page that shows it."""
