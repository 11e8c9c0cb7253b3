-- compatible_from: 2
-- The boot that has written `ready`. A release before that column leaves it as it was, so what it has of another
-- boot counts for nothing.
ALTER TABLE marketflow_nodes ADD COLUMN IF NOT EXISTS ready_boot text;
