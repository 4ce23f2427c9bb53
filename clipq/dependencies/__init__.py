"""What code depends on beside its own text: modules, files that are read, packages."""
