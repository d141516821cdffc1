"""Who is asking: keys in config, keys in requests. Compares digests only, never the keys themselves."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable

from multidict import CIMultiDictProxy

CHALLENGE = 'Basic realm="llmswap"'
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")


class KeyRing:
    """The accepted keys, as SHA-256 digests.

    Args:
        keys: As written in the config: the key itself, or `sha256:` and the 64 hex digits of its digest.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.digests = tuple(map(_accepted_digest, keys))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def recognise(self, candidate: str) -> bytes | None:
        """Give the digest of a candidate that is one of the keys, in time that tells nothing of which or how nearly."""
        digest = hashlib.sha256(candidate.encode("utf-8", "surrogateescape")).digest()
        matched = False
        for accepted in self.digests:
            matched |= hmac.compare_digest(accepted, digest)
        return digest if matched else None


def _accepted_digest(key: str) -> bytes:
    hashed = _HASHED.fullmatch(key)
    return bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def candidate_key(headers: CIMultiDictProxy[str]) -> str | None:
    """Find the key a request offers. One candidate only; of repeated headers the first counts.

    `Authorization: Basic` offers its password, any other spelling of Bearer its token; a Basic that cannot be decoded
    and an absent or foreign scheme leave it to `x-api-key`.
    """
    authorization = headers.get("Authorization")
    if authorization is not None:
        scheme, _, credentials = authorization.strip().partition(" ")
        scheme = scheme.lower()
        if scheme == "bearer" and credentials:
            return credentials.strip()
        if scheme == "basic":
            password = _basic_password(credentials.strip())
            if password is not None:
                return password
    return headers.get("x-api-key")


def _basic_password(credentials: str) -> str | None:
    try:
        decoded = base64.b64decode(credentials, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return None
    _, separator, password = decoded.partition(":")
    return password if separator else None
