"""The statements about rows of aggregates, about leases, and about the settings of a session."""

# ruff: noqa: S608 - the parts that are put together are constants

from __future__ import annotations

from typing import Final

# Whether a row can be one of ours: somebody else may have written to the table. It checks the same as
# `is_foreign_row`, but for fractions of a millisecond. It is a CASE, since the planner would take the
# conditions for independent, expect next to no rows, and read the whole table instead of an index. NULL is
# not ours, nor is NaN, which PostgreSQL orders behind infinity. By `date_bin` the row ends where an interval
# ends, and the update that opened it is within that interval.
_OURS: Final = """
CASE WHEN stored.update_count BETWEEN 1 AND %(most)s
      AND 0 < stored.min_price AND stored.max_price < 'infinity'
      AND stored.average_price BETWEEN stored.min_price AND stored.max_price
      AND stored.open_price BETWEEN stored.min_price AND stored.max_price
      AND stored.close_price BETWEEN stored.min_price AND stored.max_price
      AND stored.open_time <= stored.close_time AND stored.close_time < stored."timestamp"
      AND stored.open_time < stored."timestamp"
      AND date_bin(%(interval)s, stored.open_time, %(epoch)s) = stored."timestamp" - %(interval)s
      AND CASE WHEN stored.volume_updates = 0
               THEN num_nonnulls(stored.volume, stored.quote_volume, stored.buy_volume,
                                 stored.sell_volume) = 0
               ELSE stored.volume_updates BETWEEN 1 AND stored.update_count
                AND stored.volume BETWEEN 0 AND 1.000001e18 * stored.volume_updates
                AND stored.quote_volume BETWEEN 0 AND 1.000001e280 * stored.volume_updates
                AND num_nulls(stored.buy_volume, stored.sell_volume) <> 1
                AND coalesce(stored.buy_volume, 0) >= 0 AND coalesce(stored.sell_volume, 0) >= 0
                AND coalesce(stored.buy_volume + stored.sell_volume, 0) <= 1.000001 * stored.volume END
     THEN true ELSE false END
"""

# The rows of a pair within a span. OFFSET 0 keeps the planner from checking a row for each use of `ours`.
_CHECKED: Final = f"""
(
    SELECT *, {_OURS} AS ours
    FROM price_aggregates AS stored
    WHERE stored.pair_name = pair.pair_name AND stored.exchange = pair.exchange
      AND "timestamp" BETWEEN %(first)s AND %(last)s
    OFFSET 0
) AS a
"""

# All rows are one parameter: a parameter for each column of each row took eight times the processor time.
# Numbers in JSON are the shortest texts that are exact; times are Unix ms.
_INSERT: Final = """
INSERT INTO price_aggregates AS stored (
    pair_name, exchange, "timestamp", average_price, min_price, max_price, open_price, close_price,
    open_time, close_time, update_count, volume, quote_volume, buy_volume, sell_volume, volume_updates
)
SELECT symbol, exchange, 'epoch'::timestamptz + "end" * interval '1 ms', average, min, max, open, close,
       'epoch'::timestamptz + open_time * interval '1 ms',
       'epoch'::timestamptz + close_time * interval '1 ms', count,
       volume, quote, buy, sell, coalesce(updates, 0)
FROM json_to_recordset(%(rows)s::json) AS row (
    symbol text, exchange text, "end" bigint, average float8, min float8, max float8,
    open float8, close float8, open_time bigint, close_time bigint, count bigint,
    volume float8, quote float8, buy float8, sell float8, updates bigint
)
"""

_OR_REPLACE: Final = f"""
ON CONFLICT (pair_name, exchange, "timestamp") DO UPDATE SET
    (average_price, min_price, max_price, open_price, close_price, open_time, close_time, update_count,
     volume, quote_volume, buy_volume, sell_volume, volume_updates)
    = (excluded.average_price, excluded.min_price, excluded.max_price, excluded.open_price,
       excluded.close_price, excluded.open_time, excluded.close_time, excluded.update_count,
       excluded.volume, excluded.quote_volume, excluded.buy_volume, excluded.sell_volume,
       excluded.volume_updates)
WHERE (excluded.update_count, excluded.volume_updates) >= (stored.update_count, stored.volume_updates)
   OR NOT {_OURS}
"""

WRITE: Final = f"{_INSERT}{_OR_REPLACE}"

# The lease of a term, if that is the last one of its exchange. A takeover changes the epoch, which belongs to
# a unique index, so it waits for the end of this transaction. A renewal changes no such column, and does not.
_HELD: Final = """
held AS MATERIALIZED (
    SELECT exchange FROM marketflow_leases
    WHERE exchange = %(held_exchange)s AND epoch = %(held_epoch)s AND term = %(held_term)s
      AND NOT released
    FOR KEY SHARE
)
"""

# Returns whether the term was held; otherwise nothing was written.
WRITE_HELD: Final = f"""
WITH {_HELD}, written AS ({_INSERT} WHERE EXISTS (SELECT FROM held) {_OR_REPLACE})
SELECT EXISTS (SELECT FROM held)
"""

# For buckets as wide as the rows: nothing is merged. Times are returned as Unix ms, which is exact (`extract`
# is numeric) and takes half the time of converting them to dates and back in Python.
ROWS: Final = f"""
SELECT pair.pair_name, pair.exchange,
       (extract(epoch FROM date_bin(%(width)s, "timestamp" - %(interval)s, %(epoch)s)) * 1000)::bigint,
       CASE WHEN ours THEN 0 ELSE 1 END,
       CASE WHEN ours THEN update_count ELSE 0 END, average_price, NULL, min_price, max_price,
       open_price, CASE WHEN ours THEN (extract(epoch FROM open_time) * 1000)::bigint END,
       close_price, CASE WHEN ours THEN (extract(epoch FROM close_time) * 1000)::bigint END,
       volume_updates, volume, quote_volume, buy_volume, sell_volume
FROM unnest(%(symbols)s::text[], %(exchanges)s::text[]) AS pair (pair_name, exchange)
CROSS JOIN LATERAL {_CHECKED}
"""

# Reads one range of the primary key for each pair. Then the first and the last row of a bucket are looked up
# by key: sorting for them costs twice as much, and without LIMIT the planner joins the whole table.
BUCKETS: Final = f"""
SELECT pair_name, exchange, (extract(epoch FROM bucket) * 1000)::bigint,
       others, updates, small, large, lowest, highest,
       opening.open_price, (extract(epoch FROM opening.open_time) * 1000)::bigint,
       closing.close_price, (extract(epoch FROM closing.close_time) * 1000)::bigint,
       volume_updates, volume, quote, buy, sell
FROM unnest(%(symbols)s::text[], %(exchanges)s::text[]) AS pair (pair_name, exchange)
CROSS JOIN LATERAL (
    SELECT date_bin(%(width)s, "timestamp" - %(interval)s, %(epoch)s) AS bucket,
           count(*) FILTER (WHERE NOT ours) AS others,
           coalesce(sum(update_count) FILTER (WHERE ours), 0)::bigint AS updates,
           coalesce(sum(average_price * update_count)
                    FILTER (WHERE ours AND average_price < %(large)s), 0) AS small,
           coalesce(sum(average_price / %(scale)s * update_count)
                    FILTER (WHERE ours AND average_price >= %(large)s), 0) AS large,
           min(min_price) FILTER (WHERE ours) AS lowest, max(max_price) FILTER (WHERE ours) AS highest,
           coalesce(sum(volume_updates) FILTER (WHERE ours), 0)::bigint AS volume_updates,
           sum(volume) FILTER (WHERE ours) AS volume, sum(quote_volume) FILTER (WHERE ours) AS quote,
           sum(buy_volume) FILTER (WHERE ours) AS buy, sum(sell_volume) FILTER (WHERE ours) AS sell,
           min("timestamp") FILTER (WHERE ours) AS first_end,
           max("timestamp") FILTER (WHERE ours) AS last_end
    FROM {_CHECKED}
    GROUP BY bucket
) AS merged
LEFT JOIN LATERAL (
    SELECT open_price, open_time FROM price_aggregates AS a
    WHERE a.pair_name = pair.pair_name AND a.exchange = pair.exchange AND a."timestamp" = merged.first_end
    LIMIT 1
) AS opening ON true
LEFT JOIN LATERAL (
    SELECT close_price, close_time FROM price_aggregates AS a
    WHERE a.pair_name = pair.pair_name AND a.exchange = pair.exchange AND a."timestamp" = merged.last_end
    LIMIT 1
) AS closing ON true
"""

NEWEST: Final = f"""
SELECT pair_name, exchange, newest.close_price, (extract(epoch FROM newest.close_time) * 1000)::bigint
FROM unnest(%(symbols)s::text[], %(exchanges)s::text[]) AS pair (pair_name, exchange)
CROSS JOIN LATERAL (
    SELECT close_price, close_time FROM price_aggregates AS stored
    WHERE stored.pair_name = pair.pair_name AND stored.exchange = pair.exchange
      AND "timestamp" BETWEEN %(first)s AND %(last)s AND {_OURS}
    ORDER BY "timestamp" DESC LIMIT 1
) AS newest
"""

SKIP: Final = f"""
SELECT (extract(epoch FROM min(later."timestamp" - %(interval)s)) * 1000)::bigint
FROM unnest(%(symbols)s::text[], %(exchanges)s::text[]) AS pair (pair_name, exchange)
CROSS JOIN LATERAL (
    SELECT "timestamp" FROM price_aggregates AS stored
    WHERE stored.pair_name = pair.pair_name AND stored.exchange = pair.exchange
      AND "timestamp" BETWEEN %(first)s AND %(last)s AND {_OURS}
    ORDER BY "timestamp" OFFSET %(rows)s LIMIT 1
) AS later
"""

SKIP_BACK: Final = f"""
SELECT (extract(epoch FROM max(earlier."timestamp")) * 1000)::bigint
FROM unnest(%(symbols)s::text[], %(exchanges)s::text[]) AS pair (pair_name, exchange)
CROSS JOIN LATERAL (
    SELECT "timestamp" FROM price_aggregates AS stored
    WHERE stored.pair_name = pair.pair_name AND stored.exchange = pair.exchange
      AND "timestamp" BETWEEN %(first)s AND %(last)s AND {_OURS}
    ORDER BY "timestamp" DESC OFFSET %(rows)s LIMIT 1
) AS earlier
"""

# Deletes the oldest rows of some exchanges, or of all exchanges if the parameter is NULL, but none of others.
# All rows with the last timestamp among them are deleted. A range of timestamps is correct for partitioned
# tables, too, where a ctid is unique only within a partition. A join with the oldest rows compared each row
# with all rows of its timestamp, or read all old rows, depending on the planner's statistics, which may be
# missing. The lower bound tells the planner that the range is narrow, so that it uses the index.
_IN_SCOPE: Final = """(
    exchange <> ALL (%(others)s::text[])
    AND (%(exchanges)s::text[] IS NULL OR exchange = ANY (%(exchanges)s::text[]))
)"""
_DELETE: Final = f"""
DELETE FROM price_aggregates
WHERE "timestamp" < %(limit)s
  AND "timestamp" >= (SELECT min("timestamp") FROM price_aggregates)
  AND "timestamp" <= (
    SELECT max("timestamp")
    FROM (
        SELECT "timestamp" FROM price_aggregates
        WHERE "timestamp" < %(limit)s
          AND {_IN_SCOPE}
        ORDER BY "timestamp" LIMIT %(rows)s
    ) AS oldest
  )
  AND {_IN_SCOPE}
"""

DELETE: Final = f"{_DELETE}"

# Which exchanges others have, or had until lately; NULL unless ours is the first of all that somebody has.
OTHERS: Final = """
SELECT CASE WHEN coalesce(min(exchange) > %(exchange)s, true) THEN coalesce(array_agg(exchange), '{}') END
FROM marketflow_leases
WHERE exchange <> %(exchange)s AND NOT released
  AND expires > clock_timestamp() - %(forgotten)s * interval '1 ms'
"""

# As WRITE_HELD, and how many rows were deleted.
DELETE_HELD: Final = f"""
WITH {_HELD}, deleted AS ({_DELETE} AND EXISTS (SELECT FROM held) RETURNING 1)
SELECT EXISTS (SELECT FROM held), (SELECT count(*) FROM deleted)
"""

# ---- who uses the database ----

# Only a change is written.
NOTE_USE: Final = """
WITH before AS MATERIALIZED (SELECT value FROM marketflow_settings WHERE name = 'used_by')
INSERT INTO marketflow_settings AS known (name, value) VALUES ('used_by', %s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE known.value <> excluded.value
RETURNING (SELECT value FROM before)
"""

# ---- what terms leave behind ----

SPOOLED: Final = "SELECT id, bars FROM marketflow_spool WHERE exchange = %(held_exchange)s ORDER BY id"
ALL_SPOOLED: Final = "SELECT id, bars FROM marketflow_spool ORDER BY id"
UNSPOOL: Final = "DELETE FROM marketflow_spool WHERE id = ANY (%s::bigint[])"

# Replaces the rows with these ids by one with `bars`, or by none. Returns whether the term was held, and the
# id of the new row; without the lease nothing changes, since the next term may have read the rows already.
SPOOL_HELD: Final = f"""
WITH {_HELD}, removed AS (
    DELETE FROM marketflow_spool
    WHERE id = ANY (%(ids)s::bigint[]) AND exchange = %(held_exchange)s AND EXISTS (SELECT FROM held)
), saved AS (
    INSERT INTO marketflow_spool (exchange, term, bars)
    SELECT %(held_exchange)s, %(held_term)s, %(bars)s::text
    WHERE %(bars)s::text IS NOT NULL AND EXISTS (SELECT FROM held)
    RETURNING id
)
SELECT EXISTS (SELECT FROM held), (SELECT id FROM saved)
"""

# ---- leases, by the clock of the server ----

# All leases and nodes, and the mode, at one moment. Times to come and past are in ms.
SIGHT: Final = """
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT (extract(epoch FROM now) * 1000)::bigint,
       (SELECT coalesce(json_agg(json_build_array(
            exchange, epoch, term, node, boot, (extract(epoch FROM expires - now) * 1000)::bigint,
            (extract(epoch FROM taken) * 1000)::bigint, released
        )), '[]') FROM marketflow_leases),
       (SELECT coalesce(json_agg(json_build_array(
            node, boot, url, role, version, leaving, CASE WHEN ready_boot = boot THEN ready ELSE '{}' END,
            (extract(epoch FROM now - heartbeat) * 1000)::bigint
        )), '[]') FROM marketflow_nodes),
       (SELECT json_build_array(mode, generation) FROM marketflow_cluster)
FROM clock
"""

# A node's heartbeat, unless another boot of the same name lives; and the leases of its terms. A heartbeat
# that is far ahead is of before a step of the clock, so it tells nothing. Renewals wait for no write of rows.
# An older release leaves `ready` as an earlier boot of its node has written it.
# Nodes that were not heard of for long are forgotten; with SKIP LOCKED nothing waits.
BEAT: Final = """
WITH alive AS (
    INSERT INTO marketflow_nodes AS known (
        node, boot, url, role, version, leaving, ready, ready_boot, heartbeat
    )
    VALUES (%(node)s, %(boot)s, %(url)s, %(role)s, %(version)s, %(leaving)s, %(ready)s::text[], %(boot)s,
            clock_timestamp())
    ON CONFLICT (node) DO UPDATE SET
        (boot, url, role, version, leaving, ready, ready_boot, heartbeat)
        = (excluded.boot, excluded.url, excluded.role, excluded.version, excluded.leaving,
           excluded.ready, excluded.ready_boot, excluded.heartbeat)
    WHERE known.boot = excluded.boot
       OR abs(extract(epoch FROM clock_timestamp() - known.heartbeat)) * 1000 > %(lasts)s
), gone AS (
    DELETE FROM marketflow_nodes WHERE node IN (
        SELECT node FROM marketflow_nodes
        WHERE node <> %(node)s AND heartbeat < clock_timestamp() - %(forgotten)s * interval '1 ms'
        FOR UPDATE SKIP LOCKED
    )
)
UPDATE marketflow_leases AS lease SET expires = clock_timestamp() + %(lasts)s * interval '1 ms'
FROM unnest(%(exchanges)s::text[], %(epochs)s::bigint[], %(terms)s::text[]) AS held (exchange, epoch, term)
WHERE lease.exchange = held.exchange AND lease.epoch = held.epoch AND lease.term = held.term
  AND NOT lease.released
"""

# Whether the mode is still of a generation, if one is given. A switch waits for the row's lock, and so for
# the take; a take that waits for a switch reads its generation.
_MODE_KEPT: Final = """
(%(generation)s::bigint IS NULL
 OR %(generation)s::bigint = (SELECT generation FROM marketflow_cluster FOR SHARE))
"""

TAKE_FIRST: Final = f"""
INSERT INTO marketflow_leases (exchange, epoch, term, node, boot, taken, expires)
SELECT %(exchange)s, %(epoch)s, %(term)s, %(node)s, %(boot)s, clock_timestamp(),
       clock_timestamp() + %(lasts)s * interval '1 ms'
WHERE {_MODE_KEPT}
ON CONFLICT DO NOTHING
"""

# It waits for rows that are being written under the term before, see _HELD. If that was renewed meanwhile,
# the conditions are checked again. A lease that ends later than one which is renewed now was renewed before
# the clock stepped back. Whether its owner lives is known by the taker's own clock alone.
TAKE_AFTER: Final = f"""
UPDATE marketflow_leases SET epoch = %(epoch)s, term = %(term)s, node = %(node)s, boot = %(boot)s,
       taken = clock_timestamp(), expires = clock_timestamp() + %(lasts)s * interval '1 ms', released = false
WHERE exchange = %(exchange)s AND epoch = %(last_epoch)s AND term = %(last_term)s AND epoch < %(epoch)s
  AND (released OR (node = %(node)s AND boot = %(boot)s)
       OR expires NOT BETWEEN clock_timestamp() AND clock_timestamp() + %(lasts)s * interval '1 ms')
  AND {_MODE_KEPT}
"""

RELEASE: Final = """
UPDATE marketflow_leases AS lease SET released = true
FROM unnest(%(exchanges)s::text[], %(epochs)s::bigint[], %(terms)s::text[]) AS held (exchange, epoch, term)
WHERE lease.exchange = held.exchange AND lease.epoch = held.epoch AND lease.term = held.term
"""

FOUND: Final = """
INSERT INTO marketflow_cluster AS known (mode, generation)
SELECT %(mode)s, 1
WHERE NOT EXISTS (SELECT FROM marketflow_nodes) OR NOT EXISTS (SELECT FROM marketflow_cluster)
ON CONFLICT (one) DO UPDATE SET mode = excluded.mode, generation = known.generation + 1
WHERE known.mode <> excluded.mode
"""

SWITCH: Final = """
UPDATE marketflow_cluster SET mode = %(mode)s, generation = generation + 1 WHERE generation = %(generation)s
"""

LEAVE: Final = "DELETE FROM marketflow_nodes WHERE node = %(node)s AND boot = %(boot)s"

LAST_TERM: Final = "SELECT epoch, term, released FROM marketflow_leases WHERE exchange = %(exchange)s"

# ---- settings ----

# MATERIALIZED makes it read all previous settings before it changes one. Of two limits the smaller one is
# used, where 0 means none. Existing schemas of the search path are kept, without pg_catalog and pg_temp.
# pg_catalog is searched first unless it is named, so no other function can shadow one of PostgreSQL; pg_temp
# comes last.
PIN: Final = """
WITH before AS MATERIALIZED (
    SELECT name, setting, source, current_setting(name) AS shown
    FROM pg_settings WHERE name = ANY (%(names)s::text[])
), chosen AS MATERIALIZED (
    SELECT name, shown, source,
           CASE kind
               WHEN 'limit' THEN
                   CASE WHEN setting::bigint BETWEEN 1 AND wanted::bigint THEN setting ELSE wanted END
               WHEN 'default' THEN CASE WHEN source = ANY (%(for_us)s::text[]) THEN setting ELSE wanted END
               ELSE wanted
           END AS value,
           setting
    FROM unnest(%(names)s::text[], %(wanted)s::text[], %(kinds)s::text[]) AS pin (name, wanted, kind)
    JOIN before USING (name)
)
SELECT name, shown, value <> setting AND source = ANY (%(for_us)s::text[]), set_config(name, value, false)
FROM chosen
UNION ALL
SELECT 'search_path', '', false, set_config('search_path', coalesce((
    SELECT string_agg(quote_ident(schema), ', ' ORDER BY place)
    FROM unnest(current_schemas(false)::text[]) WITH ORDINALITY AS path (schema, place)
    WHERE schema <> 'pg_catalog' AND schema NOT LIKE 'pg\\_temp%%'
), 'public') || ', pg_temp', false)
"""
