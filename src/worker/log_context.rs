//! Adds the database to the CONTEXT of a worker's log lines: %d of log_line_prefix is unknown for background
//! processes.

use std::ffi::{CString, c_char, c_int, c_void};

use pgrx::pg_sys;

use crate::transaction;

unsafe extern "C-unwind" {
    /// PostgreSQL's errcontext(), which the bindings omit because of its variable arguments.
    fn errcontext_msg(format: *const c_char, ...) -> c_int;
}

/// Adds the name of this process's database to the CONTEXT of every later message.
pub fn name_database() {
    // SAFETY: a look-up in a transaction; the name is copied before its memory goes.
    let name = transaction::run(|| unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        Ok((!name.is_null()).then(|| std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned()))
    });
    let Ok(Some(name)) = name else { return };
    // SAFETY: the type of this background worker, a terminated text in memory of its own.
    let kind = unsafe { std::ffi::CStr::from_ptr((*pg_sys::MyBgworkerEntry).bgw_type.as_ptr()) };
    let words = format!("{} of database \"{name}\"", kind.to_string_lossy());
    let Ok(words) = CString::new(words) else { return };
    let callback = Box::new(pg_sys::ErrorContextCallback {
        // SAFETY: a global of the process.
        previous: unsafe { pg_sys::error_context_stack },
        callback: Some(add),
        arg: words.into_raw().cast::<c_void>(),
    });
    // SAFETY: the callback and its words live as long as the process.
    unsafe { pg_sys::error_context_stack = Box::into_raw(callback) };
}

/// Called by PostgreSQL while it assembles a message.
unsafe extern "C-unwind" fn add(words: *mut c_void) {
    // SAFETY: the words that name_database() has left, as the argument of a format that takes one text.
    unsafe { errcontext_msg(c"%s".as_ptr(), words.cast::<c_char>().cast_const()) };
}
