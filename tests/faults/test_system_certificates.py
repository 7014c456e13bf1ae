"""Certificates of a running system: out of date, of somebody else, renewed under way; and lines without TLS."""

import datetime as dt
import shutil
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federation import wait_for
from proxy import Proxy
from system import LARGE, check, each_once, federating, handled, submit

DAY = dt.timedelta(days=1)


def make(folder, *, begin=-DAY, end=90 * DAY, key=None):
    """An operator's own certificate in two files, and its key."""
    folder.mkdir(exist_ok=True)
    key = key or ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]), dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("server.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(key.private_bytes(*form))
    (folder / "server.crt").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    return key, built.serial_number


def files(folder):
    return {"certificate": str(folder / "server.crt"), "key": str(folder / "server.key")}


def shown_by(federation):
    """The serial number of the certificate that the server shows to whoever connects now."""
    found = ssl.get_server_certificate(("127.0.0.1", federation.port), timeout=10)
    return x509.load_pem_x509_certificate(found.encode()).serial_number


def last_word(process):
    """The error that ended a process, by class."""
    assert process.wait() == 1
    return process.log.read_text().strip().splitlines()[-1].removeprefix("umbel.errors.")


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        (
            {"begin": -3 * DAY, "end": -DAY},
            "CertificateExpired: expected a certificate that is valid, got one that ended",
        ),
        pytest.param(
            {"begin": DAY, "end": 3 * DAY},
            "CertificateNotYetValid: expected a certificate that is valid, got one that begins",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_certificate_out_of_its_time_ends_a_node_with_the_cause(tmp_path, dates, said):
    """The server is started again with another certificate of the same key, whose dates are wrong."""
    key, _ = make(tmp_path / "pki")
    with federating(tmp_path, server=files(tmp_path / "pki"), nodes=["north"], plain=False) as federation:
        (_, north) = federation.processes
        wait_for(lambda: federation.status("north") and federation.status("north").state == "connected", "it is there")
        federation.serving.end()
        make(tmp_path / "pki", key=key, **dates)
        federation.serve()
        assert last_word(north).startswith(said)
        assert federation.status("north").state == "ended"


@pytest.mark.parametrize(
    ("offset", "said"),
    [("-2y", "CertificateNotYetValid"), pytest.param("+12y", "CertificateExpired", marks=pytest.mark.slow)],
)
def test_a_node_whose_clock_is_years_off_is_told_so(tmp_path, offset, said):
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed here")
    with federating(tmp_path, nodes=[], plain=False) as federation:
        node = federation.node("north", prefix=("faketime", "-m", "-f", offset))
        assert last_word(node).startswith(said)
        assert federation.call("list_nodes").nodes == []


def test_a_server_with_a_foreign_key_ends_the_nodes_that_know_another(tmp_path):
    with federating(tmp_path, nodes=["north"], plain=False) as federation:
        (_, north) = federation.processes
        wait_for(lambda: federation.status("north") and federation.status("north").state == "connected", "it is there")
        federation.serving.end()
        for path in (federation.folder / "server" / "keys").glob("server.*"):
            path.unlink()
        federation.serve()
        assert last_word(north).startswith("WrongFingerprint: expected the server whose key is")


def test_a_node_that_speaks_plain_http_to_a_port_with_tls(tmp_path):
    """It waits, since servers come and go, and says what it waits for."""
    with federating(tmp_path, nodes=[], plain=False) as federation:
        node = federation.node("north", url=f"http://127.0.0.1:{federation.port}")
        wait_for(lambda: federation.status("north") and federation.status("north").state == "away", "it says so")
        assert "check the address" in federation.status("north").reason
        assert node.is_running
        assert federation.call("list_nodes").nodes == []


def test_a_node_that_speaks_tls_to_a_port_without(tmp_path):
    with federating(tmp_path, nodes=[], plain=True) as federation:
        node = federation.node("north", url=f"https://127.0.0.1:{federation.port}")
        assert last_word(node).startswith("NotTls: expected a server that speaks TLS")


def test_a_certificate_that_is_renewed_during_an_upload(tmp_path):
    """Nothing is cut, nothing is sent twice, and whoever connects then is shown the new one."""
    key, old = make(tmp_path / "pki")
    size = 2_000_000
    with federating(tmp_path, server=files(tmp_path / "pki"), nodes=["south"], plain=False) as federation:
        with Proxy(("127.0.0.1", federation.port)) as proxy:
            federation.node("north", url=f"https://127.0.0.1:{proxy.port}")
            run = submit(federation, size, rounds=1)
            wait_for(lambda: any(each.up > 1_000_000 for each in proxy.passed), "the upload is under way")
            proxy.set(hold=True)
            assert shown_by(federation) == old
            _, new = make(tmp_path / "pki", key=key)
            wait_for(lambda: shown_by(federation) == new, "the new one is shown", 30)
            proxy.clear()
            check(federation, run, size, rounds=1)
            assert handled(federation) == each_once(1)
            assert not any(each.cut for each in proxy.passed)
            assert sum(each.up for each in proxy.passed) < 1.1 * 4 * size
        federation.node("west")
        wait_for(lambda: len(federation.call("list_nodes").nodes) == 3, "a new node joins by the same token's key")


@pytest.mark.slow
def test_a_renewal_that_is_no_good_leaves_the_old_one(tmp_path):
    _, old = make(tmp_path / "pki")
    with federating(tmp_path, server=files(tmp_path / "pki"), plain=False) as federation:
        (tmp_path / "pki" / "server.crt").write_text("-----BEGIN CERTIFICATE-----\nhalf\n")
        log = federation.folder / "server.log"
        wait_for(lambda: "expected a certificate and its private key in PEM" in log.read_text(), "it says so")
        assert shown_by(federation) == old
        run = submit(federation, LARGE)
        view = federation.completed(run)
        assert view.row.completed == 3
