"""Rounding in CUDA C++: the worked example of plugging a compiled kernel into clipq.

`build` compiles and links it with nvcc through torch's extension loader; `cuda_kernels` says what
it claims. Importing this package compiles nothing.
"""
