-- What the rows depend on and a configuration must not change: the aggregation interval.
CREATE TABLE IF NOT EXISTS marketflow_settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);
