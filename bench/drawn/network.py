"""Countries, networks, pools of addresses and clients."""

from dataclasses import dataclass

import numpy as np

from .priors import DAY, HOUR, mix, unit

# code, weight, hours from UTC, public mail domain, banks
COUNTRIES = (
    "US 26 -6|IN 12 5|GB 6 0|DE 6 1|FR 4 1|BR 6 -3|JP 5 9|CA 3 -5|KR 4 9|ID 3 7|ES 2 1|IT 2 1|NL 2 1|PL 2 1|VN 2 7"
    "|PH 2 8|MX 2 -6|TR 2 3|AU 2 10|SG 2 8|NG 1 1|PK 1 5|UA 1 2|SE 1 1|TW 2 8|HK 2 8|AE 1 4|EG 1 2|AR 1 -3|ZA 1 2"
)
CODES = np.array([line.split()[0] for line in COUNTRIES.split("|")], dtype=object)
WEIGHTS = np.array([float(line.split()[1]) for line in COUNTRIES.split("|")])
WEIGHTS = WEIGHTS / WEIGHTS.sum()
OFFSETS = np.array([int(line.split()[2]) for line in COUNTRIES.split("|")])
FOREVER, DAYS, HOURLY, EACH = 0, 1, 2, 3
AGENTS = ("tern-cli", "patchwork", "codewright", "loomdev", "gitmate", "osprey-code", "quill-agent", "forgeline")

LIBRARIES = (
    ("lumen-python/1.{} httpx/0.28", "python", 14),
    ("python-requests/2.{}", "python", 5),
    ("lumen-node/0.{}", "node", 10),
    ("chainwork/0.{}", "python", 6),
    ("Go-http-client/1.{}", "go", 2),
    ("okhttp/4.{}", "java", 3),
    ("curl/8.{}", "curl", 4),
    ("flowbot/1.{}", "node", 4),
)


@dataclass(frozen=True, slots=True)
class Client:
    """A user agent with the TLS fingerprint of its stack."""

    kind: str
    user_agent: str
    ja4: str


def clients(rng: np.random.Generator) -> list[Client]:
    """Versions in use this season; several share one TLS stack."""
    stacks = {
        name: [_ja4(rng, name) for _ in range(n)]
        for name, n in (("python", 5), ("node", 4), ("go", 2), ("rust", 2), ("java", 2), ("curl", 2), ("web", 7))
    }
    found = []
    for release in range(137, 145):
        for system in (
            "Windows NT 10.0; Win64; x64",
            "Macintosh; Intel Mac OS X 10_15_7",
            "X11; Linux x86_64",
            "Linux; Android 14",
        ):
            agent = (
                f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{release}.0.0.0 Safari/537.36"
            )
            found.append(Client("browser", agent, stacks["web"][release % 4]))
    for release in range(3):
        found.append(
            Client(
                "browser",
                f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_{release}) Version/18.{release} Safari",
                stacks["web"][4],
            )
        )
        found.append(
            Client(
                "browser", f"Mozilla/5.0 (Windows NT 10.0; rv:14{release}.0) Firefox/14{release}.0", stacks["web"][5]
            )
        )
    for library, stack, versions in LIBRARIES:
        for version in range(versions):
            found.append(Client("sdk", library.format(version), stacks[stack][version % len(stacks[stack])]))
    for number, name in enumerate(AGENTS):
        stack = ("node", "python", "rust", "node", "go", "python", "node", "rust")[number]
        found += [Client(f"agent{number}", f"{name}/0.{v}", stacks[stack][v % len(stacks[stack])]) for v in range(5)]
    return found


class Network:
    """Pools of addresses. A pool is what an account can come out of: one line, one carrier NAT, one proxy."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        kinds = [("isp", 5), ("mobile", 2), ("office", 2)]
        table = [(k, c) for c in range(len(CODES)) for k, n in kinds for _ in range(n)]
        table += [("hosting", c) for c in rng.choice(len(CODES), 10, p=WEIGHTS)]
        table += [("vpn", c) for c in rng.choice(len(CODES), 24, p=WEIGHTS)] + [("relay", c) for c in range(len(CODES))]
        self.as_kind = np.array([k for k, _ in table])
        self.as_country = np.array([c for _, c in table])
        self.as_number = rng.choice(np.arange(2_000, 64_000), len(table), replace=False).astype(np.int32)
        self.as_base = (rng.choice(np.arange(0x010, 0xDF0), len(table), replace=False).astype(np.int64)) << 20
        self.addresses: list[np.ndarray] = []
        self.sizes: list[np.ndarray] = []
        self.owners: list[np.ndarray] = []
        self.count = 0
        self.shared = self._public_pools()

    def _public_pools(self) -> dict[tuple[str, int], np.ndarray]:
        """Carrier NATs, VPN exits and relays, by kind and country (VPN: all countries under -1)."""
        found = {}
        for kind, low, high, each in (
            ("mobile", 16, 96, 2),
            ("relay", 24, 80, 1),
            ("vpn", 8, 60, 2),
            ("hosting", 20, 60, 3),
        ):
            for system in np.flatnonzero(self.as_kind == kind):
                pools = self.add(np.full(each, system), self.rng.integers(low, high, each))
                key = (kind, -1 if kind in ("vpn", "hosting") else int(self.as_country[system]))
                found[key] = np.concatenate([found.get(key, np.zeros(0, np.int64)), pools])
        return found

    def add(self, systems: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """New pools of fresh addresses, one a network given."""
        owner = np.repeat(systems, sizes)
        return self.add_addresses(self.as_base[owner] + self.rng.integers(256, 1 << 20, len(owner)), owner, sizes)

    def add_addresses(self, addresses: np.ndarray, owners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """New pools of given addresses."""
        self.addresses.append(addresses)
        self.owners.append(owners)
        self.sizes.append(np.asarray(sizes))
        pools = np.arange(self.count, self.count + len(sizes))
        self.count += len(sizes)
        return pools

    def system(self, kind: str, country: np.ndarray) -> np.ndarray:
        """A network of a kind in each country, the first ones larger."""
        number = {"isp": 5, "mobile": 2, "office": 2}[kind]
        first = np.array(
            [np.flatnonzero((self.as_kind == kind) & (self.as_country == c))[0] for c in range(len(CODES))]
        )
        return first[country] + np.minimum(self.rng.geometric(0.45, len(country)) - 1, number - 1)

    def homes(self, country: np.ndarray) -> np.ndarray:
        """One line each, whose address changes now and then for some."""
        sizes = np.where(self.rng.random(len(country)) < 0.5, 1, self.rng.integers(2, 6, len(country)))
        return self.add(self.system("isp", country), sizes)

    def of_country(self, kind: str, country: np.ndarray) -> np.ndarray:
        """A shared pool of a kind in each country."""
        keys = [self.shared[kind, -1 if kind in ("vpn", "hosting") else int(c)] for c in country]
        return np.array([k[int(r * len(k))] for k, r in zip(keys, self.rng.random(len(country)))], dtype=np.int64)

    def servers(self, n: int) -> np.ndarray:
        """Own servers in hosting networks: one to three fixed addresses, or a shared exit of a cloud."""
        hosts = np.flatnonzero(self.as_kind == "hosting")
        own = self.add(self.rng.choice(hosts, n), self.rng.choice([1, 1, 2, 3], n))
        return np.where(self.rng.random(n) < 0.3, self.of_country("hosting", np.full(n, -1)), own)

    def where(
        self, points: np.ndarray, weights: np.ndarray, sticky: np.ndarray, account: np.ndarray, time: np.ndarray
    ) -> tuple:
        """For each exchange (address, network): a point by the hour, an address by how sticky the point is."""
        hour, day = time // HOUR, time // DAY
        chance = unit(mix(account, hour // 2, 11))
        at = (chance >= weights[:, 0]).astype(int) + (chance >= weights[:, 0] + weights[:, 1]).astype(int)
        row = np.arange(len(account))
        pool, how = points[row, at], sticky[row, at]
        each = np.arange(len(account)) + 1
        bucket = np.select([how == FOREVER, how == DAYS, how == HOURLY], [np.zeros_like(each), day // 3, hour], each)
        sizes = np.concatenate(self.sizes)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        index = starts[pool] + (mix(account, bucket, at) % sizes[pool].astype(np.uint64)).astype(np.int64)
        return np.concatenate(self.addresses)[index], np.concatenate(self.owners)[index]


def dotted(addresses: np.ndarray) -> np.ndarray:
    """Addresses as text."""
    octets = np.array([str(i) for i in range(256)], dtype=object)
    a, b, c, d = (octets[(addresses >> shift) & 255] for shift in (24, 16, 8, 0))
    return a + "." + b + "." + c + "." + d


def _ja4(rng: np.random.Generator, name: str) -> str:
    hexes = ["".join(rng.choice(list("0123456789abcdef"), 12)) for _ in range(2)]
    protocol = "h2" if name in ("web", "node", "rust", "python") else "h1"
    return f"t13d{rng.integers(10, 60)}{rng.integers(10, 20)}{protocol}_{hexes[0]}_{hexes[1]}"
