"""A federation as a service: SuperLink, its helpers and a door for devices, kept running."""
