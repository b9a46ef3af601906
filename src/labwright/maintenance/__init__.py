"""Steps for the upkeep of machines and services, each safe to repeat: gates, checks, and the rotation of certificates.

A *gate* stands at the head of a task: what passes by itself is a `TransientError`, what needs a person a
`TerminalError`. A *check* never fails because of what it finds: that something is due is a `Finding`. Each function
here makes a step, from texts in which facts of the target stand in braces: `http_gate("{url}/healthz")`.
"""

from labwright.maintenance.authority import Authority, CertificateAuthority, Issued
from labwright.maintenance.certificates import Certificate, certificate_check, served_certificate
from labwright.maintenance.files import ensure_file, file_check, space_check
from labwright.maintenance.http import http_check, http_gate
from labwright.maintenance.processes import process_check, tell_process
from labwright.maintenance.rotation import certificate_rotation, rotation_steps
from labwright.maintenance.services import service_check, service_gate

__all__ = [
    "Authority",
    "Certificate",
    "CertificateAuthority",
    "Issued",
    "certificate_check",
    "certificate_rotation",
    "ensure_file",
    "file_check",
    "http_check",
    "http_gate",
    "process_check",
    "rotation_steps",
    "served_certificate",
    "service_check",
    "service_gate",
    "space_check",
    "tell_process",
]
