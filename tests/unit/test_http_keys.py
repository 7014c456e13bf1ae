"""Tokens as they are copied, addresses as they are typed, keys in files, signatures."""

import base64
import os
import threading

import pytest

from umbel.errors import BadSignature, Replayed, SignatureExpired, UsageError
from umbel.http import (
    Identity,
    SignedRequest,
    Token,
    is_loopback,
    is_signed,
    join_line,
    read_address,
    read_join_line,
    read_signature,
    read_token,
    sign,
    verify,
)
from umbel.http._signature import Clock, Nonces, Signature

TOKEN = Token(bytes(range(16)), "ab" * 32)
REQUEST = SignedRequest("POST", "/v1/poll", "blake3:" + "0" * 64)
SAID = {"audience": "A" * 22, "member": 7, "expires": 1000, "nonce": "B" * 22}


@pytest.mark.parametrize("token", [TOKEN, Token(b"12345678"), Token(bytes(64), "0" * 64)])
def test_a_token_is_read_as_it_was_written(token):
    assert read_token(str(token)) == token
    assert read_join_line(join_line("https://host:8443", token)) == ("https://host:8443", token)
    assert str(token).replace("-", "").replace("_", "").isalnum()


def test_every_character_that_is_lost_or_changed_is_noticed():
    text = str(TOKEN)
    for number in range(len(text)):
        other = "B" if text[number] != "B" else "C"
        for wrong in (text[:number] + text[number + 1 :], text[:number] + other + text[number + 1 :]):
            with pytest.raises(UsageError, match="copy the whole line") as caught:
                read_token(wrong)
            assert wrong not in str(caught.value)


@pytest.mark.parametrize("text", ["", "x", "=", "A" * 71, "ä" * 20, "a b", "\n", str(TOKEN) + "=", str(TOKEN) + "\n"])
def test_what_is_no_token_is_refused(text):
    with pytest.raises(UsageError):
        read_token(text)


def test_a_token_of_another_version_says_so():
    data = bytearray(base64.urlsafe_b64decode(str(TOKEN) + "=="))
    from blake3 import blake3  # noqa: PLC0415

    data[0] = 2
    data[-4:] = blake3(bytes(data[:-4])).digest(4)
    with pytest.raises(UsageError, match="version 1, got 2: update this side"):
        read_token(base64.urlsafe_b64encode(data).decode().rstrip("="))


def test_a_line_without_a_token_says_so():
    with pytest.raises(UsageError, match="no token behind #"):
        read_join_line("https://host:8443")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("https://host", "https://host:8443"),
        ("https://host:443/", "https://host:443"),
        (" https://HOST:1 ", "https://host:1"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ("http://localhost", "http://localhost:8443"),
    ],
)
def test_addresses_have_one_form(typed, read):
    assert read_address(typed) == read


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "host",
        "host:8443",
        "ftp://host",
        "https://",
        "https://host:0x1",
        "https://host:99999",
        "https://user:secret@host",
        "https://host/path",
        "https://host?x",
        "https://host#x",
        "https://hösT",
        "http://host",
        "http://10.0.0.1",
        "http://127.0.0.1.example",
        "https://[::1",
    ],
)
def test_what_is_no_address_is_refused(typed):
    with pytest.raises(UsageError):
        read_address(typed)


def test_loopback_is_this_machine():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("10.0.0.1", "::", "0.0.0.0", "localhost.example", ""))


def test_a_key_in_a_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "key"
    made = Identity.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["key"]
    assert Identity.load(path).key == made.key
    assert is_signed(made.key, Identity.load(path).sign(b"x"), b"x")


def test_a_key_is_never_written_over(tmp_path):
    path = tmp_path / "key"
    before = Identity.create(path).key
    with pytest.raises(UsageError, match="there already"):
        Identity.create(path)
    assert Identity.load(path).key == before
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_two_who_make_a_key_at_once_get_one(tmp_path):
    made, refused = [], []
    barrier = threading.Barrier(8)

    def make():
        barrier.wait()
        try:
            made.append(Identity.create(tmp_path / "key").key)
        except UsageError as error:
            refused.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)
    assert Identity.load(tmp_path / "key").key == made[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    Identity.create(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        Identity.load(tmp_path / "key")


@pytest.mark.parametrize("data", [b"", b"00", b"zz" * 32, b"00" * 33, b"\xff" * 64, b"00" * 5_000_000])
def test_a_file_with_something_else_is_refused(tmp_path, data):
    (tmp_path / "key").write_bytes(data)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(UsageError, match="32 bytes in hexadecimal"):
        Identity.load(tmp_path / "key")


def test_no_file_and_no_key_are_named(tmp_path):
    with pytest.raises(UsageError, match="join the server first"):
        Identity.load(tmp_path / "key")
    with pytest.raises(UsageError, match="32 bytes, got 31"):
        Identity(bytes(31))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError):
        Identity.load(tmp_path / "pipe")


def test_a_signature_covers_everything():
    me, other = Identity(bytes(32)), Identity(b"\1" * 32)
    given = read_signature(sign(me, REQUEST, **SAID))
    verify(given, REQUEST, key=me.key)
    wrong = [
        (given, REQUEST._replace(method="GET"), me.key),
        (given, REQUEST._replace(target="/v1/poll?"), me.key),
        (given, REQUEST._replace(digest="blake3:" + "1" * 64), me.key),
        (given._replace(member=8), REQUEST, me.key),
        (given._replace(expires=1001), REQUEST, me.key),
        (given._replace(audience="C" * 22), REQUEST, me.key),
        (given._replace(nonce="C" * 22), REQUEST, me.key),
        (given._replace(signature=bytes(64)), REQUEST, me.key),
        (given, REQUEST, other.key),
        (given, REQUEST, bytes(32)),
        (given, REQUEST, b""),
    ]
    for said, request, key in wrong:
        with pytest.raises(BadSignature):
            verify(said, request, key=key)


def test_nonces_differ():
    me = Identity(bytes(32))
    said = {name: value for name, value in SAID.items() if name != "nonce"}
    assert len({read_signature(sign(me, REQUEST, **said)).nonce for _ in range(100)}) == 100


def clock(times):
    """A clock whose steady part is what ``times`` holds."""
    return Clock(wall=lambda: 1000.0, steady=lambda: times[0])


def test_a_signature_has_its_time():
    times = [0.0]
    nonces = Nonces(clock(times), skew=60.0)
    given = Signature(7, "A" * 22, 1030, "B" * 22, b"")
    nonces.check_time(given)
    nonces.check_time(given._replace(expires=1060))
    with pytest.raises(SignatureExpired, match="holds 61 s, 1 too long"):
        nonces.check_time(given._replace(expires=1061))
    times[0] = 30.0
    with pytest.raises(SignatureExpired, match="expired 0 s ago"):
        nonces.check_time(given)


def test_a_nonce_is_kept_as_long_as_its_signature_holds():
    times = [0.0]
    nonces = Nonces(clock(times), skew=60.0)
    given = Signature(7, "A" * 22, 1030, "B" * 22, b"")
    nonces.take(given)
    nonces.take(given._replace(member=8))
    nonces.take(given._replace(nonce="C" * 22))
    for now in (0.0, 10.0, 29.9):
        times[0] = now
        with pytest.raises(Replayed):
            nonces.take(given)
    times[0] = 31.0
    nonces.take(given._replace(expires=1060))
    assert len(nonces) == 1


def test_a_clock_that_is_set_back_does_not_make_old_signatures_good():
    wall, times = [1000.0], [0.0]
    ours = Clock(wall=lambda: wall[0], steady=lambda: times[0])
    times[0], wall[0] = 100.0, 500.0
    assert ours.now() == 1100.0
