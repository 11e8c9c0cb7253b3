-- compatible_from: 2
-- What the updates of a row have traded. Of these columns those with sums are null where no update told any.
ALTER TABLE price_aggregates
    ADD COLUMN IF NOT EXISTS volume         double precision,
    ADD COLUMN IF NOT EXISTS quote_volume   double precision,
    ADD COLUMN IF NOT EXISTS buy_volume     double precision,
    ADD COLUMN IF NOT EXISTS sell_volume    double precision,
    ADD COLUMN IF NOT EXISTS volume_updates bigint NOT NULL DEFAULT 0;
