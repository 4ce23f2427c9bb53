"""Quantizers whose rounding is learnt: LSQ and its variants, PACT and DoReFa."""
