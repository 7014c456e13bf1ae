"""What ``umbel doctor`` looks at between here and a server: address, TLS, certificate, versions, clocks, membership."""

import asyncio
import datetime as dt
import socket
import ssl
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509

from umbel.cli._checks import Check
from umbel.cli._text import duration, safe
from umbel.errors import ServerUnreachable, UmbelError
from umbel.http import WARNING_DAYS, Client, Identity, fingerprint_of
from umbel.http.wire import VERSION, Hello

_WAIT: Final = 10.0
_SKEW: Final = 30.0
_NOTHING: Final = "blake3:" + "0" * 64


class Way(NamedTuple):
    """A server to be looked at, and who one is there, if anybody."""

    url: str
    fingerprint: str = ""
    identity: Identity | None = None
    member: int = 0


def reach(way: Way) -> Iterator[Check]:
    """Look at everything between here and the server, as far as one gets."""
    parts = urlsplit(way.url)
    host, port = parts.hostname or "", parts.port or 0
    try:
        begun = time.perf_counter()
        with socket.create_connection((host, port), timeout=_WAIT):
            took = time.perf_counter() - begun
    except OSError as error:
        yield _unreachable(way.url, error)
        return
    yield Check("reachable", "ok", f"{safe(way.url)} answers in {took * 1000:.0f} ms")
    if parts.scheme == "http":
        plain = _plain(way.url, host, port)
        yield plain
        if plain.state != "fail":
            yield from asyncio.run(_talk(way))
        return
    try:
        certificate, spoken = _look(host, port)
    except (OSError, ValueError) as error:  # every error of ssl is an OSError
        reason = getattr(error, "reason", None) or error
        mend = "is this the port of an umbel server, and does it run with TLS?"
        yield Check("tls", "fail", f"no TLS here: {safe(str(reason))}", mend)
        return
    yield Check("tls", "ok", spoken)
    yield _validity(certificate)
    seen = fingerprint_of(certificate)
    pinned = _fingerprint(way, seen)
    yield pinned
    if pinned.state != "fail":
        yield from asyncio.run(_talk(way._replace(fingerprint=way.fingerprint or seen)))


def _unreachable(url: str, error: OSError) -> Check:
    if isinstance(error, socket.gaierror):
        return Check(
            "reachable", "fail", f"{safe(url)}: there is no such name", "check the spelling, or name resolution"
        )
    if isinstance(error, TimeoutError):
        mend = "let the port through: this machine to that one, TCP; a node needs no other"
        return Check("reachable", "fail", f"{safe(url)}: no answer in {duration(_WAIT)}", mend)
    mend = "start the server there (umbel server), or check the port"
    return Check("reachable", "fail", f"{safe(url)}: {error.strerror or error}", mend)


def _plain(url: str, host: str, port: int) -> Check:
    try:
        _look(host, port)
    except (OSError, ValueError):
        return Check("tls", "warn", "plain HTTP, which is for this machine alone", "leave --insecure-http out")
    return Check("tls", "fail", "plain HTTP was asked for, and TLS is spoken there", f"say https{safe(url[4:])}")


def _look(host: str, port: int) -> tuple[x509.Certificate, str]:
    """Return the certificate that a server shows, whoever vouches for it, and what is spoken: nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout=_WAIT) as line,
        context.wrap_socket(line, server_hostname=host) as tls,
    ):
        shown = tls.getpeercert(binary_form=True)
        cipher = tls.cipher()
        if shown is None or cipher is None:
            raise ValueError("the server shows no certificate")
        return x509.load_der_x509_certificate(shown), f"{tls.version()}, {cipher[0]}"


def _validity(certificate: x509.Certificate) -> Check:
    now, begin, end = dt.datetime.now(dt.UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    days = (end - now) / dt.timedelta(days=1)
    renew = "renew it with the same key: the nodes stay joined"
    if now < begin:
        return Check("certificate", "fail", f"begins on {begin:%Y-%m-%d %H:%M} UTC", "set this machine's clock right")
    if days < 0:
        return Check("certificate", "fail", f"ended on {end:%Y-%m-%d %H:%M} UTC", renew)
    found = f"holds until {end:%Y-%m-%d}, for {days:,.0f} days"
    return Check("certificate", "warn", found, renew) if days < WARNING_DAYS else Check("certificate", "ok", found)


def _fingerprint(way: Way, seen: str) -> Check:
    if not way.fingerprint:
        mend = "compare it with what umbel server prints, or join with a token, which pins it"
        return Check("fingerprint", "warn", f"{seen}, which nothing here vouches for", mend)
    if way.fingerprint == seen:
        return Check("fingerprint", "ok", f"{seen}, as the token says")
    mend = "do not go on: ask the operator; if the key was changed on purpose, join with a new token"
    return Check("fingerprint", "fail", f"{seen}, not {way.fingerprint}", mend)


async def _talk(way: Way) -> list[Check]:
    async with Client(way.url, way.identity, way.member, fingerprint=way.fingerprint) as client:
        try:
            hello = await client.hello()
        except UmbelError as error:
            mend = "update the side that speaks the older version, or look whether an umbel server is there"
            if isinstance(error, ServerUnreachable):
                mend = "look whether an umbel server is there, and whether it is https"
            return [Check("protocol", "fail", safe(error.message), mend)]
        checks = [_protocol(hello), _clock(client.clock_offset)]
        if way.identity is not None:
            checks.append(await _membership(client))
        return checks


def _protocol(hello: Hello) -> Check:
    ours = version("umbel")
    spoken = ", ".join(map(str, hello.versions))
    return Check("protocol", "ok", f"version {VERSION} of {spoken}; umbel {safe(hello.release)} there, {ours} here")


def _clock(ahead: float) -> Check:
    found = f"the server's is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}"
    if abs(ahead) <= _SKEW:
        return Check("clock", "ok", found)
    mend = "set both clocks by NTP: certificates are judged by this one, signatures by the server's"
    return Check("clock", "warn", found, mend)


async def _membership(client: Client) -> Check:
    try:
        await client.stat_blob(_NOTHING)
    except UmbelError as error:
        return Check("member", "fail", safe(error.message), "join again with a new token (umbel token)")
    return Check("member", "ok", "the server knows this key")
