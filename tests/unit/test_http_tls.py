"""TLS: certificates that the server makes, pins of clients, and what each fault is called."""

from http_stand import POLL, run
from umbel.http import Certificate, Settings
from umbel.http.wire import Polled


def test_a_pinned_client_talks_over_tls(tmp_path):
    certificate = Certificate.keep(tmp_path, ["127.0.0.1"])

    async def main(stand):
        async with stand.client(fingerprint=certificate.fingerprint) as client:
            assert await client.call("poll", POLL) == Polled(tasks=[], cancelled=[])

    run(main, Settings(port=0, certificate=certificate))
