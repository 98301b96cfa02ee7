"""A broker with many listeners: one for each way in which a client and a broker do not fit."""

import datetime
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.broker.connection import admin_client
from pipeline.broker.local.broker import LocalBroker
from pipeline.broker.local.loopback import HOST, free_port
from pipeline.settings import Settings

USER, PASSWORD = "cam", "cam-secret"
PLAIN_LOGIN = (
    f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
)
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"

PROTOCOLS = {
    "SASL": "SASL_PLAINTEXT",
    "SCRAM": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "SASLTLS": "SASL_SSL",
    "EXPIRED": "SSL",
    "OTHERHOST": "SSL",
    "MUTUAL": "SSL",
    "NAMELESS": "PLAINTEXT",
    "NOBODY": "PLAINTEXT",
}
"""Listeners besides PLAINTEXT."""

ADVERTISED = {"NAMELESS": "broker.invalid:9092", "NOBODY": f"{HOST}:1"}


@dataclass(frozen=True, slots=True)
class SecuredBroker:
    broker: LocalBroker
    addresses: dict[str, str]
    """Of each listener."""
    authority: Path
    """Certificate of the authority that signs the broker."""
    other_authority: Path


class Authority:
    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            self._builder(self._name, self._key, days=30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issued(self, address: str, *, days: int = 30) -> bytes:
        """Return key and certificate of the host `address`, as Kafka's PEM store has them."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = (
            self._builder(subject, key, days=days)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return secret + certificate.public_bytes(serialization.Encoding.PEM) + self.pem

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


@contextmanager
def secured_broker(folder: Path) -> Iterator[SecuredBroker]:
    """Run a broker with all of PROTOCOLS; who comes by PLAINTEXT may do anything."""
    authority, other = Authority("shop"), Authority("somebody else")
    for name, content in {
        "authority.pem": authority.pem,
        "other.pem": other.pem,
        "TLS.pem": authority.issued(HOST),
        "EXPIRED.pem": authority.issued(HOST, days=-1),
        "OTHERHOST.pem": authority.issued("192.0.2.1"),
    }.items():
        (folder / name).write_bytes(content)
    ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", *PROTOCOLS)}
    addresses = {name: f"{HOST}:{port}" for name, port in ports.items()}
    properties = _properties(folder, addresses)
    with LocalBroker(folder / "kafka", port=ports["PLAINTEXT"], properties=properties) as broker:
        yield SecuredBroker(broker, addresses, folder / "authority.pem", folder / "other.pem")


def _properties(folder: Path, addresses: dict[str, str]) -> dict[str, str]:
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **PROTOCOLS}
    clients = {name: address for name, address in addresses.items() if name != "CONTROLLER"}
    properties = {
        "listeners": _listed(addresses),
        "advertised.listeners": _listed({**clients, **ADVERTISED}),
        "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in protocols.items()),
        "controller.quorum.voters": f"1@{addresses['CONTROLLER']}",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    for name in ("SASL", "SASLTLS"):
        listener = f"listener.name.{name.lower()}"
        properties[f"{listener}.sasl.enabled.mechanisms"] = "PLAIN"
        properties[f"{listener}.plain.sasl.jaas.config"] = PLAIN_LOGIN
    properties["listener.name.scram.sasl.enabled.mechanisms"] = "SCRAM-SHA-256"
    properties["listener.name.scram.scram-sha-256.sasl.jaas.config"] = SCRAM_LOGIN
    stores = {"TLS": "TLS", "SASLTLS": "TLS", "MUTUAL": "TLS"}
    for name in ("TLS", "SASLTLS", "EXPIRED", "OTHERHOST", "MUTUAL"):
        listener = f"listener.name.{name.lower()}.ssl"
        properties[f"{listener}.keystore.type"] = "PEM"
        properties[f"{listener}.keystore.location"] = str(folder / f"{stores.get(name, name)}.pem")
        properties[f"{listener}.truststore.type"] = "PEM"
        properties[f"{listener}.truststore.location"] = str(folder / "authority.pem")
        properties[f"{listener}.client.auth"] = "required" if name == "MUTUAL" else "none"
    return properties


def _listed(addresses: dict[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())


TOPIC, GROUP, CLUSTER = 2, 3, 4
"""Kinds of resources (ResourceType of Kafka)."""

ALL, READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 2, 3, 4, 8, 10
"""Operations (AclOperation of Kafka)."""

_LITERAL, _PREFIXED, _ALLOW, _DENY = 3, 4, 3, 2


async def grant(
    settings: Settings, kind: int, name: str, operation: int, *, denied: bool = False
) -> None:
    """Let USER do something, or forbid it, with everything whose name begins with `name`."""
    async with admin_client(settings) as admin:
        answer = await admin._send_request(
            CreateAclsRequest(
                kind,
                name,
                _LITERAL if kind == CLUSTER else _PREFIXED,
                f"User:{USER}",
                "*",
                operation,
                _DENY if denied else _ALLOW,
            )
        )
    assert all(code == 0 for code, *_ in answer.creation_responses), answer


async def lift(settings: Settings, kind: int, name: str, operation: int) -> None:
    """Take back what `grant` with `denied` has forbidden."""
    async with admin_client(settings) as admin:
        answer = await admin._send_request(
            DeleteAclsRequest(kind, name, _PREFIXED, f"User:{USER}", "*", operation, _DENY)
        )
    ((code, _reason, matching),) = answer.filter_responses
    assert (code, len(matching)) == (0, 1), answer
