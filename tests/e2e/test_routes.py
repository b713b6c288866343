"""Routes and keys in the running programs: which pool a request goes to, which backend of it."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.controlled import client
from tests.e2e.lab import CLIENT, VIP, Lab
from tests.e2e.pooled import BOTH, FIRST, SECOND, given, in_force, pool, service

pytestmark = pytest.mark.root

BESIDE = f"""
[[services]]
name = "beside"
vip = "{VIP}"
port = 81
dscp = 1
pool = "elsewhere"
"""
ROUTES = """
[[routes]]
name = "exact"
host = "one.test"
method = "GET"
pool = "exact"

[[routes]]
host = ["*.suffix.test", "other.test"]
pool = "suffix"

[[routes]]
path_prefix = "/img/"
pool = "prefix"

[[routes]]
path_regex = '/[a-z]+/v[0-9]+\\.png$'
pool = "regex"

[[routes]]
method = ["PUT", "DELETE"]
pool = "method"

[[routes]]
header = { X-Beta = "yes", X-Any = "*" }
pool = "header"

[[routes]]
port = 81
pool = "elsewhere"

[[routes]]
path_prefix = "/"
service = "web"
host = "last.test"
pool = "last"
"""
# By turns at the first and the second backend, so that the response, too, says which it was.
POOLS = ("exact", "suffix", "prefix", "regex", "method", "header", "last", "default", "elsewhere")
WHERE = {name: ("backend1", "backend2")[number % 2] for number, name in enumerate(POOLS)}
CASES = [
    ("exact", "/1k", ["Host: one.test"], "GET"),
    ("exact", "/img/1k", ["Host: ONE.test.:80"], "GET"),
    ("default", "/1k", ["Host: one.test"], "POST"),
    ("suffix", "/1k", ["Host: a.b.suffix.test"], "GET"),
    ("suffix", "/1k", ["Host: other.test"], "GET"),
    ("default", "/1k", ["Host: suffix.test"], "GET"),
    ("prefix", "/img/x?a=b", [], "GET"),
    ("default", "/images/x", [], "GET"),
    ("regex", "/cats/v12.png?size=3", [], "GET"),
    ("default", "/cats/v12.png/more", [], "GET"),
    ("method", "/upload/route-test", [], "DELETE"),
    ("header", "/1k", ["X-Beta: yes", "X-Any: 7"], "GET"),
    ("default", "/1k", ["X-Beta: yes"], "GET"),
    ("default", "/1k", ["X-Beta: no", "X-Any: 7"], "GET"),
    ("last", "/1k", ["Host: last.test"], "GET"),
]


def options(headers: list[str], method: str) -> list[str]:
    return ["-X", method, *(word for header in headers for word in ("-H", header))]


@pytest.fixture(scope="module")
def routed(running_lab: Lab) -> Iterator[None]:
    pools = [
        pool(name, FIRST if at == "backend1" else SECOND, 'key = ["path", "source"]')
        for name, at in WHERE.items()
    ]
    with in_force(running_lab, service("default") + BESIDE + ROUTES + "".join(pools)):
        yield


@pytest.mark.usefixtures("routed")
def test_the_first_route_that_is_met_says_which_pool(lab: Lab) -> None:
    """By the response's header, by what the pool was given, and by `explain`."""
    with client(lab) as asking:
        for name, path, headers, method in CASES:
            before = given(lab)
            answer = lab.curl(path, *options(headers, method))
            after = given(lab)
            grown = {pool for (pool, at), count in after.items() if count > before[pool, at]}
            assert grown == {name}, (path, headers, method)
            assert answer.backend == WHERE[name]
            asked = headers if any(h.startswith("Host") for h in headers) else ["Host: h", *headers]
            said = {"url": path, "headers": asked, "source": CLIENT, "service": "web"}
            told = asking.ask("explain", method=method, **said)
            assert (told["pool"], told["backend"]) == (name, WHERE[name])


def test_what_no_route_takes_is_reset_where_there_is_no_pool_for_it(lab: Lab) -> None:
    routes = '\n[[routes]]\nhost = "one.test"\npool = "p"\n'
    with in_force(lab, service("") + routes + pool()):
        assert lab.curl("/1k", "-H", "Host: one.test").status == 200
        growth = lab.growth("balancer")
        command = ["curl", "-sS", "-m", "5", "-H", "Host: two.test", f"http://{VIP}/1k"]
        refused = lab.result("client", *command)
        assert refused.returncode == 56, refused.stderr  # reset, at once
        assert growth.reaches("no_route")


# What a request is known by; "n" differs and "key" does not, so its backend stays.
KEYS = {
    "host": ("/{n}", "Host: {key}.test"),
    "query:id": ("/{n}?x={n}&id={key}", "Host: {n}"),
    "cookie:user": ("/{n}", "Cookie: n={n}; user={key}"),
    "header:X-Account": ("/{n}", "x-account: {key}"),
    "path": ("/{key}?{n}", "Host: {n}"),
    "uri": ("/{key}?{key}", "Host: {n}"),
    "source": ("/{n}?{n}", "Cookie: user={n}"),
}
VALUES = ("a1", "b2", "c3", "d4", "e5", "f6")


@pytest.fixture(scope="module")
def keyed(running_lab: Lab) -> Iterator[None]:
    """A pool for each key, which a field asks for."""
    parts = [service("source")]
    for number, key in enumerate(KEYS):
        parts.append(f'\n[[routes]]\nheader = {{ X-Key = "{number}" }}\npool = "{key}"\n')
    parts += [pool(key, more=f'key = "{key}"') for key in KEYS]
    parts.append('\n[[routes]]\nheader = { X-Key = "both" }\npool = "both"\n')
    parts.append(pool("both", more='key = ["host", "query:id"]\nmissing = "path"'))
    with in_force(running_lab, "".join(parts)):
        yield


@pytest.mark.usefixtures("keyed")
def test_a_key_holds_a_backend(lab: Lab) -> None:
    for number, (path, header) in enumerate(KEYS.values()):
        asked = []
        for value in VALUES:
            for n in range(3):
                head = [f"X-Key: {number}", header.format(n=n, key=value)]
                asked.append((head, [path.format(n=n, key=value)]))
        found = fetch_all(lab, asked)
        held = [set(found[at : at + 3]) for at in range(0, len(found), 3)]
        assert all(len(backends) == 1 for backends in held), header
        alike = header == KEYS["source"][1]
        assert len(set().union(*held)) == (1 if alike else 2), "other keys are elsewhere"


@pytest.mark.usefixtures("keyed")
def test_joined_keys_and_what_is_used_where_one_is_missing(lab: Lab) -> None:
    def ask(host: str, *urls: str) -> list[str]:
        return fetch_all(lab, [(["X-Key: both", f"Host: {host}"], list(urls))])

    both = {
        (host, value): set(ask(host, f"/1?id={value}", f"/2?id={value}"))
        for host in ("one", "two", "three")
        for value in "abc"
    }
    assert all(len(found) == 1 for found in both.values())
    for fixed in (0, 1):
        of_one = {key[fixed]: set() for key in both}
        for key, found in both.items():
            of_one[key[fixed]] |= found
        assert {"backend1", "backend2"} in of_one.values(), "the other part counts, too"
    for path in ("/x", "/y", "/z"):
        assert len({*ask("one", f"{path}?a"), *ask("two", f"{path}?b"), *ask("3", path)}) == 1


@pytest.mark.usefixtures("keyed")
def test_another_address_is_another_source(lab: Lab) -> None:
    with client(lab) as asking:
        here = lab.curl("/1").backend
        sources = (f"192.168.33.{n}" for n in range(100, 200))
        other = next(
            source
            for source in sources
            if asking.ask("explain", method="GET", url="/", source=source)["backend"] != here
        )
    with lab.address("client", other):
        found = {lab.curl(f"/{n}", "--interface", other).backend for n in range(3)}
    assert here not in found
    assert len(found) == 1


def test_hundreds_of_requests_go_where_explain_says(lab: Lab) -> None:
    """Of all policies by hash, and with weights; curl fetches them one after the other."""
    dice = random.Random(20)
    weights = BOTH.replace('backend1",', 'backend1", weight = 3,')
    pools = [
        pool("maglev", more='key = "uri"'),
        pool("ring", weights, 'policy = "ring"\nkey = "host"'),
        pool("rendezvous", weights, 'policy = "rendezvous"\nkey = ["path", "header:X-Shard"]'),
    ]
    routes = """
[[routes]]
path_prefix = "/ring/"
pool = "ring"
[[routes]]
header = { X-Shard = "*" }
pool = "rendezvous"
"""
    asked = []
    for _ in range(100):
        shard = ["X-Shard: " + str(dice.randrange(9))] * dice.randrange(2)
        headers = [f"Host: h{dice.randrange(50)}.test", *shard]
        path = dice.choice(("/", "/ring/")) + f"{dice.randrange(1000)}"
        urls = [f"{path}?{dice.randrange(100)}" for _ in range(3)]
        asked.append((headers, urls))
    with in_force(lab, service("maglev") + routes + "".join(pools)), client(lab) as asking:
        told = [
            asking.ask("explain", method="GET", url=url, headers=headers, source=CLIENT)["backend"]
            for headers, urls in asked
            for url in urls
        ]
        found = fetch_all(lab, asked)
    assert found == told
    assert 75 < told.count("backend1") < 225 + 50


def fetch_all(lab: Lab, asked: list[tuple[list[str], list[str]]]) -> list[str]:
    """Who answers each; one process of curl, a connection each."""
    words: list[str] = []
    for headers, urls in asked:
        for url in urls:
            words += ["--next"] if words else []
            words += ["-sS", "-m", "20", "-o", "/dev/null", "-w", "%header{x-backend}\\n"]
            words += options([*headers, "Connection: close"], "GET")
            words += [f"http://{VIP}{url}"]
    command = lab.command("client", "curl", *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.split()
