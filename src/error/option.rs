//! Errors about the options of a provider.

/// An invalid option. The error never quotes the value of a secret option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such option.
    #[error("invalid option \"{name}\"")]
    Unknown {
        /// The given name.
        name: String,
        /// The valid options, for the HINT.
        valid: String,
    },
    /// There is no such key in the argument `options`.
    #[error("unknown key \"{name}\" in options")]
    UnknownKey {
        /// The given key.
        name: String,
        /// The DETAIL with the valid keys.
        detail: String,
    },
    /// A required option is missing.
    #[error("option \"{name}\" is required")]
    Missing {
        /// Its name.
        name: &'static str,
        /// The DETAIL.
        detail: String,
    },
    /// The value is invalid.
    #[error("invalid value for option \"{name}\"{}", shown.as_ref().map_or(String::new(), |v| format!(": \"{v}\"")))]
    Invalid {
        /// The option.
        name: String,
        /// The value, unless it is secret.
        shown: Option<String>,
        /// The DETAIL with the valid format.
        detail: String,
    },
    /// A reference to a key, which is read with the rights of the server's operating system user.
    #[error("only superusers may set option \"api_key\" to an environment variable or a file")]
    Reference,
}
