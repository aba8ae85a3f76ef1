"""`gridlane-server init` and the commands of one process a service, as operators meet them."""

import json
import signal
import stat
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from split import SERVICES
from support import COMMAND, INHERITED, ServerProcess

from gridlane_server.initialise import initialise

SECRET = {"gridlane.toml", "token", "keys/tokens.pem"}
SECRET |= {f"keys/{service}.pem" for service in SERVICES}
SECRET |= {f"tls/{service}.key" for service in SERVICES}


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """What `init` writes, on free ports; not by the command, which takes a second to start."""
    result = initialise(tmp_path / "made", host="127.0.0.1", first_port=0, database_url="")
    return {
        "directory": str(result.root),
        "config": str(result.config),
        "addresses": result.addresses,
    }


def files(root: Path) -> dict[str, bytes]:
    """Every file below a directory, with its content."""
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def test_init_keeps_what_is_secret_to_its_owner_and_the_rest_readable(made: Any) -> None:
    root = Path(made["directory"])
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in files(root)}
    assert {name for name, mode in modes.items() if mode == 0o600} == SECRET
    assert {mode for name, mode in modes.items() if name not in SECRET} == {0o644}


def test_init_prints_no_secret(command: Any, tmp_path: Path) -> None:
    for output in ("text", "json"):
        root = tmp_path / output
        done = command("init", root, "--first-port", 0, "--output", output)
        assert done.returncode == 0
        assert str(root / "gridlane.toml") in done.stdout
        for name in SECRET - {"gridlane.toml"}:
            assert (root / name).read_text().strip() not in done.stdout


def test_init_never_replaces_anything(command: Any, made: Any) -> None:
    root = Path(made["directory"])
    before = files(root)
    done = command("init", root)
    assert done.returncode == 73
    assert "not empty" in done.stderr
    assert files(root) == before


def test_init_wants_a_database_for_each_service(command: Any, tmp_path: Path) -> None:
    url = "postgresql+asyncpg://user@host/gridlane"
    done = command("init", tmp_path / "new", "--database-url-template", url)
    assert done.returncode == 64
    assert "{service}" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_init_wants_a_host_that_can_be_reached(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be reached"):
        initialise(tmp_path / "new", host=host, first_port=0, database_url="")
    assert not (tmp_path / "new").exists()


def test_init_writes_addresses_of_ipv6_with_brackets(tmp_path: Path) -> None:
    made = initialise(tmp_path / "new", host="::1", first_port=25051, database_url="")
    assert made.addresses["gateway"] == "[::1]:25051"


def test_init_says_in_the_configuration_where_each_database_lies(
    command: Any, tmp_path: Path
) -> None:
    url = "postgresql+asyncpg://user:p%22w@host/gridlane_{service}"
    assert command("init", tmp_path / "new", "--database-url-template", url).returncode == 0
    tables = tomllib.loads((tmp_path / "new" / "gridlane.toml").read_text())
    for service in ("authorization", "transfer", "workload", "reporting"):
        assert tables[service]["database_url"] == url.replace("{service}", service)


def test_each_certificate_is_signed_by_the_authority_and_belongs_to_its_key(made: Any) -> None:
    root = Path(made["directory"])
    authority = x509.load_pem_x509_certificate((root / "ca.pem").read_bytes())
    for service in SERVICES:
        certificate = x509.load_pem_x509_certificate((root / f"tls/{service}.crt").read_bytes())
        certificate.verify_directly_issued_by(authority)
        key = load_pem_private_key((root / f"tls/{service}.key").read_bytes(), None)
        assert certificate.public_key() == key.public_key()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def test_the_files_of_public_keys_hold_no_private_half(made: Any) -> None:
    root = Path(made["directory"])
    for name, count in (("service_keys.json", len(SERVICES)), ("jwks.json", 1)):
        keys = json.loads((root / name).read_text())["keys"]
        assert len(keys) == count
        assert not any("d" in key for key in keys)


def test_the_settings_in_force_show_no_password(command: Any, tmp_path: Path) -> None:
    url = "postgresql+asyncpg://user:hunter2@host/gridlane_{service}"
    command("init", tmp_path / "new", "--database-url-template", url)
    config = tmp_path / "new" / "gridlane.toml"
    done = command("config", "--config", config, "--service", "transfer", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout
    shown = json.loads(done.stdout)
    assert shown["server"]["port"] == 50053
    assert shown["server"]["tls_certificate"] == str(tmp_path / "new" / "tls" / "transfer.crt")
    assert shown["peers"]["workload"] == "127.0.0.1:50054"


def test_a_service_refuses_a_database_that_was_not_migrated(command: Any, made: Any) -> None:
    done = command("authorization", "--config", made["config"])
    assert done.returncode == 69
    assert "gridlane-server migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_is_told_to_migrates_and_a_second_process_of_it_is_refused(
    command: Any, made: Any, tmp_path: Path
) -> None:
    arguments = ["authorization", "--config", made["config"], "--migrate"]
    first = ServerProcess(tmp_path, arguments).start()
    try:
        done = command(*arguments, "--port", 0, "--health-port", 0)
        assert done.returncode == 75
        assert str(first.pid) in done.stderr
        migrated = command("migrate", "--config", made["config"])
        assert migrated.returncode == 75
        assert first.stop() == 0
    finally:
        first.close()


def test_a_service_that_waits_for_the_policy_stops_when_it_is_asked_to(
    command: Any, made: Any, tmp_path: Path
) -> None:
    assert command("migrate", "--config", made["config"]).returncode == 0
    log = tmp_path / "transfer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [COMMAND, "transfer", "--config", made["config"]],
            env=INHERITED,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 30
        while "waiting for Authorization" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("service", "line", "named"),
    [
        ("transfer", "database_url", "GRIDLANE_TRANSFER_DATABASE_URL"),
        ("transfer", "jwks", "GRIDLANE_AUTHORIZATION_JWKS"),
        ("transfer", "service_keys", "GRIDLANE_PEERS__SERVICE_KEYS"),
        ("transfer", "authorization =", "GRIDLANE_PEERS__AUTHORIZATION"),
        ("workload", "transfer =", "GRIDLANE_PEERS__TRANSFER"),
        ("workload", "jobs_directory", "GRIDLANE_WORKLOAD_JOBS_DIRECTORY"),
        ("authorization", "token_key", "GRIDLANE_AUTHORIZATION_TOKEN_KEY"),
    ],
)
def test_a_setting_that_is_missing_is_named(
    command: Any, made: Any, service: str, line: str, named: str
) -> None:
    config = Path(made["config"])
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(text for text in lines if not text.startswith(line)))
    done = command(service, "--config", config)
    assert done.returncode == 64, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_s_key_that_is_none_is_named_and_not_shown(command: Any, made: Any) -> None:
    key = Path(made["directory"]) / "keys" / "transfer.pem"
    key.write_text("no key")
    done = command("transfer", "--config", made["config"])
    assert done.returncode == 69
    assert str(key) in done.stderr
    assert "no key\n" not in done.stderr


def test_a_file_of_tokens_keys_that_is_none_is_named(command: Any, made: Any) -> None:
    file = Path(made["directory"]) / "jwks.json"
    file.write_text("{}")
    done = command("transfer", "--config", made["config"])
    assert done.returncode == 69
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_never_calls_another_machine_in_plain_text(command: Any, made: Any) -> None:
    config = Path(made["config"])
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(text for text in lines if not text.startswith("ca =")))
    elsewhere = {"GRIDLANE_PEERS__AUTHORIZATION": "authorization.example.org:50052"}
    done = command("transfer", "--config", config, **elsewhere)
    assert done.returncode == 64
    assert "GRIDLANE_PEERS__CA" in done.stderr


def test_workload_does_not_run_payloads_as_itself_where_others_reach_it(
    command: Any, made: Any
) -> None:
    done = command("workload", "--config", made["config"], "--host", "0.0.0.0")
    assert done.returncode == 69
    assert "GRIDLANE_WORKLOAD_RUN_AS" in done.stderr


def test_the_embedded_server_does_not_ignore_a_database_s_url(command: Any, made: Any) -> None:
    done = command("all", GRIDLANE_CONFIG=made["config"])
    assert done.returncode == 64
    assert "GRIDLANE_AUTHORIZATION_DATABASE_URL" in done.stderr


def test_the_peers_settings_come_from_the_environment_too(command: Any, made: Any) -> None:
    done = command(
        *("config", "--config", made["config"], "--output", "json"),
        GRIDLANE_PEERS__TRANSFER="dns:///transfer.example.org:50053",
    )
    peers = json.loads(done.stdout)["peers"]
    assert peers["transfer"] == "dns:///transfer.example.org:50053"
    assert peers["workload"] == made["addresses"]["workload"]
