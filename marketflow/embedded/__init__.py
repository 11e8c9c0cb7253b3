"""Real Redis and PostgreSQL as child processes: for `serve --embedded`, the demo, tests and benchmarks.

Both listen on Unix sockets in a directory that only their account can enter, and not on the network. They
never run as root: if we do, they run under another account. They keep their data in a directory of the
caller's, and end with this process, however it ends: on Linux the kernel signals them when it dies;
elsewhere the next start on the same directory finds them by their pid file and stops them. A lock on the
directory, held while a server is in use, keeps a second marketflow out.
"""

from marketflow.embedded.errors import EmbeddedError
from marketflow.embedded.postgres import EmbeddedPostgres
from marketflow.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]
