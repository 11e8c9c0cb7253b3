-- One row for each closed minute of one exchange and symbol; "timestamp" is the minute's end.
CREATE TABLE IF NOT EXISTS price_aggregates (
    pair_name     text             NOT NULL,
    exchange      text             NOT NULL,
    "timestamp"   timestamptz      NOT NULL,
    average_price double precision NOT NULL,
    min_price     double precision NOT NULL,
    max_price     double precision NOT NULL,
    open_price    double precision NOT NULL,
    close_price   double precision NOT NULL,
    open_time     timestamptz      NOT NULL,
    close_time    timestamptz      NOT NULL,
    update_count  bigint           NOT NULL,
    PRIMARY KEY (pair_name, exchange, "timestamp")
);

-- Retention deletes the oldest rows of all pairs; the primary key cannot find them.
CREATE INDEX IF NOT EXISTS price_aggregates_timestamp_idx ON price_aggregates ("timestamp");
