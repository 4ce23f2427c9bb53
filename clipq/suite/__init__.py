"""The reliability matrix as a test module, for `clipq gate` and for projects to import."""
