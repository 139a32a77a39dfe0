"""Serving: from a member's features and the live versions to a ranking. HTTP is the gateway's."""
