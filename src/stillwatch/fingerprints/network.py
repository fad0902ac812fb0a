"""Where a request came from: address, the network it lies in, its autonomous system and country."""

from __future__ import annotations

import pyarrow as pa

from stillwatch.fingerprints import Fingerprint, Values, column
from stillwatch.privacy import Privacy


def observe(batch: pa.RecordBatch, privacy: Privacy) -> dict[str, Values]:
    """Keyed hashes of address, /24 or /48, and country; the autonomous system as it is."""
    ip = column(batch, "ip")
    return {
        "address": privacy.hash_address(ip),
        "net": privacy.hash_prefix(ip),
        "asn": column(batch, "asn", pa.int32()),
        "country": privacy.hash_strings(column(batch, "country"), "country"),
    }


FINGERPRINT = Fingerprint(
    name="network",
    meaning="where a request came from",
    needs=("ip",),
    kinds={
        "address": "the whole client address, however it was spelt",
        "net": "the /24 (IPv4) or /48 (IPv6) the address lies in",
        "country": "the country of the address",
    },
    columns=("address", "net", "asn", "country"),
    observe=observe,
)
