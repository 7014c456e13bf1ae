"""TLS: certificates that the server makes, pins of clients, and what each fault is called."""

import asyncio
import datetime as dt
import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from http_stand import POLL, Stand, digest_of, run, until
from umbel import errors
from umbel.errors import ServerUnreachable, UsageError
from umbel.http import Certificate, Client, Settings, _trust, serve
from umbel.http.wire import Polled

DAY = dt.timedelta(days=1)


def make(folder, *, names=("127.0.0.1",), begin=-DAY, end=DAY, key=None):
    """A certificate of one's own making in two files."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    return key


def shown(folder):
    return Certificate(folder / "cert.pem", folder / "key.pem")


def refused(certificate, expected, *, match=None, **settings):
    """Say hello to a server with a certificate; the client has to refuse it by name."""

    async def main(stand):
        async with stand.client(**settings) as client:
            with pytest.raises(expected, match=match):
                await client.hello()
        assert stand.calls == []

    run(main, Settings(port=0, certificate=certificate))


def test_a_pinned_client_talks_over_tls(tmp_path):
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"])

    async def main(stand):
        async with stand.client(fingerprint=certificate.fingerprint) as client:
            assert await client.call("poll", POLL) == Polled(tasks=[], cancelled=[])

    run(main, Settings(port=0, certificate=certificate))


def test_another_key_is_refused(tmp_path):
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"])
    refused(certificate, errors.WrongFingerprint, match="somebody may be in between", fingerprint="0" * 64)


def test_a_certificate_that_has_ended_is_refused(tmp_path):
    make(tmp_path, begin=-3 * DAY, end=-DAY)
    certificate = shown(tmp_path)
    refused(certificate, errors.CertificateExpired, match="renew it", fingerprint=certificate.fingerprint)


def test_a_certificate_of_tomorrow_is_refused(tmp_path):
    make(tmp_path, begin=DAY, end=3 * DAY)
    certificate = shown(tmp_path)
    refused(certificate, errors.CertificateNotYetValid, match="check the clocks", fingerprint=certificate.fingerprint)


def test_without_a_pin_an_unknown_issuer_is_refused(tmp_path):
    refused(Certificate.keep(tmp_path, ["127.0.0.1"]), errors.UnknownIssuer, match="join with a token")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"names": ("10.0.0.1", "elsewhere.example")}, errors.WrongName),
        ({"begin": -3 * DAY, "end": -DAY}, errors.CertificateExpired),
        ({"begin": DAY, "end": 3 * DAY}, errors.CertificateNotYetValid),
    ],
)
def test_without_a_pin_the_system_decides(tmp_path, monkeypatch, settings, expected):
    make(tmp_path, **settings)
    monkeypatch.setattr(ssl, "create_default_context", _trusting(tmp_path / "cert.pem"))
    refused(shown(tmp_path), expected)


def test_without_a_pin_an_issuer_that_the_system_trusts_will_do(tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.setattr(ssl, "create_default_context", _trusting(tmp_path / "cert.pem"))

    async def main(stand):
        async with stand.client() as client:
            await client.call("poll", POLL)

    run(main, Settings(port=0, certificate=shown(tmp_path)))


def _trusting(path):
    real = ssl.create_default_context
    return lambda: real(cafile=str(path))


def test_a_server_without_tls_is_named(tmp_path):
    async def main(stand):
        async with Client(stand.url.replace("http:", "https:"), fingerprint="0" * 64) as client:
            with pytest.raises(errors.NotTls, match="speaks TLS"):
                await client.hello()

    run(main)


def test_a_client_without_tls_is_cut(tmp_path):
    async def main(stand):
        async with Client(stand.url.replace("https:", "http:")) as client:
            with pytest.raises(ServerUnreachable):
                await client.hello()

    run(main, Settings(port=0, certificate=Certificate.keep(tmp_path, ["127.0.0.1"])))


def test_a_fingerprint_is_sixty_four_digits():
    for wrong in ("x", "0" * 63, "Z" * 64, "A" * 64):
        with pytest.raises(UsageError, match="64 hexadecimal digits"):
            _trust.Pin(wrong)


def test_the_key_is_for_its_owner_alone_and_stays(tmp_path):
    certificate = Certificate.keep(tmp_path, ["127.0.0.1", "::1", "server.example"])
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o600, 0o600]
    assert set(certificate.names) == {"server.example", "127.0.0.1", "::1"}
    assert certificate.days_left() > 3640
    before = (tmp_path / "server.crt").read_bytes()
    assert Certificate.keep(tmp_path, ["127.0.0.1"]).fingerprint == certificate.fingerprint
    assert (tmp_path / "server.crt").read_bytes() == before


def test_a_new_name_makes_a_new_certificate_for_the_same_key(tmp_path):
    old = Certificate.keep(tmp_path, ["127.0.0.1"])
    new = Certificate.keep(tmp_path, ["127.0.0.1", "server.example"])
    assert new.names != old.names
    assert new.fingerprint == old.fingerprint


@pytest.mark.parametrize("left", [b"", b"garbage", None])
def test_a_certificate_that_is_lost_is_made_anew(tmp_path, left):
    old = Certificate.keep(tmp_path, ["127.0.0.1"])
    (tmp_path / "server.crt").unlink()
    if left is not None:
        (tmp_path / "server.crt").write_bytes(left)
    assert Certificate.keep(tmp_path, ["127.0.0.1"]).fingerprint == old.fingerprint


def test_one_that_ends_soon_is_made_anew(tmp_path):
    key = make(tmp_path, end=20 * DAY)
    (tmp_path / "key.pem").rename(tmp_path / "server.key")
    (tmp_path / "cert.pem").rename(tmp_path / "server.crt")
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"])
    assert certificate.days_left() > 3640
    assert x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes()).public_key() == key.public_key()


@pytest.mark.parametrize("name", ["", "a b", "ü.example"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="host name"):
        Certificate.keep(tmp_path, [name])


def test_files_that_are_no_pair_are_refused(tmp_path):
    make(tmp_path)
    (tmp_path / "other").mkdir()
    make(tmp_path / "other")
    for pair in (
        (tmp_path / "cert.pem", tmp_path / "other" / "key.pem"),
        (tmp_path / "key.pem", tmp_path / "cert.pem"),
        (tmp_path / "none", tmp_path / "key.pem"),
    ):
        with pytest.raises(UsageError):
            Certificate(*pair)


def test_a_key_with_a_password_is_refused(tmp_path):
    key = make(tmp_path)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x"))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*form))
    with pytest.raises(UsageError, match="without a password"):
        shown(tmp_path)


def test_a_renewed_certificate_is_shown_without_cutting_anything(tmp_path, monkeypatch):
    key = make(tmp_path, end=DAY)
    certificate = shown(tmp_path)
    data = bytes(300_000)
    monkeypatch.setattr("umbel.http._service._RELOAD", 0.05)

    async def main(stand):
        gate = asyncio.Event()

        async def put(call):
            sink = await stand._put(call)
            append = sink.append

            async def held(pieces):
                await gate.wait()
                await append(pieces)

            sink.append = held
            return sink

        stand.handlers["put_blob"] = put
        async with stand.client(fingerprint=certificate.fingerprint) as old:
            upload = asyncio.create_task(old.put_blob(digest_of(data), data))
            await until(lambda: stand.calls and stand.calls[-1].endpoint.name == "put_blob")
            make(tmp_path, end=90 * DAY, key=key)
            await until(lambda: certificate.days_left() > 80)
            async with stand.client(fingerprint=certificate.fingerprint) as new:
                assert await new.call("poll", POLL)
            gate.set()
            await upload
        assert stand.blobs[digest_of(data)] == data

    run(main, Settings(port=0, certificate=certificate))


def test_a_renewal_that_is_no_good_is_told_once_and_the_old_one_stays(tmp_path, monkeypatch):
    make(tmp_path)
    certificate = shown(tmp_path)
    monkeypatch.setattr("umbel.http._service._RELOAD", 0.02)

    async def main(stand):
        (tmp_path / "cert.pem").write_text("half")
        await until(lambda: stand.faults)
        async with stand.client(fingerprint=certificate.fingerprint) as client:
            await client.call("poll", POLL)
        await asyncio.sleep(0.2)
        assert [type(fault) for fault in stand.faults] == [UsageError]
        stand.faults.clear()

    run(main, Settings(port=0, certificate=certificate))


def test_plain_http_is_for_this_machine_alone():
    with pytest.raises(UsageError, match="plain http is for loopback"):
        Client("http://server.example:8443")

    async def listen():
        stand = Stand()
        await serve(dict.fromkeys([], stand._handle), stand._lookup, Settings(host="0.0.0.0", port=0))

    with pytest.raises(UsageError):
        asyncio.run(listen())
