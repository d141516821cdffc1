"""How each model's upstream is brought up and down, and the digest that says whether a reload must restart it."""

import hashlib
import ipaddress
import re
from dataclasses import replace
from pathlib import PurePath
from urllib.parse import urlsplit

from llmswap.config.issues import Issues
from llmswap.config.schema import ConfigFile
from llmswap.config.schema_models import ModelSection
from llmswap.config.settings import PORT_MACRO, Launch, Sleeping, SleepStep
from llmswap.config.sleeping import sleeping
from llmswap.config.tree import Path
from llmswap.core.fleet import ModelId

LEAST_READY_TIMEOUT_S = 15
DEFAULT_GRACE_S = 10

# The port of what these start is held by a process outside our tree.
_CONTAINER_RUNNERS = frozenset(
    {"docker", "docker-compose", "podman", "podman-compose", "nerdctl", "lxc", "incus", "kubectl", "ssh", "systemd-run"}
)
_WORDS_SEARCHED = 8  # `sudo -E env X=1 docker run ...`, `bash -c "exec docker run ..."`


def launch(model: ModelId, section: ModelSection, file: ConfigFile, port: int | None, issues: Issues) -> Launch:
    """Make the launch of one model; `${PORT}` stays in it until the process is spawned."""
    path = ("models", model)
    if not section.cmd.strip():
        issues.warn((*path, "cmd"), "cmd is empty: this model cannot be started")
    check_path, check_host = _check(section.check_endpoint.strip())
    proxy = section.proxy.strip()
    host, port_named = _proxy_place(proxy, (*path, "proxy"), issues)
    trust = section.trust_proxy
    return Launch(
        model=model,
        cmd=section.cmd,
        cmd_stop=section.cmd_stop,
        env=_env(section, path, issues),
        proxy=proxy,
        check_path=check_path,
        check_host=check_host,
        port=port,
        ready_timeout_s=float(
            section.health_check_timeout
            if section.health_check_timeout > 0
            else max(file.health_check_timeout, LEAST_READY_TIMEOUT_S)
        ),
        stop_grace_s=float(section.unload_timeout or file.unload_timeout or DEFAULT_GRACE_S),
        trust_proxy=not _holds_its_port(section, host, port_named) if trust is None else trust,
        sleeping=sleeping(model, section, file, issues),
    )


def fingerprint(launch: Launch) -> str:
    """Digest everything that a running upstream was started with.

    Left out on purpose, because a change of it needs no restart: the port (a model added before this one in the file
    must not restart it), all time limits, and whatever only the HTTP side uses (filters, aliases, limits, ...).
    """
    slept = None if launch.sleeping is None else _lasting(launch.sleeping)
    lasting = replace(launch, port=None, ready_timeout_s=0.0, stop_grace_s=0.0, sleeping=slept)
    return hashlib.sha256(repr(lasting).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _lasting(sleeping: Sleeping) -> Sleeping:
    def unlimited(steps: tuple[SleepStep, ...]) -> tuple[SleepStep, ...]:
        return tuple(replace(step, timeout_s=0.0) for step in steps)

    return replace(sleeping, sleep=unlimited(sleeping.sleep), wake=unlimited(sleeping.wake), preset="", drain_s=0.0)


def _check(endpoint: str) -> tuple[str | None, str | None]:
    """Split `checkEndpoint` into path and host. A full URL gives its path and query, its host the Host header."""
    if endpoint == "none":
        return None, None
    host = None
    if found := re.match(r"https?://([^/?#]*)", endpoint):
        host = found[1] or None
        endpoint = endpoint[found.end() :]
    endpoint = endpoint.partition("#")[0]
    return endpoint if not endpoint or endpoint.startswith(("/", "?")) else f"/{endpoint}", host


def _proxy_place(proxy: str, path: Path, issues: Issues) -> tuple[str, int | None]:
    """Give the host and the port that a proxy URL names."""
    if not proxy:
        issues.warn(path, "proxy is empty: this model cannot be started")
        return "", None
    try:
        url = urlsplit(proxy.replace(PORT_MACRO, "1"))
        host, port = url.hostname, url.port
    except ValueError:
        host, port, url = None, None, urlsplit("")
    if url.scheme not in {"http", "https"} or not host:
        issues.error(path, "proxy must be a URL such as http://127.0.0.1:${PORT}")
        return "", None
    return host, port or (443 if url.scheme == "https" else 80)


def _env(section: ModelSection, path: Path, issues: Issues) -> tuple[str, ...]:
    kept = []
    for index, item in enumerate(section.env):
        if item.partition("=")[0] and "=" in item:
            kept.append(item)
        else:
            issues.warn((*path, "env", index), "has no effect: an env item is written KEY=value")
    return tuple(kept)


def _holds_its_port(section: ModelSection, host: str, port: int | None) -> bool:
    """Whether the process we start must be the one that listens: then a stranger on its port is never mistaken for it.

    So it is where the command is given the port, by `${PORT}` or in figures, the address is this machine's, and the
    command is no container's client.
    """
    if not _is_loopback(host):
        return False
    if PORT_MACRO not in section.cmd and not re.search(rf"(?<!\d){port}(?!\d)", section.cmd):
        return False
    words = re.findall(r"[^\s'\"]+", section.cmd)[:_WORDS_SEARCHED]
    return not any(PurePath(word).name in _CONTAINER_RUNNERS for word in words)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
