"""Training quantizers: objectives, the order of data, the trainer and its checkpoints."""
