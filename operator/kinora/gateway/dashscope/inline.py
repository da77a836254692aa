"""Pictures that a client sends within its request, as `data:image/png;base64,...`. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from kinora.gateway.errors import InvalidInput

PREFIX: Final = "data:"
_FORM: Final = re.compile(r"data:image/(?:jpeg|jpg|png|bmp|webp);base64,", re.IGNORECASE)
_ALLOWED: Final = "data:image/TYPE;base64,... with a TYPE of jpeg, png, bmp or webp"


def is_inline(text: str) -> bool:
    """Whether the text is content and no address."""
    return text[: len(PREFIX)].lower() == PREFIX


def decoded(text: str) -> bytes:
    """The bytes of such a picture; what they are is looked at later. Raises InvalidInput."""
    form = _FORM.match(text)
    if form is None:
        raise InvalidInput("", f"{text[:40]!r}... is no picture; allowed: {_ALLOWED}")
    try:
        content = base64.b64decode(text[form.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("", f"what follows {text[: form.end()]!r} is no Base64; allowed: {_ALLOWED}") from None
    if not content:
        raise InvalidInput("", f"nothing follows {text[: form.end()]!r}; allowed: {_ALLOWED}")
    return content
