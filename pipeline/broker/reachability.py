"""Why a broker cannot be reached: asked of the broker itself, once a client has failed.

aiokafka names the cause in its log alone and raises the same error for all of them. So each address
is tried again, the way the client does it, and what fails is the cause:

| step | what may fail |
|---|---|
| 1. connect | unknown name, nothing listens, no way there, no TLS or another, a certificate |
| 2. log in | SASL that is not asked for, another mechanism, a wrong password |
| 3. ask which brokers there are | no SASL where it is asked for, a broker that hangs |
| 4. connect to each by the address that it advertises | an address that nobody reaches |
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

PROBE_SECONDS = 3.0
"""Longest wait for each step."""

_NOT_YET_VALID, _EXPIRED, _OTHER_NAMES = 9, 10, (62, 64)
"""Verification errors of X509_verify_cert(3)."""

_NO_SUCH_MECHANISM = "-"
_NOTHING_LISTENS = "nothing listens there"

Address = tuple[str, int]


class Reachability:
    """Tries what a client has tried, and says what fails."""

    def __init__(self, options: Mapping[str, Any], *, is_ours: bool) -> None:
        """Prepare; nothing is connected yet.

        Args:
            options: Those of the client: see `client_options`.
            is_ours: Whether the broker is one that `rmos broker start` starts.
        """
        self._servers = str(options["bootstrap_servers"])
        self._protocol = str(options["security_protocol"])
        self._options = {
            name: value for name, value in options.items() if name != "bootstrap_servers"
        }
        self._is_ours = is_ours

    async def why(self) -> str | None:
        """Return one sentence for each of the servers, unless one of them can be used."""
        addresses = [(host, port) for host, port, _ in collect_hosts(self._servers)]
        found = await asyncio.gather(*map(self._why_not, sorted(addresses)))
        if None in found:
            # One server is enough to begin with.
            return None
        return " ".join(dict.fromkeys(map(str, found)))

    async def _why_not(self, address: Address) -> str | None:
        try:
            connection = await self._connected(address)
        except (OSError, KafkaError) as error:
            return await self._named(address, error)
        try:
            metadata = await connection.send(MetadataRequest([]))
        except TimeoutError:
            return _hangs(address)
        except (OSError, KafkaError):
            mechanisms = await self._mechanisms(address)
            if not mechanisms:
                return f"The Kafka broker at {_text(address)} closes the connection."
            return self._needs_sasl(address, mechanisms)
        finally:
            connection.close()
        return await self._why_not_advertised(address, metadata)

    async def _why_not_advertised(self, address: Address, metadata: Any) -> str | None:  # noqa: ANN401 - aiokafka has no types
        """Look at the addresses by which the brokers of a cluster want to be called."""
        if not metadata.brokers:
            return f"The Kafka broker at {_text(address)} is not ready yet."
        for _node, host, port, *_ in metadata.brokers:
            advertised = (host, port)
            if advertised == address:
                continue
            try:
                (await self._connected(advertised)).close()
            except (OSError, KafkaError) as error:
                why = _network_cause(error) or await self._named(advertised, error)
                return (
                    f"The Kafka broker at {_text(address)} answers, and sends its clients on to "
                    f"{_text(advertised)}, which this machine does not reach ({why.rstrip('.')}): "
                    "set its advertised.listeners to an address that clients reach."
                )
        return None

    async def _connected(self, address: Address, **changes: Any) -> AIOKafkaConnection:  # noqa: ANN401
        return await create_conn(
            *address,
            client_id="rmos-diagnosis",
            request_timeout_ms=int(PROBE_SECONDS * 1000),
            **{**self._options, **changes},
        )

    async def _named(self, address: Address, error: BaseException) -> str:
        """Say what kept us from `address`."""
        if isinstance(error, SaslAuthenticationFailed):
            user, mechanism = (
                self._options[name] for name in ("sasl_plain_username", "sasl_mechanism")
            )
            return (
                f"The Kafka broker at {_text(address)} refuses the user {user} ({mechanism}): "
                "RMOS_SASL_USERNAME or RMOS_SASL_PASSWORD is wrong."
            )
        if isinstance(error, UnsupportedSaslMechanismError | IllegalSaslStateError):
            return await self._other_sasl(address)
        return (
            self._named_by_network(address, error)
            or _named_by_certificate(address, error)
            or await self._named_by_trying(address, error)
        )

    def _named_by_network(self, address: Address, error: BaseException) -> str | None:
        why = _network_cause(error)
        if why is None:
            return None
        way_out = f"{why}; start that broker"
        if self._is_ours and why == _NOTHING_LISTENS:
            way_out = "start one with `rmos broker start`"
        return (
            f"No Kafka broker answers at {_text(address)} ({self._protocol}): {way_out}, or "
            "set RMOS_BOOTSTRAP_SERVERS."
        )

    async def _named_by_trying(self, address: Address, error: BaseException) -> str:
        """Find out what the other side speaks: both kinds of TLS fault look like a lost line."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                _, writer = await asyncio.open_connection(*address)
            writer.close()
        except OSError:
            return f"Nothing answers at {_text(address)}: no connection within {PROBE_SECONDS:g} s."
        if isinstance(error, TimeoutError) and not self._protocol.endswith("SSL"):
            # Who speaks TLS would have hung up.
            return _hangs(address)
        speaks_tls = await _speaks_tls(address)
        if speaks_tls and not self._protocol.endswith("SSL"):
            return (
                f"The Kafka broker at {_text(address)} speaks TLS, "
                f"RMOS_SECURITY_PROTOCOL={self._protocol} does not: set SSL or SASL_SSL."
            )
        if not speaks_tls and self._protocol.endswith("SSL") and await self._speaks_plain(address):
            return (
                f"The Kafka broker at {_text(address)} does not speak TLS, "
                f"RMOS_SECURITY_PROTOCOL={self._protocol} does: set PLAINTEXT or SASL_PLAINTEXT."
            )
        return _hangs(address)

    async def _speaks_plain(self, address: Address) -> bool:
        try:
            (await self._connected(address, security_protocol="PLAINTEXT")).close()
        except (OSError, KafkaError):
            return False
        return True

    async def _other_sasl(self, address: Address) -> str:
        mechanisms = await self._mechanisms(address)
        if not mechanisms:
            other = self._protocol.removeprefix("SASL_")
            other = "SSL" if other == "SSL" else "PLAINTEXT"
            return (
                f"The Kafka broker at {_text(address)} takes no SASL, "
                f"RMOS_SECURITY_PROTOCOL={self._protocol} needs it: set {other}."
            )
        return (
            f"The Kafka broker at {_text(address)} does not take "
            f"RMOS_SASL_MECHANISM={self._options['sasl_mechanism']}; "
            f"it takes {', '.join(mechanisms)}."
        )

    def _needs_sasl(self, address: Address, mechanisms: list[str]) -> str:
        other = "SASL_SSL" if self._protocol == "SSL" else "SASL_PLAINTEXT"
        return (
            f"The Kafka broker at {_text(address)} asks for SASL ({', '.join(mechanisms)}), "
            f"RMOS_SECURITY_PROTOCOL={self._protocol} has none: set {other}, RMOS_SASL_MECHANISM, "
            "RMOS_SASL_USERNAME and RMOS_SASL_PASSWORD."
        )

    async def _mechanisms(self, address: Address) -> list[str]:
        """Return the SASL mechanisms of the broker; none where it takes no SASL."""
        protocol = self._protocol.removeprefix("SASL_")
        try:
            connection = await self._connected(address, security_protocol=protocol)
            try:
                answer = await connection.send(SaslHandShakeRequest(_NO_SUCH_MECHANISM))
            finally:
                connection.close()
        except (OSError, KafkaError):
            return []
        return sorted(answer.enabled_mechanisms)


def _network_cause(error: BaseException) -> str | None:
    if isinstance(error, socket.gaierror):
        return "the name is unknown"
    if isinstance(error, ConnectionRefusedError) or _all_refused(error):
        return _NOTHING_LISTENS
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "no way leads there"
    return None


def _named_by_certificate(address: Address, error: BaseException) -> str | None:
    refused = next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)
    if isinstance(refused, ssl.SSLCertVerificationError):
        whose = f"The certificate of the Kafka broker at {_text(address)}"
        if refused.verify_code == _EXPIRED:
            return f"{whose} is out of date: the broker needs a new one."
        if refused.verify_code == _NOT_YET_VALID:
            return f"{whose} is not valid yet: look at the clock of this machine."
        if refused.verify_code in _OTHER_NAMES:
            return (
                f"{whose} is of another host: use a name that stands in it in "
                f"RMOS_BOOTSTRAP_SERVERS ({refused.verify_message})."
            )
        return (
            f"{whose} is signed by nobody whom this machine knows: name its certificate "
            f"authority in RMOS_SSL_CAFILE ({refused.verify_message})."
        )
    if refused is not None and "CERTIFICATE" in (refused.reason or ""):
        return (
            f"The Kafka broker at {_text(address)} takes no client without a certificate that it "
            "knows: set RMOS_SSL_CERTFILE and RMOS_SSL_KEYFILE."
        )
    return None


def _all_refused(error: BaseException) -> bool:
    """Tell whether every address of a name refused; asyncio then raises a plain OSError."""
    return (
        isinstance(error, OSError)
        and str(error).startswith("Multiple exceptions")
        and (str(error).count("[Errno") == str(error).count(f"[Errno {errno.ECONNREFUSED}]"))
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


async def _speaks_tls(address: Address) -> bool:
    """Tell whether a TLS handshake succeeds, whoever the other side is."""
    anybody = ssl.create_default_context()
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(*address, ssl=anybody)
    except OSError:
        return False
    writer.close()
    return True


def _hangs(address: Address) -> str:
    return (
        f"The Kafka broker at {_text(address)} takes connections and does not answer within "
        f"{PROBE_SECONDS:g} s: it hangs, or something else listens there."
    )


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
