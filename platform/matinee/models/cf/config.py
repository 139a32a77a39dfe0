"""Settings of collaborative filtering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from matinee.models.space import Choice, Real, Space, Whole

Method = Literal["ials", "ease", "spectral"]


@dataclass(frozen=True, kw_only=True)
class CfConfig:
    """A method, what all methods share, and what each needs."""

    method: Literal["auto"] | Method = "auto"
    """How titles are related; "auto" chooses by the shape of the data (`choose`)."""
    recent_half_life: float = 10.0
    """Watches back in the history after which a title counts half in `score`."""
    device: str = "cpu"
    """Torch device that fits: "cpu" or "cuda". Scoring runs on the CPU."""

    factors: int = 64
    """iALS: length of a title's and a member's vector."""
    sweeps: int = 6
    """iALS: times that members and titles are solved in turn."""
    unobserved: float = 0.1
    """iALS: weight of every (member, title) pair not watched; a watched one weighs one."""
    regularisation: float = 0.02
    """iALS: strength of the ridge penalty before it is scaled by frequency."""
    frequency_exponent: float = 1.0
    """iALS: power of a row's weighted frequency in its penalty: 0 is the plain ridge, 1 weighs every loss
    term (Rendle et al. 2021)."""
    init_scale: float = 0.1
    """iALS: standard deviation of a random start, over the square root of `factors`."""
    steps: int = 3
    """iALS: conjugate gradient steps that a row takes each time its side is solved."""
    block_bytes: int = 2 * 2**20
    """iALS: the vectors gathered at once on the CPU, best within the cache."""

    ease_regularisation: float = 500.0
    """EASE: ridge penalty of every weight, in watches."""
    ease_dropout: float = 0.0
    """EASE: share of a history dropped at random while weights are learned, at least 0 and below 1."""

    ease_bytes: int = 2 * 2**30
    """Most memory that fitting EASE may take for "auto" to choose it."""

    spectral_member_exponent: float = 0.3
    """Spectral: power of a member's watches that divides the member's row."""
    spectral_title_exponent: float = 0.45
    """Spectral: power of a title's watches that divides the title's column."""
    spectral_ideal: float = 0.3
    """Spectral: weight of the low-pass filter beside the linear one; 0 leaves it out."""
    spectral_rank: int = 512
    """Spectral: singular vectors that the low-pass filter lets through."""
    spectral_share: float = 1 / 16
    """Spectral: most singular vectors, over the members or the titles, whichever are fewer."""
    spectral_iterations: int = 4
    """Spectral: iterations of the search for singular vectors, which leave the low-pass filter's edge soft;
    0: the exact vectors."""
    spectral_sharpening: float = 2.0
    """Spectral: length of the step that sharpens the filtered history; 0 takes none."""
    spectral_neighbours: int = 1_000
    """Spectral: titles each title keeps in the linear filter; bounds memory and the time of scoring."""


def default() -> CfConfig:
    """The tuned settings."""
    return CfConfig()


def sparse() -> CfConfig:
    """The spectral filter with every neighbour: the best lists, at some kilobytes a title."""
    return replace(default(), method="spectral", spectral_neighbours=2**31 - 1)


def gfcf() -> CfConfig:
    """GF-CF as published (Shen et al. 2021): every neighbour, an ideal filter of 256 vectors."""
    return replace(
        sparse(),
        spectral_member_exponent=0.5,
        spectral_title_exponent=0.5,
        spectral_rank=256,
        spectral_share=1.0,
        spectral_iterations=0,
        spectral_sharpening=0.0,
    )


def test() -> CfConfig:
    """Small: for tests."""
    return replace(default(), factors=8, sweeps=4, spectral_rank=8, spectral_share=1.0)


def space() -> Space:
    """What tuning may set."""
    return {
        "method": Choice(("auto", "ease", "ials", "spectral")),
        "factors": Whole(16, 256, log=True),
        "sweeps": Whole(3, 16),
        "unobserved": Real(0.01, 1.0, log=True),
        "regularisation": Real(0.0005, 0.2, log=True),
        "frequency_exponent": Real(0.0, 1.5),
        "init_scale": Real(0.01, 1.0, log=True),
        "recent_half_life": Real(2.0, 200.0, log=True),
        "ease_regularisation": Real(10.0, 5_000.0, log=True),
        "ease_dropout": Real(0.0, 0.8),
        "spectral_member_exponent": Real(0.2, 0.7),
        "spectral_title_exponent": Real(0.2, 0.7),
        "spectral_ideal": Real(0.0, 1.0),
        "spectral_rank": Whole(16, 512, log=True),
        "spectral_sharpening": Real(0.0, 3.0),
    }
