"""What can go wrong with a fetch, by what helps: another try, or a person. No I/O."""

from __future__ import annotations


class FetchFault(Exception):  # noqa: N818 - what happened, not how it is told
    """The base: `str()` tells file, cause and mend; never a token, nor a URL's query."""


class Transient(FetchFault):
    """The network, a server's moment of weakness, a volume that somebody else writes: another try may help."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Permanent(FetchFault):
    """Refused, not there, not what it should be: trying again without a change is of no use."""


class NoSpace(Permanent):
    """The volume has not room enough."""


class SourceChanged(FetchFault):
    """The file at the source became another one while it was fetched: what is there of it is of no use."""


def exit_code(fault: FetchFault) -> int:
    """What shells and Jobs are told. 1: of no use to try again; 3: it is; 4: not enough space."""
    if isinstance(fault, NoSpace):
        return 4
    return 1 if isinstance(fault, Permanent) else 3
