"""A certification authority on Python's cryptography, for certificates whose lives are counted in
seconds and for many of them at once.

Usage: issuer.py DIRECTORY TRUSTDOMAIN

Makes DIRECTORY/ca.pem and says "ready". Requests are JSON, one a line; so are the answers:
  {"do": "issue", "name": N, "uri": U, "from": S, "to": S, "count": C}
      certificates valid from and to seconds from now: N-I.pem and .key (PEM), .der and .p8 (DER),
      .scalar (the private scalar's 32 bytes); answered with {"serials": [...]}
  {"do": "crl", "name": N, "serials": [...], "from": S, "to": S}
      a revocation list, N.crl (PEM), in one step
"""

import datetime
import json
import os
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

directory, trust_domain = sys.argv[1:]
authority = ec.generate_private_key(ec.SECP256R1())
own_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain),
                      x509.NameAttribute(NameOID.SERIAL_NUMBER, os.urandom(8).hex())])


def moment(seconds):
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)


def usage(**which):
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: which.get(name, False) for name in names})


def write(name, data, mode=0o644):
    path = f"{directory}/{name}"
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    os.rename(path + ".new", path)


def uri(text):
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text)])


def make_authority():
    key = authority.public_key()
    certificate = (
        x509.CertificateBuilder().subject_name(own_name).issuer_name(own_name).public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(-86400)).not_valid_after(moment(864000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(uri(f"spiffe://{trust_domain}"), critical=False)
        .sign(authority, hashes.SHA256()))
    write("ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    write("ca.der", certificate.public_bytes(serialization.Encoding.DER))


def issue(request):
    serials = []
    for number in range(request["count"]):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE")]))
            .issuer_name(own_name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment(request["from"])).not_valid_after(moment(request["to"]))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
                critical=False)
            .add_extension(uri(request["uri"]), critical=False)
            .sign(authority, hashes.SHA256()))
        base = f"{request['name']}-{number}"
        encoding, private = serialization.Encoding, serialization.PrivateFormat.PKCS8
        plain = serialization.NoEncryption()
        write(base + ".pem", certificate.public_bytes(encoding.PEM))
        write(base + ".der", certificate.public_bytes(encoding.DER))
        write(base + ".key", key.private_bytes(encoding.PEM, private, plain), 0o600)
        write(base + ".p8", key.private_bytes(encoding.DER, private, plain), 0o600)
        write(base + ".scalar", key.private_numbers().private_value.to_bytes(32, "big"), 0o600)
        # In whole bytes, as openssl prints it.
        serial = f"{certificate.serial_number:X}"
        serials.append("0" * (len(serial) % 2) + serial)
    return {"serials": serials}


def crl(request):
    builder = (x509.CertificateRevocationListBuilder().issuer_name(own_name)
               .last_update(moment(request["from"])).next_update(moment(request["to"])))
    for serial in request["serials"]:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
            .revocation_date(moment(request["from"])).build())
    data = builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    write(request["name"] + ".crl", data)
    return {"serials": []}


make_authority()
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"issue": issue, "crl": crl}[request["do"]](request)), flush=True)
