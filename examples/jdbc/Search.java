// Searches products with JDBC: creates and fills a table, joins answers with live rows, and turns pages.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;

public final class Search {
    private static final String PRODUCTS = """
        insert into products values
            (1, 'Fleece jacket', 'Light and warm, dries fast after rain', 'clothing', 89.90),
            (2, 'Down sleeping bag', 'Keeps you warm down to -5 degrees', 'camping', 249.00),
            (3, 'Trail boots', 'Waterproof boots for long walks in the hills', 'shoes', 139.00),
            (4, 'Wool hat', 'Thin enough to wear under a hood', 'clothing', 25.00),
            (5, 'Gas stove', 'Boils a litre of water in four minutes', 'camping', 45.50),
            (6, 'Rain trousers', 'Waterproof, to wear over others on long walks', 'clothing', 59.00)""";
    private static final String COLUMNS = """
        [{"name": "name", "role": "embedding", "ordinal": 1}, {"name": "description", "role": "embedding", "ordinal": 2},
         {"name": "category", "role": "metadata"}, {"name": "price", "role": "metadata"}]""";

    // An answer has the key as text: cast it to the key's own type for a join with the source.
    private static final String SEARCH = """
        select p.name, p.price
          from embedd.query('products', ?, ?, ?::jsonb, "offset" => ?) q
          join products p on p.id = q.id::bigint
         order by q.score desc""";
    private static final String SIMILAR = """
        select p.name, p.price
          from embedd.similar('products', ?::text, 2) q join products p on p.id = q.id::bigint
         order by q.score desc""";
    private static final String BY_PRICE = """
        select p.name, p.price, jsonb_build_array(q.metadata->>'price', q.id) as after
          from embedd.query('products', "limit" => 2, order_by => 'price', after => ?::jsonb) q
          join products p on p.id = q.id::bigint
         order by p.price, q.id""";

    /** A product of an answer; after is what the next page starts after. */
    private record Product(String name, String price, String after) {}

    public static void main(String[] arguments) throws SQLException {
        // The address, for example jdbc:postgresql://127.0.0.1:5432/postgres?user=app.
        try (Connection db = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            create(db);
            show("warm for hiking", search(db, "something warm for hiking", 2, "{}", 0));
            show("the next page", search(db, "something warm for hiking", 2, "{}", 2));
            show("like the trail boots", ask(db, SIMILAR, "3"));
            List<Product> page = ask(db, BY_PRICE, (Object) null);
            show("by price", page);
            show("by price, the next page", ask(db, BY_PRICE, page.get(page.size() - 1).after()));
            // A test can change rows and roll back: the join shows the rows of its own transaction. Vectors follow at
            // commit only.
            db.setAutoCommit(false);
            execute(db, "update products set price = 1.00 where id = 1");
            show("in a transaction that rolls back", search(db, "warm jacket", 1, "{}", 0));
            db.rollback();
        }
    }

    /** What a migration does, and the first rows. */
    private static void create(Connection db) throws SQLException {
        execute(db, "create extension if not exists embedd cascade");
        execute(db, "create table products (id bigint primary key, name text, description text, category text, price numeric)");
        execute(db, "select embedd.create_vector_table('products', 'products', columns => ?::jsonb, start_backfill => true)", COLUMNS);
        execute(db, PRODUCTS);
        // An application needs no wait: its answers follow its commits within moments.
        execute(db, "select embedd.wait_until_synced('products', '1 min')");
    }

    /** The products nearest in meaning to a text. */
    private static List<Product> search(Connection db, String text, int limit, String filters, int offset) throws SQLException {
        return ask(db, SEARCH, text, limit, filters, offset);
    }

    private static List<Product> ask(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = prepared(db, sql, values); ResultSet rows = statement.executeQuery()) {
            boolean hasAfter = rows.getMetaData().getColumnCount() > 2;
            List<Product> products = new ArrayList<>();
            while (rows.next()) {
                products.add(new Product(rows.getString(1), rows.getString(2), hasAfter ? rows.getString(3) : null));
            }
            return products;
        }
    }

    private static void execute(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = prepared(db, sql, values)) {
            statement.execute();
        }
    }

    private static PreparedStatement prepared(Connection db, String sql, Object... values) throws SQLException {
        PreparedStatement statement = db.prepareStatement(sql);
        for (int at = 0; at < values.length; at++) {
            statement.setObject(at + 1, values[at]);
        }
        return statement;
    }

    private static void show(String title, List<Product> products) {
        List<String> shown = products.stream().map(product -> product.name() + " (" + product.price() + ")").toList();
        System.out.println(title + ": " + String.join(", ", shown));
    }
}
