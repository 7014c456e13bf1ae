"""The shipped suite of blobs, on a directory and on an object store that speaks S3."""

import uuid

import pytest

from umbel.store import DirectoryBlobs, ObjectBlobs
from umbel.testing import BlobStoreTests


class TestDirectory(BlobStoreTests):
    @pytest.fixture
    def blobs(self, tmp_path):
        return DirectoryBlobs(tmp_path / "blobs")


class TestLocalObjects(BlobStoreTests):
    @pytest.fixture
    def blobs(self, tmp_path):
        pytest.importorskip("obstore", reason="the extra s3 is not installed")
        (tmp_path / "objects").mkdir()
        return ObjectBlobs(f"file://{tmp_path}/objects", tmp_path / "copies")


class TestS3(BlobStoreTests):
    @pytest.fixture
    def blobs(self, s3, tmp_path):
        return ObjectBlobs(f"s3://umbel/{uuid.uuid4()}", tmp_path / "copies", config=s3)
