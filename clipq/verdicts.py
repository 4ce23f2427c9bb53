"""Verdicts on cases, and policies: which of them fail a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from clipq.errors import SettingsError, did_you_mean

__all__ = ["EXCUSABLE", "POLICIES", "UNDECIDED", "Policy", "Verdict", "policy_named"]


class Verdict(StrEnum):
    """What the gate says of one case; see docs/verdicts.md.

    >>> Verdict("suspect") is Verdict.SUSPECT
    True
    """

    PASS = "pass"
    IMPROVED = "improved"
    INCONCLUSIVE = "inconclusive"
    SUSPECT = "suspect"
    WAIVED = "waived"
    FAIL = "fail"
    NON_FINITE = "non-finite"
    MISSING = "missing"
    VANISHED = "vanished"
    INCOMPARABLE = "incomparable"
    DRIFTED = "drifted"
    ERROR = "error"


UNDECIDED = (Verdict.SUSPECT, Verdict.INCONCLUSIVE)
"""Verdicts on what samples could not decide, the more urgent one first."""
EXCUSABLE = (Verdict.FAIL, *UNDECIDED)
"""Verdicts that a waiver or an expected failure may excuse: the case was measured."""
_CHOOSABLE = (
    Verdict.IMPROVED,
    Verdict.INCONCLUSIVE,
    Verdict.SUSPECT,
    Verdict.WAIVED,
    Verdict.FAIL,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Which verdicts fail a gate.

    A pass never does; what could not be judged (non-finite, missing, vanished, incomparable,
    drifted, error) always does. Of the others each policy names the ones that do.

    Args:
        name: as in ``[policies.NAME]`` of clipq.toml.
        verdicts: those of ``improved``, ``inconclusive``, ``suspect``, ``waived`` and ``fail`` that
            block; ``fail`` among them.

    Raises:
        SettingsError: a verdict that no policy chooses about, or ``fail`` is missing.

    >>> POLICIES["ci"].blocks(Verdict.SUSPECT), POLICIES["ci"].blocks(Verdict.INCONCLUSIVE)
    (True, False)
    >>> Policy("lax", ("suspect",))
    Traceback (most recent call last):
    clipq.errors.SettingsError: policy 'lax' does not block 'fail'
    ...
    """

    name: str
    verdicts: tuple[str, ...]

    def __post_init__(self) -> None:
        allowed = ", ".join(_CHOOSABLE)
        for verdict in self.verdicts:
            if verdict not in _CHOOSABLE:
                raise SettingsError(
                    f"policy {self.name!r} blocks {verdict!r}",
                    hint=f"allowed: {allowed}; what cannot be judged always blocks",
                )
        if Verdict.FAIL not in self.verdicts:
            raise SettingsError(
                f"policy {self.name!r} does not block {Verdict.FAIL.value!r}",
                hint=f"name it; a failure that is known is waived, with an owner and a date; "
                f"allowed: {allowed}",
            )

    def blocks(self, verdict: Verdict) -> bool:
        """Whether a case with this verdict fails the gate."""
        if verdict in _CHOOSABLE:
            return verdict.value in self.verdicts
        return verdict is not Verdict.PASS


POLICIES: Mapping[str, Policy] = {
    "ci": Policy("ci", ("fail", "suspect")),
    "release": Policy("release", ("fail", "suspect", "inconclusive")),
}
"""The policies of a project that declares none; its own of the same name go before them."""


def policy_named(name: str, policies: Mapping[str, Policy]) -> Policy:
    """Return a policy.

    Raises:
        SettingsError: there is none of that name.

    >>> policy_named("rel", POLICIES)
    Traceback (most recent call last):
    clipq.errors.SettingsError: unknown policy 'rel'
      fix: did you mean 'release'? known: ci, release
    """
    if name not in policies:
        raise SettingsError(f"unknown policy {name!r}", hint=did_you_mean(name, list(policies)))
    return policies[name]
