// Searches products with pg: creates and fills a table, joins answers with live rows, and turns pages.
import pg from "pg";

const products = [
    [1, "Fleece jacket", "Light and warm, dries fast after rain", "clothing", "89.90"],
    [2, "Down sleeping bag", "Keeps you warm down to -5 degrees", "camping", "249.00"],
    [3, "Trail boots", "Waterproof boots for long walks in the hills", "shoes", "139.00"],
    [4, "Wool hat", "Thin enough to wear under a hood", "clothing", "25.00"],
    [5, "Gas stove", "Boils a litre of water in four minutes", "camping", "45.50"],
    [6, "Rain trousers", "Waterproof, to wear over others on long walks", "clothing", "59.00"],
];
const columns = [
    { name: "name", role: "embedding", ordinal: 1 },
    { name: "description", role: "embedding", ordinal: 2 },
    { name: "category", role: "metadata" },
    { name: "price", role: "metadata" },
];

// The address is in PGHOST, PGPORT, PGUSER and PGDATABASE.
const db = new pg.Client();
await db.connect();

/** What a migration does, and the first rows. */
async function create() {
    await db.query("create extension if not exists embedd cascade");
    await db.query("create table products (id bigint primary key, name text, description text, category text, price numeric)");
    await db.query("select embedd.create_vector_table('products', 'products', columns => $1, start_backfill => true)", [
        JSON.stringify(columns),
    ]);
    for (const product of products) {
        await db.query("insert into products values ($1, $2, $3, $4, $5)", product);
    }
    // An application needs no wait: its answers follow its commits within moments.
    await db.query("select embedd.wait_until_synced('products', '1 min')");
}

/** The products nearest in meaning to a text. The key is cast to its own type for the join with the source. */
async function search(text, { limit = 2, filters = {}, offset = 0 } = {}) {
    const answer = await db.query(
        `select p.name, p.price
           from embedd.query('products', $1, $2, $3, "offset" => $4) q
           join products p on p.id = q.id::bigint
          order by q.score desc`,
        [text, limit, filters, offset],
    );
    return answer.rows;
}

/** The products like another one. */
async function similar(id) {
    const answer = await db.query(
        `select p.name, p.price
           from embedd.similar('products', $1::text, 2) q join products p on p.id = q.id::bigint
          order by q.score desc`,
        [id],
    );
    return answer.rows;
}

/** A page of all products in the order of their price. */
async function byPrice(after) {
    const answer = await db.query(
        `select q.id, p.name, p.price, q.metadata->>'price' as at
           from embedd.query('products', "limit" => 2, order_by => 'price', after => $1) q
           join products p on p.id = q.id::bigint
          order by p.price, q.id`,
        [after && JSON.stringify(after)],
    );
    return answer.rows;
}

function show(title, rows) {
    console.log(`${title}: ${rows.map((row) => `${row.name} (${row.price})`).join(", ")}`);
}

await create();
show("warm for hiking", await search("something warm for hiking"));
show("the next page", await search("something warm for hiking", { offset: 2 }));
show("like the trail boots", await similar("3"));
const page = await byPrice(null);
show("by price", page);
const last = page.at(-1);
show("by price, the next page", await byPrice([last.at, last.id]));
// A test can change rows and roll back: the join shows the rows of its own transaction. Vectors follow at commit only.
await db.query("begin");
await db.query("update products set price = 1.00 where id = 1");
show("in a transaction that rolls back", await search("warm jacket", { limit: 1 }));
await db.query("rollback");
await db.end();
