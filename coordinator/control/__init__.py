"""What an operator may ask of a federation, over gRPC while it runs and of its files when not."""
