"""One small CA, and a stranger's with the same names: the proof that certificates are checked."""
import os
from dataclasses import dataclass

from .machine import run

TRUST_DOMAIN = "bench.mesh"
IDS = {side: f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{side}" for side in ("client", "server")}
# nginx and HAProxy compare DNS names only.
DNS_NAMES = {side: f"{side}.bench.mesh" for side in IDS}


@dataclass(frozen=True)
class Credential:
    certificate: str
    private_key: str
    combined: str
    """Certificate and key in one file, as HAProxy wants them."""
    bundle: str
    """Whom its holder trusts."""


class Identities:
    def __init__(self, culvert, directory):
        self._culvert = culvert
        self._made = {}
        bundle = ""
        for authority in ("ca", "stranger"):
            path = os.path.join(directory, authority)
            run(culvert, "ca", "init", "--directory", path, "--trust-domain", TRUST_DOMAIN)
            with open(os.path.join(path, "ca.pem"), encoding="ascii") as file:
                bundle += file.read()
            bundle_path = os.path.join(path, "bundle.pem")
            with open(bundle_path, "w", encoding="ascii") as file:
                file.write(bundle)
            for side in IDS:
                for has_name in (False, True):
                    self._made[authority, side, has_name] = self._issue(
                        path, side, has_name, bundle_path)

    def get(self, side, stranger=False, with_dns_name=False):
        """A stranger trusts both CAs and is trusted by nobody: a refusal is the other side's."""
        return self._made["stranger" if stranger else "ca", side, with_dns_name]

    def _issue(self, authority, side, has_name, bundle):
        stem = os.path.join(authority, side + ("-named" if has_name else ""))
        certificate, key, combined = stem + ".pem", stem + ".key", stem + "-combined.pem"
        if has_name:
            self._issue_named(authority, side, certificate, key)
        else:
            run(self._culvert, "ca", "issue", "--directory", authority, "--id", IDS[side],
                "--certificate", certificate, "--private-key", key)
        with open(combined, "w", encoding="ascii") as out:
            os.chmod(combined, 0o600)
            for part in (certificate, key):
                with open(part, encoding="ascii") as file:
                    out.write(file.read())
        return Credential(certificate, key, combined, bundle)

    @staticmethod
    def _issue_named(authority, side, certificate, key):
        extensions = (
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
            f"subjectAltName=critical,URI:{IDS[side]},DNS:{DNS_NAMES[side]}\n")
        request = run(
            "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-keyout", key, "-subj", "/")
        extension_file = certificate + ".ext"
        with open(extension_file, "w", encoding="ascii") as file:
            file.write(extensions)
        run("openssl", "x509", "-req", "-CA", os.path.join(authority, "ca.pem"), "-CAkey",
            os.path.join(authority, "ca.key"), "-days", "1", "-extfile", extension_file, "-out",
            certificate, text=request)
