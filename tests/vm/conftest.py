"""The tests in guest/ run inside of the virtual machine alone."""

collect_ignore = ["guest"]
