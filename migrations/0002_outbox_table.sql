-- One outbox shard; insert-only. `{schema}` and `{table}` stand for a configured table.
CREATE DATABASE IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.{table} (
  seq           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT COMMENT 'the order in which rows were inserted, for reading the table itself',
  id            CHAR(36) CHARACTER SET ascii NOT NULL COMMENT 'the event, header id',
  aggregatetype VARCHAR(255) NOT NULL COMMENT 'kind of aggregate, may choose the topic',
  aggregateid   VARCHAR(255) NOT NULL COMMENT 'the record''s key, order holds within it',
  type          VARCHAR(255) NOT NULL COMMENT 'kind of event, header eventType',
  payload       JSON NULL COMMENT 'the record''s value',
  PRIMARY KEY (seq),
  UNIQUE KEY id (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4;
