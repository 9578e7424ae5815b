"""What lies on disk. Public: `crucible` may import from here what the package's face does not show."""
