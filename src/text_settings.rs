//! The settings that the text of a value depends on, which are the same wherever documents, hashes and keys are made.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::rights::RoleSwitch;
use crate::settings;

/// Settings that the text of a value depends on, with fixed values.
pub const TEXT_SETTINGS: &[(&CStr, &CStr)] = &[
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"postgres"),
    (c"timezone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    (c"xmlbinary", c"base64"),
];

/// The settings with their values.
pub fn all() -> impl Iterator<Item = (&'static CStr, &'static CStr)> {
    TEXT_SETTINGS.iter().copied()
}

/// Applies the settings until the caller switches the role back.
pub fn set_text_settings(_until: &RoleSwitch) {
    all().for_each(|(name, value)| settings::set(name, value));
}

unsafe extern "C" {
    /// The format of bytea: 1 is hex (utils/bytea.h).
    static mut bytea_output: std::ffi::c_int;
}

/// Sets the variables behind these settings directly for the output of one value, because a trigger has to be fast.
pub struct TextSettings {
    date_style: i32,
    date_order: i32,
    interval_style: i32,
    extra_float_digits: i32,
    bytea_output: i32,
    timezone: *mut pg_sys::pg_tz,
}

impl TextSettings {
    /// Sets them until the value is dropped, after an error too.
    pub fn fixed() -> Self {
        thread_local! {
            static UTC: std::cell::Cell<*mut pg_sys::pg_tz> = const { std::cell::Cell::new(std::ptr::null_mut()) };
        }
        if UTC.get().is_null() {
            // SAFETY: a look-up in the process's own table of time zones, which never drops an entry.
            UTC.set(unsafe { pg_sys::pg_tzset(c"UTC".as_ptr()) });
        }
        // SAFETY: plain variables of the process, which its main thread alone uses.
        unsafe {
            let before = Self {
                date_style: pg_sys::DateStyle,
                date_order: pg_sys::DateOrder,
                interval_style: pg_sys::IntervalStyle,
                extra_float_digits: pg_sys::extra_float_digits,
                bytea_output,
                timezone: pg_sys::session_timezone,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as i32;
            pg_sys::DateOrder = pg_sys::DATEORDER_YMD as i32;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as i32;
            pg_sys::extra_float_digits = 1;
            bytea_output = 1;
            if !UTC.get().is_null() {
                pg_sys::session_timezone = UTC.get();
            }
            before
        }
    }
}

impl Drop for TextSettings {
    fn drop(&mut self) {
        // SAFETY: as in fixed().
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::DateOrder = self.date_order;
            pg_sys::IntervalStyle = self.interval_style;
            pg_sys::extra_float_digits = self.extra_float_digits;
            bytea_output = self.bytea_output;
            pg_sys::session_timezone = self.timezone;
        }
    }
}
