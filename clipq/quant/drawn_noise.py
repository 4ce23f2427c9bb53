"""Gaussian noise that belongs to a sample, wherever in whichever batch the sample is encoded.

A generator with a state would make a sample's noise depend on who was encoded before it. Here every
number is a function of three things alone: the sample, hashed from what its tower is given; the
place, a text; and the position among the numbers of that sample. A counter is hashed under a key
(Salmon et al. 2011, counter-based generators), with the finalizer of MurmurHash3 as the hash, and
two hashed words make two Gaussian numbers (Box and Muller 1958).

All arithmetic before the last step is of 32-bit integers that wrap, so that it is exact on every
device; the last step is float32.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

__all__ = ["gaussian", "sample_keys"]

_GOLDEN = 0x9E3779B9  # 2^32 over the golden ratio: steps that fill the range evenly


def sample_keys(inputs: Tensor) -> Tensor:
    """Return two hashed words per sample, int32 (N, 2).

    Args:
        inputs: pixels or tokens (N, ...); equal samples have equal keys, in whatever batch.

    >>> pixels = torch.rand(4, 3, 8, 8)
    >>> bool((sample_keys(pixels)[2:] == sample_keys(pixels[2:])).all())
    True
    """
    if inputs.is_floating_point():
        bits = (inputs.detach().float() + 0.0).contiguous().view(torch.int32)  # -0.0 is 0.0
    else:
        bits = inputs.to(torch.int32)
    words = bits.flatten(1)
    counter = torch.arange(words.shape[1], dtype=torch.int32, device=words.device)
    found = []
    for start in (1, 2):
        place = _mixed(counter * _signed(2 * _GOLDEN + 1) + start)
        # A sum of integers is the same in whatever order it is taken.
        total = _mixed(words ^ place).sum(1)
        found.append(_mixed(total.to(torch.int32)))
    return torch.stack(found, 1)


def gaussian(keys: Tensor, place: str, shape: tuple[int, ...]) -> Tensor:
    """Return standard Gaussian numbers, float32 (N, *shape), the same for the same key and place.

    Args:
        keys: of N samples, from `sample_keys`.
        place: what the noise is for, such as the name of a layer; other places, other noise.
        shape: of one sample's numbers.

    >>> keys = sample_keys(torch.rand(3, 5))
    >>> first, other = gaussian(keys, "fc", (200,)), gaussian(keys, "proj", (200,))
    >>> tuple(first.shape), bool((first == other).any())
    ((3, 200), False)
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    salt = hashlib.sha256(place.encode()).digest()
    salts = [int.from_bytes(salt[i : i + 4], "little") for i in (0, 4)]
    one, two = (_mixed(keys[:, i] ^ _signed(salts[i])) for i in (0, 1))
    mixed = _mixed(one + keys[:, 1]), _mixed(two + keys[:, 0])
    counter = torch.arange(pairs, dtype=torch.int32, device=keys.device) * 2
    words = [_mixed(_mixed(counter + i)[None] ^ mixed[i][:, None]) for i in (0, 1)]
    # 24 bits, as many as float32 holds: numbers reach 5.9.
    unit = [((word >> 8) & 0xFFFFFF).float().add_(0.5).mul_(2.0**-24) for word in words]
    radius, angle = unit[0].log_().mul_(-2.0).sqrt_(), unit[1].mul_(2.0 * math.pi)
    numbers = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return numbers[:, :count].reshape(len(keys), *shape)


def _mixed(words: Tensor) -> Tensor:
    """Return MurmurHash3's finalizer of each word: each bit of it hangs on every bit given."""
    words = words ^ ((words >> 16) & 0xFFFF)
    words = words * _signed(0x85EBCA6B)
    words = words ^ ((words >> 13) & 0x7FFFF)
    words = words * _signed(0xC2B2AE35)
    return words ^ ((words >> 16) & 0xFFFF)


def _signed(word: int) -> int:
    """Return the int32 with the bits of an unsigned word."""
    word &= 0xFFFFFFFF
    return word - 0x100000000 if word >= 0x80000000 else word
