// Writes each event in the transaction of what it tells of.
package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log"
	"net"
	"os"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
)

const shards = 4

// ANCHOR: outbox
// tableOf gives the table of an aggregate: its events always go to the same one.
func tableOf(aggregateID string) string {
	return fmt.Sprintf("`delivery-outbox%d`", crc32.ChecksumIEEE([]byte(aggregateID))%shards+1)
}

// publish leaves an event for the relay, in the transaction.
func publish(tx *sql.Tx, aggregateID, eventType string, payload any) (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	value, err := json.Marshal(payload)
	if err != nil {
		return "", err
	}
	_, err = tx.Exec("INSERT INTO "+tableOf(aggregateID)+
		" (id, aggregatetype, aggregateid, type, payload, created_at)"+
		" VALUES (?, 'delivery', ?, ?, ?, UTC_TIMESTAMP(6))",
		id.String(), aggregateID, eventType, value)
	return id.String(), err
}

// ANCHOR_END: outbox

// ANCHOR: business
var errLost = errors.New("a delivery is never lost")

type change struct {
	Delivery string `json:"delivery"`
	Status   string `json:"status"`
}

func changeStatus(db *sql.DB, delivery, status, eventType string) (string, error) {
	tx, err := db.Begin()
	if err != nil {
		return "", err
	}
	defer tx.Rollback() // does nothing after a commit
	_, err = tx.Exec("INSERT INTO deliveries (id, status) VALUES (?, ?) AS new"+
		" ON DUPLICATE KEY UPDATE status = new.status", delivery, status)
	if err != nil {
		return "", err
	}
	id, err := publish(tx, delivery, eventType, change{delivery, status})
	if err != nil {
		return "", err
	}
	if status == "lost" {
		return "", errLost // neither the row nor the event remains
	}
	return id, tx.Commit()
}

// ANCHOR_END: business

func main() {
	config := mysql.NewConfig()
	config.Net = "tcp"
	config.Addr = net.JoinHostPort(os.Getenv("DB_HOST"), os.Getenv("DB_PORT"))
	config.User = os.Getenv("DB_USER")
	config.Passwd = os.Getenv("DB_PASSWORD")
	config.DBName = "delivery"
	db, err := sql.Open("mysql", config.FormatDSN())
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	steps := []struct{ status, eventType string }{
		{"created", "DeliveryCreated"},
		{"picked_up", "DeliveryPickedUp"},
		{"lost", "DeliveryLost"},
		{"completed", "DeliveryCompleted"},
	}
	for number := 1; number <= 20; number++ {
		for _, step := range steps {
			id, err := changeStatus(db, fmt.Sprintf("go-%d", number), step.status, step.eventType)
			switch {
			case err == nil:
				fmt.Println(id)
			case !errors.Is(err, errLost):
				log.Fatal(err)
			}
		}
	}
}
