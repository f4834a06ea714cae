"""Certificates for tests: an authority of their own, and what it signs for this host and for clients."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_SIGNS = x509.KeyUsage(
    **dict.fromkeys((*_USES, "encipher_only", "decipher_only"), False), key_cert_sign=True, crl_sign=True
)


@dataclass(frozen=True)
class Certified:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    @property
    def pair(self) -> tuple[str, str]:
        """Both, as the library `requests` takes them."""
        return str(self.certificate), str(self.key)


class Authority:
    """Signs certificates; its own is in `ca_file`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        """Makes its key."""
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca_file = folder / f"{name}.pem"
        own = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        # From 3.13 on Python takes no authority that does not say that it signs certificates.
        own = own.add_extension(_SIGNS, True)
        self.ca_file.write_bytes(_pem(own.sign(self._key, hashes.SHA256())))

    def server(self, name: str = "server") -> Certified:
        """Returns a certificate for localhost and its addresses."""
        addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses])
        return self._signed(name, names, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str = "client") -> Certified:
        """Returns a certificate for a client."""
        names = x509.SubjectAlternativeName([x509.DNSName(f"{name}.test")])
        return self._signed(name, names, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _signed(self, name: str, names: x509.SubjectAlternativeName, usage: x509.ObjectIdentifier) -> Certified:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key).add_extension(names, False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        made = Certified(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        made.certificate.write_bytes(_pem(builder.sign(self._key, hashes.SHA256())))
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        made.key.chmod(0o600)
        return made

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        of_authority = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(of_authority), False)
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
