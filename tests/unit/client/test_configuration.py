"""Where a client connects to, and with which token: the order of the places that are asked."""

import os
import time
from pathlib import Path

import pytest

from gridlane.configuration import (
    ConfigurationError,
    discover,
    is_loopback,
    parse_addresses,
)
from gridlane.tokens import TokenError, TokenFile, wlcg_token


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a token in every place, each telling where it came from."""
    config = tmp_path / ".config" / "gridlane"
    data = tmp_path / ".local" / "share" / "gridlane"
    runtime = tmp_path / "run"
    for folder in (config, data, runtime):
        folder.mkdir(parents=True)
    (tmp_path / "configured").write_text("from-config\n")
    (tmp_path / "named").write_text("from-bearer-token-file\n")
    (config / "config.toml").write_text(
        f'address = "127.0.0.1:1002"\ntoken_file = "{tmp_path}/configured"\n'
        '[addresses]\ntransfer = "127.0.0.1:1012"\n'
    )
    (data / "server.json").write_text('{"address": "127.0.0.1:1003"}')
    (data / "token").write_text("from-local-server\n")
    (runtime / f"bt_u{os.getuid()}").write_text("from-runtime-dir\n")
    return tmp_path


def everything(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "GRIDLANE_ADDRESS": "127.0.0.1:1001",
        "BEARER_TOKEN": "from-bearer-token",
        "BEARER_TOKEN_FILE": str(home / "named"),
        "XDG_RUNTIME_DIR": str(home / "run"),
    }


def test_each_place_is_asked_when_those_before_it_say_nothing(home: Path) -> None:
    environ = everything(home)
    assert discover(token="given", environ=environ).token.current() == "given"
    assert discover(environ=environ).token.current() == "from-bearer-token"
    del environ["BEARER_TOKEN"]
    assert discover(environ=environ).token.current() == "from-bearer-token-file"
    del environ["BEARER_TOKEN_FILE"]
    assert discover(environ=environ).token.current() == "from-runtime-dir"
    environ["XDG_RUNTIME_DIR"] = str(home / "nowhere")
    assert discover(environ=environ).token.current() == "from-config"
    (home / ".config/gridlane/config.toml").unlink()
    assert discover(environ=environ).token.current() == "from-local-server"
    (home / ".local/share/gridlane/token").unlink()
    assert discover(environ=environ).token.current() == ""


def test_the_address_goes_from_arguments_to_environment_to_file_to_local_server(home: Path) -> None:
    environ = everything(home)
    assert discover("127.0.0.1:1000", environ=environ).addresses.default == "127.0.0.1:1000"
    assert discover(environ=environ).addresses.default == "127.0.0.1:1001"
    del environ["GRIDLANE_ADDRESS"]
    configured = discover(environ=environ).addresses
    assert configured.default == "127.0.0.1:1002"
    assert configured.of("transfer") == "127.0.0.1:1012"
    (home / ".config/gridlane/config.toml").unlink()
    assert discover(environ=environ).addresses.default == "127.0.0.1:1003"
    (home / ".local/share/gridlane/server.json").unlink()
    assert discover(environ=environ).addresses.default == "127.0.0.1:50051"


def test_a_data_directory_of_its_own_is_where_the_local_server_is_looked_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("demo")
    found = discover(environ={"HOME": "/nowhere", "GRIDLANE_DATA_DIR": str(tmp_path)})
    assert found.token.current() == "demo"


def test_the_local_servers_token_is_not_sent_to_another_machine(home: Path) -> None:
    environ = {"HOME": str(home)}
    (home / ".config/gridlane/config.toml").unlink()
    assert discover("gridlane.example.org:50051", environ=environ).token.current() == ""
    mixed = "127.0.0.1:50051,transfer=gridlane.example.org:50053"
    assert discover(mixed, environ=environ).token.current() == ""


def test_services_may_have_addresses_of_their_own() -> None:
    found = parse_addresses("localhost:1,workload=h:2, transfer=dns:///t:3")
    assert [found.of(s) for s in ("gateway", "workload", "transfer")] == [
        "localhost:1",
        "h:2",
        "dns:///t:3",
    ]


@pytest.mark.parametrize("text", ["nowhere", "host:", "host:notaport", "host:70000", "queue=h:1"])
def test_an_address_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match=text.split("=")[0].replace(":", ".")):
        parse_addresses(text)


def test_a_configuration_file_that_is_not_toml_is_refused_by_name(home: Path) -> None:
    (home / ".config/gridlane/config.toml").write_text("address = ")
    with pytest.raises(ConfigurationError, match=r"config\.toml is not TOML"):
        discover(environ={"HOME": str(home)})


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/gridlane.sock", True),
        ("dns:///localhost:1", True),
        ("10.0.0.1:1", False),
        ("127.0.0.1.example.org:1", False),
        ("localhost.example.org:1", False),
        ("[2001:db8::1]:1", False),
        ("0.0.0.0:1", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    source = TokenFile(path)
    assert source.current() == "old"
    renewed = tmp_path / "renewed"
    renewed.write_text("new")
    os.utime(renewed, ns=(time.time_ns(), path.stat().st_mtime_ns))
    renewed.replace(path)
    assert source.current() == "new"


def test_a_promised_token_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    source = wlcg_token({"BEARER_TOKEN_FILE": str(tmp_path / "gone")})
    assert source is not None
    with pytest.raises(TokenError, match="gone"):
        source.current()
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(TokenError, match="empty"):
        TokenFile(tmp_path / "empty").current()


def test_the_shared_temporary_folder_counts_only_without_a_runtime_folder(tmp_path: Path) -> None:
    (tmp_path / f"bt_u{os.getuid()}").write_text("shared")
    found = wlcg_token({}, tmp_path)
    assert found is not None
    assert found.current() == "shared"
    assert wlcg_token({"XDG_RUNTIME_DIR": str(tmp_path / "run")}, tmp_path) is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_another_users_file_in_the_shared_temporary_folder_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / f"bt_u{os.getuid()}"
    path.write_text("planted")
    os.chown(path, 12345, 12345)
    assert wlcg_token({}, tmp_path) is None
