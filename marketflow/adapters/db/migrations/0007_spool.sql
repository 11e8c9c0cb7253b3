-- compatible_from: 2
-- What terms of a cluster have left behind for the next ones: bars that Redis did not take. One row a save.
CREATE TABLE IF NOT EXISTS marketflow_spool (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange text        NOT NULL,
    term     text        NOT NULL,
    saved    timestamptz NOT NULL DEFAULT clock_timestamp(),
    bars     text        NOT NULL
);
CREATE INDEX IF NOT EXISTS marketflow_spool_exchange ON marketflow_spool (exchange);
