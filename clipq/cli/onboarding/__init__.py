"""What `clipq init` and `clipq doctor` look at, and what init writes; without torch."""
