"""An S3 server on loopback."""

import urllib.request

import pytest


@pytest.fixture(scope="session")
def s3():
    """The settings with which the server is reached, and a bucket called umbel."""
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/umbel", method="PUT"), timeout=30).close()
    yield {
        "endpoint": f"http://{host}:{port}",
        "region": "us-east-1",
        "access_key_id": "test",
        "secret_access_key": "test",
        "virtual_hosted_style_request": "false",
    }
    running.stop()
