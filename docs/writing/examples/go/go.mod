module example/outbox-writer

go 1.21

require (
	github.com/go-sql-driver/mysql v1.8.1
	github.com/google/uuid v1.6.0
)

require filippo.io/edwards25519 v1.1.0 // indirect
