"""A whole fleet on one machine: modelled devices, real training, a virtual clock."""
