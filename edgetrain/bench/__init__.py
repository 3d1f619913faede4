"""Measurements of edgetrain against a rival: the package behind `edgetrain bench`."""
