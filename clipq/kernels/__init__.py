"""Kernels: quantized operations as one pass over memory, written in Triton.

Importing this package imports neither torch nor Triton. `rounding_kernels`, `linear_kernels`
and `hadamard_kernel` are functions of tensors, `operators` the same as torch operators, `compiled`
what compilers say of them. `clipq.quant` stays the reference: nothing uses a kernel unless it is
called.
"""
