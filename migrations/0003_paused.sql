-- Tables that an operator has paused stay so across restarts.
ALTER TABLE {schema}.{table}
  ADD COLUMN paused TEXT CHARACTER SET utf8mb4 NULL COMMENT 'by whom, since when and why it is not relayed, as JSON',
  COMMENT = 'outboxd positions, version 2';
