-- compatible_from: 2
-- The last term of each exchange that nodes of a cluster share. The epoch belongs to a unique index, since only
-- then a new term waits for rows that are being written under the one before, and a renewal does not.
CREATE TABLE IF NOT EXISTS marketflow_leases (
    exchange text        PRIMARY KEY,
    epoch    bigint      NOT NULL,
    term     text        NOT NULL,
    node     text        NOT NULL,
    boot     text        NOT NULL,
    taken    timestamptz NOT NULL,
    expires  timestamptz NOT NULL,
    released boolean     NOT NULL DEFAULT false,
    UNIQUE (exchange, epoch)
);

-- The nodes of the cluster, as they tell of themselves.
CREATE TABLE IF NOT EXISTS marketflow_nodes (
    node      text        PRIMARY KEY,
    boot      text        NOT NULL,
    role      text        NOT NULL,
    url       text        NOT NULL,
    version   text        NOT NULL,
    leaving   boolean     NOT NULL,
    heartbeat timestamptz NOT NULL
);

-- The mode of the cluster, in one row at most. The generation grows with each change.
CREATE TABLE IF NOT EXISTS marketflow_cluster (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    mode       text    NOT NULL CHECK (mode IN ('live', 'test')),
    generation bigint  NOT NULL
);
