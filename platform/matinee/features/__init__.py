"""Features of members and titles: one definition, kept by the stream and recomputed by the batch."""
