"""How settings become client options, and what an unreachable broker is called."""

from pathlib import Path

import pytest

from pipeline.broker.connection import client_options, describe_cluster
from pipeline.broker.local.loopback import free_port
from pipeline.errors import BrokerError, InputError
from pipeline.settings import read_settings


def test_plaintext_needs_servers_and_nothing_else() -> None:
    options = client_options(read_settings(bootstrap_servers="a:1,b:2"))
    assert options == {"bootstrap_servers": "a:1,b:2", "security_protocol": "PLAINTEXT"}


def test_sasl_over_tls_carries_name_password_and_context() -> None:
    options = client_options(
        read_settings(security_protocol="SASL_SSL", sasl_username="u", sasl_password="p")
    )
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "p")
    assert options["ssl_context"].check_hostname


@pytest.mark.parametrize("text", ["p\u00e4ss word", "p\u00e4ss word\n", "p\u00e4ss word\r\n"])
def test_a_password_may_be_in_a_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(text.encode())
    wanted = {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "u"}
    options = client_options(read_settings(**wanted, sasl_password_file=file))
    assert options["sasl_plain_password"] == "p\u00e4ss word"
    with pytest.raises(InputError, match="RMOS_SASL_PASSWORD and RMOS_SASL_PASSWORD_FILE are both"):
        client_options(read_settings(**wanted, sasl_password="p", sasl_password_file=file))


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["missing", "no UTF-8"])
def test_a_file_of_a_password_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=rf"^RMOS_SSL_KEYFILE_PASSWORD_FILE {file} cannot be read"):
        client_options(read_settings(security_protocol="SSL", ssl_keyfile_password_file=file))


def test_sasl_without_a_password_is_refused_by_the_names_of_the_settings() -> None:
    with pytest.raises(InputError, match="RMOS_SASL_USERNAME and RMOS_SASL_PASSWORD"):
        client_options(read_settings(security_protocol="SASL_PLAINTEXT", sasl_username="u"))


def test_a_certificate_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="RMOS_SSL_CAFILE"):
        client_options(read_settings(security_protocol="SSL", ssl_cafile=tmp_path / "none.pem"))


async def test_where_nobody_listens_the_message_names_servers_and_ways_out() -> None:
    servers = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerError, match=rf"{servers} .*RMOS_BOOTSTRAP_SERVERS"):
        await describe_cluster(read_settings(bootstrap_servers=servers))
