package shop;

import jakarta.persistence.EntityManager;
import jakarta.persistence.PersistenceContext;
import java.util.UUID;
import org.springframework.stereotype.Service;
import org.springframework.transaction.annotation.Transactional;

// ANCHOR: business
/** What the application does with deliveries. */
@Service
public class Deliveries {
    private final Outbox outbox;

    @PersistenceContext private EntityManager entities;

    public Deliveries(Outbox outbox) {
        this.outbox = outbox;
    }

    @Transactional
    public UUID changeStatus(String id, String status, String type) {
        entities.merge(new Delivery(id, status));
        String json = "{\"delivery\": \"%s\", \"status\": \"%s\"}".formatted(id, status); // use your JSON library
        UUID event = outbox.publish(id, type, json);
        if (status.equals("lost")) {
            throw new IllegalArgumentException("a delivery is never lost"); // neither the row nor the event remains
        }
        return event;
    }
}
// ANCHOR_END: business
