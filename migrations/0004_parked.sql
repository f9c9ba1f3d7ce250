-- Aggregates whose events are set aside, known together with the position.
ALTER TABLE {schema}.{table}
  ADD COLUMN parked LONGTEXT CHARACTER SET utf8mb4 NULL COMMENT 'parked aggregates: why, since when and how many events, as JSON',
  COMMENT = 'outboxd positions, version 3';
