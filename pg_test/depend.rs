//! Dependencies of tables on foreign servers: recorded for tables that exist, never for dropped ones.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::catalog::{self, VectorTable};
    use crate::fdw::depend;

    /// A vector table as a worker read it, with a provider that its table does not depend on yet.
    fn read() -> VectorTable {
        Spi::run(
            "create extension if not exists vector;
             create table notes (id int primary key, body text);
             select embedd.create_vector_table('notes', 'notes', '[{\"name\": \"body\", \"role\": \"embedding\"}]');
             create server depended foreign data wrapper embedd
                 options (provider 'openai_compatible', base_url 'http://127.0.0.1:9/v1')",
        )
        .expect("set up");
        let mut table = Spi::connect(|client| catalog::find(client, "notes")).expect("found");
        table.provider = "depended".to_string();
        table
    }

    fn dependents() -> i64 {
        let sql = "select count(*) from pg_depend where refclassid = 'pg_foreign_server'::regclass
            and refobjid = (select oid from pg_foreign_server where srvname = 'depended')";
        Spi::get_one(sql).expect("counted").unwrap_or_default()
    }

    fn record(table: &VectorTable) {
        Spi::connect_mut(|client| depend::record_provider(client, table)).expect("recorded");
    }

    #[pg_test]
    fn a_table_that_exists_depends_on_its_server() {
        let table = read();
        record(&table);
        assert_eq!(dependents(), 1);
    }

    #[pg_test]
    fn a_table_dropped_since_it_was_read_leaves_its_server_droppable() {
        let table = read();
        let name = table.relation_name.clone().expect("a name");
        Spi::run(&format!("drop table {name}")).expect("dropped");
        record(&table);
        assert_eq!(dependents(), 0);
        Spi::run("drop server depended").expect("dropped");
    }
}
