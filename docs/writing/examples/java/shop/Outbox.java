package shop;

import jakarta.persistence.EntityManager;
import jakarta.persistence.PersistenceContext;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.UUID;
import java.util.zip.CRC32;
import org.springframework.stereotype.Component;
import org.springframework.transaction.annotation.Propagation;
import org.springframework.transaction.annotation.Transactional;

// ANCHOR: outbox
/** Leaves events for the relay, in the transaction of what they tell of. */
@Component
public class Outbox {
    private static final int SHARDS = 4;
    private static final SecureRandom RANDOM = new SecureRandom();

    @PersistenceContext private EntityManager entities;

    /** MANDATORY: an event without a transaction is a bug, and fails here. */
    @Transactional(propagation = Propagation.MANDATORY)
    public UUID publish(String aggregateId, String type, String json) {
        UUID id = uuid7();
        entities.createNativeQuery(
                        "INSERT INTO " + tableOf(aggregateId)
                                + " (id, aggregatetype, aggregateid, type, payload, created_at)"
                                + " VALUES (?, 'delivery', ?, ?, ?, UTC_TIMESTAMP(6))")
                .setParameter(1, id.toString())
                .setParameter(2, aggregateId)
                .setParameter(3, type)
                .setParameter(4, json)
                .executeUpdate();
        return id;
    }

    /** An aggregate's events always go to the same table. */
    static String tableOf(String aggregateId) {
        CRC32 crc = new CRC32();
        crc.update(aggregateId.getBytes(StandardCharsets.UTF_8));
        return "`delivery-outbox" + (crc.getValue() % SHARDS + 1) + "`";
    }

    /** Milliseconds in front, so that ids ascend; the rest is random (RFC 9562). */
    static UUID uuid7() {
        long version = 0x7000L, variant = 0x8000_0000_0000_0000L;
        return new UUID(
                System.currentTimeMillis() << 16 | version | RANDOM.nextLong() & 0x0FFF,
                RANDOM.nextLong() & 0x3FFF_FFFF_FFFF_FFFFL | variant);
    }
}
// ANCHOR_END: outbox
