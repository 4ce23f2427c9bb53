"""Many candidates, evaluated as units that know nothing of one another: a plan, engines, a store.

    plan -> units -> Executor.run -> one part per unit in the store -> query, study

A *unit* is a model, a quantizer with its seed, and the draw of its calibration data, with all its
probes; docs/sweep.md tells the whole of it. Nothing here imports torch but what measures.
"""
