//! Rows of the catalogs of foreign servers and user mappings, from PostgreSQL's caches.

use std::ffi::CStr;

use pgrx::PgList;
use pgrx::prelude::*;

use super::options::Pairs;

/// A syscache tuple, released when the value is dropped.
pub(super) struct Tuple(pub(super) pg_sys::HeapTuple);

impl Tuple {
    pub(super) fn find(
        cache: pg_sys::SysCacheIdentifier::Type,
        first: pg_sys::Oid,
        second: Option<pg_sys::Oid>,
    ) -> Option<Tuple> {
        let (cache, first) = (cache as std::ffi::c_int, pg_sys::Datum::from(first));
        // SAFETY: a syscache look-up in a transaction, with as many keys as that cache has.
        let tuple = unsafe {
            match second {
                Some(second) => pg_sys::SearchSysCache2(cache, first, pg_sys::Datum::from(second)),
                None => pg_sys::SearchSysCache1(cache, first),
            }
        };
        (!tuple.is_null()).then(|| Tuple(tuple))
    }

    /// The options in one of the row's columns.
    pub(super) fn options(&self, cache: pg_sys::SysCacheIdentifier::Type, column: u32) -> Pairs {
        // SAFETY: the column is one of options, an array of texts; names and values are copied.
        unsafe {
            let mut is_null = false;
            let datum = pg_sys::SysCacheGetAttr(
                cache as std::ffi::c_int,
                self.0,
                column as pg_sys::AttrNumber,
                &mut is_null,
            );
            let list = match is_null {
                true => std::ptr::null_mut(),
                false => pg_sys::untransformRelOptions(datum),
            };
            let text =
                |c: *const std::ffi::c_char| CStr::from_ptr(c).to_string_lossy().into_owned();
            PgList::<pg_sys::DefElem>::from_pg(list)
                .iter_ptr()
                .map(|element| (text((*element).defname), text(pg_sys::defGetString(element))))
                .collect()
        }
    }
}

impl Drop for Tuple {
    fn drop(&mut self) {
        // After an error the end of the transaction releases it.
        if !std::thread::panicking() {
            // SAFETY: it was found in a syscache and is given back once.
            unsafe { pg_sys::ReleaseSysCache(self.0) }
        }
    }
}
