"""Rewrites that change weights and leave the function alone: smoothing, rotation, folding.

Each is exact in real arithmetic and float32 rounding otherwise; what they change is how well the
result can be rounded. All start from an explicit model (`clipq.quant.explicit`).
"""
