"""The one stable hash: which arm a member is in.

Pure. It knows no experiment and no store: the key, the salt and the weights decide, the same in every
process and on every day. Weighted rendezvous hashing (Thaler and Ravishankar 1998; the weights by
exponential races): each arm draws a time from the hash, arms with more weight run faster, the first
one wins. So an arm's weight going up moves members only into it, and its going down only out of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b

from matinee.errors import InvalidInput


def bucket(key: str, salt: str) -> float:
    """A number in [0, 1), uniform over keys, independent between salts, with 53 random bits.

    Args:
        key: what is allocated: a member id.
        salt: names the question; another salt deals the keys anew.
    """
    digest = blake2b(digest_size=8)
    for part in (salt, key):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return (int.from_bytes(digest.digest(), "big") >> 11) * 2.0**-53


def allocate(key: str, salt: str, weights: Mapping[str, float]) -> str:
    """The arm of `key`: sticky while the weights stand, in proportion to them over many keys.

    Args:
        key: what is allocated: a member id.
        salt: names the split or experiment.
        weights: arm to weight; the ratios count, an arm of weight 0 gets nobody.

    Raises:
        InvalidInput: a weight is negative or not finite, or none is above 0.
    """
    best, arm = math.inf, ""
    for name in sorted(weights):
        weight = weights[name]
        if not math.isfinite(weight) or weight < 0:
            raise InvalidInput(f"weight of {name} is {weight}; accepted: a finite number from 0 up")
        if weight == 0:
            continue
        arrival = -math.log1p(-bucket(key, f"{salt}\x1f{name}")) / weight
        if arrival < best:
            best, arm = arrival, name
    if not arm:
        raise InvalidInput(f"weights {dict(weights)} have no arm above 0; at least one is needed")
    return arm
