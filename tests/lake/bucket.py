"""S3-compatible servers for the tests, on free loopback ports: moto's, and MinIO where its program is found."""

import http.client
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["Server", "find_minio"]

KEYS = {"AWS_ACCESS_KEY_ID": "boucle-test", "AWS_SECRET_ACCESS_KEY": "boucle-test-secret"}
_PATIENCE = 60.0


def find_minio() -> str | None:
    """MinIO: `go install github.com/minio/minio@latest`, on the PATH, in build/minio, or where BOUCLE_MINIO says."""
    built = Path(__file__).parents[2] / "build" / "minio" / "minio"
    found = os.environ.get("BOUCLE_MINIO") or shutil.which("minio")
    return found or (str(built) if built.exists() else None)


class Server:
    """A server with one bucket, `lake`; it can be taken away and brought back with what it holds (MinIO only)."""

    def __init__(self, kind: str, port: int, folder: Path) -> None:
        self.kind, self.port, self.folder = kind, port, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        if self._request("PUT", "/lake") not in {200, 409}:
            self._make_bucket()

    def address(self, path: str) -> str:
        return f"s3://lake/{path}?endpoint=http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, and return when it answers."""
        listen = f"127.0.0.1:{self.port}"
        if self.kind == "minio":
            program = find_minio()
            assert program is not None
            words = [program, "server", "--quiet", "--address", listen, str(self.folder)]
            (self.folder / "lake").mkdir(
                parents=True, exist_ok=True
            )  # a folder of its own is a bucket to MinIO
        else:
            words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        env = {**os.environ, "MINIO_ROOT_USER": "boucle-test", "MINIO_ROOT_PASSWORD": "boucle-test-secret"}
        self._process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + _PATIENCE
        while self._request("GET", "/") == 0:
            assert self._process.poll() is None, f"{self.kind} ended at once"
            assert time.monotonic() < until, f"{self.kind} does not answer"
            time.sleep(0.1)

    def stop(self) -> None:
        """Take it away, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _request(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def _make_bucket(self) -> None:
        from pyarrow.fs import S3FileSystem

        S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            region="us-east-1",
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            allow_bucket_creation=True,
        ).create_dir("lake")
