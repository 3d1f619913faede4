"""What Flower sends around for a fleet of edgetrain: two imports."""
