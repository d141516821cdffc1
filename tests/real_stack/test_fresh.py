"""The stack as `make up` brings it up: who runs how, who can be reached from where, and what sees what."""

import json
import re
import stat
import urllib.error
import urllib.request

import pytest

from tests.real_stack.clone import PASSWORD, Stack
from tests.stack import until_now

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

SERVICES = ("llmswap", "prometheus", "alertmanager", "node-exporter", "tempo", "grafana")
JOBS = {"llmswap", "llmswap-upstream", "node", "prometheus", "alertmanager", "grafana", "tempo"}


def status(url: str, **headers: str) -> int:
    """Give what a GET is answered with."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_everything_is_healthy_and_nothing_was_restarted(stack: Stack):
    for service in SERVICES:
        container = stack.container(service)
        assert container["State"]["Health"]["Status"] == "healthy", service
        assert container["RestartCount"] == 0, stack.logs(service)


def test_from_nothing_to_everything_takes_less_than_six_minutes(stack: Stack):
    """With the engine's own packages and every image to be made; a promise, measured at some two and a half."""
    assert 0 < stack.took_s < 360


def test_the_gpu_that_is_not_there_is_not_asked_for(stack: Stack):
    settings = (stack.root / ".env").read_text()
    assert re.search(r"^COMPOSE_FILE=docker-compose\.yml$", settings, re.MULTILINE)
    assert not stack.container("llmswap")["HostConfig"]["DeviceRequests"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_engine_has_taken_in_every_restriction(stack: Stack, service):
    container = stack.container(service)
    host = container["HostConfig"]
    assert re.fullmatch(r"[1-9]\d*:\d+", container["Config"]["User"])
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["PidsLimit"] > 0
    assert host["Memory"] > 0
    assert host["RestartPolicy"]["Name"] == "always"
    assert (host["IpcMode"], host["PidMode"]) == ("private", "")
    assert list(host["Tmpfs"]) == ["/tmp"]
    assert not any("docker.sock" in mount["Source"] for mount in container["Mounts"])


def test_the_kernel_holds_llmswap_to_it(stack: Stack):
    """Nobody special, no capability, none to be gained, and a disk that takes nothing; nor can its engines."""
    status = stack.compose("exec", "-T", "llmswap", "cat", "/proc/1/status")
    assert re.search(r"^Uid:\s+10001\s+10001\s+10001\s+10001$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    code, said = stack.engine.attempt(
        *("docker", "compose", "exec", "-T", "llmswap", "touch", "/opt/llmswap/mine"), cwd=stack.root, **stack.environ
    )
    assert code != 0
    assert "Read-only file system" in said


def test_two_ports_are_published_on_loopback_alone(stack: Stack):
    bound = {}
    for service in SERVICES:
        for inner, outer in stack.container(service)["HostConfig"]["PortBindings"].items():
            bound[service, inner] = {entry["HostIp"] for entry in outer}
    assert bound == {("llmswap", "8080/tcp"): {"127.0.0.1"}, ("grafana", "3000/tcp"): {"127.0.0.1"}}


def test_what_is_inside_only_has_no_way_out(stack: Stack):
    (network,) = json.loads(stack.engine.run("docker", "network", "inspect", "llmswap_back"))
    assert network["Internal"] is True
    for service in ("prometheus", "alertmanager", "tempo", "node-exporter"):
        assert list(stack.container(service)["NetworkSettings"]["Networks"]) == ["llmswap_back"]


def test_prometheus_sees_everybody(stack: Stack):
    until_now(
        lambda: stack.targets() == dict.fromkeys(JOBS, "up"),
        "every target is up",
        60,
    )
    assert stack.number('node_memory_MemTotal_bytes{job="node"}') > 1 << 30
    until_now(lambda: stack.number("llmswap_config_models") == 4, "the default config is seen", 30)


def test_at_rest_there_is_no_alert_not_even_one_that_waits(stack: Stack):
    """A laptop without a GPU is nothing to be alarmed about."""
    until_now(lambda: stack.prometheus("alerts")["alerts"] == [], "no alert is pending or firing", 90)
    rules = [rule for group in stack.prometheus("rules")["groups"] for rule in group["rules"]]
    assert [rule for rule in rules if rule["health"] == "err"] == []
    assert len([rule for rule in rules if rule["type"] == "alerting"]) > 20


def test_a_request_is_answered_and_its_trace_arrives(stack: Stack):
    body = {"model": "embed", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    request = urllib.request.Request(stack.llmswap + "/v1/chat/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] == 3
    line = until_now(
        lambda: [
            line
            for line in stack.logs("llmswap").splitlines()
            if "event=request.completed" in line and "model=embed" in line
        ],
        "the request is logged",
        30,
    )[-1]
    trace = re.search(r"trace_id=(\w{32})", line).group(1)
    spans = until_now(lambda: stack.trace(trace), "the trace has arrived", 30)
    assert {"POST /v1/chat/completions", "chat embed"} <= {span["name"] for span in spans}


@pytest.mark.parametrize(
    ("kind", "content", "complaint"),
    [
        ("datasources", "apiVersion: 1\ndatasources: [{name: a, type: nosuch, uid: a, url: u}]", "unknown type"),
        ("datasources", "apiVersion: 1\ndatasources: [{name: a, type: tempo, url: u}]", "lacks uid"),
        ("dashboards", "apiVersion: 1\nproviders: [{name: a, type: file, options: {path: /nosuch}}]", "has no folder"),
    ],
    ids=["type", "uid", "folder"],
)
def test_the_stand_in_for_grafana_does_not_start_on_what_grafana_would_refuse(
    stack: Stack, tmp_path, kind, content, complaint
):
    """Else it would prove nothing that it is healthy."""
    (tmp_path / kind).mkdir(mode=0o755)
    (tmp_path / kind / "bad.yaml").write_text(content)
    tmp_path.chmod(0o755)
    mount = ("--volume", f"{tmp_path}:/etc/grafana/provisioning:ro")
    code, said = stack.engine.attempt("docker", "run", "--rm", *mount, stack.images["grafana"], within_s=60)
    assert code != 0
    assert complaint in said


def test_what_was_recorded_can_be_asked_in_place(stack: Stack):
    journal = "/var/lib/llmswap/journal.jsonl"
    stack.compose("exec", "-T", "llmswap", "llmswap", "replay", journal)
    assert "fair" in stack.compose("exec", "-T", "llmswap", "llmswap", "simulate", journal)


def test_a_stranger_gets_in_nowhere(stack: Stack):
    """Who comes by another name is refused (a page that rebinds a name, say), and Grafana wants its password."""
    assert status(stack.llmswap + "/running", Host="evil.example") == 421
    assert status(stack.llmswap + "/running") == 200
    assert status(stack.published("grafana", 3000) + "/api/search") == 401


def test_grafana_has_a_password_of_its_own_and_what_is_provisioned(stack: Stack):
    password = stack.root / PASSWORD
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert len(password.read_text().strip()) >= 32
    assert {row["uid"] for row in stack.grafana("/api/datasources")} >= {"prometheus", "tempo", "alertmanager"}
    shown = {row["uid"] for row in stack.grafana("/api/search")}
    assert shown == {
        json.loads(path.read_text())["uid"] for path in (stack.root / "grafana" / "dashboards").glob("*.json")
    }
    assert "llmswap-overview" in shown


def test_a_changed_config_is_taken_in_without_a_restart(stack: Stack):
    config = stack.root / "deploy" / "llmswap.yaml"
    before = config.read_text()
    pid = stack.container("llmswap")["State"]["Pid"]
    try:
        new = config.with_suffix(".new")  # as editors write
        new.write_text(before.replace("models:\n", "models:\n  late:\n    cmd: llmswap fake-upstream --port ${PORT}\n"))
        new.chmod(0o644)
        new.replace(config)
        until_now(lambda: stack.number("llmswap_config_models") == 5, "the new model is known", 60)
    finally:
        config.write_text(before)
    until_now(lambda: stack.number("llmswap_config_models") == 4, "it is gone again", 60)
    assert stack.container("llmswap")["State"]["Pid"] == pid


def test_make_up_again_restarts_nothing_and_keeps_the_password(stack: Stack):
    before = {service: stack.container(service)["State"]["Pid"] for service in SERVICES}
    password = (stack.root / PASSWORD).read_text()
    stack.make("up")
    assert {service: stack.container(service)["State"]["Pid"] for service in SERVICES} == before
    assert (stack.root / PASSWORD).read_text() == password
