package shop;

import jakarta.persistence.Entity;
import jakarta.persistence.Id;
import jakarta.persistence.Table;

/** A delivery, an aggregate. */
@Entity
@Table(name = "deliveries")
public class Delivery {
    @Id private String id;
    private String status;

    protected Delivery() {}

    public Delivery(String id, String status) {
        this.id = id;
        this.status = status;
    }
}
