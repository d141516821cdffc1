"""Who may talk to llmswap: the checks that make these keys mean what they say."""

import ipaddress
from urllib.parse import urlsplit

from llmswap.config.issues import Issues
from llmswap.config.schema import ConfigFile
from llmswap.config.settings import AccessSettings


def access(file: ConfigFile, issues: Issues) -> AccessSettings:
    """Check and gather the access settings. No message ever quotes a key."""
    for index, key in enumerate(file.api_keys):
        if not key:
            issues.error(("apiKeys", index), "empty api key found in apiKeys")
        elif " " in key:
            issues.error(("apiKeys", index), f"apiKeys[{index}]: api key cannot contain spaces")
    for index, host in enumerate(file.allowed_hosts):
        if not host or any(char in host for char in "/@ ?#*"):
            issues.error(("allowedHosts", index), "must be a host name or address alone, such as llm.example.org")
    for index, origin in enumerate(file.allowed_origins):
        if not _is_origin(origin):
            issues.error(("allowedOrigins", index), "must be an exact origin, such as https://chat.example.org:8443")
    for index, proxy in enumerate(file.trusted_proxies):
        if not _is_network(proxy):
            issues.error(("trustedProxies", index), "must be an address or a network, such as 10.0.0.2 or 10.0.0.0/24")
    return AccessSettings(
        api_keys=tuple(file.api_keys),
        allow_unauthenticated=file.allow_unauthenticated,
        allowed_hosts=tuple(file.allowed_hosts),
        allowed_origins=tuple(file.allowed_origins),
        trusted_proxies=tuple(file.trusted_proxies),
        forward_auth=file.forward_auth,
        allow_control=file.upstream.allow_control,
        trust_pages=file.upstream.trust_pages,
    )


def _is_origin(text: str) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return False
    return (
        bool(url.scheme and url.hostname) and text.lower() == f"{url.scheme}://{url.netloc}".lower() and "@" not in text
    )


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
