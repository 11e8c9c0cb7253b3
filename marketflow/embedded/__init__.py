"""Real Redis and PostgreSQL as child processes: for `serve --embedded`, the demo, tests and benchmarks.

Both listen on 127.0.0.1 only, keep their data in a directory of the caller's, and end with this process,
however it ends: on Linux the kernel signals them when it dies; elsewhere the next start on the same
directory finds them by their pid file and stops them. A lock on the directory, held while a server is in
use, keeps a second marketflow out.
"""

from marketflow.embedded.postgres import EmbeddedPostgres
from marketflow.embedded.redis import EmbeddedRedis
from marketflow.embedded.server import EmbeddedError

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]
