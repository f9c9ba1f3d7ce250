CREATE DATABASE IF NOT EXISTS delivery;

-- The application's own data.
CREATE TABLE delivery.deliveries (
  id     VARCHAR(64) NOT NULL PRIMARY KEY,
  status VARCHAR(32) NOT NULL
) ENGINE = InnoDB;

-- A shard as `outboxd migrate` makes it, and when the event was written.
CREATE TABLE delivery.`delivery-outbox1` (
  seq           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  id            CHAR(36) CHARACTER SET ascii NOT NULL UNIQUE,
  aggregatetype VARCHAR(255) NOT NULL,
  aggregateid   VARCHAR(255) NOT NULL,
  type          VARCHAR(255) NOT NULL,
  payload       JSON NULL,
  created_at    DATETIME(6) NOT NULL,
  KEY (created_at)
) ENGINE = InnoDB;
CREATE TABLE delivery.`delivery-outbox2` LIKE delivery.`delivery-outbox1`;
CREATE TABLE delivery.`delivery-outbox3` LIKE delivery.`delivery-outbox1`;
CREATE TABLE delivery.`delivery-outbox4` LIKE delivery.`delivery-outbox1`;

-- What the application may do: it never reads its events again.
CREATE USER 'shop'@'%' IDENTIFIED BY 'shop';
GRANT SELECT, INSERT, UPDATE ON delivery.deliveries TO 'shop'@'%';
GRANT INSERT ON delivery.`delivery-outbox1` TO 'shop'@'%';
GRANT INSERT ON delivery.`delivery-outbox2` TO 'shop'@'%';
GRANT INSERT ON delivery.`delivery-outbox3` TO 'shop'@'%';
GRANT INSERT ON delivery.`delivery-outbox4` TO 'shop'@'%';
