"""Predicts, chooses and measures what training uses of a device."""
