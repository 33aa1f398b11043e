"""A client of the Workload API that is not ours.

Usage: client.py ENDPOINT [UID] context | bundles | call METHOD [METADATA...]
"""

import os
import sys

import grpc
from spiffe import TrustDomain, WorkloadApiClient

endpoint, *words = sys.argv[1:]
if words[0].isdigit():
    uid = int(words.pop(0))
    os.setgid(uid)
    os.setuid(uid)
if words[0] == "context":
    with WorkloadApiClient(endpoint) as client:
        context = client.fetch_x509_context()
    for svid in context.x509_svids:
        # Parsing has checked that the key is the certificate's.
        seconds = svid.leaf.not_valid_after_utc - svid.leaf.not_valid_before_utc
        print("svid", svid.spiffe_id, int(seconds.total_seconds()))
    for name in words[1:]:
        bundle = context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(name))
        print("bundle", name, len(bundle.x509_authorities) if bundle else 0)
elif words[0] == "bundles":
    with WorkloadApiClient(endpoint) as client:
        bundles = client.fetch_x509_bundles()
    for name in words[1:]:
        bundle = bundles.get_bundle_for_trust_domain(TrustDomain(name))
        print("bundle", name, len(bundle.x509_authorities) if bundle else 0)
elif words[0] == "call":
    metadata = [tuple(word.split("=")) for word in words[2:]]
    with grpc.insecure_channel(endpoint.replace("unix://", "unix:")) as channel:
        try:
            for message in channel.unary_stream(words[1])(b"", metadata=metadata, timeout=20):
                print("message", len(message))
                break
        except grpc.RpcError as error:
            print("error", error.code().name, error.details())
