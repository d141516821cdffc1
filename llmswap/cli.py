"""The command line: argument parsing and exit codes. Everything it starts lives elsewhere."""

import argparse
import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llmswap import __version__
from llmswap.config.errors import ConfigError, ConfigIssue

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_REFUSED = 78  # refused to listen unprotected

COMMANDS = ("serve", "check", "schema", "status", "queue", "demo", "simulate", "replay", "fake-upstream")
# llama-swap spells its flags with one dash, Go style: `-config X`, `-config=X`, `-watch-config=true`.
GO_FLAGS = ("config", "config-dir", "listen", "watch-config", "tls-cert-file", "tls-key-file", "version", "help", "h")
GO_BOOLEANS = ("watch-config", "version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run llmswap. Returns the exit code."""
    if not __debug__:
        print("llmswap: refuses to run under python -O: its assertions are part of its safety", file=sys.stderr)
        return EXIT_FAILED
    arguments = _normalise(list(sys.argv[1:] if argv is None else argv))
    parser = _parser()
    if not arguments:
        parser.print_help()
        return EXIT_CONFIG
    args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except ConfigError as error:
        for issue in error.issues:
            print(f"llmswap: {issue}", file=sys.stderr)
        code = EXIT_CONFIG
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `llmswap schema | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    return code


def _normalise(arguments: list[str]) -> list[str]:
    """Turn llama-swap's spellings into ours, and a command line without a command into `serve`."""
    result: list[str] = []
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or name not in GO_FLAGS:
            result.append(argument)
        elif name in GO_BOOLEANS and equals:
            result += [f"--{name}"] if value.lower() in {"true", "1", "t"} else []
        else:
            result.append(f"--{name}{equals}{value}" if name != "h" else "-h")
    if result and result[0].startswith("-") and result[0] not in {"-h", "--help", "--version"}:
        result.insert(0, "serve")
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmswap",
        description="One GPU box, many models: the swapping proxy for OpenAI- and Anthropic-style clients.",
        epilog="llama-swap's command line works unchanged: `llmswap -config config.yaml -listen 127.0.0.1:8080`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llmswap {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_check(commands)
    _add_schema(commands)
    _add_status(commands)
    _add_queue(commands)
    _add_demo(commands)
    _add_simulate(commands)
    _add_replay(commands)
    _add_fake_upstream(commands)
    return parser


Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:  # type: ignore[valid-type]
    parser: argparse.ArgumentParser = commands.add_parser(  # type: ignore[attr-defined]
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="config file (default: ./config.yaml)")
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="directory of *.yaml and *.yml, merged with --config"
    )


def _add_serve(commands: Commands) -> None:  # type: ignore[valid-type]
    parser = _command(commands, "serve", "serve the models of a config (the default command)")
    _add_config(parser)
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="where to listen (default: 127.0.0.1:8080, with TLS 127.0.0.1:8443)"
    )
    parser.add_argument("--watch-config", action="store_true", help="reload when a config file changes")
    parser.add_argument("--tls-cert-file", type=Path, metavar="FILE", help="certificate chain, PEM")
    parser.add_argument("--tls-key-file", type=Path, metavar="FILE", help="private key, PEM")
    parser.add_argument(
        "--allow-unauthenticated",
        action="store_true",
        help="listen beyond loopback without apiKeys: anyone who reaches the port can use it",
    )
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="where the pids of upstreams are remembered")
    parser.set_defaults(run=_serve)


def _add_check(commands: Commands) -> None:  # type: ignore[valid-type]
    parser = _command(commands, "check", "check a config and report everything wrong with it")
    _add_config(parser)
    parser.add_argument("--json", action="store_true", help="print the issues as JSON")
    parser.set_defaults(run=_check)


def _add_schema(commands: Commands) -> None:  # type: ignore[valid-type]
    parser = _command(commands, "schema", "print the JSON Schema of the config, for editors")
    parser.set_defaults(run=_schema)


def _add_status(commands: Commands) -> None:  # type: ignore[valid-type]
    parser = _command(commands, "status", "show the models of a running server, and who waits for them")
    _add_server(parser)
    parser.set_defaults(run=_status)


def _add_queue(commands: Commands) -> None:  # type: ignore[valid-type]
    parser = _command(commands, "queue", "show who waits at a running server, for what and why, and what it decided")
    _add_server(parser)
    parser.set_defaults(run=_queue)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    parser.add_argument("--api-key", help="default: the environment variable LLMSWAP_API_KEY")
    parser.add_argument("--json", action="store_true", help="print what the server says as JSON")


def _add_demo(commands: Commands) -> None:  # type: ignore[valid-type]
    from llmswap.demo.command import add_arguments, run

    parser = _command(commands, "demo", "serve three simulated models to scripted clients and watch them swap")
    add_arguments(parser)
    parser.set_defaults(run=run)


def _add_simulate(commands: Commands) -> None:  # type: ignore[valid-type]
    from llmswap.sim.whatif.flags import add_arguments

    parser = _command(commands, "simulate", "play a workload, recorded or named, under other policies")
    add_arguments(parser)
    parser.set_defaults(run=_simulate)


def _add_replay(commands: Commands) -> None:  # type: ignore[valid-type]
    from llmswap.sim.replay_command import add_arguments, run

    parser = _command(commands, "replay", "check that the scheduler decides as it did when a journal was recorded")
    add_arguments(parser)
    parser.set_defaults(run=run)


def _add_fake_upstream(commands: Commands) -> None:  # type: ignore[valid-type]
    from llmswap.fake_upstream.command import add_arguments, run

    parser = _command(commands, "fake-upstream", "run a simulated inference server")
    add_arguments(parser)
    parser.set_defaults(run=run)


def _config_paths(args: argparse.Namespace) -> tuple[Path | None, Path | None]:
    """Give the config sources, or the default one.

    Raises:
        SystemExit: There is none.
    """
    config, config_dir = args.config, args.config_dir
    if config is None and config_dir is None:
        config = Path("config.yaml")
        if not config.exists():
            print(
                "llmswap: no config: give --config FILE or --config-dir DIR (./config.yaml not found)", file=sys.stderr
            )
            raise SystemExit(EXIT_CONFIG)
    return config, config_dir


def _serve(args: argparse.Namespace) -> int:
    from llmswap.app import App, Options, reader
    from llmswap.proxy.server import BindRefused

    config, config_dir = _config_paths(args)
    tls = _tls(args.tls_cert_file, args.tls_key_file)
    options = Options(
        config=config,
        config_dir=config_dir,
        listen=args.listen or ("127.0.0.1:8443" if tls else "127.0.0.1:8080"),
        watch_config=args.watch_config,
        tls=tls,
        allow_unauthenticated=args.allow_unauthenticated,
        state_dir=args.state_dir,
    )

    async def serve() -> int:
        return await App(options, reader(options)).run()

    try:
        return asyncio.run(serve())
    except BindRefused as error:
        print(f"llmswap: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except OSError as error:
        print(f"llmswap: cannot listen on {options.listen}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Load the certificate.

    Raises:
        SystemExit: Half a pair, or unusable files.
    """
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        print("llmswap: --tls-cert-file and --tls-key-file go together: give both or neither", file=sys.stderr)
        raise SystemExit(EXIT_FAILED)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        print(f"llmswap: cannot use the certificate {cert} with the key {key}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_FAILED) from error
    return context


def _check(args: argparse.Namespace) -> int:
    from llmswap.config.load import load

    config, config_dir = _config_paths(args)
    errors: tuple[ConfigIssue, ...] = ()
    warnings: tuple[ConfigIssue, ...] = ()
    models = 0
    try:
        loaded = load(config, config_dir, os.environ)
        warnings, models = loaded.warnings, len(loaded.fleet.models)
    except ConfigError as error:
        errors = error.issues
    if args.json:
        report = {
            "ok": not errors,
            "errors": [issue.as_dict() for issue in errors],
            "warnings": [issue.as_dict() for issue in warnings],
        }
        print(json.dumps(report, indent=2))
        return EXIT_CONFIG if errors else 0
    for issue in errors:
        print(f"error: {issue}")
    for issue in warnings:
        print(f"warning: {issue}")
    if errors:
        print(f"{len(errors)} error(s)")
        return EXIT_CONFIG
    print(f"ok: {models} model(s), {len(warnings)} warning(s)")
    return 0


def _schema(args: argparse.Namespace) -> int:
    del args
    from llmswap.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def _status(args: argparse.Namespace) -> int:
    from llmswap.proxy.queue_client import fetch_queue, waits_table
    from llmswap.proxy.status_client import fetch_status, status_table

    def show(url: str, api_key: str | None) -> str:
        status = fetch_status(url, api_key)
        if args.json:
            return json.dumps(status, indent=2)
        someone_waits = any(model["waiting"] for model in status["models"])
        waits = waits_table(fetch_queue(url, api_key)["waiting"]) if someone_waits else ""
        return f"{status_table(status)}\n\n{waits}" if waits else status_table(status)

    return _show(args, show)


def _simulate(args: argparse.Namespace) -> int:
    from llmswap.sim.whatif.command import run

    return run(args, time.monotonic)


def _queue(args: argparse.Namespace) -> int:
    from llmswap.proxy.queue_client import fetch_queue, queue_text

    def show(url: str, api_key: str | None) -> str:
        queue = fetch_queue(url, api_key)
        return json.dumps(queue, indent=2) if args.json else queue_text(queue)

    return _show(args, show)


def _show(args: argparse.Namespace, show: Callable[[str, str | None], str]) -> int:
    """Print what a running server has to say."""
    from llmswap.proxy.status_client import StatusError

    try:
        print(show(args.url, args.api_key or os.environ.get("LLMSWAP_API_KEY")))
    except StatusError as error:
        print(f"llmswap: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0
