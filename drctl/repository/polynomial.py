"""Irreducible polynomials over GF(2): restic's Rabin cutter needs one of degree 53 a repository.

Invariant: what `random_irreducible` gives has degree 53 and no factor (Ben-Or's test: x^(2^i) - x
shares no factor with it for any i up to half its degree).
"""

from __future__ import annotations

import secrets

DEGREE = 53


def random_irreducible() -> int:
    """A new polynomial, as the integer whose bits are its coefficients."""
    while True:
        # highest and lowest coefficient set: degree 53, and not divisible by x
        candidate = secrets.randbits(DEGREE) | 1 << DEGREE | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Ben-Or's irreducibility test."""
    degree = polynomial.bit_length() - 1
    if degree < 1:
        return False
    power = 2  # the polynomial x
    for _ in range(degree // 2):
        power = _multiply_modulo(power, power, polynomial)
        if _greatest_common_divisor(polynomial, power ^ 2) != 1:
            return False
    return True


def _multiply_modulo(left: int, right: int, modulus: int) -> int:
    product, top = 0, 1 << (modulus.bit_length() - 1)
    while right:
        if right & 1:
            product ^= left
        right >>= 1
        left <<= 1
        if left & top:
            left ^= modulus
    return product


def _greatest_common_divisor(left: int, right: int) -> int:
    while right:
        left, right = right, _remainder(left, right)
    return left


def _remainder(dividend: int, divisor: int) -> int:
    shift = dividend.bit_length() - divisor.bit_length()
    while shift >= 0 and dividend:
        dividend ^= divisor << shift
        shift = dividend.bit_length() - divisor.bit_length()
    return dividend
