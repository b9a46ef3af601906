"""The certificate that a live server shows, what is to be said about it, and a check that says it in time."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labwright.core.clock import DAY_S, to_text
from labwright.core.errors import Finding, TerminalError, TransientError
from labwright.maintenance.texts import address_of
from labwright.maintenance.verdicts import is_down
from labwright.plan.steps import StepFunction, step
from labwright.run.context import TaskContext

if TYPE_CHECKING:
    from cryptography import x509

CONNECT_S = 10.0
HANG_UP_S = 1.0


@dataclass(frozen=True)
class Certificate:
    """A certificate, as far as its upkeep is concerned; `pem` is its text."""

    pem: str = field(repr=False)

    @cached_property
    def parsed(self) -> x509.Certificate:
        """The certificate as `cryptography` knows it."""
        from cryptography import x509

        return x509.load_pem_x509_certificate(self.pem.encode())

    @property
    def fingerprint(self) -> str:
        """Its SHA-256, in hexadecimal digits: no other certificate has it."""
        from cryptography.hazmat.primitives import hashes

        return self.parsed.fingerprint(hashes.SHA256()).hex()

    @property
    def expires_at(self) -> datetime:
        """The last moment at which it is valid."""
        return self.parsed.not_valid_after_utc

    @property
    def issuer(self) -> str:
        """Who has issued it, as it says."""
        return self.parsed.issuer.rfc4514_string()

    @property
    def names(self) -> tuple[str, ...]:
        """The names and addresses for which it is valid; of an old one without such a list, its common name."""
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        with contextlib.suppress(x509.ExtensionNotFound):
            listed = self.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            addresses = [str(address) for address in listed.get_values_for_type(x509.IPAddress)]
            return (*listed.get_values_for_type(x509.DNSName), *addresses)
        return tuple(str(each.value) for each in self.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME))

    def days_left(self, now: datetime) -> float:
        """Tell for how many days it is still valid; negative once it has expired."""
        return (self.expires_at - now).total_seconds() / DAY_S

    def is_for(self, host: str) -> bool:
        """Tell whether it is valid for a host: a name, where `*` stands for one part, or an address."""
        with contextlib.suppress(ValueError):
            return any(_address(name) == ipaddress.ip_address(host) for name in self.names)
        host = host.lower().rstrip(".")
        wild = f"*.{host.partition('.')[2]}"
        return any(name.lower() in {host, wild} for name in self.names)

    def described(self) -> dict[str, Any]:
        """Describe it, for outputs: `fingerprint`, `names`, `issuer`, `expires_at`."""
        return {
            "fingerprint": self.fingerprint,
            "names": list(self.names),
            "issuer": self.issuer,
            "expires_at": to_text(self.expires_at),
        }


def certificate_check(
    address: str, *, days: float = 30, host: str = "", timeout: float = CONNECT_S, name: str = ""
) -> StepFunction[..., Any]:
    """Make a step that reports, as a `Finding`, what is due about the certificate that a server shows.

    It expires in less than `days` days, or has expired, or is not for `host`, which is that of the address unless it is
    given. Whether it is trusted is not asked. The step's output is `fingerprint`, `names`, `issuer` and `expires_at`.
    Needs the extra `certificates`.

    Raises in the step:
        TransientError: the server is down.
        TerminalError: it does not speak TLS, or the extra is not installed.
    """

    @step(name=name or "certificate_check")
    async def check(ctx: TaskContext) -> dict[str, Any]:
        """Report what is due about the server's certificate."""
        place, port = address_of(ctx, address)
        shown = await served_certificate(place, port, timeout=timeout)
        found = [
            *([due] if (due := due_text(shown, days, ctx.now())) else []),
            *([] if shown.is_for(host or place) else [f"is not for {host or place}, but for {', '.join(shown.names)}"]),
        ]
        if found:
            raise Finding(f"the certificate at {place}:{port} {', and '.join(found)}")
        return shown.described()

    return check


def due_text(certificate: Certificate, days: float, now: datetime) -> str:
    """Say that a certificate is to be rotated; empty where it is valid for so many days."""
    left = certificate.days_left(now)
    if left > days:
        return ""
    return f"expires in {left:.1f} days" if left > 0 else f"has expired {-left:.1f} days ago"


async def served_certificate(host: str, port: int, *, timeout: float = CONNECT_S) -> Certificate:
    """Ask a live server for its certificate, valid or not.

    Raises:
        TransientError: it is down, or too slow.
        TerminalError: it does not speak TLS, or the extra `certificates` is not installed.
    """
    require_cryptography()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is looked at, not trusted: one that has expired is to be seen, too
    what = f"the server at {host}:{port}"
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
            data: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        await _hang_up(writer)
    except TimeoutError as error:
        raise TransientError(f"{what} did not answer", because=f"it had {timeout:g} s", cure="it may pass") from error
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise is_down(what, error, "transient") from error  # it ended in the middle
    except ssl.SSLError as error:
        raise TerminalError(
            f"{what} speaks no TLS", because=error.reason or str(error), cure="mend the address, or the server"
        ) from error
    except OSError as error:
        raise is_down(what, error, "transient") from error
    return Certificate(ssl.DER_cert_to_PEM_cert(data))


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Say good-bye, and do not wait long for an answer: all is known."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(HANG_UP_S):
            await writer.wait_closed()
    writer.transport.abort()


def require_cryptography() -> None:
    """Insist on the extra.

    Raises:
        TerminalError: it is not installed.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise TerminalError(
            "certificates cannot be read here",
            because="the package cryptography is not installed",
            cure="pip install 'labwright[certificates]', where the workers run",
        )


def _address(name: str) -> object:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
