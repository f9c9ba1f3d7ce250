-- Where each table resumes. `{schema}` and `{table}` stand for [positions] schema and table.
-- The table's comment tells its version: a later migration raises it together with its change.
CREATE DATABASE IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.{table} (
  table_name VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'schema.table of the outbox',
  epoch      BIGINT UNSIGNED NOT NULL COMMENT 'raised by each claim, a save under an older one is refused',
  owner      VARCHAR(255) NOT NULL COMMENT 'host and process id of the last claim',
  position   LONGTEXT NULL COMMENT 'kind=value, and rows of a transaction relayed in part',
  saved_at   TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  PRIMARY KEY (table_name)
) ENGINE = InnoDB COMMENT = 'outboxd positions, version 1';
