"""Enforcement: a command is started inside its limits, watched, stopped politely, then killed."""
