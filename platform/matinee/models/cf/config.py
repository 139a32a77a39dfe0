"""Settings of the matrix factorisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from matinee.models.space import Real, Space, Whole


@dataclass(frozen=True, kw_only=True)
class CfConfig:
    """iALS after Hu et al. 2008, with the regularisation of Rendle et al. 2021."""

    factors: int = 64
    """Length of a title's and a member's vector."""
    sweeps: int = 6
    """Times that members and titles are solved in turn."""
    unobserved: float = 0.1
    """Weight of every (member, title) pair not watched; a watched one weighs one."""
    regularisation: float = 0.02
    """Strength of the ridge penalty before it is scaled by frequency."""
    frequency_exponent: float = 1.0
    """Power of a row's weighted frequency in its penalty: 0 is the plain ridge, 1 weighs every loss term."""
    init_scale: float = 0.1
    """Standard deviation of a random start, over the square root of `factors`."""
    recent_half_life: float = 10.0
    """Watches back in the history after which a title counts half in `score`."""
    block: int = 512
    """Rows solved in one go; bounds memory."""


def default() -> CfConfig:
    """The tuned settings."""
    return CfConfig()


def test() -> CfConfig:
    """Small: for tests."""
    return replace(default(), factors=8, sweeps=4)


def space() -> Space:
    """What tuning may set."""
    return {
        "factors": Whole(16, 256, log=True),
        "sweeps": Whole(3, 16),
        "unobserved": Real(0.01, 1.0, log=True),
        "regularisation": Real(0.0005, 0.2, log=True),
        "frequency_exponent": Real(0.0, 1.5),
        "init_scale": Real(0.01, 1.0, log=True),
        "recent_half_life": Real(2.0, 200.0, log=True),
    }
