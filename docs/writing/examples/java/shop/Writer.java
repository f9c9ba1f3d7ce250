package shop;

import jakarta.persistence.EntityManagerFactory;
import javax.sql.DataSource;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.ComponentScan;
import org.springframework.context.annotation.Configuration;
import org.springframework.jdbc.datasource.DriverManagerDataSource;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;
import org.springframework.orm.jpa.vendor.HibernateJpaVendorAdapter;
import org.springframework.transaction.annotation.EnableTransactionManagement;

/** What Spring Boot sets up by itself, and some deliveries. */
@Configuration
@ComponentScan
@EnableTransactionManagement
public class Writer {
    @Bean
    DataSource dataSource() {
        String server = System.getenv("DB_HOST") + ":" + System.getenv("DB_PORT");
        return new DriverManagerDataSource(
                "jdbc:mysql://" + server + "/delivery", System.getenv("DB_USER"), System.getenv("DB_PASSWORD"));
    }

    @Bean
    LocalContainerEntityManagerFactoryBean entityManagerFactory(DataSource dataSource) {
        var factory = new LocalContainerEntityManagerFactoryBean();
        factory.setDataSource(dataSource);
        factory.setPackagesToScan("shop");
        factory.setJpaVendorAdapter(new HibernateJpaVendorAdapter());
        return factory;
    }

    @Bean
    JpaTransactionManager transactionManager(EntityManagerFactory factory) {
        return new JpaTransactionManager(factory);
    }

    public static void main(String[] arguments) {
        try (var context = new AnnotationConfigApplicationContext(Writer.class)) {
            var deliveries = context.getBean(Deliveries.class);
            for (int number = 1; number <= 20; number++) {
                String id = "java-" + number;
                System.out.println(deliveries.changeStatus(id, "created", "DeliveryCreated"));
                System.out.println(deliveries.changeStatus(id, "picked_up", "DeliveryPickedUp"));
                try {
                    deliveries.changeStatus(id, "lost", "DeliveryLost");
                } catch (IllegalArgumentException expected) {
                    // rolled back
                }
                System.out.println(deliveries.changeStatus(id, "completed", "DeliveryCompleted"));
            }
        }
    }
}
