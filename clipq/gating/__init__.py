"""The gate: margins, baselines, the FP32 sentinel, and the verdict on each case."""
