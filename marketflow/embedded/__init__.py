"""Real Redis and PostgreSQL as child processes: for `serve --embedded`, the demo, tests and benchmarks.

They do not listen on the network, only on Unix sockets in a directory that only their account can enter. They
never run as root: if marketflow does, they run under another account. They keep their data in a directory
that the caller chooses. They end with this process, even if it is killed: on Linux the kernel signals them;
elsewhere the next start on the same directory finds them by their pid file and stops them. While a server is
in use, a lock on the directory keeps a second marketflow out.
"""

from marketflow.embedded.errors import EmbeddedError
from marketflow.embedded.postgres import EmbeddedPostgres
from marketflow.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]
