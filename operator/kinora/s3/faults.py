"""What an S3 server's refusal means: whether another try may help, and words for a status. Pure.

Codes: "Error responses", Amazon S3 API Reference. Words name the key and the server's own code; no URL, no credentials.
"""

from __future__ import annotations

from typing import Final

_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_CODES: Final = frozenset(
    {"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "OperationAborted", "Throttling",
     "ConditionalRequestConflict", "RequestLimitExceeded", "BadDigest", "XAmzContentSHA256Mismatch"}
)  # fmt: skip
#: Another access key may do: a Secret that was changed reaches the pod a minute later.
_OF_CREDENTIALS: Final = frozenset({"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})
_MENDS: Final = {
    "AccessDenied": "the credentials may not do that; see docs/storage.md for the policy that is needed",
    "ExpiredToken": "renew the Secret that artifacts.s3.secretName names",
    "InvalidAccessKeyId": "check the Secret that artifacts.s3.secretName names",
    "SignatureDoesNotMatch": "check secretAccessKey in the Secret, and artifacts.s3.region",
    "AuthorizationHeaderMalformed": "check artifacts.s3.region",
    "RequestTimeTooSkewed": "the clocks of node and store differ",
    "NoSuchBucket": "check artifacts.s3.bucket and endpoint",
    "EntityTooLarge": "the store takes no object of that size",
}


class S3Error(Exception):
    """The server refused, or did not answer. `status` 0: no answer came. `may_pass`: another try may help."""

    def __init__(
        self, words: str, *, status: int = 0, code: str = "", may_pass: bool = False, after: float = 0.0
    ) -> None:
        super().__init__(words)
        self.status, self.code, self.may_pass, self.retry_after = status, code, may_pass, after

    @property
    def of_credentials(self) -> bool:
        """Whether other credentials may be taken."""
        return self.code in _OF_CREDENTIALS


def answered(key: str, status: int, code: str, *, after: float = 0.0, region: str = "") -> S3Error:
    """The error that an answer is. `region`: where the server says that the bucket is."""
    if 300 <= status < 400:
        where = f", which is in region {region}" if region else ""
        words = f"the bucket is elsewhere{where}; set artifacts.s3.region and endpoint to its own"
        return S3Error(f"{key}: {words}", status=status, code=code)
    mend = f"; {_MENDS[code]}" if code in _MENDS else ""
    passing = status in _PASSING or code in _PASSING_CODES
    said = f"{status} {code}".strip()
    return S3Error(f"{key}: the store answers {said}{mend}", status=status, code=code, may_pass=passing, after=after)


def unanswered(key: str, words: str) -> S3Error:
    """No answer, or not all of it."""
    return S3Error(f"{key}: {words}", may_pass=True)
