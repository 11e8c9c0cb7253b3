-- compatible_from: 2
-- The exchanges for which a node has a record of what they send, and which it could take over without a loss.
ALTER TABLE marketflow_nodes ADD COLUMN IF NOT EXISTS ready text[] NOT NULL DEFAULT '{}';
