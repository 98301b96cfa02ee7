"""The reason why a broker cannot be reached, looked for once a client has failed.

aiokafka names the cause in its log alone and raises the same error for all of them. So each address
is tried again, the way the client does it, and what fails is the cause:

| step | what may fail |
|---|---|
| 1. connect | unknown name, nothing listens, no way there, no TLS or another, a certificate |
| 2. log in | SASL that is not asked for, another mechanism, a wrong password |
| 3. ask which brokers there are | no SASL where it is asked for, a broker that hangs |
| 4. connect to each by the address that it advertises | an address that cannot be reached |
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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

_NO_SUCH_MECHANISM = "-"
_NOTHING_LISTENS = "nothing listens there"
_FAULTS = (OSError, KafkaError)

_OF_ANOTHER_HOST = (
    "is of another host: use a name that stands in it in RMOS_BOOTSTRAP_SERVERS ({reason})."
)
_CERTIFICATE_FAULTS = {
    9: "is not valid yet: look at the clock of this machine.",
    10: "is out of date: the broker needs a new one.",
    62: _OF_ANOTHER_HOST,
    64: _OF_ANOTHER_HOST,
}
"""By the verification errors of X509_verify_cert(3)."""

_OF_NOBODY = (
    "is signed by nobody whom this machine knows: name its certificate authority in "
    "RMOS_SSL_CAFILE ({reason})."
)


async def why_unreachable(options: Mapping[str, Any], *, is_ours: bool) -> str | None:
    """Return one sentence for each of the servers, unless one of them can be used.

    Args:
        options: Those of the client: see `client_options`.
        is_ours: Whether the broker is one that `rmos broker start` starts.
    """
    ways = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    addresses = sorted(
        (host, port) for host, port, _ in collect_hosts(options["bootstrap_servers"])
    )
    found = await asyncio.gather(*(_Probe(*each, ways, is_ours).why() for each in addresses))
    # One server is enough to begin with.
    return None if None in found else " ".join(dict.fromkeys(map(str, found)))


@dataclass(frozen=True, slots=True)
class _Probe:
    """Tries at one address what a client has tried, and names what fails."""

    host: str
    port: int
    options: Mapping[str, Any]
    is_ours: bool

    async def why(self) -> str | None:
        try:
            connection = await self.connected()
        except _FAULTS as error:
            return await self.why_not_connected(error)
        try:
            metadata = await connection.send(MetadataRequest([]))
        except TimeoutError:
            return self._hangs
        except _FAULTS:
            return await self._why_closed()
        finally:
            connection.close()
        if not metadata.brokers:
            return f"{self._broker} is not ready yet."
        return await self._why_not_advertised(metadata)

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def _broker(self) -> str:
        return f"The Kafka broker at {self.address}"

    @property
    def _protocol(self) -> str:
        return str(self.options["security_protocol"])

    @property
    def _hangs(self) -> str:
        return (
            f"{self._broker} takes connections and does not answer within {PROBE_SECONDS:g} s: "
            "it hangs, or something else listens there."
        )

    async def connected(self, **changes: Any) -> AIOKafkaConnection:  # noqa: ANN401
        return await create_conn(
            self.host,
            self.port,
            client_id="rmos-diagnosis",
            request_timeout_ms=int(PROBE_SECONDS * 1000),
            **{**self.options, **changes},
        )

    async def _why_not_advertised(self, metadata: Any) -> str | None:  # noqa: ANN401 - aiokafka has no types
        """Look at the addresses by which the brokers of a cluster want to be called."""
        for _node, host, port, *_ in metadata.brokers:
            other = replace(self, host=host, port=port)
            if other == self:
                continue
            try:
                (await other.connected()).close()
            except _FAULTS as error:
                why = _network_cause(error) or await other.why_not_connected(error)
                return (
                    f"{self._broker} answers, and sends its clients on to {other.address}, which "
                    f"this machine does not reach ({why.rstrip('.')}): set its "
                    "advertised.listeners to an address that clients reach."
                )
        return None

    async def why_not_connected(self, error: BaseException) -> str:
        if isinstance(error, SaslAuthenticationFailed):
            user, mechanism = self.options["sasl_plain_username"], self.options["sasl_mechanism"]
            return (
                f"{self._broker} refuses the user {user} ({mechanism}): "
                "RMOS_SASL_USERNAME or RMOS_SASL_PASSWORD is wrong."
            )
        if isinstance(error, UnsupportedSaslMechanismError | IllegalSaslStateError):
            return await self._why_another_sasl()
        if (why := _network_cause(error)) is not None:
            way_out = f"{why}; start that broker"
            if self.is_ours and why == _NOTHING_LISTENS:
                way_out = "start one with `rmos broker start`"
            return (
                f"No Kafka broker answers at {self.address} ({self._protocol}): {way_out}, or "
                "set RMOS_BOOTSTRAP_SERVERS."
            )
        return self._why_no_certificate(error) or await self._why_another_protocol(error)

    def _why_no_certificate(self, error: BaseException) -> str | None:
        refused = next((each for each in _causes(error) if isinstance(each, ssl.SSLError)), None)
        if isinstance(refused, ssl.SSLCertVerificationError):
            fault = _CERTIFICATE_FAULTS.get(refused.verify_code, _OF_NOBODY)
            whose = f"The certificate of the Kafka broker at {self.address}"
            return f"{whose} {fault.format(reason=refused.verify_message)}"
        if refused is not None and "CERTIFICATE" in (refused.reason or ""):
            return (
                f"{self._broker} takes no client without a certificate that it knows: set "
                "RMOS_SSL_CERTFILE and RMOS_SSL_KEYFILE."
            )
        return None

    async def _why_another_protocol(self, error: BaseException) -> str:
        """Find out what the other side speaks: both kinds of TLS fault look like a lost line."""
        asks_tls = self._protocol.endswith("SSL")
        if not await self._opens():
            return f"Nothing answers at {self.address}: no connection within {PROBE_SECONDS:g} s."
        if isinstance(error, TimeoutError) and not asks_tls:
            # Who speaks TLS would have hung up.
            return self._hangs
        speaks_tls = await self._opens(_trusting_context())
        if speaks_tls and not asks_tls:
            return (
                f"{self._broker} speaks TLS, RMOS_SECURITY_PROTOCOL={self._protocol} does not: "
                "set SSL or SASL_SSL."
            )
        if not speaks_tls and asks_tls and await self._speaks_plain():
            return (
                f"{self._broker} does not speak TLS, RMOS_SECURITY_PROTOCOL={self._protocol} "
                "does: set PLAINTEXT or SASL_PLAINTEXT."
            )
        return self._hangs

    async def _opens(self, tls: ssl.SSLContext | None = None) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                _, writer = await asyncio.open_connection(self.host, self.port, ssl=tls)
        except OSError:
            return False
        writer.close()
        return True

    async def _speaks_plain(self) -> bool:
        try:
            (await self.connected(security_protocol="PLAINTEXT")).close()
        except _FAULTS:
            return False
        return True

    async def _why_another_sasl(self) -> str:
        mechanisms = await self._mechanisms()
        if not mechanisms:
            other = "SSL" if self._protocol == "SASL_SSL" else "PLAINTEXT"
            return (
                f"{self._broker} takes no SASL, RMOS_SECURITY_PROTOCOL={self._protocol} needs it: "
                f"set {other}."
            )
        return (
            f"{self._broker} does not take RMOS_SASL_MECHANISM={self.options['sasl_mechanism']}; "
            f"it takes {', '.join(mechanisms)}."
        )

    async def _why_closed(self) -> str:
        mechanisms = await self._mechanisms()
        if not mechanisms:
            return f"{self._broker} closes the connection."
        other = "SASL_SSL" if self._protocol == "SSL" else "SASL_PLAINTEXT"
        return (
            f"{self._broker} asks for SASL ({', '.join(mechanisms)}), RMOS_SECURITY_PROTOCOL="
            f"{self._protocol} has none: set {other}, RMOS_SASL_MECHANISM, RMOS_SASL_USERNAME and "
            "RMOS_SASL_PASSWORD."
        )

    async def _mechanisms(self) -> list[str]:
        """Return the SASL mechanisms of the broker; none where it takes no SASL."""
        try:
            connection = await self.connected(
                security_protocol=self._protocol.removeprefix("SASL_")
            )
            try:
                answer = await connection.send(SaslHandShakeRequest(_NO_SUCH_MECHANISM))
            finally:
                connection.close()
        except _FAULTS:
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


def _all_refused(error: BaseException) -> bool:
    """Return whether every address of a name refused; asyncio then raises a plain OSError."""
    text = str(error) if isinstance(error, OSError) else ""
    refused = text.count(f"[Errno {errno.ECONNREFUSED}]")
    return text.startswith("Multiple exceptions") and text.count("[Errno") == refused


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _trusting_context() -> ssl.SSLContext:
    """Return a context with which a TLS handshake succeeds, whatever the other side is."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
