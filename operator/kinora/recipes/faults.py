"""What is wrong with a VideoJob, said so that its author can mend it: field, value, what is allowed."""

from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN = 80  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `field` is the path in the manifest; `not_implemented` marks what the API has and this release not."""

    field: str
    value: object
    allowed: str
    mend: str = ""
    not_implemented: bool = False

    def __str__(self) -> str:
        if self.value is None:
            found = f"{self.field} is not set"
        else:
            shown = str(self.value)
            found = f"{self.field} is {shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + '...'}"
        kind = "not implemented yet; " if self.not_implemented else ""
        return f"{found}; {kind}allowed: {self.allowed}" + (f" ({self.mend})" if self.mend else "")


class InvalidSpec(Exception):  # noqa: N818 - named as the reason in status
    """A spec that cannot be rendered, with every fault at once. `str()` lists them, most telling first."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(str(fault) for fault in self.faults))

    @property
    def not_implemented(self) -> bool:
        """Whether every fault is something that a later release will do."""
        return all(fault.not_implemented for fault in self.faults)


def not_yet(field: str, value: object, allowed: str) -> Fault:
    """A fault for what the API names and this release does not do."""
    return Fault(field, value, allowed, not_implemented=True)
