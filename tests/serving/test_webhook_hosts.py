"""Which URLs the hosts of --webhook-hosts allow, however either is written."""

import pytest

from serving.errors import SettingsError
from serving.webhook_hosts import is_allowed, parse_hosts


@pytest.mark.parametrize(
    ("entry", "allowed", "others"),
    [
        (
            "Hooks.example.org",
            ("https://HOOKS.example.org/x", "http://hooks.example.org:8443"),
            (
                "https://example.org/",
                "https://hooks.example.org@evil/",
                "https://evil/hooks.example.org",
                "ftp://hooks.example.org/",
                "https://hooks.example.org:x/",
                "https://hooks.example.org:99999/",
                "https://hooks.example.org/a b",
                "https://hooks.example.org/\r\nx",
                "https:///x",
                "",
            ),
        ),
        ("h:443", ("https://h/", "https://h:443/x"), ("http://h/", "https://h:444/")),
        ("h:80", ("http://h/", "http://h:80", "https://h:80/"), ("https://h/", "http://h:8/")),
        ("h:8080", ("http://h:8080/?q=1",), ("http://h/", "https://h/", "http://h:80/")),
        (
            "[::1]:9000",
            ("http://[::1]:9000/", "https://[0:0:0:0:0:0:0:1]:9000/"),
            ("http://[::1]/", "http://[::2]:9000/", "http://[::1", "http://[::x]:9000/"),
        ),
        ("[2001:DB8::7]", ("http://[2001:db8:0::7]:5/",), ("http://[2001:db8::8]/",)),
        ("192.0.2.7:5000", ("http://192.0.2.7:5000/x",), ("http://192.0.2.7/",)),
    ],
)
def test_hosts_and_ports_are_compared_not_texts(
    entry: str, allowed: tuple[str, ...], others: tuple[str, ...]
) -> None:
    for urls, expected in ((allowed, True), (others, False)):
        assert {url: is_allowed(url, ("other", entry)) for url in urls} == dict.fromkeys(
            urls, expected
        )


def test_a_wrong_host_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(SettingsError, match=r"has '\*'.*hooks\.example\.org, .*\[2001:db8::7\]"):
        parse_hosts(("a", "*"))
