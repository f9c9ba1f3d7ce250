-- For docker compose: the relay's account with the least it needs, and one for an application.
CREATE USER 'outboxd'@'%' IDENTIFIED BY 'outboxd';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'outboxd'@'%';
GRANT SELECT ON `delivery`.* TO 'outboxd'@'%';
GRANT SELECT, INSERT, UPDATE ON `outboxd`.* TO 'outboxd'@'%';

CREATE USER 'app'@'%' IDENTIFIED BY 'app';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `delivery`.* TO 'app'@'%';
