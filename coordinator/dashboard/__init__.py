"""Pages about a fleet: self-contained HTML that needs no network."""
