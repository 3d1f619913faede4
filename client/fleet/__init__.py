"""Flower's Fleet API as a device speaks it: its messages, its objects and how they travel."""
