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
