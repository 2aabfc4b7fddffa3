"""Fetching an image by its URL, from the public internet only."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urlsplit

from ..._errors import InputError

TIMEOUT = 10.0
NAT64 = ipaddress.ip_network("64:ff9b::/96")
PORTS = (80, 443, 8080, 8443)


def fetch(url: str, most: int, timeout: float = TIMEOUT) -> bytes:
    """Return what a URL has, at most `most` bytes of it.

    The host's addresses are looked up once, all must be public, and one of them is connected to, so that a name which
    says something else the next moment leads nowhere. Redirects are not followed; no proxy, cookie or login is used.

    Raises:
        InputError: no such URL, an address of an internal network, another answer than 200, too much, or too slow.

    >>> fetch("http://127.0.0.1/latest", 100)
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: the URL leads to an address that is not public
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise InputError("the URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
        raise InputError("expected a URL such as https://host/picture.png, without a login")
    if port not in PORTS:
        raise InputError(f"the URL's port must be one of {', '.join(map(str, PORTS))}")
    address = public_address(host, port)
    end = time.monotonic() + timeout
    connection = _Pinned(host, port, address, parts.scheme == "https", timeout)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "cogguided"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise InputError(f"the URL answered {reply.status}; redirects are not followed")
        data = b""
        while piece := reply.read1(2**16):
            data += piece
            if len(data) > most:
                raise InputError(f"the URL has more than {most} bytes")
            if time.monotonic() > end:
                raise TimeoutError
        return data
    except (TimeoutError, OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the URL cannot be fetched ({type(error).__name__})") from None
    finally:
        connection.close()


def public_address(host: str, port: int) -> str:
    """Return one of a host's addresses, all of which are public.

    Raises:
        InputError: there is none, or one is not public.

    >>> public_address("169.254.169.254", 80)
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: the URL leads to an address that is not public
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InputError("the URL's host is not known") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise InputError("the URL leads to an address that is not public")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; those that carry an IPv4 address in them go by that.

    >>> [is_public(a) for a in ("8.8.8.8", "10.0.0.1", "127.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1")]
    [True, False, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        for inner in (ip.ipv4_mapped, ip.sixtofour, ip.teredo[1] if ip.teredo else None):
            if inner is not None:
                return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was looked at before, in the name of its host."""

    def __init__(self, host: str, port: int, address: str, secure: bool, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self.default_port = 443 if secure else 80  # else the Host header names it
        self.address, self.secure = address, secure

    def connect(self) -> None:
        """Connect to the address; a certificate must be the host's."""
        self.sock = socket.create_connection((self.address, self.port), self.timeout)
        if self.secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
