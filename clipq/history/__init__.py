"""History: runs kept in a store, compared and followed over time. Reads records; never torch."""
