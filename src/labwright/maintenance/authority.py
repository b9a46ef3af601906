"""Who issues certificates: a small authority whose certificate and key are files of the site, or one of your own."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from labwright.core.errors import TerminalError
from labwright.maintenance.certificates import Certificate, require_cryptography

if TYPE_CHECKING:
    from cryptography import x509

EARLIER = timedelta(minutes=5)
"""By so much a certificate is valid before it is issued: other machines' clocks may be behind."""
LONGEST_COMMON_NAME = 64


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate with its secret key, and the certificates between it and the authority's, if any; PEM texts."""

    certificate: Certificate
    key: str = field(repr=False)
    chain: str = ""


class CertificateAuthority(Protocol):
    """Who issues certificates; a site provides one as its client `certificate_authority`."""

    async def issue(self, names: Sequence[str], *, days: float, now: datetime) -> Issued:
        """Issue a certificate for names and addresses, the first of which is its own, valid for so many days."""
        ...

    async def has_issued(self, certificate: Certificate) -> bool:
        """Tell whether a certificate is one of ours, and so is managed."""
        ...


class Authority:
    """An authority in two PEM files, such as a laboratory has for its own machines.

    It signs with what its key is: RSA or elliptic curves with SHA-256, Ed25519 or Ed448. The keys that it makes are
    P-256.
    """

    def __init__(self, certificate: Certificate, key: Any) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def read(cls, certificate: Path, key: Path, *, password: str | None = None) -> Self:
        """Read the two files; `password` is the key's, if it has one.

        Raises:
            TerminalError: they cannot be read, or do not belong together.
        """
        require_cryptography()
        from cryptography.hazmat.primitives import serialization

        try:
            authority = Certificate(certificate.read_text(encoding="ascii"))
            secret = serialization.load_pem_private_key(key.read_bytes(), password.encode() if password else None)
            belongs = _public(authority.parsed.public_key()) == _public(secret.public_key())
        except (OSError, ValueError, TypeError) as error:
            raise TerminalError(
                "the certificate authority cannot be read",
                because=f"{certificate}, {key}: {error}",
                cure="name two PEM files, and the key's password where it has one",
            ) from error
        if not belongs:
            raise TerminalError(
                "the certificate authority cannot be used",
                because=f"{key} is not the key of {certificate}",
                cure="name files that belong together",
            )
        return cls(authority, secret)

    async def issue(self, names: Sequence[str], *, days: float, now: datetime) -> Issued:
        """Issue a certificate, valid at the longest as long as the authority's own.

        Raises:
            TerminalError: there is no name, or the authority's own certificate has expired.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        if not names:
            raise TerminalError("a certificate for nobody is not issued", because="it names no host", cure="name one")
        if self.certificate.days_left(now) <= 0:
            raise TerminalError(
                f"the authority {self.certificate.issuer} issues nothing any more",
                because=f"its own certificate has expired at {self.certificate.expires_at:%Y-%m-%d}",
                cure="make a new authority, and have its users trust it",
            )
        key = ec.generate_private_key(ec.SECP256R1())
        ends = min(now + timedelta(days=days), self.certificate.expires_at)
        made = _request(names, key.public_key(), self.certificate.parsed, now - EARLIER, ends).sign(
            self._key, _hash_for(self._key)
        )
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(
            certificate=Certificate(made.public_bytes(serialization.Encoding.PEM).decode()), key=text.decode()
        )

    async def has_issued(self, certificate: Certificate) -> bool:
        """Tell whether a certificate carries this authority's signature."""
        from cryptography.exceptions import InvalidSignature

        with contextlib.suppress(InvalidSignature, ValueError, TypeError):
            certificate.parsed.verify_directly_issued_by(self.certificate.parsed)
            return True
        return False


def _request(
    names: Sequence[str], key: Any, authority: x509.Certificate, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    own = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= LONGEST_COMMON_NAME else []
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(own))
        .issuer_name(authority.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=not own)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_identifier_of(authority), critical=False)
    )


def _identifier_of(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Name the authority's key as its own certificate does, or by the key itself."""
    from cryptography import x509

    with contextlib.suppress(x509.ExtensionNotFound):
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(cast("Any", authority.public_key()))


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _hash_for(key: Any) -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _public(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
